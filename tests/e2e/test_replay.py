"""Dead letters become rows after the schema or the spec was mended: once, however often replay is run or killed."""

import collections
import itertools
import signal
import subprocess
import threading
import time

import pytest

import chaos
import files
import readers
from produce import ORDER_AVRO, AvroWriter, Registry, Sent, create_topic, order, order_avro, order_expected, send
from siltstone import cluster, json_table, table, wait

POINTS = [point for point in chaos.all_crash_points() if point.startswith("replay.")]
# Steps that a replay shares with other commits, and passes itself.
SHARED = [point for point in chaos.crash_points() if point.startswith("commit.")]


def replay(run, name: str, *words: str, code: int | None = 0, env=None):
    return run.run("dead-letters", "replay", name, "-f", str(run.spec), "--json", *words, code=code, env=env)


def aborted(code: int) -> bool:
    return code == -signal.SIGABRT


def letters(run, name: str | None = None) -> list[dict]:
    return readers.ICEBERG["PyIceberg"](run.table(name).dead_letters).to_pylist()


def check_marks(run, replayed: set[tuple[int, int]], name: str | None = None) -> None:
    """Exactly these places are marked, in every reader."""
    for reader in readers.QUICK.values():
        found = reader(run.table(name).dead_letters).to_pylist()
        places = [(one["partition"], one["offset"]) for one in found]
        assert len(places) == len(set(places)), "a dead letter is there twice"
        marked = {place for place, one in zip(places, found) if one["replayed_at"] is not None}
        assert marked == replayed, f"{len(marked)} are marked, and should be {len(replayed)}"


def with_column(number: int) -> dict:
    """The order's schema with a column more."""
    extra = {"name": f"extra_{number}", "type": ["null", "long"], "default": None}
    return {**ORDER_AVRO, "fields": [*ORDER_AVRO["fields"], extra]}


def places(sent: list[Sent]) -> set[tuple[int, int]]:
    return {(one.partition, one.offset) for one in sent}


def test_what_was_mended_becomes_rows_once(engine, name, registry_proxy):
    topic = create_topic(partitions=2)
    registry = Registry()
    first = registry.register(f"{topic}-value", ORDER_AVRO)
    late = registry.register(f"late-{topic}", with_column(1))
    kafka = {**ORDER_AVRO, "fields": [*ORDER_AVRO["fields"], {"name": "_kafka", "type": ["null", "string"], "default": None}]}
    clash = registry.register(f"clash-{topic}", kafka)
    registry_proxy.hidden = {late}
    good, unknown, clashing = (
        AvroWriter(ORDER_AVRO, first),
        AvroWriter(with_column(1), late),
        AvroWriter(kafka, clash),
    )
    headers = (("trace", b"\x00\xff"), ("nothing", None))
    sent = collections.defaultdict(list)
    records = []
    for number in range(120):
        row, partition = order_avro(order(number)), number % 2
        kind, value = {
            0: ("late", unknown({**row, "extra_1": number})),
            1: ("clash", clashing({**row, "_kafka": "mine"})),
            2: ("bad", b"junk-%d" % number),
        }.get(number % 7, ("good", good(row)))
        records.append((kind, number, Sent(value, b"key-%d" % number, headers, 1_750_000_000_000 + number, partition)))
    for (kind, number, _), one in zip(records, send(topic, [one for *_, one in records])):
        sent[kind].append((number, one))
    tables = [table(name, topic, kafka_metadata=True)]
    run = engine(tables, [cluster(registry={"url": registry_proxy.url})])
    run.once()
    lake = run.table()

    def expected(kinds: tuple[str, ...], extra: bool) -> list[dict]:
        rows = []
        for kind, (number, one) in ((kind, one) for kind in kinds for one in sent[kind]):
            row = {**order_expected(order(number)), "_kafka": kafka_of(topic, one)}
            if extra:
                row["extra_1"] = number if kind == "late" else None
            rows.append(row)
        return rows

    readers.check(lake, expected(("good",), False))
    all_bad = len(sent["late"]) + len(sent["clash"]) + len(sent["bad"])
    assert {one["reason"] for one in letters(run)} == {"unknown_schema_id", "incompatible_schema", "bad_framing"}

    # Nothing was mended: nothing changes but for the columns of the dead letters.
    told = replay(run, name).json()
    assert (told["tried"], told["rows"], told["commits"], told["marked"]) == (all_bad, 0, 0, 0)
    assert sum(told["still_rejected"].values()) == all_bad

    # The registry comes to know the schema. A dry run says what would be, and changes nothing.
    registry_proxy.hidden = set()
    before = len(lake.ledger()), len(lake.dead_letters.ledger())
    told = replay(run, name, "--dry-run").json()
    assert (told["rows"], told["marked"]) == (len(sent["late"]), 0)
    assert (len(lake.ledger()), len(lake.dead_letters.ledger())) == before
    told = replay(run, name, "--reason", "incompatible_schema").json()
    assert (told["tried"], told["rows"], told["left"]) == (len(sent["clash"]), 0, all_bad - len(sent["clash"]))
    # By a range of one partition, then all the rest; then there is nothing left.
    some = sorted(one.offset for _, one in sent["late"] if one.partition == 0)[:4]
    bounds = ("--partition", "0", "--from", str(some[0]), "--to", str(some[-1] + 1))
    assert replay(run, name, *bounds).json()["rows"] == 4
    check_marks(run, {(0, offset) for offset in some})
    told = replay(run, name).json()
    assert (told["rows"], told["marked"]) == (len(sent["late"]) - 4,) * 2
    readers.check(lake, expected(("good", "late"), True))
    check_marks(run, places([one for _, one in sent["late"]]))
    told = replay(run, name).json()
    assert (told["rows"], told["commits"], told["marked"]) == (0, 0, 0)
    assert told["still_rejected"] == {"bad_framing": len(sent["bad"]), "incompatible_schema": len(sent["clash"])}

    # Lists have the open ones, unless all are asked for.
    listed = run.json("dead-letters", "list", name)
    assert sum(one["records"] for one in listed) == len(sent["clash"]) + len(sent["bad"])
    listed = run.json("dead-letters", "list", name, "--all")
    assert sum(one["replayed"] for one in listed) == len(sent["late"])
    # Compaction of the dead letters keeps the marks, and so does the next worker.
    more = send(topic, [Sent(b"more junk", timestamp_ms=1, partition=n % 2) for n in range(4)])
    run.once()
    check_marks(run, places([one for _, one in sent["late"]]))
    assert places(more) <= {(one["partition"], one["offset"]) for one in letters(run)}
    readers.check(lake, expected(("good", "late"), True), readers.ALL)
    files.check_same_files(lake)


def kafka_of(topic: str, one: Sent) -> dict:
    import datetime as dt

    return {
        "topic": topic,
        "partition": one.partition,
        "offset": one.offset,
        "timestamp": dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=one.timestamp_ms),
        "key": one.key,
        "headers": [{"key": key, "value": value} for key, value in one.headers],
    }


def test_a_wider_type_in_the_spec_mends(engine, name):
    """Of a JSON table: numbers that did not fit, a column that was required; the rest stays."""
    topic = create_topic()
    values = [b'{"id": 1, "n": 5}', b'{"id": 2, "n": 5000000000}', b'{"n": 6}', b'{"id": "three", "n": 1}']
    sent = send(topic, [Sent(value, timestamp_ms=1) for value in values])

    def columns(number: str, required: bool) -> list[dict]:
        return [{"name": "id", "type": "long", "required": required}, {"name": "n", "type": number}]

    run = engine([json_table(name, topic, columns("int", True), formats=["iceberg"])])
    run.once()
    readers.check(run.table(), [{"id": 1, "n": 5}], readers.ICEBERG)
    run.write([json_table(name, topic, columns("long", False), formats=["iceberg"])])
    told = replay(run, name).json()
    assert told["rows"] == 2 and told["still_rejected"] == {"wrong_type": 1}
    wanted = [{"id": 1, "n": 5}, {"id": 2, "n": 5_000_000_000}, {"id": None, "n": 6}]
    readers.check(run.table(), wanted, readers.ICEBERG)
    marked = {(one["partition"], one["offset"]) for one in letters(run) if one["replayed_at"]}
    assert marked == places([sent[1], sent[2]])


def test_what_became_a_row_by_itself_is_not_replayed(engine, name, registry_proxy):
    """Rejected before there was a table; read again by the next worker, it is a row: the ledger has it as replayed."""
    topic = create_topic()
    number = Registry().register(f"late-{topic}", ORDER_AVRO)
    registry_proxy.hidden = {number}
    writer = AvroWriter(ORDER_AVRO, number)
    records = [Sent(b"junk" if n % 5 == 0 else writer(order_avro(order(n))), timestamp_ms=1) for n in range(20)]
    sent = send(topic, records)
    run = engine([table(name, topic)], [cluster(registry={"url": registry_proxy.url})])
    run.once()
    assert not run.table().exists() and len(letters(run)) == 20
    registry_proxy.hidden = set()
    run.once()
    wanted = [order_expected(order(n)) for n in range(20) if n % 5]
    readers.check(run.table(), wanted)
    told = replay(run, name).json()
    assert (told["tried"], told["rows"], told["marked"]) == (4, 0, 16)
    readers.check(run.table(), wanted)
    check_marks(run, places([one for one in sent if one.value != b"junk"]))


def test_killed_at_every_step(engine, name, registry_proxy):
    """A replay that aborts at each step in turn; then one that ends well. Each round has dead letters of its own."""
    assert {"replay.files_written", "replay.committed", "replay.marks_written", "replay.marked"} <= set(POINTS)
    topic = create_topic(partitions=2)
    registry = Registry()
    first = registry.register(f"{topic}-value", ORDER_AVRO)
    run = engine([table(name, topic)], [cluster(registry={"url": registry_proxy.url})])
    good, numbers = AvroWriter(ORDER_AVRO, first), itertools.count()
    rows, late, passed = [], [], set()
    for round_, point in enumerate([*POINTS, *SHARED]):
        schema = with_column(round_)
        number = registry.register(f"round-{round_}-{topic}", schema)
        writer = AvroWriter(schema, number)
        registry_proxy.hidden = {number}
        batch = []
        for index in range(12):
            at = next(numbers)
            row = order_avro(order(at))
            rows.append((at, round_ if index % 3 == 0 else None))
            value = writer({**row, f"extra_{round_}": at}) if index % 3 == 0 else good(row)
            batch.append(Sent(value, timestamp_ms=1, partition=at % 2))
        placed = send(topic, batch)
        late += [one for index, one in enumerate(placed) if index % 3 == 0]
        run.once()
        registry_proxy.hidden = set()
        ended = replay(run, name, code=None, env={"FAILPOINTS": f"{point}=1*return"})
        if aborted(ended.code):
            passed.add(point)
        else:
            assert ended.code == 0, ended.err[-2000:]
        if round_ % 2:
            replay(run, name)
        replay(run, name)
        check_rows(run, rows, chaos.CLOUD)
        check_marks(run, places(late))
    assert set(POINTS) <= passed, f"not passed: {set(POINTS) - passed}"
    run.once()
    assert replay(run, name).json()["rows"] == 0
    check_rows(run, rows, readers.ALL)
    files.check_same_files(run.table())


def check_rows(run, rows: list[tuple[int, int | None]], which=readers.QUICK) -> None:
    extras = [field["name"] for field in run.table().fields() if field["name"].startswith("extra_")]
    expected = []
    for number, round_ in rows:
        row = order_expected(order(number))
        expected.append({**row, **{extra: number if extra == f"extra_{round_}" else None for extra in extras}})
    readers.check(run.table(), expected, which)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_replays_at_once_beside_workers(engine, name, registry_proxy, request, place):
    """Two replays again and again, each killed at random, beside a worker that ingests and compacts."""
    topic = create_topic(partitions=2)
    registry = Registry()
    first = registry.register(f"{topic}-value", ORDER_AVRO)
    store = request.getfixturevalue(place)
    quick = {"min_inputs": 2, "quiet_after": "0s"}
    tables = [table(name, topic, freshness={"max_age": "200ms"}, compaction=quick)]
    run = engine(tables, [cluster(registry={"url": registry_proxy.url})], store=store)
    schema = with_column(0)
    late = registry.register(f"late-{topic}", schema)
    registry_proxy.hidden = {late}
    good, unknown = AvroWriter(ORDER_AVRO, first), AvroWriter(schema, late)
    rows, sent_late = [], []
    worker = run.worker().ready()
    stop, numbers = threading.Event(), itertools.count()

    def produce():
        while not stop.is_set():
            batch = []
            for _ in range(20):
                number = next(numbers)
                row, is_late = order_avro(order(number)), number % 4 == 0
                rows.append((number, 0 if is_late else None))
                value = unknown({**row, "extra_0": number}) if is_late else good(row)
                batch.append(Sent(value, timestamp_ms=1, partition=number % 2))
            placed = send(topic, batch)
            sent_late.extend(one for one, (_, kind) in zip(placed, rows[-20:]) if kind == 0)
            time.sleep(0.1)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        wait(lambda: run.table().dead_letters.exists() and readers.count(run.table().dead_letters) >= 40, 60, "dead letters")
        # The worker asks the registry again after a hundred records at the earliest.
        registry_proxy.hidden = set()
        for round_ in range(6):
            command = [run.binary, "dead-letters", "replay", name, "-f", str(run.spec), "--json"]
            both = [
                subprocess.Popen(command, env=run.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                for _ in range(2)
            ]
            if round_ % 2 == 0:
                time.sleep(0.2 * (round_ + 1))
                for one in both:
                    one.send_signal(signal.SIGKILL)
            ends = [one.communicate(timeout=60)[1].decode() for one in both]
            codes = {one.returncode for one in both}
            assert codes <= {0, -signal.SIGKILL}, ends
    finally:
        stop.set()
        producer.join()
    wait(lambda: sum(run.committed().values()) == len(rows), 60, "the worker")
    replay(run, name)
    worker_said = worker.said()
    assert worker.stop() == 0, worker_said[-2000:]
    replay(run, name)
    check_rows(run, rows)
    open_places = {(one["partition"], one["offset"]) for one in letters(run) if one["replayed_at"] is None}
    assert open_places == set(), "dead letters are open"
    files.check_same_files(run.table())
