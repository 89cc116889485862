"""The command line: what each command prints, for people and as JSON, and how it ends."""

import json
import pathlib
import signal

import pytest

import files
import orders
import readers
from produce import Sent, create_topic, group_members, send
from siltstone import cluster, json_table, wait


def test_version_and_help(engine):
    run = engine([orders.orders_table("e2e.x", "x")])
    assert run.run("--version").out.startswith("siltstone ")
    told = run.run("--help").out
    for command in (
        "quickstart",
        "spec",
        "plan",
        "apply",
        "run",
        "status",
        "files",
        "snapshots",
        "ledger",
        "query",
    ):
        assert command in told
    assert run.run("no-such-command", code=2).out == ""


# Faults in the lines 8, 9, 10, 12 and 20. Names are resolved in tables that have no other fault.
FAULTY = """\
source_clusters:
  - name: lab
    bootstrap_brokers: [127.0.0.1:9092]
destination_bucket_url: file:///tmp/lake
tables:
  - name: shop.orders
    source_cluster_name: lab
    source_topc: orders
    source_format: jsn
    freshness: {max_age: soon}
  - name: shop.returns
    source_cluster_name: elsewhere
    source_topic: returns
    source_format: json
    input_schema: {fields: [{name: id, type: double}]}
  - name: shop.refunds
    source_cluster_name: lab
    source_topic: refunds
    source_format: json
    sort_by: [nowhere]
    input_schema: {fields: [{name: id, type: double}]}
"""


def test_spec_check_tells_every_fault_with_its_line(engine, name):
    run = engine([orders.orders_table(name, "topic")])
    assert name in run.command("spec", "check").out
    assert run.json("spec", "check") == {"valid": True, "tables": [name], "faults": []}

    run.spec.write_text(FAULTY)
    ended = run.command("spec", "check", code=2)
    assert ended.out == ""
    faults = {8: "source_topic", 9: "json", 10: "max_age", 12: "lab", 20: "nowhere"}
    for line, word in faults.items():
        assert any(f":{line}:" in told and word in told for told in ended.err.splitlines()), (
            line,
            word,
            ended.err,
        )
    found = run.command("spec", "check", "--json", code=2).json()
    assert not found["valid"] and {fault["line"] for fault in found["faults"]} >= set(faults)
    assert {fault["code"] for fault in found["faults"]} == {"spec_invalid"}
    run.once(code=2)
    run.spec.unlink()
    assert str(run.spec.name) in run.command("spec", "check", code=2).err


def test_every_error_has_a_code_and_every_code_a_page(engine, name):
    """On the standard error, in JSON and in log lines; `explain` has the page of each."""
    topic = create_topic()
    send(topic, [Sent(b'{"id": "text"}')])
    table = json_table(name, topic, [{"name": "id", "type": "long"}], dlq_mode="stop")
    run = engine([table])
    codes = {
        "table_not_found": run.command("files", code=1),
        "unknown_table": run.command("files", "nowhere", code=2),
        "command_refused": run.command("vacuum", "--older-than", "soon", code=2),
        "record_rejected": run.once("--log-format", "json", code=1),
    }
    run.write([{**table, "source_topic": f"{topic}.gone"}])
    codes["topic_not_found"] = run.once(code=2)
    run.write([table], [cluster(bootstrap_brokers=["127.0.0.1:9"])])
    codes["kafka_unreachable"] = run.once(code=1)
    for code, ended in codes.items():
        assert f"\nerror[{code}]: " in f"\n{ended.err}", (code, ended.said)
        assert "siltstone explain" not in ended.err, "hints are for terminals"
        page = run.run("explain", f"error[{code}]:").out
        assert page.startswith(f"# {code}\n") and page == run.run("explain", code).out
        assert page.count("\n## ") == 5
    stopped = [json.loads(line) for line in codes["record_rejected"].err.splitlines() if line.startswith("{")]
    assert any(
        line.get("message") == "table stopped" and line.get("code") == "record_rejected" for line in stopped
    ), stopped
    listed = run.run("explain").out
    assert all(f"\n  {code} " in listed for code in [*codes, "wrong_type", "lost_range", "internal_error"])
    assert "error[command_refused]: " in run.run("explain", "no_such_code", code=2).err


def test_spec_schema_is_json_schema(engine):
    schema = json.loads(engine([orders.orders_table("e2e.x", "x")]).run("spec", "schema").out)
    assert "json-schema.org" in schema["$schema"]
    assert {"source_clusters", "destination_bucket_url", "tables"} <= set(schema["properties"])


def test_plan_then_apply(engine, name):
    topic = create_topic()
    run = engine([orders.orders_table(name, topic)])
    assert name in run.command("plan").out
    run.command("plan", "--exit-code", code=3)
    assert not run.table().exists(), "plan changes nothing"
    run.command("apply")
    assert readers.count(run.table()) == 0
    assert [field["name"] for field in run.table().fields()] == [
        "id",
        "customer_id",
        "region",
        "ordered_at",
        "amount",
        "note",
    ]
    readers.check(run.table(), [])
    run.command("plan", "--exit-code", code=0)
    run.command("apply")
    assert len(run.table().ledger()) == 1, "applying again changes nothing"

    changed = orders.orders_table(name, topic, partition_by=["day(ordered_at)"], sort_by=["id"])
    changed["input_schema"]["fields"] = [
        *changed["input_schema"]["fields"],
        {"name": "added", "type": "string"},
    ]
    run.write([changed])
    told = run.command("plan", "--exit-code", code=3).out
    for word in ("added", "ordered_at", "id"):
        assert word in told
    assert run.json("plan")
    run.command("apply")
    run.command("plan", "--exit-code", code=0)
    send(topic, orders.records(0, 10))
    run.once()
    readers.check(run.table(), [{**row, "added": None} for row in orders.rows(0, 10)])


def test_changes_that_lose_data_are_refused(engine, name):
    topic = orders.topic_of(10)
    run = engine([orders.orders_table(name, topic)])
    run.once()
    narrowed = orders.orders_table(name, topic)
    narrowed["input_schema"]["fields"] = [
        {**column, "type": "int"} if column["name"] == "customer_id" else column
        for column in narrowed["input_schema"]["fields"]
    ]
    run.write([narrowed])
    ended = run.command("apply", code=2)
    assert "customer_id" in ended.said and name in ended.said
    run.command("plan", code=2)
    run.write([orders.orders_table(name, topic)])
    run.once()
    readers.check(run.table(), orders.rows(0, 10), readers.ICEBERG)


def _refused(run, *words: str) -> None:
    """`plan` and `apply` refuse, saying these words and a way out; the ledger is as before."""
    before = run.table().ledger() if run.table().exists() else None
    for command in ("plan", "apply"):
        ended = run.command(command, code=2)
        for word in ("refused", "way out", *words):
            assert word in ended.out, f"{command} does not say {word}:\n{ended.said}"
    assert (run.table().ledger() if run.table().exists() else None) == before


def test_changes_that_delta_cannot_show_are_refused(engine, name):
    """Before the ledger takes them: otherwise the Delta table would stand still for good."""
    topic = create_topic()
    columns = [{"name": "id", "type": "int"}, {"name": "lane", "type": "int"}, {"name": "word", "type": "string"}]
    data = [{"id": n, "lane": n % 3, "word": "" if n % 2 else None} for n in range(12)]
    send(topic, [Sent(json.dumps(row).encode()) for row in data])
    spec = json_table(name, topic, columns, partition_by=["lane", "word"])
    run = engine([{**spec, "input_schema": {"fields": [*columns, {"name": "opens", "type": "time"}]}}])
    _refused(run, "opens", "time of day")
    run.write([spec])
    run.command("apply")
    run.once()
    wider = [{**columns[0], "type": "long"}, *columns[1:]]
    run.write([{**spec, "input_schema": {"fields": wider}}])
    _refused(run, "column id", "changed its type")
    run.write([{**spec, "partition_by": ["word"]}])
    _refused(run, "column lane", "partition column")
    # Strings are no partition columns in Delta: they may come and go.
    run.write([{**spec, "partition_by": ["lane", "bucket(2, id)"]}])
    run.command("apply")
    send(topic, [Sent(json.dumps({**row, "id": row["id"] + 100}).encode()) for row in data])
    run.once()
    readers.check(run.table(), [*data, *({**row, "id": row["id"] + 100} for row in data)], readers.ALL)


def test_delta_is_added_to_a_table_that_it_can_show(engine, name):
    topic = create_topic()
    columns = [{"name": "id", "type": "int"}, {"name": "lane", "type": "int"}]
    data = [{"id": n, "lane": n % 3} for n in range(12)]
    send(topic, [Sent(json.dumps(row).encode()) for row in data])
    spec = json_table(name, topic, columns, formats=["iceberg"])
    run = engine([spec])
    run.once()
    run.write([{**spec, "partition_by": ["lane"], "formats": ["iceberg", "delta"]}])
    run.command("apply")
    more = [{"id": n, "lane": n % 3} for n in range(12, 20)]
    send(topic, [Sent(json.dumps(row).encode()) for row in more])
    run.once()
    readers.check(run.table(), [*data, *more], readers.ALL)


def test_delta_is_not_added_over_widened_columns(engine, name):
    topic = create_topic()
    columns = [{"name": "id", "type": "int"}]
    send(topic, [Sent(b'{"id": 1}')])
    spec = json_table(name, topic, columns, formats=["iceberg"])
    run = engine([spec])
    run.once()
    wider = {**spec, "input_schema": {"fields": [{"name": "id", "type": "long"}]}}
    run.write([wider])
    run.command("apply")
    send(topic, [Sent(b'{"id": 5000000000}')])
    run.once()
    readers.check(run.table(), [{"id": 1}, {"id": 5_000_000_000}], readers.ICEBERG)
    run.write([{**wider, "formats": ["iceberg", "delta"]}])
    _refused(run, "column id", "changed its type")


def test_status_files_snapshots_ledger(engine, name):
    topic = orders.topic_of(100, partitions=2)
    run = engine([orders.orders_table(name, topic)])
    empty = run.json("status")
    assert [(one["table"], one["exists"], one["rows"]) for one in empty] == [(name, False, 0)]
    run.once()
    send(topic, orders.records(100, 50, 2))
    [status] = run.json("status")
    assert (
        status["exists"]
        and status["rows"] == 100
        and status["lag_records"] == 50
        and status["dead_letters"] == 0
    )
    assert status["shown"] == {"iceberg": status["version"], "delta": status["version"]}
    assert (
        {part["partition"]: part["position"] for part in status["partitions"]}
        == run.committed()
        == {0: 50, 1: 50}
    )
    run.once()
    [status] = run.json("status", name)
    assert status["rows"] == 150 and status["lag_records"] == 0

    live = run.json("files", name)
    assert sorted(one["path"].rsplit("/", 1)[-1] for one in live) == files.check_same_files(run.table())
    assert sum(one["rows"] for one in live) == 150 == status["rows"]
    snapshots = run.json("snapshots", name)
    assert snapshots[-1]["total_rows"] == 150 and snapshots[-1]["ledger_version"] == status["version"]
    assert [one["snapshot_id"] for one in snapshots] == [
        one["snapshot-id"] for one in run.table().metadata()["snapshots"]
    ]
    entries = run.json("ledger", name)
    assert entries == run.table().ledger()
    assert run.json("ledger", name, "--limit", "1") == entries[-1:]
    for words in (["status"], ["files"], ["snapshots"], ["ledger"]):
        told = run.command(*words).out
        assert len(told.splitlines()) >= 2, "a heading and rows"
    assert name in run.command("status").out
    run.command("files", "no.such_table", code=2)


def test_query(engine, name):
    topic = orders.topic_of(80)
    run = engine([orders.orders_table(name, topic)])
    run.once()
    sql = f'select count(*) as n, sum(id) as s, min(region) as r from "{name}"'
    expected = min(row["region"] for row in orders.rows(0, 80) if row["region"])
    assert run.json("query", sql) == [{"n": 80, "s": sum(range(80)), "r": expected}]
    assert "80" in run.command("query", sql).out
    ended = run.command("query", "select nonsense from nowhere", code=2)
    assert ended.out == "" and ended.err


def test_results_to_stdout_and_logs_to_stderr(engine, name):
    topic = orders.topic_of(10)
    run = engine([orders.orders_table(name, topic)])
    ended = run.once("--json", "--log-format", "json", "--log-level", "info")
    [summary] = ended.json()["tables"]
    assert summary["table"] == name and summary["rows_committed"] == 10 and summary["records_consumed"] == 10
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert lines and all("level" in line or "message" in line or "fields" in line for line in lines)
    assert run.once("--quiet").err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_stopping_worker_commits_and_leaves(engine, name, number):
    """Rows far younger than max_age are committed on the way out, and the group is empty at once."""
    topic = create_topic(partitions=2)
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "1h"})])
    worker = run.worker().ready()
    send(topic, orders.records(0, 100, 2))
    wait(
        lambda: worker.metric("siltstone_records_consumed_total", table=name) >= 100,
        30,
        "the worker to have read all",
    )
    assert not run.table().exists() or readers.count(run.table()) == 0
    worker.signal(number)
    assert worker.process.wait(30) == 0
    readers.check(run.table(), orders.rows(0, 100))
    assert group_members(f"siltstone-{name}") == []


def test_health_and_metrics(engine, name):
    topic = orders.topic_of(100)
    run = engine([orders.orders_table(name, topic)])
    worker = run.worker().ready()
    assert worker.get("/healthz").status_code == 200
    wait(lambda: run.table().exists() and readers.count(run.table()) == 100, 40, "the rows")
    assert worker.get("/metrics").headers["Content-Type"].startswith("application/openmetrics-text")
    text = worker.metrics()
    assert text.endswith("# EOF\n") and "siltstone_" in text and name in text
    assert worker.get("/nothing-here").status_code == 404
    assert worker.stop() == 0


def test_freshness_counts_until_every_format_shows_it(engine, name):
    """Back to nothing when all is shown; growing while one format stands still, though the ledger has the rows."""
    topic = orders.topic_of(10)
    run = engine([orders.orders_table(name, topic)])
    worker = run.worker().ready()
    fresh = lambda: worker.metric("siltstone_freshness_seconds", table=name)  # noqa: E731
    wait(lambda: run.table().exists() and readers.count(run.table()) == 10, 40, "the rows")
    wait(lambda: fresh() == 0, 20, "everything to be shown")
    log = pathlib.Path(run.store.path) / run.table().location / "data/_delta_log"
    newest = max(int(one.stem) for one in log.glob("*.json"))
    (log / f"{newest + 1:020}.json").write_text('{"metaData":{"id":"x"}}\n')
    send(topic, orders.records(10, 10))
    wait(lambda: readers.count(run.table()) == 20, 40, "the rows in Iceberg")
    wait(lambda: "projection stopped" in worker.said(), 20, "Delta to stop")
    before = wait(fresh, 10, "the freshness to say so")
    wait(lambda: fresh() > before + 2, 20, "the freshness to grow")
    worker.stop()


def test_only_some_tables(engine, name):
    topic = orders.topic_of(10)
    run = engine([orders.orders_table(f"{name}_a", topic), orders.orders_table(f"{name}_b", topic)])
    run.once("--table", f"{name}_b")
    assert not run.table(f"{name}_a").exists()
    readers.check(run.table(f"{name}_b"), orders.rows(0, 10), readers.ICEBERG)
    run.once("--table", "no.such", code=2)


def test_one_format_and_another_later(engine, name):
    topic = orders.topic_of(20)
    run = engine([orders.orders_table(name, topic, formats=["iceberg"])])
    run.once()
    readers.check(run.table(), orders.rows(0, 20), readers.ICEBERG)
    assert not run.table().list("data/_delta_log")
    send(topic, orders.records(20, 20))
    run.write([orders.orders_table(name, topic, formats=["iceberg", "delta"])])
    run.command("apply")
    run.once()
    readers.check(run.table(), orders.rows(0, 40))
