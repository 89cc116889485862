"""Reporting to a control plane: what arrives, that it never holds ingestion up, and what commands do."""

import json
import pathlib
import ssl
import subprocess
import time

import pytest
import readers
from plane import Plane
from produce import Sent, create_topic, send
from siltstone import json_table, wait

LOGIN = {"SILTSTONE_CONTROL_PLANE_KEY": "the-key-of-a-reader"}
KEY = {"PLANE_KEY": "key-of-the-test"}
COLUMNS = [
    {"name": "id", "type": "long"},
    {"name": "region", "type": "string"},
    {"name": "note", "type": "string"},
]


@pytest.fixture
def plane():
    made = []

    def make(*arguments, **more):
        made.append(Plane(*arguments, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def row(n: int) -> Sent:
    value = {"id": n, "region": f"r{n % 3}", "note": f"note {n}"}
    return Sent(json.dumps(value).encode(), partition=n % 2)


def reporting(engine, name, topic, one, **changes):
    run = engine([json_table(name, topic, COLUMNS, **changes)], env=KEY)
    text = run.spec.read_text()
    run.spec.write_text(text + f"control_plane: {json.dumps(one.spec)}\n")
    return run


def ledger(run, name=None):
    table = run.table(name)
    return [entry for _, entry in sorted((entry["version"], entry) for entry in table.ledger())]


def test_what_is_reported_is_the_ledger(engine, name, plane):
    topic = create_topic(partitions=2)
    send(topic, [row(n) for n in range(100)] + [Sent(b"{")])
    one = plane()
    opted = {"bounds": ["id", "note"], "partition_values": True}
    run = reporting(engine, name, topic, one, partition_by=["region"], disclose=opted)
    record = run.folder / "sent.txt"
    worker = run.worker(arguments=["--record", str(record)])
    wait(lambda: run.table().exists() and readers.count(run.table()) == 100, 60, "the rows")
    send(topic, [row(n) for n in range(100, 110)])
    wait(lambda: readers.count(run.table()) == 110, 30, "more rows")
    dead = f"{name}__dead_letters"
    wait(lambda: len(one.entries.get(name, [])) == len(ledger(run)), 30, "the reports")
    wait(lambda: len(one.entries.get(dead, [])) == len(ledger(run, dead)), 30, "the reports of dead letters")
    wait(lambda: one.health, 30, "the health")
    assert worker.stop() == 0
    assert one.entries[name] == ledger(run)
    assert one.entries[dead] == ledger(run, dead)
    assert all(headers["authorization"] == "Bearer key-of-the-test" for _, headers, _ in one.sent)
    reported = [json.loads(body)["table"] for path, _, body in one.sent if "report" in path]
    lake = f"file://{run.store.path}"
    assert {table["name"]: table["location"] for table in reported} == {
        each: f"{lake}/{each.replace('.', '/')}" for each in (name, dead)
    }
    # What is opted in, of the files of the table and not of its dead letters.
    bounds = [bound for file in one.statistics[name] for bound in file["bounds"]]
    assert {bound["column"] for bound in bounds} == {"id", "note"}
    ids = [bound for bound in bounds if bound["column"] == "id"]
    assert min(bound["least"]["long"] for bound in ids) == 0
    assert max(bound["greatest"]["long"] for bound in ids) == 109
    regions = {value["value"]["string"] for file in one.statistics[name] for value in file["partition"]}
    assert regions == {"r0", "r1", "r2"}
    assert not one.statistics.get(dead)
    # The recording is what was sent, without the key.
    text = record.read_text()
    assert "key-of-the-test" not in text + worker.said()
    assert text.count("POST /worker/v1/report") == sum("report" in path for path, _, _ in one.sent)
    decoder, recorded = json.JSONDecoder(), []
    for part in text.split("\n# "):
        start = part.index("\n\n") + 2
        recorded.append(decoder.raw_decode(part[start:])[0])
    sent = [json.loads(body) for _, _, body in one.sent]
    def texts(messages):
        return sorted(json.dumps(message, sort_keys=True) for message in messages)

    assert texts(recorded) == texts(sent)
    assert record.stat().st_mode & 0o777 == 0o600
    assert {"/worker/v1/presence", "/worker/v1/health", "/worker/v1/commands/poll"} <= one.paths()
    health = {table["table"]: table for table in one.health[-1]["tables"]}
    assert (health[name]["state"], health[name]["partitions"]) == ("running", 2)


def test_a_bounded_run_reports_before_it_ends(engine, name, plane):
    topic = create_topic()
    send(topic, [Sent(row(n).value) for n in range(10)])
    one = plane()
    run = reporting(engine, name, topic, one)
    run.once()
    assert one.entries[name] == ledger(run)
    assert "/worker/v1/commands/poll" not in one.paths()
    # What was missed in an outage is made up for by whoever comes next.
    port = one.port
    one.close()
    send(topic, [Sent(row(n).value) for n in range(10)])
    run.once()
    again = plane(port=port)
    again.entries = one.entries
    run.once()
    assert again.entries[name] == ledger(run)


def test_without_a_control_plane_nothing_is_sent(engine, name, plane):
    topic = create_topic()
    send(topic, [Sent(row(n).value) for n in range(10)])
    one = plane()
    run = engine([json_table(name, topic, COLUMNS)], env=KEY)
    run.once()
    assert readers.count(run.table()) == 10 and not one.sent


@pytest.mark.parametrize(
    "manner", ["down", "hang", "garbage", "wrong", "future", "redirect", "huge", 401, 500]
)
def test_ingestion_goes_on_whatever_the_control_plane_does(engine, name, plane, manner):
    topic = create_topic(partitions=2)
    one = plane("truthful" if manner == "down" else manner)
    if manner == "down":
        one.close()
    run = reporting(engine, name, topic, one)
    worker = run.worker()
    for part in range(4):
        send(topic, [row(n) for n in range(part * 50, part * 50 + 50)])
        wait(lambda: run.table().exists() and readers.count(run.table()) == part * 50 + 50, 60, "the rows")
    assert worker.get("/readyz").status_code == 200
    assert worker.stop() == 0
    assert sorted(readers.ICEBERG["PyIceberg"](run.table())["id"].to_pylist()) == list(range(200))
    if manner != "down":
        assert one.sent and not any("elsewhere" in path for path in one.paths())
    assert len(one.sent) < 400


def test_commands(engine, name, plane):
    topic = create_topic(partitions=2)
    send(topic, [row(n) for n in range(10)])
    one = plane()
    run = reporting(engine, name, topic, one, freshness={"max_age": "60s"})
    worker = run.worker()
    wait(lambda: one.polls > 0, 60, "a poll")
    wait(lambda: worker.metric("siltstone_records_consumed_total") == 10, 60, "the records")

    def done(number, action, table=None):
        command = one.order(number, action, table)
        wait(lambda: command in one.outcomes, 60, action)
        return one.outcomes[command]["result"]

    # What is read is committed first, long before its time; then nothing is read.
    assert done(1, "pause", name) == "done"
    wait(lambda: run.table().exists() and readers.count(run.table()) == 10, 30, "the rows before the pause")
    wait(lambda: worker.metric("siltstone_table_paused") == 1, 30, "the pause")
    send(topic, [row(n) for n in range(10, 20)])
    # Long enough for many polls.
    time.sleep(1)
    assert worker.metric("siltstone_records_consumed_total") == 10
    assert done(2, "compact", name) == "done"
    assert done(3, "expire", name) == "done"
    assert done(4, "rotate") == "done"
    assert done(5, "pause", "no.such") == "unknown_table"
    assert worker.metric("siltstone_records_consumed_total") == 10
    assert done(6, "resume", name) == "done"
    wait(lambda: worker.metric("siltstone_records_consumed_total") == 20, 60, "the records after")
    assert worker.stop() == 0
    assert readers.count(run.table()) == 20


def test_the_key_is_rotated_where_it_lies(engine, name, plane):
    topic = create_topic()
    one = plane()
    run = reporting(engine, name, topic, one)
    key = run.folder / "key.txt"
    key.write_text("the-first-key\n")
    run.spec.write_text(run.spec.read_text().replace("${PLANE_KEY}", "${file:key.txt}"))
    worker = run.worker()
    wait(lambda: one.polls > 0, 60, "a poll")
    key.write_text("the-second-key\n")
    command = one.order(1, "rotate")
    wait(lambda: command in one.outcomes, 60, "the rotation")
    assert one.outcomes[command] == {"result": "done"}
    keys = [headers["authorization"] for path, headers, _ in one.sent]
    assert keys[0] == "Bearer the-first-key" and keys[-1] == "Bearer the-second-key"
    key.unlink()
    command = one.order(2, "rotate")
    wait(lambda: command in one.outcomes, 60, "the refusal")
    assert one.outcomes[command] == {"result": "failed", "error": "invalid"}
    assert worker.stop() == 0
    assert "the-first-key" not in worker.said() and "the-second-key" not in worker.said()
    assert one.sent[-1][1]["authorization"] == "Bearer the-second-key"


def test_a_pause_outlives_partitions_that_move(engine, name, plane):
    topic = create_topic(partitions=2)
    one = plane()
    run = reporting(engine, name, topic, one)
    workers = [run.worker(), run.worker()]
    owned = "siltstone_lag_records"
    wait(lambda: all(owned in worker.ready().metrics() for worker in workers), 60, "a partition for each")
    command = one.order(1, "pause", name)
    wait(lambda: sum(told == command for _, told in one.told) == 2, 60, "both to be told")
    wait(lambda: all(worker.metric("siltstone_table_paused") == 1 for worker in workers), 30, "the pause")
    send(topic, [row(n) for n in range(20)])
    workers.pop().kill()
    left = workers.pop()
    wait(lambda: left.metrics().count("\nsiltstone_lag_records{") == 2, 60, "both partitions")
    wait(lambda: left.metric("siltstone_lag_records") == 20, 60, "the lag")
    assert left.metric("siltstone_records_consumed_total") == 0
    wait(lambda: one.health[-1]["tables"][0]["state"] == "paused", 60, "the health")
    one.order(2, "resume", name)
    wait(lambda: readers.count(run.table()) == 20, 60, "the rows")
    assert left.stop() == 0


def test_commands_that_the_spec_forbids(engine, name, plane):
    topic = create_topic()
    one = plane()
    run = reporting(engine, name, topic, one)
    run.spec.write_text(run.spec.read_text().replace('"api_key"', '"commands": false, "api_key"'))
    worker = run.worker()
    command = one.order(1, "pause", name)
    wait(lambda: command in one.outcomes, 60, "the refusal")
    assert one.outcomes[command] == {"result": "not_allowed"}
    assert worker.metric("siltstone_table_paused") == 0
    assert worker.stop() == 0


def test_tls(engine, name, plane, tmp_path):
    """Only to who has the authority's certificate, and not by versions of TLS that are broken."""
    paths = {what: str(tmp_path / f"{what}.pem") for what in ("ca", "key")}
    subject = ["-subj", "/CN=control", "-addext", "subjectAltName=IP:127.0.0.1"]
    subject += ["-addext", "basicConstraints=critical,CA:FALSE"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(
        [*made, "-keyout", paths["key"], "-out", paths["ca"], *subject], check=True, capture_output=True
    )

    def server(**limits):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(paths["ca"], paths["key"])
        for limit, value in limits.items():
            setattr(context, limit, value)
        return plane(tls=context)

    old = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
    two = {"maximum_version": ssl.TLSVersion.TLSv1_2}
    for number, (one, authority, arrives) in enumerate(
        [(server(), True, True), (server(**two), True, True), (server(), False, False), (server(**old), True, False)]
    ):
        topic = create_topic()
        send(topic, [Sent(row(n).value) for n in range(5)])
        run = engine([json_table(f"{name}_{number}", topic, COLUMNS)], env=KEY)
        spec = {**one.spec, **({"ca_file": paths["ca"]} if authority else {})}
        run.spec.write_text(run.spec.read_text() + f"control_plane: {json.dumps(spec)}\n")
        run.once()
        assert readers.count(run.table()) == 5
        assert bool(one.entries) is arrives and bool(one.sent) is arrives, number


def test_disclosures(engine, name, plane):
    one = plane()
    run = reporting(engine, name, "some-topic", one, disclose={"bounds": ["id"]}, partition_by=["region"])
    told = run.command("disclosures").out
    assert one.url in told and "some-topic" in told and f"{name}: least and greatest value" in told
    assert "partition_token" in told and "partition[]" not in told
    listed = run.json("disclosures")
    assert listed["opted_in"] == [{"table": name, "bounds": ["id"], "partition_values": False}]
    fields = {(field["message"], field["path"]): field for field in listed["fields"]}
    assert fields["report", "table.name"]["example"] == name
    assert fields["presence", "zone"]["kept"] == "memory"
    crossing = {path for (_, path), field in fields.items() if field["can_cross"]}
    assert any("bounds" in path for path in crossing) and not any(".partition[]" in path for path in crossing)
    assert not one.sent


def test_the_command_line_reads_what_the_control_plane_knows(engine, name, plane, tmp_path):
    one = plane()
    run = engine([json_table(name, "t", COLUMNS)], env={"XDG_CONFIG_HOME": str(tmp_path / "settings")})
    state = {"name": name, "version": 7, "rows": 1000, "files": 3, "bytes": 4096, "state": "paused", "new": {"x": 1}}
    clusters = "/api/v1/environments/01E/clusters"
    one.lists = {
        "/api/v1/session": {"principal": "someone"},
        "/api/v1/environments": {"items": [{"id": "01E", "name": "prod", "region": "eu"}], "next_cursor": None},
        clusters: {"items": [{"id": "01C", "name": "blue"}]},
        f"{clusters}/01C/tables": {"items": [state], "next_cursor": "a b/&"},
        f"{clusters}/01C/tables?cursor=a+b%2F%26": {"items": [{"name": "other.t"}], "next_cursor": None},
    }
    assert "not logged in" in run.run("tables", code=2).err
    assert "https" in run.run("login", "--url", "http://control.internal", env=LOGIN, code=2).err
    told = run.run("login", "--url", one.url, env=LOGIN).said
    kept = pathlib.Path(run.environment["XDG_CONFIG_HOME"]) / "siltstone" / "control-plane.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text()) == {"url": one.url, "api_key": "the-key-of-a-reader"}
    listed = run.run("tables", "--json").json()
    assert [(table["name"], table["cluster"], table["rows"]) for table in listed] == [
        (name, "blue", 1000),
        ("other.t", "blue", None),
    ]
    told += run.run("tables", "--environment", "prod").said
    assert run.run("tables", "--environment", "dev", "--json").json() == []
    shown = run.run("status", "--remote", name).out
    assert "paused" in shown and "other.t" not in shown
    assert "shows no table nobody" in run.run("status", "--remote", "nobody", code=2).err
    one.lists.clear()
    assert "404" in run.run("tables", code=1).err
    assert "the-key-of-a-reader" not in told + shown
    assert {key for _, key in one.read} == {"Bearer the-key-of-a-reader"} and not one.sent
