"""What the benchmarks share: where the programs are, topics filled once, specs, a registry, a worker's metrics.

Only the standard library is used."""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("SILTSTONE_BENCH_PROFILE", "release")
SILTSTONE, BENCH = TARGET / "siltstone", TARGET / "siltstone-bench"
# Rows of a workload go round these.
PARTITIONS = 4
SORTED = {"sort_by": ["customer_id", "ts"]}


def parser(about):
    """The options that every benchmark takes; `parsed` reads them."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bootstrap", default=os.environ.get("SILTSTONE_BENCH_KAFKA"), help="the broker, host:port")
    options.add_argument("--dir", default=os.environ.get("SILTSTONE_BENCH_DIR", str(ROOT / "target" / "bench")),
                         help="where tables and notes are kept meanwhile")
    return options


def parsed(options, broker=True):
    """The options as given; a benchmark that needs no broker says so."""
    options = options.parse_args()
    if broker and not options.bootstrap:
        sys.exit("start a broker (bash tests/services/kafka.sh up) and name it with --bootstrap host:port")
    options.dir = pathlib.Path(options.dir)
    options.dir.mkdir(parents=True, exist_ok=True)
    return options


def produce_command(bootstrap, topic, shape, rows, *more):
    return [BENCH, "produce", "--bootstrap", bootstrap, "--topic", topic, "--shape", shape, "--rows", str(rows), *more]


def produce(*arguments):
    """Fills a topic; what the producer says of it."""
    return json.loads(subprocess.run(produce_command(*arguments), check=True, stdout=subprocess.PIPE).stdout)


def filled(folder, bootstrap, topic, shape, rows):
    """The same, once while the broker is up: a note in `folder` says that it was done."""
    note = folder / f"{topic}.json"
    if not note.exists():
        note.write_text(json.dumps(produce(bootstrap, topic, shape, rows)))
    return json.loads(note.read_text())


@contextlib.contextmanager
def registry(listen):
    """The workloads' schemas, served meanwhile."""
    process = subprocess.Popen([BENCH, "registry", "--listen", listen])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def write_spec(file, bootstrap, listen, destination, name, topic, **table):
    """A spec of one table, in both formats; JSON is YAML too."""
    table = {"name": name, "source_cluster_name": "bench", "source_topic": topic, "source_format": "avro",
             "formats": ["iceberg", "delta"], "dlq_mode": "stop", **table}
    cluster = {"name": "bench", "bootstrap_brokers": [bootstrap], "schema_registry": {"url": f"http://{listen}"}}
    spec = {"source_clusters": [cluster], "destination_bucket_url": destination, "tables": [table]}
    file.write_text(json.dumps(spec, indent=1))
    return file


def ready(http, seconds=30):
    """Waits for a worker to be ready."""
    for _ in range(seconds * 10):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{http}/readyz", timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    sys.exit("the worker did not become ready")


def metrics(http, names):
    """Sums over all series of a worker's metrics."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=5) as answer:
        series = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: sum(float(value) for key, value in series if key.split("{")[0] == name) for name in names}


def measured(command, env=None, out=None):
    """Runs a command, its output into the file `out`; its wall time, CPU time of user and system, and peak memory, MiB."""
    command = [str(word) for word in command]
    kept = [(os.POSIX_SPAWN_OPEN, 1, str(out), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)] if out else []
    began = time.time()
    pid = os.posix_spawnp(command[0], command, {**os.environ, **(env or {})}, file_actions=kept)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"failed with status {status}: {' '.join(command)}")
    return time.time() - began, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024


def load():
    return round(os.getloadavg()[0], 1)


def report(line, out=None):
    """One line of JSON, and the same at the end of the file `out`."""
    print(json.dumps(line), flush=True)
    if out:
        with open(out, "a") as file:
            file.write(json.dumps(line) + "\n")
