"""The engine as its users run it: a spec file, the `siltstone` program, its exit codes and output."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import requests
import yaml

import lab
from stores import Bucket, Folder, Table

CLUSTER = "lab"
# Sessions end soon after a worker is killed, so that its partitions are free again.
QUICK_SESSIONS = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "500"}
ONCE_SECONDS = 120


def cluster(name: str = CLUSTER, registry: bool | str | dict = True, **changes) -> dict:
    """A source cluster; `registry` is a URL, the whole mapping, or whether to name the open one."""
    one = {
        "name": name,
        "bootstrap_brokers": [lab.address("KAFKA")],
        "client_options": dict(QUICK_SESSIONS),
    }
    if registry is True:
        registry = lab.address("REGISTRY")
    if registry:
        one["schema_registry"] = registry if isinstance(registry, dict) else {"url": registry}
    return {**one, **changes}


def table(name: str, topic: str, source_format: str = "avro", **changes) -> dict:
    return {
        "name": name,
        "source_cluster_name": CLUSTER,
        "source_topic": topic,
        "source_format": source_format,
        "freshness": {"max_age": "500ms"},
        **changes,
    }


def json_table(name: str, topic: str, columns: list[dict], **changes) -> dict:
    return table(name, topic, "json", input_schema={"fields": columns}, **changes)


@dataclasses.dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    def json(self):
        return json.loads(self.out)


class Siltstone:
    """A spec with the folder it lies in."""

    def __init__(
        self,
        binary: pathlib.Path,
        folder: pathlib.Path,
        store: Folder | Bucket,
        tables,
        clusters=None,
        env=None,
    ):
        self.binary = binary
        self.folder = folder
        self.store = store
        self.spec = folder / "siltstone.yaml"
        own = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
        self.environment = {**own, "RUST_BACKTRACE": "0", **store.env, **(env or {})}
        self.workers: list[Worker] = []
        self.write(tables, clusters)

    def write(self, tables: list[dict], clusters: list[dict] | None = None) -> None:
        """Writes the spec, or writes it anew."""
        self.clusters = clusters or getattr(self, "clusters", None) or [cluster()]
        self.tables = tables
        document = {
            "source_clusters": self.clusters,
            "destination_bucket_url": self.store.destination,
            "tables": tables,
        }
        self.spec.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))

    def table(self, name: str | None = None) -> Table:
        return Table(self.store, name or self.tables[0]["name"])

    def run(self, *arguments: str, code: int | None = 0, env=None, timeout: float = 60) -> Ended:
        """Any command; `code` is what it must exit with, None for anything."""
        done = subprocess.run(
            [self.binary, *arguments],
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            capture_output=True,
            timeout=timeout,
        )
        ended = Ended(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if code is not None:
            assert ended.code == code, (
                f"{arguments} ended with {ended.code}, not {code}:\n{ended.said[-4000:]}"
            )
        return ended

    def once(self, *arguments: str, code: int | None = 0, env=None, timeout: float = ONCE_SECONDS) -> Ended:
        return self.run(
            "run", "-f", str(self.spec), "--once", *arguments, code=code, env=env, timeout=timeout
        )

    def command(self, *words: str, code: int | None = 0) -> Ended:
        """A command on the spec: `command("files", "shop.orders", "--json")`."""
        return self.run(*words, "-f", str(self.spec), code=code)

    def json(self, *words: str):
        return self.command(*words, "--json").json()

    def worker(self, env=None, http: bool = True, arguments=()) -> Worker:
        one = Worker(self, env or {}, http, arguments)
        self.workers.append(one)
        return one

    def committed(self, name: str | None = None) -> dict[int, int]:
        """Partition -> next offset by the ledger of a table."""
        place = self.table(name)
        spec = next(spec for spec in self.tables if spec["name"] == place.name)
        return {
            partition: max(end for _, end in ranges)
            for (topic, partition), ranges in place.committed_ranges().items()
            if topic == spec["source_topic"]
        }

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


class Worker:
    """A worker in the background."""

    def __init__(self, engine: Siltstone, env: dict, http: bool, arguments):
        self.engine = engine
        self.port = _free_port() if http else None
        self.log = engine.folder / f"worker-{len(engine.workers)}.log"
        words = ["run", "-f", str(engine.spec), *arguments]
        if http:
            words += ["--http", f"127.0.0.1:{self.port}"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [engine.binary, *words],
                cwd=engine.folder,
                env={**engine.environment, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def metrics(self) -> str:
        return self.get("/metrics").text

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of a metric that carry these labels; 0 when there is none yet."""
        total = 0.0
        for line in self.metrics().splitlines():
            series = re.match(rf"{name}(?:{{(.*)}})? (\S+)", line)
            if series and all(f'{label}="{value}"' in (series[1] or "") for label, value in labels.items()):
                total += float(series[2])
        return total

    def ready(self, seconds: float = 30) -> Worker:
        def answers():
            try:
                return self.get("/readyz").status_code == 200
            except requests.ConnectionError:
                assert self.code is None, f"the worker ended with {self.code}:\n{self.said()[-4000:]}"
                return False

        wait(answers, seconds, f"the worker to be ready:\n{self.said()[-2000:]}")
        return self

    def signal(self, number: int) -> None:
        if self.code is None:
            os.kill(self.process.pid, number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; gives the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(seconds)


def wait(until, seconds: float, what: str, every: float = 0.1):
    """Waits until `until()` is true, and gives what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        got = until()
        if got:
            return got
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(every)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def build(features: tuple[str, ...] = ("failpoints",)) -> pathlib.Path:
    """The program under test: SILTSTONE_BIN, or what cargo builds now."""
    given = os.environ.get("SILTSTONE_BIN")
    if given:
        binary = pathlib.Path(given).resolve()
        assert binary.exists(), f"SILTSTONE_BIN does not exist: {binary}"
        return binary
    command = ["cargo", "build", "--locked", "-p", "siltstone-cli", "--message-format=json"]
    if features:
        command += ["--features", ",".join(features)]
    built = subprocess.run(command, cwd=lab.REPOSITORY, check=True, stdout=subprocess.PIPE)
    for line in built.stdout.decode().splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "siltstone":
            return pathlib.Path(message["executable"])
    raise AssertionError("cargo built no program named siltstone")
