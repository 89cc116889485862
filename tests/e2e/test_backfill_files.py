"""History in files becomes rows of a table: each record once, whatever the format, the kill or the number of runs."""

import collections
import datetime as dt
import decimal
import gzip
import io
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import time
import zlib

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import files
import readers
from canary import Tokens
from produce import Sent, create_topic, send
from proxies import S3Proxy
from siltstone import json_table, table, wait
from test_transforms import KEY, PROTECT, TRANSFORMS, _plain, counted, protected

COLUMNS = [
    {"name": "id", "type": "long", "required": True},
    {"name": "day", "type": "date"},
    {"name": "note", "type": "string"},
    {"name": "price", "type": "decimal(12, 2)"},
    {"name": "at", "type": "timestamptz"},
]
AVRO = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "note", "type": ["null", "string"]},
        {
            "name": "price",
            "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}],
        },
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    ],
}
SYNC = b"0123456789abcdef"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def row(number: int, days: int = 5) -> dict:
    return {
        "id": number,
        "day": dt.date(1999, 1, 1) + dt.timedelta(days=number % days),
        "note": None if number % 7 == 0 else f"note {number} é",
        "price": decimal.Decimal(number) / 100,
        "at": EPOCH + dt.timedelta(microseconds=number * 1_000_003),
    }


def rows(first: int, last: int) -> list[dict]:
    return [row(number) for number in range(first, last)]


def _varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def container(first: int, last: int, codec: str, per_block: int = 40) -> bytes:
    return container_of(AVRO, rows(first, last), codec, per_block)


def container_of(schema: dict, records: list[dict], codec: str, per_block: int = 40) -> bytes:
    """An Avro container file, packed by PyArrow's codecs where fastavro would need more packages."""
    if codec in ("null", "deflate"):
        out = io.BytesIO()
        fastavro.writer(out, schema, records, codec=codec, sync_interval=2000)
        return out.getvalue()
    meta = {b"avro.schema": json.dumps(schema).encode(), b"avro.codec": codec.encode()}
    out = b"Obj\x01" + _varint(len(meta))
    out += b"".join(_varint(len(part)) + part for pair in meta.items() for part in pair)
    out += _varint(0) + SYNC
    for begin in range(0, len(records), per_block):
        some = records[begin : begin + per_block]
        block = b"".join(datum(schema, record) for record in some)
        packed = pa.compress(block, {"snappy": "snappy", "zstandard": "zstd"}[codec], asbytes=True)
        if codec == "snappy":
            packed += zlib.crc32(block).to_bytes(4, "big")
        out += _varint(len(some)) + _varint(len(packed)) + packed + SYNC
    return out


def datum(schema: dict, record: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def json_line(number: int) -> bytes:
    return json_line_of(row(number))


def json_line_of(record: dict) -> bytes:
    texts = {"day": str(record["day"]), "at": record["at"].isoformat(), "price": str(record["price"])}
    return json.dumps({**record, **texts}).encode() + b"\n"


def json_lines(first: int, last: int) -> bytes:
    return b"".join(map(json_line, range(first, last)))


def parquet(first: int, last: int, codec: str) -> bytes:
    return parquet_of(rows(first, last), codec)


def parquet_of(records: list[dict], codec: str, per_group: int = 50) -> bytes:
    schema = pa.schema(
        {
            "id": pa.int64(),
            "day": pa.date32(),
            "note": pa.string(),
            "price": pa.decimal128(12, 2),
            "at": pa.timestamp("us", "UTC"),
        }
    )
    out = pa.BufferOutputStream()
    table = pa.Table.from_pylist(records, schema)
    pq.write_table(table, out, compression=codec, row_group_size=per_group)
    return out.getvalue().to_pybytes()


class Source:
    """A folder of source files beside the tables."""

    def __init__(self, store, folder: str = "history"):
        self.store, self.folder = store, folder

    def put(self, path: str, content: bytes) -> None:
        filesystem = self.store.filesystem()
        place = self.store.inner(f"{self.folder}/{path}")
        filesystem.create_dir(place.rsplit("/", 1)[0], recursive=True)
        with filesystem.open_output_stream(place, compression=None) as out:
            out.write(content)

    def pattern(self, pattern: str) -> str:
        return f"{self.store.file_url(self.folder)}/{pattern}"


def backfill(run, source: Source, pattern: str, *arguments: str, code: int | None = 0, env=None, timeout=60):
    words = ["backfill", "-f", str(run.spec), run.tables[0]["name"], "--files", source.pattern(pattern), "--json"]
    return run.run(*words, *arguments, code=code, env=env, timeout=timeout)


def orders(name: str, topic: str = "history", **changes) -> dict:
    layout = {"partition_by": ["day"], "sort_by": ["id"], **changes}
    return json_table(name, topic, COLUMNS, **layout)


FILES = [
    *((f"avro/{codec}.avro", lambda first, last, codec=codec: container(first, last, codec))
      for codec in ("null", "deflate", "snappy", "zstandard")),
    ("json/plain.json", json_lines),
    ("json/packed.jsonl.gz", lambda first, last: gzip.compress(json_lines(first, last))),
    ("json/packed.ndjson.zst", lambda first, last: pa.compress(json_lines(first, last), "zstd", asbytes=True)),
    *((f"parquet/{codec}.parquet", lambda first, last, codec=codec: parquet(first, last, codec))
      for codec in ("none", "snappy", "gzip", "zstd", "brotli")),
]  # fmt: skip


def test_files_of_every_format_once(engine, name, bucket):
    source = Source(bucket)
    for index, (path, make) in enumerate(FILES):
        source.put(path, make(index * 100, index * 100 + 100))
    source.put("json/_tmp/half.json", b"{")
    source.put("_SUCCESS", b"")
    total = len(FILES) * 100
    run = engine([orders(name)], store=bucket)
    plan = backfill(run, source, "**", "--dry-run").json()
    assert (plan["files"]["matched"], plan["files"]["read"], plan["version"]) == (len(FILES), len(FILES), None)
    assert not run.table().exists()
    summary = backfill(run, source, "**").json()
    assert (summary["rows"], summary["rejected"], summary["files"]["failed"]) == (total, 0, 0), summary
    readers.check(run.table(), rows(0, total))
    entries = run.table().ledger()
    again = backfill(run, source, "**").json()
    assert (again["rows"], again["files"]["held"], again["files"]["read"]) == (0, len(FILES), 0)
    assert len(run.table().ledger()) == len(entries)
    # Five partitions, a file each: nothing is left to compact.
    assert run.json("compact", "--dry-run")[0]["plans"] == 0
    # A file that is another one by now is refused by name, and the rest goes on.
    source.put("json/plain.json", json_lines(0, 3))
    source.put("json/later.json", json_lines(total, total + 10))
    ended = backfill(run, source, "**", code=1).json()
    assert ended["rows"] == 10 and [one["file"].rsplit("/", 1)[1] for one in ended["failures"]] == ["plain.json"]
    readers.check(run.table(), rows(0, total + 10), readers.ALL)


def test_bad_records_and_bad_files(engine, name, folder):
    source = Source(folder)
    lines = [json_line(number) for number in range(20)]
    lines[3], lines[11] = b'{"id": "text"}\n', b"{\n"
    source.put("a.json", b"".join(lines))
    source.put("b.parquet", b"PAR1 and nothing else")
    whole = container(100, 500, "deflate")
    source.put("c.avro", whole[: len(whole) // 2])
    run = engine([orders(name)])
    ended = backfill(run, source, "*", code=1)
    assert f"\nerror[source_file_refused]: table {name}: 2 of 3 files " in f"\n{ended.err}", ended.said
    summary = ended.json()
    assert summary["rejected"] == 2 and summary["files"] == {"matched": 3, "held": 0, "read": 1, "failed": 2}
    letters = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    told = {(one["cluster"], one["partition"], one["offset"], one["value"], one["reason"]) for one in letters}
    assert told == {
        ("files", 0, 3, lines[3][:-1], "wrong_type"),
        ("files", 0, 11, lines[11][:-1], "truncated"),
    }
    about = {one["offset"]: (one["field"], one["detail"]) for one in letters}
    assert about[3][0] == "id" and "long" in about[3][1] and about[11] == (None, None), about
    headers = {header["key"]: header["value"] for one in letters for header in one["headers"]}
    assert headers["siltstone.file"].endswith(b"/a.json")
    good = [row(number) for number in range(20) if number not in (3, 11)]
    # Of a file that is cut off nothing comes but whole batches, and this is less than one.
    readers.check(run.table(), good)
    backfill(run, source, "*", code=1)
    readers.check(run.table(), good)
    assert len(readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()) == 2
    # A file that grew is another one, which is read on only when that is asked for; then it is held.
    source.put("d.json", json_lines(100, 110))
    backfill(run, source, "d.json")
    source.put("d.json", json_lines(100, 125))
    ended = backfill(run, source, "d.json", code=1).json()
    assert ended["rows"] == 0 and "--resume-changed" in ended["failures"][0]["why"]
    ended = backfill(run, source, "d.json", "--resume-changed").json()
    assert (ended["rows"], ended["commits"], ended["files"]["failed"]) == (15, 1, 0)
    readers.check(run.table(), good + rows(100, 125))
    ended = backfill(run, source, "d.json").json()
    assert (ended["rows"], ended["files"]["held"]) == (0, 1)
    stop = engine([orders(name + "_stop", dlq_mode="stop")])
    said = backfill(stop, source, "a.json", code=1).said
    assert "record 3" in said and "wrong_type" in said


POINTS = ["import.begin", "import.files_written", "import.dead_letters_committed"]


def test_killed_at_every_step_and_at_any_time(engine, name, folder):
    source = Source(folder)
    for index in range(30):
        content = parquet(index * 200, index * 200 + 200, "zstd")
        if index % 3 == 0:
            lines = [json_line(number) for number in range(index * 200, index * 200 + 200)]
            content = b"".join(lines + [b"junk\n"])
            source.put(f"{index:02}.json", content)
        else:
            source.put(f"{index:02}.parquet", content)
    run = engine([orders(name)])
    # A limit of a byte commits often.
    arguments = ("--spill-limit", "1", "--parallel", "3")
    for point in [*POINTS, "import.committed"]:
        ended = backfill(run, source, "*", *arguments, code=None, env={"FAILPOINTS": f"{point}=return"})
        assert ended.code != 0, point
    first = len(run.table().ledger())
    dice = random.Random(5)
    for _ in range(5):
        words = ["backfill", "-f", str(run.spec), name, "--files", source.pattern("*"), *arguments]
        process = subprocess.Popen([run.binary, *words], cwd=run.folder, env=run.environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        time.sleep(dice.uniform(0.05, 0.8))
        process.kill()
        process.wait()
    backfill(run, source, "*", *arguments)
    assert len(run.table().ledger()) > first + 5, "it was killed between commits"
    readers.check(run.table(), rows(0, 6000))
    assert len(readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()) == 10


def test_told_to_stop_it_says_so(engine, name, folder):
    source = Source(folder)
    for index in range(40):
        source.put(f"{index:02}.parquet", parquet(index * 10, index * 10 + 10, "zstd"))
    run = engine([orders(name)])
    words = ["backfill", "-f", str(run.spec), name, "--files", source.pattern("*")]
    # A limit of a byte commits file by file, and a pause after each leaves time to stop between two.
    process = subprocess.Popen([run.binary, *words, "--spill-limit", "1", "--parallel", "1"], cwd=run.folder,
                               env={**run.environment, "FAILPOINTS": "import.committed=sleep(500)"},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    wait(lambda: run.table().exists() and len(run.table().ledger()) > 2, 60, "the first commits")
    process.terminate()
    told, said = process.communicate(timeout=60)
    assert process.returncode == 1, told + said
    assert f"\nerror[command_stopped]: table {name}: " in f"\n{said}", said
    held = readers.count(run.table())
    assert 0 < held < 400, "it was not stopped on the way"
    ended = backfill(run, source, "*").json()
    assert ended["rows"] == 400 - held
    readers.check(run.table(), rows(0, 400))


def test_two_at_once_beside_a_live_worker(engine, name, folder):
    topic = create_topic()
    source = Source(folder)
    for index in range(12):
        source.put(f"{index:02}.avro", container(index * 100, index * 100 + 100, "deflate"))
    run = engine([orders(name, topic, freshness={"max_age": "100ms"})])
    worker = run.worker().ready()
    words = ["backfill", "-f", str(run.spec), name, "--files", source.pattern("*"), "--spill-limit", "1"]
    both = [
        subprocess.Popen([run.binary, *words], cwd=run.folder, env=run.environment,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        for _ in range(2)
    ]
    for first in range(10_000, 10_500, 100):
        send(topic, [Sent(json_line(number)[:-1]) for number in range(first, first + 100)])
    for process in both:
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said.decode()
    wait(lambda: readers.count(run.table()) == 1700, 40, "all rows")
    assert worker.stop() == 0
    readers.check(run.table(), [row(number) for number in [*range(1200), *range(10_000, 10_500)]])


# What is mapped of the program as it is released; one for tests has several times as much, which is no memory of its own.
PROGRAM_KIB = 48 << 10


def peak_kib(pid: int) -> int:
    """The most memory that the process had so far, with so much of its program as a released one has; 0: it has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    kib = {name: int(value.split()[0]) for name, value in re.findall(r"(VmHWM|RssFile):\s*(.+)", status)}
    return kib["VmHWM"] - max(0, kib["RssFile"] - PROGRAM_KIB) if len(kib) == 2 else 0


DAYS, PER_DAY, SOURCES, LATE_PER_SOURCE, KILLS = 10_000, 5, 16, 5, 10
BUDGET, BUDGET_KIB = "256MiB", 256 << 10
SEED = int(os.environ.get("SILTSTONE_SEED", "20260101"))
TEXT = random.Random(1).randbytes(40_000).hex()
TEXT_LENGTH = 3_600
# PyIceberg opens a file at a time in Python: too slow for so many.
OF_MANY_FILES = {name: readers.QUICK[name] for name in ("DuckDB iceberg_scan", "DuckDB delta_scan", "delta-rs")}


def long_ago(number: int) -> dict:
    """A row of one of 10,000 days, with so much text that all of them are more than may be held at once."""
    one, begin = row(number, DAYS), number * 13 % (len(TEXT) - TEXT_LENGTH)
    return {**one, "note": one["note"] and one["note"] + TEXT[begin : begin + TEXT_LENGTH]}


def put_years(source: Source) -> list[dict]:
    """Files of three formats, each of days of its own in order, with a few late rows of any day at its end."""
    late = random.Random(2).sample(range(DAYS), SOURCES * LATE_PER_SOURCE)
    length, everything = DAYS // SOURCES, []
    for index in range(SOURCES):
        days = range(index * length, (index + 1) * length)
        numbers = [turn * DAYS + day for day in days for turn in range(PER_DAY)]
        numbers += [PER_DAY * DAYS + day for day in late[index::SOURCES]]
        records = [long_ago(number) for number in numbers]
        match index % 3:
            case 0:
                source.put(f"{index:02}.parquet", parquet_of(records, "zstd", 500))
            case 1:
                source.put(f"{index:02}.avro", container_of(AVRO, records, "zstandard"))
            case 2:
                lines = b"".join(map(json_line_of, records))
                source.put(f"{index:02}.ndjson.zst", pa.compress(lines, "zstd", asbytes=True))
        everything += records
    return everything


def started(run, source: Source, *arguments: str) -> subprocess.Popen:
    words = ["backfill", "-f", str(run.spec), run.tables[0]["name"], "--files", source.pattern("*"), "--json"]
    with open(run.folder / "backfill.log", "ab") as log:
        return subprocess.Popen([run.binary, *words, "--memory", BUDGET, *arguments], cwd=run.folder,
                                env=run.environment, stdout=subprocess.PIPE, stderr=log)  # fmt: skip


def followed(process: subprocess.Popen, meanwhile=lambda: False) -> int:
    """The most memory of a process until it ends or `meanwhile()` is true, KiB."""
    peak, deadline = 0, time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline, "it does not end"
        peak = max(peak, peak_kib(process.pid))
        if meanwhile():
            break
        time.sleep(0.02)
    return peak


def ended_well(run, process: subprocess.Popen) -> dict:
    """The summary of a backfill."""
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told.decode() + (run.folder / "backfill.log").read_text()[-4000:]
    return json.loads(told)


class Live:
    """Records of the topic that never stop coming, each of another day of the same years."""

    def __init__(self, topic: str):
        self.topic, self.rows, self.next = topic, [], 0.0

    def send_some(self) -> None:
        if time.monotonic() < self.next:
            return
        numbers = range(len(self.rows), len(self.rows) + 3)
        some = [row(1_000_000 + 977 * number, DAYS) for number in numbers]
        send(self.topic, [Sent(json_line_of(one)[:-1]) for one in some])
        self.rows += some
        self.next = time.monotonic() + 0.4


class Commits:
    """What comes to a table's ledger, as it comes: appends of files, and those of the topic."""

    def __init__(self, place):
        self.place, self.seen = place, set()
        self.of_files, self.of_topic = [], []
        # Records of files, and how long the last commit of them took.
        self.records, self.since, self.took = 0, time.monotonic(), 2.0

    def look(self) -> None:
        names = [name for name in self.place.list("_siltstone/ledger") if name.endswith(".json")]
        for name in names:
            if name in self.seen:
                continue
            self.seen.add(name)
            change = json.loads(self.place.read(f"_siltstone/ledger/{name}"))["change"]
            if change.get("imported"):
                self.of_files.append(change)
                self.records += sum(one["end"] - one["start"] for one in change["imported"])
                self.took, self.since = time.monotonic() - self.since, time.monotonic()
            elif change.get("ranges"):
                self.of_topic.append(change)


def test_ten_thousand_daily_partitions_in_256_mib(engine, name, folder):
    """A backfill of 10,000 daily partitions holds less than 256 MiB, and brings every row once whatever befalls it.

    In one run that nothing disturbs it is one commit, of one file a partition, of more rows than memory has room for:
    they are spilled and merged. Then the same files go into a table that a worker ingests into all the while, by one
    command again and again. Its `--spill-limit` is lower, for that decides how often it commits. Killed ten times,
    between its commits and in the midst of them, it goes on where the ledger ends; then it ends; and once more it
    finds nothing to do. No run holds more than the budget. In both formats every value of every row is there once,
    and of what killed runs left in the store nothing is named. A partition has a second file only for late rows, for
    a commit that cut its day, and for live rows.
    """
    source = Source(folder)
    years = put_years(source)
    total = len(years)

    whole = engine([orders(f"{name}_whole", formats=["iceberg"], compaction={"quiet_after": "0s"})])
    process = started(whole, source)
    peak = followed(process)
    summary = ended_well(whole, process)
    assert (summary["rows"], summary["data_files"], summary["commits"]) == (total, DAYS, 1), summary
    assert summary["spilled_bytes"] > 0, "memory had room for all rows"
    print(f"in one run: peak {peak >> 10} MiB")
    assert 16 << 10 < peak < BUDGET_KIB
    assert whole.json("compact", "--dry-run")[0]["plans"] == 0
    one_reader = {"DuckDB iceberg_scan": readers.QUICK["DuckDB iceberg_scan"]}
    readers.check(whole.table(), years, one_reader)

    dice, topic = random.Random(SEED), create_topic()
    compaction = {"enabled": False, "quiet_after": "0s"}
    run = engine([orders(name, topic, freshness={"max_age": "1s"}, compaction=compaction)])
    worker = run.worker().ready()
    live, commits = Live(topic), Commits(run.table())
    arguments = ("--spill-limit", "8MiB")

    def beside() -> None:
        live.send_some()
        commits.look()

    # What the table had of the files, and of the topic, at each kill.
    peaks, deaths = [], []
    for kill in range(KILLS):
        # Once a share of the records is in that grows from kill to kill, and then somewhere in the time that a commit
        # takes: the first kill may come before any commit, and the last one leaves some to be made.
        goal, late_enough = total * (kill - 1 + dice.random()) / 12, total * 10 / 12
        share, reached = dice.random(), None
        commits.since = time.monotonic()
        process = started(run, source, *arguments)

        def due() -> bool:
            nonlocal reached
            beside()
            now = time.monotonic()
            if reached is None and commits.records >= goal:
                reached = now
            waited = reached is not None and now >= reached + share * commits.took
            return waited or commits.records >= late_enough

        peaks.append(followed(process, due))
        process.kill()
        told, _ = process.communicate(timeout=60)
        log = (run.folder / "backfill.log").read_text()
        assert process.returncode == -signal.SIGKILL, f"kill {kill} came too late: {told.decode()}{log[-4000:]}"
        commits.look()
        deaths.append((commits.records, len(commits.of_topic)))
    print(f"seed {SEED}: killed with {[held for held, _ in deaths]} of {total} records in, peaks {peaks} KiB")
    assert len({held for held, _ in deaths}) >= 4, "commits came between the kills"
    assert deaths[-1][0] < total
    assert deaths[-1][1] > deaths[0][1], "the worker committed between the kills"

    process = started(run, source, *arguments)
    peaks.append(followed(process, beside))
    summary = ended_well(run, process)
    assert (summary["rows"], summary["rejected"]) == (total - deaths[-1][0], 0), summary
    assert summary["files"]["held"] + summary["files"]["read"] == SOURCES, summary
    assert 16 << 10 < peaks[-1]
    commits.look()
    assert commits.records == total and len(commits.of_files) > KILLS
    before = len(commits.of_files)
    process = started(run, source, *arguments)
    peaks.append(followed(process, beside))
    summary = ended_well(run, process)
    assert (summary["rows"], summary["commits"], summary["data_files"]) == (0, 0, 0), summary
    assert summary["files"] == {"matched": SOURCES, "held": SOURCES, "read": 0, "failed": 0}
    assert max(peaks) < BUDGET_KIB, peaks

    wait(lambda: run.committed().get(0) == len(live.rows), 60, "all live rows")
    assert worker.stop() == 0
    # Shows what a format may lack.
    run.once()
    commits.look()
    assert len(commits.of_files) == before, "the second time it committed something"
    cuts = sum(not one.get("complete") for change in commits.of_files for one in change["imported"])
    per_day = collections.Counter(file["partition_token"] for change in commits.of_files for file in change["files"])
    assert len(per_day) == DAYS
    assert per_day.total() <= DAYS + SOURCES * LATE_PER_SOURCE + cuts, f"{cuts} cuts"
    per_day.update(file["partition_token"] for change in commits.of_topic for file in change["files"])
    crowded = sum(number for number in per_day.values() if number > 1)
    assert run.json("compact", "--dry-run")[0]["backlog_files"] <= crowded
    named = files.check_same_files(run.table())
    orphans = set(run.table().list("data")) - set(named)
    print(f"{len(commits.of_files)} commits of files, {len(commits.of_topic)} of the topic; {len(live.rows)} live "
          f"rows; {len(named)} data files, {len(orphans)} orphans")  # fmt: skip
    assert orphans, "no kill came while files were written"
    readers.check(run.table(), years + live.rows, OF_MANY_FILES)


PAYMENT = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "amount", "type": "string"},
        {"name": "country", "type": ["null", "string"]},
        {
            "name": "cust",
            "type": {
                "type": "record",
                "name": "Customer",
                "fields": [{"name": "nr", "type": "int"}, {"name": "mail", "type": "string"}, {"name": "phone", "type": "string"}],
            },
        },
        {"name": "card", "type": "string"},
        {"name": "ssn", "type": "string"},
        {"name": "secret", "type": "string"},
        {"name": "internal_note", "type": "string"},
    ],
}
PAYMENT_COLUMNS = [
    {"name": "id", "type": "long", "required": True},
    {"name": "amount", "type": "string", "required": True},
    {"name": "country", "type": "string"},
    {
        "name": "cust",
        "type": {
            "struct": [{"name": "nr", "type": "int"}, {"name": "mail", "type": "string"}, {"name": "phone", "type": "string"}]
        },
    },
    *({"name": name, "type": "string"} for name in ("card", "ssn", "secret", "internal_note")),
]
PAYMENT_ARROW = pa.schema(
    {
        "id": pa.int64(),
        "amount": pa.string(),
        "country": pa.string(),
        "cust": pa.struct({"nr": pa.int32(), "mail": pa.string(), "phone": pa.string()}.items()),
        **{name: pa.string() for name in ("card", "ssn", "secret", "internal_note")},
    }
)
STAGED = {
    "transforms": {**TRANSFORMS, "constant": {"region": TRANSFORMS["constant"]["region"]}},
    "protect": PROTECT,
    "protection": {"key": "${PII_KEY}"},
    "kafka_metadata": True,
    # What leaks can be seen in the files as they lie there.
    "files": {"compression": "none"},
    "partition_by": ["country"],
    "sort_by": ["customer.mail"],
}
SECRET = {"PII_KEY": KEY, "RUST_LOG": "trace"}


class Payments:
    """Records full of words that may be nowhere but in dead letters, and the rows that they become."""

    def __init__(self):
        self.tokens = Tokens()
        self.rows, self.ssn, self.filtered = [], {}, 0
        # Offset in the file and bytes of each record that cannot be changed, and what its dead letter says.
        self.bad = []

    def records(self, first: int, last: int) -> list[dict]:
        return [self.one(number) for number in range(first, last)]

    def one(self, number: int) -> dict:
        secret, country = self.tokens, [None, "DE", "XX", "FR"][number % 4]
        record = {
            "id": number,
            "amount": "a lot" if number % 10 == 7 else f"{number}.5",
            "country": country,
            "cust": {"nr": number * 3, "mail": f"{secret()}@example.com", "phone": f"+49 {secret.number()}"},
            "card": secret(),
            "ssn": secret(),
            "secret": secret(),
            "internal_note": secret(),
        }
        if country == "XX":
            self.filtered += 1
        elif record["amount"] != "a lot":
            key, cust = KEY.encode(), record["cust"]
            self.ssn[number] = record["ssn"]
            self.rows.append({
                "id": number,
                "amount": decimal.Decimal(f"{number}.50"),
                "country": country,
                "customer": {
                    "number": str(cust["nr"]),
                    "mail": protected.hash_of(key, cust["mail"].encode()),
                    "phone": protected.mask_of(cust["phone"]),
                },
                "card": protected.token_of(key, record["card"].encode()),
                "region": "eu",
            })  # fmt: skip
        return record

    def avro(self, first: int, last: int, codec: str) -> bytes:
        records = self.records(first, last)
        self.fail(records, lambda record: datum(PAYMENT, record))
        return container_of(PAYMENT, records, codec, 7)

    def json(self, first: int, last: int) -> bytes:
        records = self.records(first, last)
        self.fail(records, lambda record: json.dumps(record).encode())
        return b"".join(json.dumps(record).encode() + b"\n" for record in records)

    def parquet(self, first: int, last: int, codec: str) -> bytes:
        records = self.records(first, last)
        self.fail(records, lambda record: None)
        out = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(records, PAYMENT_ARROW), out, compression=codec, row_group_size=30)
        return out.getvalue().to_pybytes()

    def fail(self, records: list[dict], value) -> None:
        self.bad += [
            (at, value(record), "transform_failed", "amount", "string that is no decimal(12, 2)")
            for at, record in enumerate(records)
            if record["amount"] == "a lot" and record["country"] != "XX"
        ]

    def check(self, run, reader_set=readers.QUICK) -> None:
        place = run.table()
        readers.check(place, self.rows, reader_set, ignore=("ssn", "_kafka"))
        found = readers.ICEBERG["PyIceberg"](place).select(["id", "ssn", "_kafka"]).to_pylist()
        assert {row["id"]: protected.decrypt(KEY.encode(), row["ssn"]).decode() for row in found} == self.ssn
        assert all(row["_kafka"] is None for row in found)
        letters = readers.ICEBERG["PyIceberg"](place.dead_letters).to_pylist()
        columns = ("offset", "value", "reason", "field", "detail")
        told = [tuple(one[column] for column in columns) for one in letters]
        assert sorted(told, key=repr) == sorted(self.bad, key=repr)
        assert counted(run) == {"filtered": self.filtered, "transform_failed": len(self.bad)}

    def check_nothing_leaked(self, run) -> None:
        """No token is in any object but the source files and the dead letters, nor in a name."""
        place = run.table()
        letters = place.store.inner(place.dead_letters.location)
        names = [name for name in place.names_below("") if "." in name.rsplit("/", 1)[-1]]
        names = [name for name in names if "/history/" not in name and not name.startswith(f"{letters}/")]
        assert any(name.endswith(".parquet") for name in names)
        for name in names:
            self.tokens.check("a name", name)
            with place.filesystem.open_input_stream(name, compression=None) as stream:
                self.tokens.check(name, _plain(name, stream.read()))


def test_every_format_through_transforms_and_protection(engine, name, bucket):
    source, payments = Source(bucket), Payments()
    makers = [
        *((f"{codec}.avro", lambda first, last, codec=codec: payments.avro(first, last, codec))
          for codec in ("null", "deflate", "snappy", "zstandard")),
        ("plain.json", payments.json),
        ("packed.jsonl.gz", lambda first, last: gzip.compress(payments.json(first, last))),
        ("packed.ndjson.zst", lambda first, last: pa.compress(payments.json(first, last), "zstd", asbytes=True)),
        *((f"{codec}.parquet", lambda first, last, codec=codec: payments.parquet(first, last, codec))
          for codec in ("none", "snappy", "zstd")),
    ]  # fmt: skip
    for index, (path, make) in enumerate(makers):
        source.put(path, make(index * 100, index * 100 + 100))
    run = engine([json_table(name, "history", PAYMENT_COLUMNS, **STAGED)], store=bucket, env=SECRET)
    ended = backfill(run, source, "**")
    summary = ended.json()
    assert summary["files"]["failed"] == 0, summary
    assert (summary["rows"], summary["rejected"]) == (len(payments.rows), payments.filtered + len(payments.bad))
    payments.check(run, readers.ALL)
    payments.check_nothing_leaked(run)
    payments.tokens.check("what it said", ended.said)
    assert KEY not in ended.said
    again = backfill(run, source, "**").json()
    assert (again["rows"], again["files"]["held"]) == (0, len(makers))
    payments.check(run)


def test_transforms_are_killed_and_go_on(engine, name, folder):
    source, payments = Source(folder), Payments()
    for index in range(9):
        first, last = index * 100, index * 100 + 100
        match index % 3:
            case 0:
                source.put(f"{index}.avro", payments.avro(first, last, "deflate"))
            case 1:
                source.put(f"{index}.json", payments.json(first, last))
            case 2:
                source.put(f"{index}.parquet", payments.parquet(first, last, "zstd"))
    run = engine([json_table(name, "history", PAYMENT_COLUMNS, **STAGED)], env={**SECRET, "RUST_LOG": "info"})
    arguments = ("--spill-limit", "1", "--parallel", "3")
    for point in [*POINTS, "import.committed"]:
        ended = backfill(run, source, "*", *arguments, code=None, env={"FAILPOINTS": f"{point}=return"})
        assert ended.code != 0, point
    backfill(run, source, "*", *arguments)
    payments.check(run)


def test_what_transforms_cannot_take_is_refused_by_file(engine, name, folder):
    source, payments = Source(folder), Payments()
    source.put("b.json", payments.json(100, 140))
    staged = {**STAGED, "dlq_mode": "skip"}
    run = engine([json_table(name, "history", PAYMENT_COLUMNS, **staged)], env=SECRET)
    assert backfill(run, source, "b.json").json()["files"]["failed"] == 0
    hidden = {**staged, "transforms": {**STAGED["transforms"], "filter": "_kafka is not null"}}
    run.write([json_table(name, "history", PAYMENT_COLUMNS, **hidden)])
    source.put("c.json", payments.json(200, 210))
    ended = backfill(run, source, "c.json", code=1).json()
    assert ended["rows"] == 0 and "records of files have no _kafka" in ended["failures"][0]["why"], ended
    stop = {**STAGED, "dlq_mode": "stop"}
    stopped = engine([json_table(f"{name}_stop", "history", PAYMENT_COLUMNS, **stop)], env=SECRET)
    said = backfill(stopped, source, "b.json", code=1).said
    assert "record 7: transform_failed at amount: string that is no decimal(12, 2); mend the file" in said, said
    payments.tokens.check("what it said", said)


def test_the_first_file_that_tells_columns_makes_the_table(engine, name, folder):
    """JSON lines tell none: they wait for one that does, whichever reader is faster."""
    source = Source(folder)
    source.put("a.json", json_lines(0, 100))
    source.put("b.parquet", b"PAR1 and nothing else")
    source.put("c.avro", container(100, 200, "deflate"))
    source.put("d.parquet", parquet(200, 300, "zstd"))
    source.put("e.json", json_lines(300, 400))
    for turn in range(3):
        run = engine([table(f"{name}_{turn}", create_topic(), partition_by=["day"])])
        summary = backfill(run, source, "*", "--parallel", "4", code=1).json()
        assert [one["file"].rsplit("/", 1)[1] for one in summary["failures"]] == ["b.parquet"], summary
        readers.check(run.table(), rows(0, 400))
        required = {field["name"]: field["required"] for field in run.table().fields()}
        assert required["id"], "it is made of c.avro"
    lines = Source(folder, "lines")
    lines.put("a.json", json_lines(0, 1))
    lines.put("b.parquet", b"PAR1 and nothing else")
    run = engine([table(f"{name}_none", create_topic())])
    failures = backfill(run, lines, "*", code=1).json()["failures"]
    assert {one["file"].rsplit("/", 1)[1] for one in failures} == {"a.json", "b.parquet"}
    assert any("JSON files do not tell its columns" in one["why"] for one in failures)
    assert not run.table().exists()


def test_a_file_that_makes_no_table_is_read_once_there_is_one(engine, name, folder):
    source = Source(folder)
    narrow = {**AVRO, "fields": AVRO["fields"][:1]}
    source.put("a.avro", container_of(narrow, [{"id": number} for number in range(10)], "null"))
    source.put("b.avro", container(10, 20, "null"))
    run = engine([table(name, create_topic(), transforms={"drop": ["note"]})])
    summary = backfill(run, source, "*").json()
    assert (summary["files"]["failed"], summary["files"]["read"], summary["rows"]) == (0, 2, 20), summary
    expected = [{"id": number, "day": None, "price": None, "at": None} for number in range(10)]
    expected += [{column: value for column, value in one.items() if column != "note"} for one in rows(10, 20)]
    readers.check(run.table(), expected)


def test_large_lines_and_blocks_stay_within_the_memory(engine, name, folder):
    source = Source(folder)
    large = [{**row(number), "note": "x" * (6 << 20)} for number in range(3)]
    source.put("a.avro", container_of(AVRO, large, "null"))
    line = json.loads(json_line(10))
    source.put("b.json", json.dumps({**line, "note": "y" * (24 << 20)}).encode() + b"\n" + json_line(11))
    run = engine([orders(name, formats=["iceberg"])])
    ended = backfill(run, source, "*", "--memory", "256MiB", code=1).json()
    [failure] = ended["failures"]
    assert failure["file"].endswith("/b.json") and "--memory" in failure["why"], failure
    assert (ended["rows"], ended["files"]["read"]) == (3, 1)
    ended = backfill(run, source, "*", "--memory", "1GiB").json()
    assert (ended["rows"], ended["files"]["held"], ended["files"]["read"]) == (2, 1, 1)
    found = readers.ICEBERG["PyIceberg"](run.table()).select(["id", "note"]).to_pylist()
    lengths = {one["id"]: one["note"] and len(one["note"]) for one in found}
    assert lengths == {0: 6 << 20, 1: 6 << 20, 2: 6 << 20, 10: 24 << 20, 11: len(row(11)["note"])}


def test_dead_letters_of_columns_name_them(engine, name, folder):
    source = Source(folder)
    content = pa.table({"id": pa.array([1, None, 3], pa.int64()), "note": ["a", "b", "c"]})
    out = pa.BufferOutputStream()
    pq.write_table(content, out)
    source.put("a.parquet", out.getvalue().to_pybytes())
    run = engine([orders(name)])
    assert backfill(run, source, "*").json()["rejected"] == 1
    [letter] = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    told = (letter["offset"], letter["reason"], letter["field"], letter["detail"])
    assert told == (1, "missing_field", "id", "null where long is required")


class Replacing(S3Proxy):
    """Puts another content in the place of a source file once parts of it were asked for."""

    def __init__(self, part: str, after: int, replace):
        super().__init__()
        self.part, self.after, self.replace, self.asked = part, after, replace, 0

    def _handle(self, request) -> None:
        if request.command == "GET" and self.part in request.path:
            with self.lock:
                self.asked += 1
                due = self.asked == self.after
            if due:
                self.replace()
        super()._handle(request)


def wide(first: int, last: int) -> list[dict]:
    """Rows that do not pack well: a file of some of them is read in parts."""
    dice = random.Random(first)
    return [{**row(number), "note": dice.randbytes(150).hex()} for number in range(first, last)]


def wide_json(first: int, last: int) -> bytes:
    lines = (json.dumps({"id": one["id"], "note": one["note"]}).encode() for one in wide(first, last))
    return b"\n".join(lines)


def wide_parquet(first: int, last: int) -> bytes:
    out = pa.BufferOutputStream()
    content = [{"id": one["id"], "note": one["note"]} for one in wide(first, last)]
    schema = pa.schema({"id": pa.int64(), "note": pa.string()})
    pq.write_table(
        pa.Table.from_pylist(content, schema), out, compression="none", use_dictionary=False, row_group_size=5_000
    )
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("a.json", wide_json),
        ("a.avro", lambda first, last: container_of(AVRO, wide(first, last), "null", 500)),
        ("a.parquet", wide_parquet),
    ],
)
def test_a_file_that_is_replaced_while_it_is_read(engine, name, bucket, path, make):
    """What is read of it is of one content, and the command says how to read the other."""
    source = Source(bucket)
    source.put(path, make(0, 40_000))
    newer = make(1_000_000, 1_040_000)
    proxy = Replacing(f"history/{path}", 4, lambda: source.put(path, newer))
    try:
        run = engine([orders(name)], store=bucket, env=proxy.env)
        ended = backfill(run, source, path, code=1).json()
        assert proxy.asked >= 4
        why = ended["failures"][0]["why"]
        assert "was replaced while it was read; " in why, ended
        # A part of it is in the table: read again as it is, the new one would be refused.
        assert ("--resume-changed" if ended["rows"] else "run it again") in why, ended
        found = readers.ICEBERG["PyIceberg"](run.table())["id"].to_pylist() if run.table().exists() else []
        assert sorted(found) == list(range(ended["rows"])), "records of one content, each once"
        again = backfill(run, source, path, "--resume-changed").json()
        assert again["rows"] == 40_000 - ended["rows"]
    finally:
        proxy.close()
