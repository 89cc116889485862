#!/usr/bin/env python3
"""Freshness: from the moment a record is due to be produced until each format's newest version shows it.

    python3 benches/freshness.py --bootstrap 127.0.0.1:PORT [--rate 20000] [--seconds 60] [--max-age 1s] [--rounds 2]

A worker runs with `max_age` and both formats on local disk while `siltstone-bench produce --rate` fills a fresh topic.
Every few milliseconds this script looks for a newer `version-hint.text` and a newer Delta log entry and notes when the
offsets that they name became readable. Row `i` is due `i / rate` seconds after the beginning and lies in partition
`i mod 4` at offset `i / 4`, so no clock but this machine's is involved; a producer that falls behind counts against us.

Each round has two phases of `--seconds`, each with a fresh topic, table and worker: one without compaction, one with a policy
that rewrites all the time. Prints a JSON line a phase, with what was compacted until its last row was readable, and one a
policy over all rounds. A phase with compaction in which nothing was rewritten is an error. Only the standard library is used."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from bench import (PARTITIONS, SILTSTONE, SORTED, load, metrics, parsed, parser, produce, produce_command, ready, registry,
                   report, write_spec)

REGISTRY = "127.0.0.1:39182"
HTTP = "127.0.0.1:39183"
SHAPE = "orders-avro"
POLICIES = {
    "off": {"enabled": False},
    "on": {"min_inputs": 2, "max_inputs": 8, "max_overlap": 1, "quiet_after": "0s", "busy_percent": 100},
}
COMPACTED = {"input_files": "siltstone_compaction_input_files_total", "output_files": "siltstone_compaction_output_files_total",
             "rows": "siltstone_compaction_rows_total", "input_bytes": "siltstone_compaction_input_bytes_total"}


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


class Watch:
    """Notes when each format shows which offsets of a topic."""

    def __init__(self, table, topic):
        self.topic = topic
        self.readers = {"iceberg": Iceberg(table), "delta": Delta(table)}
        self.seen = {"iceberg": {}, "delta": {}}

    def look(self, now):
        for name, reader in self.readers.items():
            if offsets := reader.newer():
                note(self.seen[name], offsets, self.topic, now)

    def shows(self, end):
        """Whether both formats show all partitions up to an offset."""
        reached = lambda parts: all(parts.get(p, [(0, 0)])[-1][0] >= end for p in range(PARTITIONS))
        return all(map(reached, self.seen.values()))

    def latencies(self, began, rate, rows):
        """By format; offsets are one further than rows of the paced run, for the first record of each partition."""
        shifted = {name: {p: [(e - 1, t) for e, t in steps if e > 1] for p, steps in parts.items()}
                   for name, parts in self.seen.items()}
        return {name: latencies(parts, began, rate, rows) for name, parts in shifted.items()}


def phase(options, number, policy):
    """One topic, one table, one worker. Its line, and the latencies by format."""
    lake = options.dir / "fresh"
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir(parents=True)
    topic = f"fresh-{int(time.time())}-{number}"
    rows = options.rate * options.seconds // 100 * 100
    # A first record makes table and assignment, so that start-up is not measured: freshness is of a running worker.
    produce(options.bootstrap, topic, SHAPE, PARTITIONS)
    file = write_spec(lake / "spec.yaml", options.bootstrap, REGISTRY, f"file://{lake / 'tables'}", "bench.fresh", topic,
                      freshness={"max_age": options.max_age}, compaction=POLICIES[policy],
                      files={"target_size": options.target_size}, **SORTED)
    words = [SILTSTONE, "run", "-f", file, "--http", HTTP, "--memory", options.memory]
    log = open(lake / "worker.log", "w")
    worker, producer = subprocess.Popen(words, stdout=log, stderr=log), None
    try:
        ready(HTTP)
        watch = Watch(lake / "tables" / "bench" / "fresh", topic)
        while not all(watch.seen.values()):
            time.sleep(0.05)
            watch.look(0.0)
        paced = ["--first", str(PARTITIONS), "--rate", str(options.rate)]
        producer = subprocess.Popen(produce_command(options.bootstrap, topic, SHAPE, rows, *paced), stdout=subprocess.PIPE)
        deadline = time.time() + options.seconds + 30
        while not watch.shows(rows // PARTITIONS + 1) and time.time() < deadline:
            watch.look(time.time())
            time.sleep(0.004)
        compacted = metrics(HTTP, COMPACTED.values())
        produced = json.loads(producer.communicate()[0])
        worker.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(worker.pid, 0)
    finally:
        for process in (producer, worker):
            if process and process.returncode is None and process.poll() is None:
                process.kill()
    values = watch.latencies(produced["began_ms"] / 1000, options.rate, rows)
    line = {"compaction": policy, "round": number, "rate": options.rate, "rows": rows, "max_age": options.max_age,
            "produced_in_s": round(produced["seconds"], 1), "load": load()}
    for name, of in values.items():
        line[name] = {**summary(of), "versions": len(watch.seen[name][0])}
    line["compacted"] = {name: int(compacted[metric]) for name, metric in COMPACTED.items()}
    line["worker_cpu_s"] = round(usage.ru_utime + usage.ru_stime, 1)
    line["max_rss_mib"] = usage.ru_maxrss // 1024
    if (policy == "on") != (line["compacted"]["input_files"] > 0):
        sys.exit(f"compaction was {policy}, and yet: {json.dumps(line)}")
    return line, values


def main():
    options = parser(__doc__)
    options.add_argument("--rate", type=int, default=20_000)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--max-age", default="1s")
    options.add_argument("--memory", default="512MiB")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--only", choices=POLICIES, help="phases of this policy alone")
    options.add_argument("--target-size", default="512MiB", help="of rewritten files")
    options.add_argument("--out")
    options = parsed(options)
    policies = [options.only] if options.only else list(POLICIES)
    pooled = {policy: {"iceberg": [], "delta": []} for policy in policies}
    with registry(REGISTRY):
        for number in range(options.rounds):
            for policy in policies:
                line, values = phase(options, number, policy)
                report(line, options.out)
                for name, of in values.items():
                    pooled[policy][name] += of
    for policy, formats in pooled.items():
        over = {name: summary(sorted(values)) for name, values in formats.items()}
        report({"compaction": policy, "rounds": options.rounds, "all": over}, options.out)


main()
