#!/usr/bin/env python3
"""What a commit costs, however many came before: a worker commits a topic in thousands of small pieces.

    python3 benches/commits.py --bootstrap 127.0.0.1:PORT [--commits 10000] [--rows-per-commit 250]

One worker, `run --once`, `freshness.max_rows` as small as asked, both formats on local disk. While it runs, this script notes
the number of ledger entries and the worker's CPU time, and prints, for each tenth of the commits, wall and CPU
milliseconds a commit, the bytes of the newest Iceberg metadata, and its manifests' list. One JSON line a tenth, one for
the whole. Only the standard library is used."""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
REGISTRY = "127.0.0.1:39184"
TICKS = os.sysconf("SC_CLK_TCK")


def spec(bootstrap, topic, lake, rows):
    return f"""source_clusters:
  - name: bench
    bootstrap_brokers: ["{bootstrap}"]
    schema_registry: {{url: "http://{REGISTRY}"}}
destination_bucket_url: "file://{lake}"
tables:
  - name: bench.commits
    source_cluster_name: bench
    source_topic: {topic}
    source_format: avro
    formats: [iceberg, delta]
    sort_by: [customer_id, ts]
    freshness: {{max_rows: {rows}}}
    dlq_mode: stop
"""


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def versions(table):
    """Commits so far, as both formats and the ledger count them; the newest metadata's bytes."""
    try:
        hint = int((table / "metadata" / "version-hint.text").read_text())
        metadata = (table / "metadata" / f"v{hint}.metadata.json").stat().st_size
    except (FileNotFoundError, ValueError):
        hint, metadata = 0, 0
    return hint, metadata


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bootstrap", default=os.environ.get("SILTSTONE_BENCH_KAFKA"))
    options.add_argument("--commits", type=int, default=10_000)
    options.add_argument("--rows-per-commit", type=int, default=250)
    options.add_argument("--dir", default=os.environ.get("SILTSTONE_BENCH_DIR", str(ROOT / "target" / "bench")))
    options = options.parse_args()
    if not options.bootstrap:
        sys.exit("start a broker (bash tests/services/kafka.sh up) and name it with --bootstrap host:port")
    lake = pathlib.Path(options.dir) / "commits"
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir(parents=True)
    rows = options.commits * options.rows_per_commit
    topic = f"commits-{rows}"
    marker = lake.parent / f"{topic}.json"
    if not marker.exists():
        filled = subprocess.run([TARGET / "siltstone-bench", "produce", "--bootstrap", options.bootstrap, "--topic", topic,
                                 "--shape", "orders-avro", "--rows", str(rows)], check=True, stdout=subprocess.PIPE)
        marker.write_bytes(filled.stdout)
    file = lake / "spec.yaml"
    file.write_text(spec(options.bootstrap, topic, lake / "tables", options.rows_per_commit))
    table = lake / "tables" / "bench" / "commits"
    registry = subprocess.Popen([TARGET / "siltstone-bench", "registry", "--listen", REGISTRY])
    worker = subprocess.Popen([TARGET / "siltstone", "--quiet", "run", "-f", file, "--once"])
    samples = []
    try:
        while worker.poll() is None:
            try:
                hint, metadata = versions(table)
                samples.append((time.time(), cpu_seconds(worker.pid), hint, metadata))
            except (FileNotFoundError, IndexError):
                pass
            time.sleep(0.1)
        if worker.returncode != 0:
            sys.exit(f"the worker failed with status {worker.returncode}")
    finally:
        registry.terminate()
    last = max(sample[2] for sample in samples)
    step = max(1, last // 10)
    marks = [next(s for s in samples if s[2] >= n) for n in range(step, last + 1, step)]
    for before, after in zip(marks, marks[1:]):
        commits = after[2] - before[2]
        print(json.dumps({"snapshots": after[2], "wall_ms_per_commit": round((after[0] - before[0]) * 1000 / commits, 2),
                          "cpu_ms_per_commit": round((after[1] - before[1]) * 1000 / commits, 2),
                          "metadata_bytes": after[3]}), flush=True)
    log = len(list((table / "data" / "_delta_log").glob("*.json")))
    print(json.dumps({"rows": rows, "iceberg_versions": last, "delta_versions": log,
                      "wall_s": round(samples[-1][0] - samples[0][0], 1), "cpu_s": round(samples[-1][1], 1)}))
    shutil.rmtree(lake / "tables", ignore_errors=True)


main()
