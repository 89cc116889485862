#!/usr/bin/env python3
"""End-to-end ingest benchmark: a real broker, one worker, `run --once`, local disk, Iceberg and Delta committed.

    python3 benches/ingest.py [--rows 5000000] [--only orders-avro,...] [--repeat 3] [--out results.jsonl]

For each workload: fill the topic once (kept between runs of this script while the broker is up), run the worker,
print wall time, CPU-seconds (user and system of the worker, start-up included), rows per CPU-second, MiB of record values per
CPU-second and the peak resident memory. Needs `tests/setup.sh` (the broker) and `cargo build --release --workspace`.
Only the standard library is used."""

import shutil

from bench import SILTSTONE, SORTED, filled, load, measured, parsed, parser, registry, report, write_spec

REGISTRY = "127.0.0.1:39181"

# name: (shape, rows as a share of --rows, table options, extra arguments of `run`)
WIDE = {"sort_by": ["id", "at"]}
WORKLOADS = {
    "orders-avro": ("orders-avro", 1.0, SORTED, []),
    "orders-json": ("orders-json", 1.0, SORTED, []),
    "orders-avro-64MiB": ("orders-avro", 1.0, SORTED, ["--memory", "64MiB"]),
    "orders-avro-5000-partitions": ("orders-avro", 0.2, {**SORTED, "partition_by": ["bucket(5000, customer_id)"]}, []),
    "wide-avro": ("wide-avro", 0.4, WIDE, []),
    "wide-two-ids": ("wide-two-ids", 0.4, WIDE, []),
    "wide-protobuf": ("wide-protobuf", 0.4, WIDE, []),
}
JSON_FIELDS = {"id": "long", "customer_id": "long", "ts": "timestamptz", "amount": "double", "status": "string",
               "country": "string", "note": "string"}
JSON = {"source_format": "json", "schema_mode": "inline", "wire_format": "raw",
        "input_schema": {"fields": [{"name": name, "type": kind} for name, kind in JSON_FIELDS.items()]}}


def main():
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=5_000_000)
    options.add_argument("--only", default=",".join(WORKLOADS))
    options.add_argument("--repeat", type=int, default=1)
    options.add_argument("--keep", action="store_true", help="keep the tables")
    options.add_argument("--out")
    options = parsed(options)
    lake = options.dir
    with registry(REGISTRY):
        for name in options.only.split(","):
            shape, share, table, arguments = WORKLOADS[name]
            rows = int(options.rows * share)
            topic = f"{shape}-{rows}"
            value_bytes = filled(lake, options.bootstrap, topic, shape, rows)["value_bytes"]
            for _ in range(options.repeat):
                shutil.rmtree(lake / "tables", ignore_errors=True)
                changes = {**table, **(JSON if shape.endswith("json") else {})}
                file = write_spec(lake / f"{name}.yaml", options.bootstrap, REGISTRY, f"file://{lake / 'tables'}",
                                  f"bench.{topic.replace('-', '_')}", topic, **changes)
                wall, user, system, memory = measured(
                    [SILTSTONE, "--quiet", "run", "-f", file, "--once", *arguments])
                cpu = user + system
                report({"workload": name, "rows": rows, "wall_s": round(wall, 1), "user_s": round(user, 2),
                        "sys_s": round(system, 2), "rows_per_cpu_s": int(rows / cpu),
                        "mib_per_cpu_s": round(value_bytes / 2**20 / cpu, 1), "max_rss_mib": int(memory),
                        "load": load()}, options.out)
        if not options.keep:
            shutil.rmtree(lake / "tables", ignore_errors=True)


main()
