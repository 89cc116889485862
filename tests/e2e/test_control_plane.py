"""A worker and a control plane, both as their users run them: what is reported is there once, whatever dies meanwhile."""

import json
import time

import control_plane
import pytest
import readers
from control_plane import API, Client, ControlPlane, Worker
from databases import Postgres
from produce import Sent, create_topic, send
from siltstone import json_table, wait

COLUMNS = [{"name": "id", "type": "long"}, {"name": "note", "type": "string"}]
KEY = "CONTROL_PLANE_KEY"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    """The URL of a database of its own; empty: a file."""
    if request.param == "sqlite":
        yield ""
        return
    server = Postgres()
    yield server.url
    server.stop()


@pytest.fixture
def plane(tmp_path, database):
    one = ControlPlane(control_plane.build(), tmp_path, database=database)
    one.start()
    yield one
    one.stop()


class Cluster:
    """An environment with one cluster, and the key of its workers."""

    def __init__(self, plane: ControlPlane):
        self.plane = plane
        environment = plane.admin("POST", f"{API}/environments", {"name": "test"})["id"]
        self.path = f"{API}/environments/{environment}/clusters"
        cluster = plane.admin("POST", self.path, {"name": "main"})["id"]
        self.path = f"{self.path}/{cluster}"
        self.key = plane.key("workers", ("worker", f"environment/{environment}/cluster/{cluster}")).key

    def get(self, below: str):
        return self.plane.admin("GET", f"{self.path}/{below}")

    def all(self, below: str) -> list[dict]:
        items, cursor = [], ""
        while cursor is not None:
            page = self.get(f"{below}?limit=50" + (f"&cursor={cursor}" if cursor else ""))
            items, cursor = items + page["items"], page["next_cursor"]
        return items


def reporting(engine, name, topic, cluster, columns=COLUMNS, **changes):
    run = engine([json_table(name, topic, columns, **changes)], env={KEY: cluster.key})
    spec = {"url": cluster.plane.url, "api_key": f"${{{KEY}}}"}
    run.spec.write_text(run.spec.read_text() + f"control_plane: {json.dumps(spec)}\n")
    return run


def row(n: int) -> Sent:
    return Sent(json.dumps({"id": n, "note": f"note {n}"}).encode(), partition=n % 2)


def test_what_was_committed_is_there_once_though_the_server_was_killed(engine, name, plane):
    topic, cluster = create_topic(partitions=2), Cluster(plane)
    run = reporting(engine, name, topic, cluster, freshness={"max_age": "1s"})
    send(topic, [row(n) for n in range(100)])
    worker = run.worker()
    wait(lambda: run.table().exists() and cluster.all("tables"), 60, "the table to be known")
    plane.kill()
    for batch in range(3):
        before = 100 * (batch + 1)
        send(topic, [row(n) for n in range(before, before + 100)])
        wait(lambda count=before + 100: readers.count(run.table()) == count, 60, "rows while the server is dead")
    plane.start()
    last = run.table().ledger()[-1]["version"]
    wait(lambda: cluster.get(f"tables/{name}")["version"] == last, 90, "the reports to catch up", every=1)
    assert worker.stop() == 0
    ledger = sorted(run.table().ledger(), key=lambda entry: entry["version"])
    commits = sorted(cluster.all(f"tables/{name}/commits"), key=lambda commit: commit["version"])
    assert [one["commit_id"] for one in commits] == [entry["commit_id"] for entry in ledger]
    table = cluster.get(f"tables/{name}")
    files = {one["path"]: one["rows"] for one in cluster.all(f"tables/{name}/files")}
    assert (table["rows"], table["files"]) == (400, len(files)) == (sum(files.values()), table["files"])
    assert set(files) == {one["path"] for one in run.json("files", name)}
    assert [column["name"] for column in table["schema"]["fields"]] == ["id", "note"]
    offsets = {one["partition"]: one["max_offset"] for one in cluster.all(f"tables/{name}/offsets")}
    assert offsets == run.committed()
    # As the command line shows it.
    reader = {"SILTSTONE_CONTROL_PLANE_KEY": plane.admin.key, "XDG_CONFIG_HOME": str(plane.home)}
    run.run("login", "--url", plane.url, env=reader)
    shown = [one for one in run.run("tables", "--json", env=reader).json() if one["name"] == name]
    assert [(one["rows"], one["files"], one["version"]) for one in shown] == [(400, len(files), last)]
    assert name in run.run("status", "--remote", env=reader).out
    # What was never opted in is not there.
    stored = b"".join(part.read_bytes() for part in plane.home.glob("control-plane.db*"))
    assert b"note 7" not in stored and b".parquet" not in stored
    plane.run("audit", "verify")


def test_a_restored_control_plane_catches_up_with_live_tables(engine, name, plane, database):
    topic, cluster = create_topic(partitions=2), Cluster(plane)
    run = reporting(engine, name, topic, cluster, freshness={"max_age": "1s"})
    send(topic, [row(n) for n in range(50)])
    worker = run.worker()
    wait(lambda: run.table().exists() and cluster.all("tables"), 60, "the table to be known")
    backups = plane.home / "backups"
    made = plane.run("backup", "--to", str(backups)).strip()
    early = int(time.time() * 1000)
    for batch in range(1, 4):
        send(topic, [row(n) for n in range(50 * batch, 50 * batch + 50)])
        wait(lambda count=50 * batch + 50: readers.count(run.table()) == count, 60, "rows")
    last = run.table().ledger()[-1]["version"]
    wait(lambda: cluster.get(f"tables/{name}")["version"] == last, 90, "the reports to come", every=1)
    plane.run("backup", "--to", str(backups))
    plane.stop()
    # Into a file, whatever the backup comes from.
    plane.use(plane.file("restored.db"))
    said = plane.run("restore", "--from", str(backups), "--at", str(early))
    assert made in said and "hold" in said
    plane.start()
    assert cluster.get(f"tables/{name}")["version"] <= last
    send(topic, [row(n) for n in range(200, 250)])
    wait(lambda: readers.count(run.table()) == 250, 60, "rows after the restore")
    last = run.table().ledger()[-1]["version"]
    wait(lambda: cluster.get(f"tables/{name}")["version"] == last, 90, "the reports to catch up", every=1)
    assert worker.stop() == 0
    table = cluster.get(f"tables/{name}")
    files = {one["path"] for one in cluster.all(f"tables/{name}/files")}
    assert (table["rows"], files) == (250, {one["path"] for one in run.json("files", name)})
    assert {one["partition"]: one["max_offset"] for one in cluster.all(f"tables/{name}/offsets")} == run.committed()
    assert "restore" in {entry["action"] for entry in plane.admin("GET", f"{API}/audit?limit=1000")["items"]}
    plane.run("audit", "verify")


def test_commands_reach_a_worker_and_come_back_with_an_outcome(engine, name, plane):
    topic, cluster = create_topic(partitions=1), Cluster(plane)
    run = reporting(engine, name, topic, cluster, freshness={"max_age": "1s"})
    send(topic, [Sent(json.dumps({"id": n, "note": ""}).encode(), partition=0) for n in range(10)])
    worker = run.worker()
    wait(lambda: cluster.all("tables"), 60, "the table to be known")

    def outcome(action: str):
        made = plane.admin("POST", f"{cluster.path}/tables/{name}/commands", {"action": action})

        def outcomes():
            (found,) = [one for one in cluster.all("commands") if one["id"] == made["id"]]
            return [one["outcome"] for one in found["outcomes"]]

        wait(outcomes, 60, f"the outcome of {action}")
        assert outcomes() == ["done"]

    outcome("pause")
    send(topic, [Sent(json.dumps({"id": 10, "note": ""}).encode(), partition=0)])
    outcome("compact")
    assert readers.count(run.table()) == 10
    outcome("resume")
    wait(lambda: readers.count(run.table()) == 11, 60, "the row that waited")
    (seen,) = cluster.get("workers")["items"]
    assert seen["vcpus"] >= 1 and seen["tables"] == 1
    assert worker.stop() == 0


def test_a_day_of_commits_after_the_fact(plane):
    """A commit a second, told in one go."""
    cluster, day = Cluster(plane), 86_400
    worker = Worker(Client(plane.url, cluster.key))
    fields = [{"id": 1, "name": "id", "required": True, "type": "long"}]
    worker.table("shop.day", fields, appends=day, rows=10)
    table = cluster.get("tables/shop.day")
    assert (table["version"], table["rows"], table["files"]) == (day, 10 * day, day)
    newest = cluster.get("tables/shop.day/commits?limit=1000")
    versions = [one["version"] for one in newest["items"]]
    assert versions == list(range(day, day - 1000, -1))
    (offsets,) = cluster.all("tables/shop.day/offsets")
    assert offsets["max_offset"] in (10 * day, 10 * day - 1)
