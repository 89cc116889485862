#!/usr/bin/env python3
"""What history in files costs: `siltstone backfill TABLE --files`, from Parquet and from Avro object container files.

    ~/.cache/siltstone-lab/venv/bin/python benches/backfill.py [--rows 2000000] [--only parquet-zstd,...] [--repeat 3] [--s3]

For each workload: the rows of `wide` (16 fields, 512 bytes as Avro) as files, made once; then the program reads them into a new
table, sorted by two columns, Iceberg and Delta committed, on local disk or (`--s3`) with files and table on the S3 service of the
tests. Prints a JSON line a run: CPU-seconds are user and system of the program, its start-up included; MiB of input per
CPU-second are the files as they are stored, and, for comparison with `ingest.py`, the rows as bare Avro values.
`--stages` has each run's CPU time by stages instead (`stages.py`; needs perf).

Needs the Python of the end-to-end tests (`tests/setup.sh`) and `cargo build --release --workspace`; no broker."""

import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import zlib

import fastavro
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from bench import BENCH, ROOT, SILTSTONE, load, measured, parsed, parser, report, write_spec

sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import lab  # noqa: E402 - found by the path just given
from stores import Bucket, Folder  # noqa: E402

NAME = "bench.history"
FILES = 4
# Rows of a Parquet row group: some 64 MiB.
GROUP_ROWS = 1 << 17
MAGIC = b"Obj\x01"
# MiB of input per CPU-second that are asked for.
TARGETS = {"parquet": 150, "avro": 100}
# name: (format, codec)
WORKLOADS = {
    "parquet-zstd": ("parquet", "zstd"),
    "parquet-snappy": ("parquet", "snappy"),
    "avro-null": ("avro", "null"),
    "avro-deflate": ("avro", "deflate"),
    "avro-snappy": ("avro", "snappy"),
    "avro-zstandard": ("avro", "zstandard"),
}
COLUMNS = {"id": ("long", pa.int64()), "at": ("timestamptz", pa.timestamp("us", "UTC")), "active": ("boolean", pa.bool_()),
           "count": ("int", pa.int32()), "ratio": ("double", pa.float64()), "score": ("float", pa.float32()),
           **{f"s{n}": ("string", pa.string()) for n in range(10)}}
SCHEMA = pa.schema({name: kind for name, (_, kind) in COLUMNS.items()})
# No registry is asked: the columns stand in the spec.
TABLE = {"source_format": "json", "schema_mode": "inline", "wire_format": "raw", "sort_by": ["id", "at"],
         "input_schema": {"fields": [{"name": name, "type": kind} for name, (kind, _) in COLUMNS.items()]}}


def long(value):
    """Avro's form of a number."""
    rest, out = value << 1 ^ value >> 63, bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


def read_long(source):
    rest = shift = 0
    while True:
        [byte] = source.read(1)
        rest |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return rest >> 1 ^ -(rest & 1)


def read_bytes(source):
    return source.read(read_long(source))


def packed(codec, block):
    if codec == "deflate":
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(block) + packer.flush()
    if codec == "snappy":
        return pa.compress(block, "snappy", asbytes=True) + zlib.crc32(block).to_bytes(4, "big")
    return pa.Codec("zstd", compression_level=3).compress(block, asbytes=True)


def make_avro(plain, to, codec):
    """The same container file with packed blocks."""
    with plain.open("rb") as source, to.open("wb") as out:
        if source.read(len(MAGIC)) != MAGIC:
            sys.exit(f"{plain} is no container file; delete it")
        pairs = [(read_bytes(source), read_bytes(source)) for _ in range(read_long(source))]
        read_long(source)
        sync = source.read(16)
        pairs.append((b"avro.codec", codec.encode()))
        out.write(MAGIC + long(len(pairs)))
        out.write(b"".join(long(len(part)) + part for pair in pairs for part in pair) + long(0) + sync)
        while source.peek(1):
            records, block = read_long(source), read_bytes(source)
            source.read(len(sync))
            block = packed(codec, block)
            out.write(long(records) + long(len(block)) + block + sync)


def make_parquet(plain, to, codec):
    with plain.open("rb") as source, pq.ParquetWriter(to, SCHEMA, compression=codec) as out:
        records = fastavro.reader(source)
        while some := list(itertools.islice(records, GROUP_ROWS)):
            columns = {name: [record[name] for record in some] for name in SCHEMA.names}
            out.write_table(pa.Table.from_pydict(columns, SCHEMA))


def once(folder, make):
    """A folder of files, made once: a note in it says that it was."""
    note = folder / "_made.json"
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # Not in this process: the peak memory that is told of a child begins with that of its parent.
        made = lambda: note.write_text(json.dumps(make(folder)))
        child = multiprocessing.get_context("fork").Process(target=made)
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(f"{folder} could not be made")
    return json.loads(note.read_text())


def plain_files(folder, rows):
    each = rows // FILES
    value_bytes = 0
    for number in range(FILES):
        command = [BENCH, "container", "--shape", "wide-avro", "--rows", str(each), "--first", str(number * each)]
        said = subprocess.run([*command, "--out", folder / f"{number}.avro"], check=True, stdout=subprocess.PIPE)
        value_bytes += json.loads(said.stdout)["value_bytes"]
    return {"rows": each * FILES, "value_bytes": value_bytes}


def files_of(home, rows, kind, codec):
    """The folder of a workload's files, and what the files of all workloads hold."""
    plain = home / f"wide-{rows}-avro-null"
    held = once(plain, lambda folder: plain_files(folder, rows))
    if (kind, codec) == ("avro", "null"):
        return plain, held
    make = make_avro if kind == "avro" else make_parquet

    def all_files(folder):
        for file in sorted(plain.glob("*.avro")):
            make(file, folder / f"{file.stem}.{kind}", codec)
        return held

    folder = home / f"wide-{rows}-{kind}-{codec}"
    return folder, once(folder, all_files)


def one(options, name):
    kind, codec = WORKLOADS[name]
    folder, held = files_of(options.dir / "history", options.rows, kind, codec)
    files = sorted(folder.glob(f"*.{kind}"))
    file_bytes = sum(file.stat().st_size for file in files)
    home = options.dir / "backfill"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    if options.s3:
        store = Bucket(f"bench-{int(time.time() * 1000)}")
        for file in files:
            to = store.inner(f"history/{file.name}")
            pyarrow.fs.copy_files(str(file), to, pyarrow.fs.LocalFileSystem(), store.filesystem())
        url = store.file_url(f"history/*.{kind}")
    else:
        store, url = Folder(str(home / "tables")), f"file://{folder}/*.{kind}"
    spec = write_spec(home / "spec.yaml", "127.0.0.1:9092", "127.0.0.1:39181", store.destination, NAME, "history", **TABLE)
    command = [SILTSTONE, "--quiet", "backfill", "-f", spec, NAME, "--files", url, "--json", "--memory", options.memory,
               "--spill-dir", home]
    if options.stages:
        stages = [sys.executable, ROOT / "benches" / "stages.py", "--"]
        subprocess.run([*stages, *command], env={**os.environ, **store.env}, check=True)
        return
    wall, user, system, memory = measured(command, store.env, home / "summary.json")
    summary = json.loads((home / "summary.json").read_text())
    if (summary["rows"], summary["rejected"], summary["files"]["failed"]) != (held["rows"], 0, 0):
        sys.exit(f"not every row came: {summary}")
    cpu = user + system
    mib = lambda count: round(count / 2**20, 1)
    report({"workload": name, "store": "s3" if options.s3 else "disk", "rows": held["rows"], "file_mib": mib(file_bytes),
            "value_mib": mib(held["value_bytes"]), "spilled_mib": mib(summary["spilled_bytes"]),
            "output_mib": mib(summary["data_bytes"]), "data_files": summary["data_files"], "wall_s": round(wall, 1),
            "user_s": round(user, 2), "sys_s": round(system, 2), "rows_per_cpu_s": int(held["rows"] / cpu),
            "file_mib_per_cpu_s": round(file_bytes / 2**20 / cpu, 1),
            "value_mib_per_cpu_s": round(held["value_bytes"] / 2**20 / cpu, 1), "target": TARGETS[kind],
            "max_rss_mib": int(memory), "load": load()}, options.out)


def main():
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--only", default=",".join(WORKLOADS))
    options.add_argument("--repeat", type=int, default=1)
    options.add_argument("--memory", default="512MiB")
    options.add_argument("--s3", action="store_true", help="files and table on the S3 service of the tests")
    options.add_argument("--stages", action="store_true", help="shares of CPU time by stage instead of rates; needs perf")
    options.add_argument("--out")
    options = parsed(options, broker=False)
    options.dir = options.dir.resolve()
    if options.s3:
        lab.start()
    for name in options.only.split(","):
        files_of(options.dir / "history", options.rows, *WORKLOADS[name])
    for name in options.only.split(","):
        for _ in range(options.repeat):
            one(options, name)
    shutil.rmtree(options.dir / "backfill", ignore_errors=True)


main()
