#!/usr/bin/env python3
"""What a commit costs, however many came before: a worker commits a topic in thousands of small pieces.

    python3 benches/commits.py --bootstrap 127.0.0.1:PORT [--commits 10000] [--rows-per-commit 250]

One worker, `run --once`, `freshness.max_rows` as small as asked, both formats on local disk. While it runs, this script notes
the number of ledger entries and the worker's CPU time, and prints, for each tenth of the commits, wall and CPU
milliseconds a commit, the bytes of the newest Iceberg metadata, and its manifests' list. One JSON line a tenth, one for
the whole. Only the standard library is used."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

from bench import SILTSTONE, SORTED, filled, parsed, parser, registry, report, write_spec

REGISTRY = "127.0.0.1:39184"
TICKS = os.sysconf("SC_CLK_TCK")


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


def sampled(worker, table):
    """(time, CPU seconds, Iceberg version, bytes of metadata) while the worker runs."""
    samples = []
    while worker.poll() is None:
        try:
            samples.append((time.time(), cpu_seconds(worker.pid), *versions(table)))
        except (FileNotFoundError, IndexError):
            pass
        time.sleep(0.1)
    if worker.returncode != 0:
        sys.exit(f"the worker failed with status {worker.returncode}")
    return samples


def main():
    options = parser(__doc__)
    options.add_argument("--commits", type=int, default=10_000)
    options.add_argument("--rows-per-commit", type=int, default=250)
    options = parsed(options)
    lake = options.dir / "commits"
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir(parents=True)
    rows = options.commits * options.rows_per_commit
    topic = f"commits-{rows}"
    filled(options.dir, options.bootstrap, topic, "orders-avro", rows)
    file = write_spec(lake / "spec.yaml", options.bootstrap, REGISTRY, f"file://{lake / 'tables'}", "bench.commits",
                      topic, freshness={"max_rows": options.rows_per_commit}, **SORTED)
    table = lake / "tables" / "bench" / "commits"
    with registry(REGISTRY):
        samples = sampled(subprocess.Popen([SILTSTONE, "--quiet", "run", "-f", file, "--once"]), table)
    last = max(sample[2] for sample in samples)
    step = max(1, last // 10)
    marks = [next(s for s in samples if s[2] >= n) for n in range(step, last + 1, step)]
    for before, after in zip(marks, marks[1:]):
        commits = after[2] - before[2]
        report({"snapshots": after[2], "wall_ms_per_commit": round((after[0] - before[0]) * 1000 / commits, 2),
                "cpu_ms_per_commit": round((after[1] - before[1]) * 1000 / commits, 2), "metadata_bytes": after[3]})
    log = len(list((table / "data" / "_delta_log").glob("*.json")))
    report({"rows": rows, "iceberg_versions": last, "delta_versions": log,
            "wall_s": round(samples[-1][0] - samples[0][0], 1), "cpu_s": round(samples[-1][1], 1)})
    shutil.rmtree(lake / "tables", ignore_errors=True)


main()
