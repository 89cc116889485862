"""A control plane as its users run it: one config file, `init`, `serve`; filled over the API, as workers fill it."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import re
import secrets
import socket
import subprocess
import time

import requests

import lab
from siltstone import wait

PROGRAM = "siltstone-control-plane"
KEY = re.compile(r"sst_[0-9A-Z]{26}_[\w-]{43}")
API = "/api/v1"
# Of a report.
ENTRIES_MAX = 1_000


def build() -> pathlib.Path:
    """The program under test: SILTSTONE_CONTROL_PLANE_BIN, or what cargo builds now."""
    given = os.environ.get("SILTSTONE_CONTROL_PLANE_BIN")
    if given:
        binary = pathlib.Path(given).resolve()
        assert binary.exists(), f"SILTSTONE_CONTROL_PLANE_BIN does not exist: {binary}"
        return binary
    command = ["cargo", "build", "--locked", "-p", PROGRAM, "--message-format=json"]
    built = subprocess.run(command, cwd=lab.REPOSITORY, check=True, stdout=subprocess.PIPE)
    for line in built.stdout.decode().splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == PROGRAM:
            return pathlib.Path(message["executable"])
    raise AssertionError(f"cargo built no program named {PROGRAM}")


class Client:
    """The API with one key."""

    def __init__(self, url: str, key: str):
        self.url, self.key = url, key

    def __call__(self, method: str, path: str, body=None):
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=30)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None


class ControlPlane:
    """A running control plane on the loopback interface, with a database of its own: a file, or where `database` says."""

    def __init__(self, binary: pathlib.Path, home: pathlib.Path, more: str = "", database: str = ""):
        """`more`: what the config says besides."""
        self.binary, self.home = binary, home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.config = home / "control-plane.toml"
        (home / "master.key").write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        self.config.write_text(
            f'listen = "127.0.0.1:{port}"\n\n[database]\nurl = "{database or self.file("control-plane.db")}"\n\n'
            f'[master_key]\nkey = "file:{home}/master.key"\n{more}'
        )
        self.admin = Client(self.url, KEY.search(self.run("init"))[0])
        self.process = None

    def file(self, name: str) -> str:
        """The URL of a database in a file."""
        return f"sqlite://{self.home}/{name}"

    def use(self, database: str) -> None:
        """From its next start on, another database."""
        config = self.config.read_text()
        self.config.write_text(re.sub(r'(?m)^url = ".*"$', f'url = "{database}"', config))

    def run(self, *command: str) -> str:
        """Runs a command of the program to its end; what it says."""
        arguments = [self.binary, *command, "--config", self.config]
        made = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        return made.stdout

    def start(self, **env: str) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", self.config],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | env,
            )
        wait(self.is_up, 30, "the control plane to answer")

    def is_up(self) -> bool:
        assert self.process.poll() is None, (self.home / "log").read_text()
        try:
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        self.process = None

    def key(self, name: str, *grants: tuple[str, str]) -> Client:
        """A key of a service account of its own, which has these roles on these resources."""
        account = self.admin("POST", f"{API}/service-accounts", {"name": name})["id"]
        for role, resource in grants:
            binding = {"service_account": account, "role": role, "resource": resource}
            self.admin("POST", f"{API}/role-bindings", binding)
        made = self.admin("POST", f"{API}/api-keys", {"service_account": account, "label": f"{name} key"})
        return Client(self.url, made["key"])


class Worker:
    """What a worker says, message by message."""

    def __init__(self, client: Client):
        self.client = client
        self.id = f"0192f0c4-7a1b-7c3d-9e4f-{secrets.token_hex(6)}"

    def say(self, message: str, **fields):
        return self.client("POST", f"/worker/v1/{message}", fields)

    def table(self, name: str, fields: list[dict], appends: int = 1, rows: int = 1_000) -> None:
        """Reports a table: its creation and appends, a second apart, each of one file and one range of offsets."""
        uuid = f"0192f0c4-0000-7c3d-9e4f-{secrets.token_hex(6)}"
        began = int(time.time() * 1000) - appends * 1000

        def entry(version: int, change: dict) -> dict:
            entry = {"format": 1, "version": version, "table_uuid": uuid, "commit_id": secrets.token_hex(16)}
            return {**entry, "committed_ms": began + version * 1000, "change": change}

        create = {
            "kind": "create",
            "name": name,
            "schema": {"type": "struct", "schema-id": 0, "fields": fields},
            "partition_spec": {"spec-id": 0, "fields": []},
            "sort_order": {"order-id": 0, "fields": []},
            "formats": ["iceberg", "delta"],
        }
        entries = [entry(0, create)]
        for at in range(appends):
            file = {"path": f"data/{at:05}-{secrets.token_hex(8)}.parquet", "bytes": rows * 100, "rows": rows}
            file |= {"schema_id": 0, "spec_id": 0, "sort_order_id": 0}
            offsets = {"cluster": "lab", "topic": "orders", "partition": 0}
            offsets |= {"start": at * rows, "end": (at + 1) * rows}
            entries.append(entry(at + 1, {"kind": "append", "files": [file], "ranges": [offsets]}))
        identity = {"name": name, "location": "s3://lake/tables/one", "spec_digest": "9f" * 32, "source_format": "avro"}
        for first in range(0, len(entries), ENTRIES_MAX):
            answer = self.say("report", table=identity, entries=entries[first : first + ENTRIES_MAX])
        assert answer["version"] == appends, answer

    def healths(self, **tables: dict) -> None:
        """How tables fare, by name."""
        of = [{"table": name, "partitions": 1, **fields} for name, fields in tables.items()]
        self.say("health", worker_id=self.id, at_ms=int(time.time() * 1000), tables=of)

    def present(self, tables: int) -> None:
        self.say(
            "presence",
            worker_id=self.id,
            program_version="0.1.0",
            started_ms=int(time.time() * 1000) - 3_600_000,
            vcpus=4,
            utilisation_percent=37,
            memory_bytes=812_345_678,
            private_address="10.0.3.10",
            zone="eu-west-1a",
            tables=tables,
        )
        events = [{"code": "committed", "table": "shop.orders", "count": 18_234}]
        events += [{"code": "store_retried", "error": "unavailable", "count": 3}]
        self.say("events", worker_id=self.id, events=events)
        functions = [{"function": "siltstone_ingest::avro::decode", "samples": 312}]
        self.say("profile", worker_id=self.id, duration_ms=10_000, functions=functions)
