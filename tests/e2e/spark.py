"""The Spark session of a test run: started once, in the background, and asked by JSON lines."""

from __future__ import annotations

import atexit
import json
import os
import pathlib
import subprocess
import tempfile
import threading

import pyarrow as pa

import lab

_lock = threading.Lock()
_process: subprocess.Popen | None = None
_ready = False
_scratch = pathlib.Path(tempfile.mkdtemp(prefix="siltstone-spark-"))


def start() -> None:
    """Begins to start; the first question waits until it has."""
    global _process
    with _lock:
        if _process is not None:
            return
        java = pathlib.Path((lab.HOME / "run" / "spark-java").read_text().strip())
        # Tables are small and the session is short: compiling them well costs more than it brings.
        options = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
        submit = f'--driver-memory 1g --driver-java-options "{options}" pyspark-shell'
        environment = {**os.environ, "JAVA_HOME": str(java.parent.parent), "PYSPARK_SUBMIT_ARGS": submit}
        log = open(lab.HOME / "log" / "spark.log", "w")
        _process = subprocess.Popen(
            [lab.HOME / "venv-spark" / "bin" / "python", pathlib.Path(__file__).with_name("spark_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            cwd=_scratch,
        )
        atexit.register(stop)
        _process.stdin.write(json.dumps(_settings()) + "\n")
        _process.stdin.flush()


def stop() -> None:
    global _process, _ready
    with _lock:
        if _process is not None:
            _process.stdin.close()
            try:
                _process.wait(20)
            except subprocess.TimeoutExpired:
                _process.kill()
            _process, _ready = None, False


def scratch() -> pathlib.Path:
    """The folder of this session; `folders/` below it is the warehouse of the catalog `folders`."""
    return _scratch


def read(kind: str, path: str) -> pa.Table:
    """A table by its path; `kind` is `iceberg` or `delta`."""
    return _arrow({"op": "read", "format": kind, "path": path})


def sql(query: str) -> pa.Table:
    return _arrow({"op": "sql", "query": query})


def _arrow(request: dict) -> pa.Table:
    out = _scratch / "answer.arrow"
    _ask({**request, "out": str(out)})
    with pa.OSFile(str(out)) as source:
        return pa.ipc.open_file(source).read_all()


def _ask(request: dict) -> dict:
    global _ready
    start()
    with _lock:
        if not _ready:
            _ready = "ready" in _answer()
        _process.stdin.write(json.dumps(request) + "\n")
        _process.stdin.flush()
        answer = _answer()
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


def _answer() -> dict:
    line = _process.stdout.readline()
    if not line:
        log = (lab.HOME / "log" / "spark.log").read_text()
        raise RuntimeError(f"Spark ended: {log[-2000:]}")
    return json.loads(line)


def _settings() -> dict:
    jars = sorted(str(jar) for jar in (lab.HOME / "dist" / "spark-jars").glob("*.jar"))
    s3 = {
        "endpoint": lab.address("S3_ENDPOINT"),
        "access.key": lab.address("S3_ACCESS_KEY"),
        "secret.key": lab.address("S3_SECRET_KEY"),
        "path.style.access": "true",
        "connection.ssl.enabled": "false",
        "endpoint.region": "us-east-1",
    }
    return {
        "spark.jars": ",".join(jars),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(_scratch),
        "spark.sql.warehouse.dir": str(_scratch / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions,"
        "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        # A catalog of folders, in which tests make tables of their own to try the readers on.
        "spark.sql.catalog.folders": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.folders.type": "hadoop",
        "spark.sql.catalog.folders.warehouse": f"file://{_scratch}/folders",
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        **{f"spark.hadoop.fs.s3a.{name}": value for name, value in s3.items()},
    }
