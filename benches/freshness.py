#!/usr/bin/env python3
"""Freshness: from the moment a record is due to be produced until each format's newest version shows it.

    python3 benches/freshness.py --bootstrap 127.0.0.1:PORT [--rate 20000] [--seconds 60] [--max-age 1s]

A worker runs with `max_age` and both formats on local disk while `siltstone-bench produce --rate` fills a fresh topic.
Every few milliseconds this script looks for a newer `version-hint.text` and a newer Delta log entry and notes when the
offsets that they name became readable. Row `i` is due `i / rate` seconds after the beginning and lies in partition
`i mod 4` at offset `i / 4`, so no clock but this machine's is involved; a producer that falls behind counts against us.
Prints one JSON line. Only the standard library is used."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
REGISTRY = "127.0.0.1:39182"
HTTP = "127.0.0.1:39183"
PARTITIONS = 4


def spec(bootstrap, topic, lake, max_age):
    return f"""source_clusters:
  - name: bench
    bootstrap_brokers: ["{bootstrap}"]
    schema_registry: {{url: "http://{REGISTRY}"}}
destination_bucket_url: "file://{lake}"
tables:
  - name: bench.fresh
    source_cluster_name: bench
    source_topic: {topic}
    source_format: avro
    formats: [iceberg, delta]
    sort_by: [customer_id, ts]
    freshness: {{max_age: {max_age}}}
    dlq_mode: stop
"""


class Iceberg:
    """The newest snapshot that the version hint leads to."""

    def __init__(self, table):
        self.folder, self.version = table / "metadata", ""

    def newer(self):
        try:
            version = (self.folder / "version-hint.text").read_text().strip()
        except FileNotFoundError:
            return None
        if version == self.version:
            return None
        self.version = version
        metadata = json.loads((self.folder / f"v{version}.metadata.json").read_text())
        current = metadata.get("current-snapshot-id")
        for snapshot in reversed(metadata.get("snapshots", [])):
            if snapshot["snapshot-id"] == current:
                return json.loads(snapshot["summary"]["siltstone.offsets"])
        return None


class Delta:
    """The newest entry of the log."""

    def __init__(self, table):
        self.log, self.next = table / "data" / "_delta_log", 0

    def newer(self):
        offsets = None
        while (entry := self.log / f"{self.next:020}.json").exists():
            self.next += 1
            for line in entry.read_text().splitlines():
                named = json.loads(line).get("commitInfo", {}).get("siltstone", {}).get("offsets")
                offsets = named or offsets
        return offsets


def note(seen, offsets, topic, now):
    """Remembers when each partition's offsets became readable."""
    for partition, end in offsets.get("bench", {}).get(topic, {}).items():
        steps = seen.setdefault(int(partition), [])
        if not steps or end > steps[-1][0]:
            steps.append((end, now))


def latencies(seen, began, rate, rows):
    """Seconds from due to readable, of one row in a hundred."""
    out = []
    for partition, steps in seen.items():
        step = 0
        for offset in range(0, rows // PARTITIONS, 25):
            while step < len(steps) and steps[step][0] <= offset:
                step += 1
            if step == len(steps):
                sys.exit(f"partition {partition}: offset {offset} never became readable")
            out.append(steps[step][1] - (began + (offset * PARTITIONS + partition) / rate))
    return sorted(out)


def summary(values):
    at = lambda share: round(values[min(len(values) - 1, int(len(values) * share))], 3)
    return {"p50_s": at(0.5), "p99_s": at(0.99), "max_s": round(values[-1], 3)}


def ready():
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://{HTTP}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("the worker did not become ready")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bootstrap", default=os.environ.get("SILTSTONE_BENCH_KAFKA"))
    options.add_argument("--rate", type=int, default=20_000)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--max-age", default="1s")
    options.add_argument("--memory", default="512MiB")
    options.add_argument("--dir", default=os.environ.get("SILTSTONE_BENCH_DIR", str(ROOT / "target" / "bench")))
    options = options.parse_args()
    if not options.bootstrap:
        sys.exit("start a broker (bash tests/services/kafka.sh up) and name it with --bootstrap host:port")
    lake = pathlib.Path(options.dir) / "fresh"
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir(parents=True)
    topic = f"fresh-{int(time.time())}"
    rows = options.rate * options.seconds // 100 * 100
    produce = [TARGET / "siltstone-bench", "produce", "--bootstrap", options.bootstrap, "--topic", topic,
               "--shape", "orders-avro"]
    # A first record makes table and assignment, so that start-up is not measured: freshness is of a running worker.
    subprocess.run([*produce, "--rows", str(PARTITIONS)], check=True, stdout=subprocess.DEVNULL)
    file = lake / "spec.yaml"
    file.write_text(spec(options.bootstrap, topic, lake / "tables", options.max_age))
    registry = subprocess.Popen([TARGET / "siltstone-bench", "registry", "--listen", REGISTRY])
    log = open(lake / "worker.log", "w")
    worker = subprocess.Popen([TARGET / "siltstone", "run", "-f", file, "--http", HTTP, "--memory", options.memory],
                              stderr=log)
    producer = None
    try:
        ready()
        table = lake / "tables" / "bench" / "fresh"
        readers, seen = {"iceberg": Iceberg(table), "delta": Delta(table)}, {"iceberg": {}, "delta": {}}
        while not all(seen.values()):
            time.sleep(0.05)
            for name, reader in readers.items():
                if offsets := reader.newer():
                    note(seen[name], offsets, topic, 0.0)
        producer = subprocess.Popen([*produce, "--rows", str(rows), "--first", str(PARTITIONS), "--rate",
                                     str(options.rate)], stdout=subprocess.PIPE)
        deadline = time.time() + options.seconds + 30
        end = rows // PARTITIONS + 1
        shown = lambda name: all(seen[name].get(p, [(0, 0)])[-1][0] >= end for p in range(PARTITIONS))
        while not all(map(shown, seen)) and time.time() < deadline:
            for name, reader in readers.items():
                if offsets := reader.newer():
                    note(seen[name], offsets, topic, time.time())
            time.sleep(0.004)
        produced = json.loads(producer.communicate()[0])
        began = produced["began_ms"] / 1000
        # Offsets are one further than rows of the paced run, for the first record of each partition.
        shifted = {name: {p: [(e - 1, t) for e, t in steps if e > 1] for p, steps in parts.items()}
                   for name, parts in seen.items()}
        line = {"rate": options.rate, "rows": rows, "max_age": options.max_age,
                "produced_in_s": round(produced["seconds"], 1), "load": round(os.getloadavg()[0], 1)}
        for name, parts in shifted.items():
            line[name] = summary(latencies(parts, began, options.rate, rows))
            line[name]["versions"] = len(parts[0])
        worker.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(worker.pid, 0)
        line["worker_cpu_s"] = round(usage.ru_utime + usage.ru_stime, 1)
        line["max_rss_mib"] = usage.ru_maxrss // 1024
        print(json.dumps(line))
    finally:
        for process in (producer, registry):
            if process and process.poll() is None:
                process.terminate()
        if worker.poll() is None and pathlib.Path(f"/proc/{worker.pid}").exists():
            worker.terminate()


main()
