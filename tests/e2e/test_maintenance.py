"""Retention: what leaves a table leaves for every reader, what is retained is read value by value, the rest stays."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time

import pyarrow as pa
import pytest

import chaos
import files
import orders
import readers
from produce import Sent, create_topic, order, order_expected, order_json, send
from siltstone import wait
from stores import Folder, Table
from values import assert_same_rows, canonical_row

DAY_MS = 86_400_000
# Ledger entries go below the third checkpoint, after hundreds of versions: the crate's tests cut that off.
POINTS = [
    point
    for point in chaos.crash_points()
    if point.startswith("maintenance.") and point != "maintenance.before_ledger"
]
ULID = "01arz3ndektsv4rrffq69g5fav"
FOREIGN = [
    "data/part-00000-0f5c.c000.snappy.parquet",
    f"data/region=nl/{ULID}.parquet",
    f"data/data/{ULID}.parquet",
    "metadata/00001-5c.metadata.json",
    f"elsewhere/data/{ULID}.parquet",
]


def grow_old(table: Table, days: float = 30) -> None:
    """Every file of the table was written long ago."""
    then = time.time() - days * 86_400
    for folder, _, names in os.walk(table.store.inner(table.location)):
        for name in names:
            os.utime(os.path.join(folder, name), (then, then))


def put(table: Table, path: str) -> None:
    whole = table.store.inner(f"{table.location}/{path}")
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(whole, "wb") as file:
        file.write(b"PAR1 not really")


def names(table: Table) -> set[str]:
    root = table.store.inner(table.location)
    found = set()
    for folder, _, inside in os.walk(root):
        found |= {os.path.relpath(os.path.join(folder, name), root) for name in inside}
    return found


def canonical(table: Table, rows: list[dict]) -> list[tuple]:
    return [canonical_row(row, table.fields()) for row in rows]


def check_snapshots(table: Table, history: dict[int, list[dict]]) -> list[int]:
    """Every Iceberg snapshot and every Delta version holds the rows of its ledger version."""
    metadata = table.metadata()
    shown = []
    for snapshot in metadata["snapshots"]:
        version = int(snapshot["summary"]["siltstone.version"])
        wanted = canonical(table, history[version])
        scan = readers.static_table(table).scan(snapshot_id=snapshot["snapshot-id"])
        got = canonical(table, scan.to_arrow().to_pylist())
        assert_same_rows(got, wanted, f"PyIceberg, snapshot of version {version}")
        where = table.store.url(table.metadata_path())
        query = f"select * from iceberg_scan('{where}', snapshot_from_id = {snapshot['snapshot-id']})"
        got = canonical(table, readers._duckdb(table, query).to_pylist())
        assert_same_rows(got, wanted, f"DuckDB, snapshot of version {version}")
        shown.append(version)
    return shown


def check_delta_versions(table: Table, history: dict[int, list[dict]]) -> None:
    from deltalake import DeltaTable, QueryBuilder

    delta = readers.delta_table(table)
    for entry in delta.history():
        if "siltstone" not in entry:
            continue
        version = DeltaTable(readers.delta_url(table), version=entry["version"])
        arrow = pa.table(QueryBuilder().register("t", version).execute("select * from t").read_all())
        wanted = canonical(table, history[entry["siltstone"]["version"]])
        got = canonical(table, arrow.to_pylist())
        assert_same_rows(got, wanted, f"delta-rs, version {entry['version']}")


def ledger_rows(table: Table, batches: dict[int, list[dict]]) -> dict[int, list[dict]]:
    """Ledger version -> rows, from what each append and delete brought; `batches` by first offset."""
    history, live = {0: []}, {}
    for entry in table.ledger():
        change = entry["change"]
        for file in change.get("files", []):
            live[file["path"]] = batches[change["ranges"][0]["start"]]
        gone = [row for path in change.get("removed", []) for row in live.pop(path)]
        if change["kind"] == "delete" and change.get("added"):
            # Files that held old rows beside others, cut by one entry.
            year_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=365)
            first, *others = (file["path"] for file in change["added"])
            live[first] = [row for row in gone if row["ordered_at"] >= year_ago]
            live |= {path: [] for path in others}
        history[entry["version"]] = [row for rows in live.values() for row in rows]
    return history


def aged_orders(first: int, count: int, ordered_ms: int) -> tuple[list[Sent], list[dict]]:
    made = [{**order(n), "ordered_ms": ordered_ms + n} for n in range(first, first + count)]
    return [Sent(order_json(row), timestamp_ms=ordered_ms) for row in made], [order_expected(row) for row in made]


def five_rounds(run, topic) -> dict[int, list[dict]]:
    """Batches by first offset; the first two are of old orders."""
    now_ms = int(time.time() * 1000)
    batches = {}
    for n in range(5):
        sent, rows = aged_orders(n * 20, 20, now_ms - (500 * DAY_MS if n < 2 else 0))
        send(topic, sent)
        batches[n * 20] = rows
        run.once()
    return batches


def test_expire_and_vacuum_by_hand(engine, name):
    topic = create_topic()
    retention = {"rows": "365d", "rows_by": "ordered_at", "snapshots_max": 3, "orphans": "1h"}
    run = engine([orders.orders_table(name, topic, retention=retention)])
    table = run.table()
    batches = five_rounds(run, topic)
    orphans = [f"data/{ULID}.parquet", f"metadata/{ULID.upper()}-m0.avro", f"metadata/snap-7-{ULID.upper()}.avro"]
    for path in orphans + FOREIGN:
        put(table, path)
    grow_old(table)
    young = "data/01arz3ndektsv4rrffq69g5faw.parquet"
    put(table, young)
    # Dry runs change nothing.
    before = names(table)
    dry = run.json("expire", "--dry-run")
    assert dry[0]["dry_run"] and dry[0]["rows"]["rows"] == 40 and dry[0]["rows"]["version"] is None
    dry_vacuum = run.json("vacuum", "--dry-run")
    assert names(table) == before
    expired = run.json("expire", "--table", name)[0]
    assert (expired["rows"]["files"], expired["rows"]["rows"]) == (2, 40)
    young_rows = [row for first, rows in batches.items() if first >= 40 for row in rows]
    readers.check(table, young_rows)
    files.check_same_files(table)
    operations = [snapshot["summary"]["operation"] for snapshot in table.metadata()["snapshots"]]
    assert operations == ["append", "append", "delete"], "three are kept"
    vacuumed = run.json("vacuum")[0]
    assert vacuumed["deleted"]["data"] == {"files": 1, "bytes": 15} == dry_vacuum[0]["deleted"]["data"]
    assert vacuumed["deleted"]["manifest_list"]["files"] >= 2
    assert vacuumed["foreign"]["files"] == len(FOREIGN) - 1, "the last is no part of the table"
    left = names(table)
    assert left.isdisjoint(orphans) and left.issuperset([young, *FOREIGN])
    # The files that left a moment ago are still there for whoever reads them: every snapshot and version is whole.
    history = ledger_rows(table, batches)
    assert len(check_snapshots(table, history)) == 3
    check_delta_versions(table, history)
    assert run.json("vacuum")[0]["deleted"] == {}, "nothing is left to do"
    tally = run.json("status", "--no-lag", name)[0]["maintenance"]
    counts = list(vacuumed["deleted"].values()) + [expired["delta_log"], expired["ledger_entries"]]
    assert tally["deleted_files"] == sum(count["files"] for count in counts), tally
    assert tally["deleted_bytes"] == sum(count["bytes"] for count in counts), tally
    assert (tally["rounds"], tally["expired_snapshots"]) == (3, expired["snapshots"]["expired"]), tally
    # And the table goes on.
    more, rows = aged_orders(100, 20, int(time.time() * 1000))
    send(topic, more)
    run.once()
    readers.check(table, young_rows + rows)
    said = run.command("vacuum", "--dry-run").out
    assert "to delete, in all" in said and "kept" in said
    assert "row" in run.command("expire", "--dry-run").out


def mixed_orders(first: int, old_days: int) -> tuple[list[Sent], list[dict], list[dict]]:
    """Twenty orders of one flush, every second one old, and the rows: all of them, and the young ones."""
    now_ms = int(time.time() * 1000)
    old, old_rows = aged_orders(first, 20, now_ms - old_days * DAY_MS)
    young, young_rows = aged_orders(first, 20, now_ms)
    sent = [old[n] if n % 2 else young[n] for n in range(20)]
    rows = [old_rows[n] if n % 2 else young_rows[n] for n in range(20)]
    return sent, rows, rows[::2]


def test_files_that_hold_old_rows_beside_others_are_rewritten_if_asked(engine, name):
    topic = create_topic()
    retention = {"rows": "365d", "rows_by": "ordered_at", "orphans": "1h"}
    spec = {"sort_by": ["customer_id", "id"]}
    run = engine([orders.orders_table(name, topic, retention=retention, **spec)])
    table = run.table()
    batches, left = {}, []
    for first, old_days in ((0, 500), (20, 366), (40, 0)):
        sent, batches[first], young = mixed_orders(first, old_days)
        left += batches[first] if old_days < 400 else young
        send(topic, sent)
        run.once()
    # Whole files only: nothing leaves.
    report = run.json("expire")[0]["rows"]
    assert (report["files"], report["cut"]) == (0, None), report
    readers.check(table, [row for rows in batches.values() for row in rows])
    run.write([orders.orders_table(name, topic, retention={**retention, "rows_rewrite": True}, **spec)])
    before = names(table)
    dry = run.json("expire", "--dry-run")[0]["rows"]
    assert (dry["cut"]["files"], dry["cut"]["rows"], dry["cut"]["left_files"]) == (1, 10, 0), dry
    assert names(table) == before
    # The oldest row of the second file is old for a day: it stays until an eighth of the year is over.
    cut = run.json("expire")[0]["rows"]["cut"]
    assert (cut["files"], cut["rows"], cut["left_files"]) == (1, 10, 0) and 0 < cut["output_bytes"] < cut["bytes"], cut
    readers.check(table, left)
    files.check_same_files(table)
    files.check_layout(table)
    change = table.ledger()[-1]["change"]
    assert (change["kind"], len(change["removed"]), [file["rows"] for file in change["added"]]) == ("delete", 1, [10])
    snapshot = table.metadata()["snapshots"][-1]["summary"]
    assert (snapshot["operation"], snapshot["deleted-records"], snapshot["added-records"]) == ("overwrite", "20", "10")
    last = next(entry for entry in readers.delta_table(table).history() if "siltstone" in entry)
    assert last["operation"] == "DELETE", last
    assert run.json("expire")[0]["rows"]["cut"]["files"] == 0, "once is enough"
    totals = run.json("status", "--no-lag", name)[0]["compaction"]["totals"]
    assert (totals["deleted_files"], totals["deleted_rows"], totals["cut_files"]) == (0, 10, 1), totals
    history = ledger_rows(table, batches)
    check_snapshots(table, history)
    check_delta_versions(table, history)
    more, rows = aged_orders(100, 20, int(time.time() * 1000))
    send(topic, more)
    run.once()
    readers.check(table, left + rows)
    assert "files cut" in run.command("expire", "--dry-run").out


def test_snapshots_of_a_quiet_table_expire_by_age(engine, name):
    topic = create_topic()
    run = engine([orders.orders_table(name, topic, retention={"snapshots": "1m", "snapshots_min": 2})])
    batches = five_rounds(run, topic)
    table = run.table()
    time.sleep(65)
    expired = run.json("expire")[0]
    assert expired["rows"] is None and expired["snapshots"] == {"expired": 3, "left": 2}
    grow_old(table)
    deleted = run.json("vacuum", "--older-than", "2d")[0]["deleted"]
    # Appends go on with the manifests before them: only the lists are no longer named.
    assert set(deleted) == {"manifest_list"} and deleted["manifest_list"]["files"] == 3
    readers.check(table, [row for rows in batches.values() for row in rows])
    assert len(check_snapshots(table, ledger_rows(table, batches))) == 2


@pytest.mark.parametrize("point", POINTS)
def test_abort_at_every_step(engine, name, point):
    """Expiry and vacuum that abort there; then once more, to the end."""
    topic = create_topic()
    # Showing that rows left expires snapshots too: without that, there are some to expire.
    rows_stay = point == "maintenance.before_expiry"
    retention = {"snapshots_max": 2, "orphans": "1h"}
    retention |= {} if rows_stay else {"rows": "365d", "rows_by": "ordered_at"}
    cuts = "cut" in point
    retention |= {"rows_rewrite": True} if cuts else {}
    run = engine([orders.orders_table(name, topic)])
    batches = five_rounds(run, topic)
    stay = []
    if cuts:
        sent, batches[100], stay = mixed_orders(100, 500)
        send(topic, sent)
        run.once()
    table = run.table()
    # Logs to clean up: checkpoints, and all of it old.
    readers.delta_table(table).create_checkpoint()
    put(table, f"data/{ULID}.parquet")
    grow_old(table)
    run.write([orders.orders_table(name, topic, retention=retention)])
    codes = []
    for command in ("expire", "vacuum"):
        ended = run.run(command, "-f", str(run.spec), code=None, env={"FAILPOINTS": f"{point}=1*return"})
        codes.append(ended.code)
        history = ledger_rows(table, batches)
        check_snapshots(table, history)
        check_delta_versions(table, history)
    assert any(code in (-signal.SIGABRT, 128 + signal.SIGABRT) for code in codes), (point, codes)
    run.command("expire")
    run.command("vacuum")
    left = [row for first, rows in batches.items() if rows_stay or 100 > first >= 40 for row in rows] + stay
    readers.check(table, left)
    files.check_same_files(table)
    assert f"data/{ULID}.parquet" not in names(table)
    check_snapshots(table, ledger_rows(table, batches))
    more, rows = aged_orders(200, 20, int(time.time() * 1000))
    send(topic, more)
    run.once()
    readers.check(table, left + rows)


def test_a_worker_looks_after_its_tables(engine, name):
    topic = create_topic()
    columns = {"retention": {"orphans": "1h", "snapshots_max": 2}, "maintenance": {"every": "1m"}}
    run = engine([orders.orders_table(name, topic, **columns)])
    batches = five_rounds(run, topic)
    table = run.table()
    put(table, f"data/{ULID}.parquet")
    grow_old(table)
    worker = run.worker().ready()
    last = "siltstone_maintenance_last_success_timestamp_seconds"
    wait(lambda: worker.metric(last, table=name) > 0, 90, f"a round of maintenance:\n{worker.said()[-2000:]}")
    assert worker.metric("siltstone_maintenance_deleted_files_total", table=name, kind="data") == 1
    assert worker.metric("siltstone_maintenance_deleted_bytes_total", table=name, kind="data") == 15
    assert worker.metric("siltstone_maintenance_failures_total", table=name) == 0
    assert f"data/{ULID}.parquet" not in names(table)
    more, rows = aged_orders(100, 20, int(time.time() * 1000))
    send(topic, more)
    wait(lambda: readers.count(table) == 120, 30, "the rows after it")
    assert worker.stop() == 0
    readers.check(table, [row for known in batches.values() for row in known] + rows)


def test_maintenance_can_be_left_to_people(engine, name):
    topic = create_topic()
    run = engine([orders.orders_table(name, topic, maintenance={"enabled": False, "every": "1m"})])
    five_rounds(run, topic)
    worker = run.worker().ready()
    time.sleep(5)
    assert worker.stop() == 0
    assert "_siltstone/maintenance.json" not in names(run.table())


def test_a_bucket(engine, name, bucket):
    topic = create_topic()
    run = engine([orders.orders_table(name, topic, retention={"snapshots_max": 2})], store=bucket)
    batches = five_rounds(run, topic)
    expired = run.json("expire")[0]
    assert expired["snapshots"]["left"] == 2
    vacuumed = run.json("vacuum", "--older-than", "1h")[0]
    assert vacuumed["deleted"] == {} and vacuumed["kept"]["files"] > 10, "all of it is young"
    readers.check(run.table(), [row for rows in batches.values() for row in rows])
    check_snapshots(run.table(), ledger_rows(run.table(), batches))


def test_mistakes_are_named(engine, name):
    topic = create_topic()
    run = engine([orders.orders_table(name, topic)])
    assert "at least 1h" in run.command("vacuum", "--older-than", "5m", code=2).err
    assert "no table nope" in run.command("expire", "--table", "nope", code=2).err
    run.write([orders.orders_table(name, topic, retention={"rows": "1d"})])
    assert "rows_by" in run.command("spec", "check", code=2).err
    run.write([orders.orders_table(name, topic, retention={"rows": "1d", "rows_by": "region"})])
    assert "no date and no timestamp" in run.command("spec", "check", code=2).err
    assert isinstance(run.store, Folder)
