"""The database dies under load, again and again: no acknowledged report is lost, and none is applied twice."""

import threading
import time

import control_plane
import pytest
import requests
from control_plane import API, Client, ControlPlane
from databases import Postgres

TABLES, CRASHES = 6, 3
IDENTITY = {"location": "s3://lake/tables/one", "spec_digest": "9f" * 32, "source_format": "avro"}
COLUMNS = [{"id": 1, "name": "id", "required": True, "type": "long"}]


def entry(table: str, version: int) -> dict:
    file = {"path": f"data/{table}-{version}.parquet", "bytes": 100, "rows": version, "schema_id": 0, "spec_id": 0}
    offsets = {"cluster": "lab", "topic": table, "partition": 0, "start": version, "end": version + 1}
    append = {"kind": "append", "files": [file | {"sort_order_id": 0}], "ranges": [offsets]}
    create = {"kind": "create", "name": table, "schema": {"type": "struct", "schema-id": 0, "fields": COLUMNS}}
    create |= {"partition_spec": {"spec-id": 0, "fields": []}, "sort_order": {"order-id": 0, "fields": []}}
    change = append if version else create | {"formats": ["iceberg"]}
    head = {"format": 1, "version": version, "table_uuid": f"uuid-{table}", "commit_id": f"{table}-{version}"}
    return head | {"committed_ms": 1_000 + version, "change": change}


class Stream(threading.Thread):
    """Reports a table's entries one by one, each until it is acknowledged."""

    def __init__(self, client: Client, table: str):
        super().__init__(daemon=True)
        self.client, self.table = client, table
        self.acknowledged, self.failures, self.wrong = -1, 0, None
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set():
            version = self.acknowledged + 1
            report = {"table": {"name": self.table, **IDENTITY}, "entries": [entry(self.table, version)]}
            headers = {"Authorization": f"Bearer {self.client.key}"}
            url = f"{self.client.url}/worker/v1/report"
            try:
                answer = requests.post(url, json=report, headers=headers, timeout=30)
            except requests.RequestException:
                self.failures += 1
                continue
            if answer.status_code == 200 and answer.json() == {"version": version}:
                self.acknowledged = version
            elif answer.status_code in (429, 503):
                self.failures += 1
                time.sleep(0.02)
            else:
                self.wrong = f"{version}: {answer.status_code} {answer.text}"
                return


@pytest.fixture
def server():
    one = Postgres()
    yield one
    one.stop()


def all_of(plane: ControlPlane, path: str) -> list[dict]:
    items, cursor = [], ""
    while cursor is not None:
        page = plane.admin("GET", f"{path}?limit=1000" + (f"&cursor={cursor}" if cursor else ""))
        items, cursor = items + page["items"], page["next_cursor"]
    return items


def test_no_acknowledged_report_is_lost_or_applied_twice(tmp_path, server):
    limits = "[limits]\nrequests_per_second = 100000\n"
    plane = ControlPlane(control_plane.build(), tmp_path, limits, server.url)
    plane.start()
    environment = plane.admin("POST", f"{API}/environments", {"name": "test"})["id"]
    clusters = f"{API}/environments/{environment}/clusters"
    cluster = plane.admin("POST", clusters, {"name": "main"})["id"]
    worker = plane.key("workers", ("worker", f"environment/{environment}/cluster/{cluster}"))
    streams = [Stream(worker, f"t{n}") for n in range(TABLES)]
    for stream in streams:
        stream.start()

    def progress(by: int) -> None:
        """Every table goes on."""
        wanted = [stream.acknowledged + by for stream in streams]
        fine = lambda: [stream.wrong for stream in streams] == [None] * TABLES  # noqa: E731
        control_plane.wait(
            lambda: not fine() or all(s.acknowledged >= w for s, w in zip(streams, wanted, strict=True)), 120, "reports"
        )
        assert fine(), [stream.wrong for stream in streams]

    progress(20)
    for _ in range(CRASHES):
        server.crash()
        progress(20)
    plane.kill()
    plane.start()
    progress(10)
    for stream in streams:
        stream.done.set()
    for stream in streams:
        stream.join(60)
    assert sum(stream.failures for stream in streams) > 0
    for stream in streams:
        path, last = f"{clusters}/{cluster}/tables/{stream.table}", stream.acknowledged
        table = plane.admin("GET", path)
        assert table["version"] == last
        commits = sorted(all_of(plane, f"{path}/commits"), key=lambda one: one["version"])
        assert [one["commit_id"] for one in commits] == [f"{stream.table}-{n}" for n in range(last + 1)]
        files = {one["path"]: one["rows"] for one in all_of(plane, f"{path}/files")}
        assert files == {f"data/{stream.table}-{n}.parquet": n for n in range(1, last + 1)}
        assert (table["rows"], table["files"], table["bytes"]) == (sum(files.values()), last, 100 * last)
        (offsets,) = all_of(plane, f"{path}/offsets")
        assert (offsets["min_offset"], offsets["max_offset"], offsets["lost_records"]) == (1, last + 1, 0)
    plane.run("audit", "verify")
    plane.stop()
