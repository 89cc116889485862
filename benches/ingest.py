#!/usr/bin/env python3
"""End-to-end ingest benchmark: a real broker, one worker, `run --once`, local disk, Iceberg and Delta committed.

    python3 benches/ingest.py [--rows 5000000] [--only orders-avro,...] [--repeat 3] [--out results.jsonl]

For each workload: fill the topic once (kept between runs of this script while the broker is up), run the worker,
print wall time, CPU-seconds (user and system of the worker, start-up included), rows per CPU-second, MiB of record values per
CPU-second and the peak resident memory. Needs `tests/setup.sh` (the broker) and `cargo build --release --workspace`.
Only the standard library is used."""

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
REGISTRY = "127.0.0.1:39181"

# name: (shape, rows as a share of --rows, table options, extra arguments of `run`)
SORTED = "sort_by: [customer_id, ts]"
WORKLOADS = {
    "orders-avro": ("orders-avro", 1.0, SORTED, []),
    "orders-json": ("orders-json", 1.0, SORTED, []),
    "orders-avro-64MiB": ("orders-avro", 1.0, SORTED, ["--memory", "64MiB"]),
    "orders-avro-5000-partitions": ("orders-avro", 0.2, SORTED + "\n    partition_by: [bucket(5000, customer_id)]", []),
    "wide-avro": ("wide-avro", 0.4, "sort_by: [id, at]", []),
    "wide-two-ids": ("wide-two-ids", 0.4, "sort_by: [id, at]", []),
}
JSON_SCHEMA = """
    schema_mode: inline
    wire_format: raw
    input_schema:
      fields:
        - {name: id, type: long}
        - {name: customer_id, type: long}
        - {name: ts, type: timestamptz}
        - {name: amount, type: double}
        - {name: status, type: string}
        - {name: country, type: string}
        - {name: note, type: string}"""


def spec(bootstrap, topic, shape, options, lake):
    json_format = shape.endswith("json")
    return f"""source_clusters:
  - name: bench
    bootstrap_brokers: ["{bootstrap}"]
    schema_registry: {{url: "http://{REGISTRY}"}}
destination_bucket_url: "file://{lake}"
tables:
  - name: bench.{topic.replace("-", "_")}
    source_cluster_name: bench
    source_topic: {topic}
    source_format: {"json" if json_format else "avro"}{JSON_SCHEMA if json_format else ""}
    formats: [iceberg, delta]
    {options}
    dlq_mode: stop
"""


def measured(command):
    """Runs a command; its wall time, CPU time and peak memory."""
    began = time.time()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"failed with status {status}: {' '.join(command)}")
    return time.time() - began, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=5_000_000)
    options.add_argument("--only", default=",".join(WORKLOADS))
    options.add_argument("--repeat", type=int, default=1)
    options.add_argument("--bootstrap", default=os.environ.get("SILTSTONE_BENCH_KAFKA"))
    options.add_argument("--dir", default=os.environ.get("SILTSTONE_BENCH_DIR", str(ROOT / "target" / "bench")))
    options.add_argument("--keep", action="store_true", help="keep the tables")
    options.add_argument("--out")
    options = options.parse_args()
    if not options.bootstrap:
        sys.exit("start a broker (bash tests/services/kafka.sh up) and name it with --bootstrap host:port")
    lake = pathlib.Path(options.dir)
    lake.mkdir(parents=True, exist_ok=True)
    registry = subprocess.Popen([TARGET / "siltstone-bench", "registry", "--listen", REGISTRY])
    try:
        for name in options.only.split(","):
            shape, share, table, arguments = WORKLOADS[name]
            rows = int(options.rows * share)
            topic = f"{shape}-{rows}"
            marker = lake / f"{topic}.json"
            if not marker.exists():
                filled = subprocess.run(
                    [TARGET / "siltstone-bench", "produce", "--bootstrap", options.bootstrap, "--topic", topic,
                     "--shape", shape, "--rows", str(rows)], check=True, stdout=subprocess.PIPE)
                marker.write_bytes(filled.stdout)
            value_bytes = json.loads(marker.read_text())["value_bytes"]
            for _ in range(options.repeat):
                shutil.rmtree(lake / "tables", ignore_errors=True)
                file = lake / f"{name}.yaml"
                file.write_text(spec(options.bootstrap, topic, shape, table, lake / "tables"))
                wall, user, system, memory = measured(
                    [str(TARGET / "siltstone"), "--quiet", "run", "-f", str(file), "--once", *arguments])
                cpu = user + system
                line = {"workload": name, "rows": rows, "wall_s": round(wall, 1), "user_s": round(user, 2),
                        "sys_s": round(system, 2), "rows_per_cpu_s": int(rows / cpu),
                        "mib_per_cpu_s": round(value_bytes / 2**20 / cpu, 1), "max_rss_mib": int(memory),
                        "load": round(os.getloadavg()[0], 1)}
                print(json.dumps(line), flush=True)
                if options.out:
                    with open(options.out, "a") as out:
                        out.write(json.dumps(line) + "\n")
        if not options.keep:
            shutil.rmtree(lake / "tables", ignore_errors=True)
    finally:
        registry.terminate()


main()
