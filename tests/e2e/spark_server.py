"""One long-lived Spark session behind JSON lines: a request on stdin, an answer on stdout.

Runs in an environment of its own. Tables are handed over as Arrow files.
"""

import json
import os
import sys
import traceback

import pyarrow as pa


def session(settings: dict):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("siltstone-tests").master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def read(spark, request: dict) -> dict:
    return hand_over(spark.read.format(request["format"]).load(request["path"]), request["out"])


def sql(spark, request: dict) -> dict:
    return hand_over(spark.sql(request["query"]), request["out"])


def hand_over(frame, path: str) -> dict:
    """Writes a frame as an Arrow file. `toArrow()` would refuse a null struct that has a required member."""
    batches = frame._collect_as_arrow()
    table = pa.Table.from_batches(batches) if batches else pa.table({name: [] for name in frame.columns})
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return {"rows": table.num_rows}


def main() -> None:
    # What Spark prints must not mix with answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spark = session(json.loads(sys.stdin.readline()))
    answers.write(json.dumps({"ready": spark.version}) + "\n")
    operations = {"read": read, "sql": sql}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = operations[request["op"]](spark, request)
        except Exception as fault:  # noqa: BLE001 - told to the asker
            answer = {
                "error": f"{type(fault).__name__}: {fault}"[:3000],
                "trace": traceback.format_exc()[-2000:],
            }
        answers.write(json.dumps(answer) + "\n")


main()
