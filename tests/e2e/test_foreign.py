"""Other programs on a live table: Spark on its Iceberg form, delta-rs on its Delta form, while records come in and
the engine compacts. Nothing is lost or comes back, and both formats and the ledger agree in the end."""

from __future__ import annotations

import shutil
import signal
import time

import pytest

import chaos
import files
import orders
import readers
import spark
from produce import create_topic, order
from siltstone import wait

POINTS = [point for point in chaos.all_crash_points() if point.startswith("absorb.")]
EAGER = {"min_inputs": 4, "quiet_after": "0s", "busy_percent": 100}


class Live:
    """A table with a worker and a load, and what it must hold."""

    def __init__(self, engine, name, **changes):
        self.topic = create_topic(partitions=2)
        layout = {"sort_by": ["customer_id", "id"], "compaction": EAGER, "freshness": {"max_age": "300ms"}}
        self.run = engine([orders.orders_table(name, self.topic, **{**layout, **changes})])
        self.name = name
        self.load = chaos.Load(self.topic, 2, seed=3)
        self.worker = self.run.worker().ready()
        self.deleted: set[int] = set()
        self.copied: list[dict] = []
        self.more()

    @property
    def table(self):
        return self.run.table()

    def ids(self, reader) -> list[int]:
        # A file that a reader is at may be deleted, where another program was told to keep none.
        return again(lambda: readers.QUICK[reader](self.table).column("id").to_pylist())

    def more(self, rows: int = 200) -> None:
        """Waits until so many more rows are shown."""
        before = self.ids("PyIceberg") if self.table.exists() else []
        wait(
            lambda: self.table.exists() and len(self.ids("PyIceberg")) >= len(before) + rows,
            60,
            f"{rows} more rows:\n{self.worker.said()[-3000:]}",
        )

    def some(self, reader: str, modulo: int) -> list[int]:
        """Numbers of rows that are there, to delete."""
        found = [number for number in self.ids(reader) if number >= 0 and number % 11 == modulo]
        assert found
        return found[:60]

    def absorbs(self, kind: str) -> list[dict]:
        changes = [entry["change"] for entry in self.table.ledger()]
        return [change for change in changes if change["kind"] == "absorb" and change["format"] == kind]

    def absorbed(self, kind: str, act) -> None:
        """Does something to the table in one format, and has it taken in by hand beside the worker."""
        before = len(self.absorbs(kind))
        again(act)
        self.run.command("compact")
        wait(lambda: len(self.absorbs(kind)) > before, 40, f"{kind} to be taken in:\n{self.worker.said()[-3000:]}")

    def check_now(self) -> None:
        """In the midst of it: nothing twice, and what was deleted is gone in both formats."""
        again(lambda: chaos.check_so_far(self.table))
        for reader in ("PyIceberg", "delta-rs"):
            back = self.deleted & set(self.ids(reader))
            assert not back, f"{reader}: {len(back)} deleted rows are there"

    def expected(self) -> list[dict]:
        return [row for row in self.load.expected() if row["id"] not in self.deleted] + self.copied

    def check_in_the_end(self) -> None:
        self.load.stop()
        assert self.worker.stop() == 0
        self.run.once()
        for _ in range(2):
            self.run.command("compact")
            readers.check(self.table, self.expected(), readers.ALL)
            files.check_same_files(self.table)
        said = self.worker.said()
        assert "region=" not in said, "a path of another program, which holds a value"


def again(act, times: int = 12):
    """Other programs lose races against a live table, say so, and are asked again."""
    for left in reversed(range(times)):
        try:
            return act()
        except AssertionError:
            raise
        except Exception:  # noqa: BLE001 - each program has its own
            if not left:
                raise
            time.sleep(0.5)


@pytest.fixture
def lake(folder):
    """The name of a Spark catalog over the folder of the test."""
    catalog = f"lake{abs(hash(folder.path)) % 10**9}"
    for key, value in {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "hadoop",
        ".warehouse": f"file://{folder.path}",
        ".cache-enabled": "false",
    }.items():
        spark.sql(f"SET `spark.sql.catalog.{catalog}{key}`={value}")
    return catalog


def listed(numbers) -> str:
    return f"({', '.join(str(number) for number in numbers)})"


def test_spark_on_iceberg(engine, name, lake):
    # At a pace beside which Spark, slow on small tables, gets its turn.
    pace = {"compaction": {"min_inputs": 8}, "freshness": {"max_age": "1s"}}
    live = Live(engine, name, partition_by=["region"], **pace)
    there = f"{lake}.{name}"
    # Its commits lose against ours more often than by default it tries, and a serializable delete would need a
    # table at rest.
    often = (
        "'commit.retry.num-retries' = '50', 'commit.retry.max-wait-ms' = '300', "
        "'write.delete.isolation-level' = 'snapshot'"
    )
    again(lambda: spark.sql(f"ALTER TABLE {there} SET TBLPROPERTIES ({often})"))

    def call(procedure: str, options: str = ""):
        return spark.sql(f"CALL {lake}.system.{procedure}(table => '{name}'{options})")

    live.absorbed("iceberg", lambda: call("rewrite_data_files", ", options => map('rewrite-all', 'true')"))
    assert live.absorbs("iceberg")[-1]["same_rows"]
    live.check_now()

    live.copied = [{**order_row(number), "id": -number} for number in live.some("PyIceberg", 5) if number][:50]
    picked = listed(-row["id"] for row in live.copied)
    columns = ", ".join(field["name"] for field in live.table.fields() if field["name"] != "id")
    live.absorbed(
        "iceberg",
        lambda: spark.sql(f"INSERT INTO {there} SELECT -id AS id, {columns} FROM {there} WHERE id IN {picked}"),
    )
    live.check_now()

    for modulo, mode in ((3, "copy-on-write"), (4, "merge-on-read")):
        again(lambda: spark.sql(f"ALTER TABLE {there} SET TBLPROPERTIES ('write.delete.mode' = '{mode}')"))
        gone = live.some("PyIceberg", modulo)
        live.absorbed("iceberg", lambda: spark.sql(f"DELETE FROM {there} WHERE id IN {listed(gone)}"))
        live.deleted |= set(gone)
        live.more(50)
        live.check_now()

    # Files are left to us, unless the user says otherwise: then what no snapshot of Iceberg names is deleted.
    with pytest.raises(RuntimeError, match="GC is disabled"):
        call("expire_snapshots")
    again(lambda: spark.sql(f"ALTER TABLE {there} SET TBLPROPERTIES ('gc.enabled' = 'true')"))
    again(lambda: call("rewrite_data_files", ", options => map('rewrite-all', 'true')"))
    again(lambda: call("expire_snapshots", ", older_than => now(), retain_last => 1"))
    live.absorbed("iceberg", lambda: call("rewrite_manifests"))
    assert live.table.metadata()["properties"]["gc.enabled"] == "true"
    live.more(50)
    live.check_now()
    live.check_in_the_end()


def order_row(number: int) -> dict:
    return orders.order_expected(order(number))


def test_delta_rs_on_delta(engine, name):
    live = Live(engine, name)

    def delta():
        return readers.delta_table(live.table)

    def compact():
        # Our own compaction may have left a single file.
        if not delta().optimize.compact()["numFilesRemoved"]:
            raise RuntimeError("nothing to compact yet")

    live.absorbed("delta", compact)
    assert live.absorbs("delta")[-1]["same_rows"]
    live.check_now()
    live.absorbed("delta", lambda: delta().optimize.z_order(["customer_id", "id"]))
    live.check_now()
    gone = live.some("delta-rs", 6)
    live.absorbed("delta", lambda: delta().delete(f"id in {listed(gone)}"))
    live.deleted |= set(gone)
    live.more(50)
    live.check_now()

    # By default files of a year stay; with none kept, Iceberg loses its older snapshots and nothing else.
    assert again(lambda: delta().vacuum(dry_run=False)) == []
    swept = again(lambda: delta().vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False))
    assert swept
    live.more(50)
    live.run.command("compact")
    live.check_now()

    # The worker does it by itself, and counts.
    before = live.worker.metric("siltstone_foreign_commits_total", table=name, format="delta")
    again(lambda: delta().optimize.z_order(["id"]))
    wait(
        lambda: live.worker.metric("siltstone_foreign_commits_total", table=name, format="delta") > before,
        60,
        f"the worker to take it in:\n{live.worker.said()[-3000:]}",
    )
    assert "another program changed the table; its change is taken into the ledger" in live.worker.said()
    live.check_in_the_end()


@pytest.mark.parametrize("point", POINTS)
def test_abort_at_every_step(engine, name, point):
    topic = orders.topic_of(200, partitions=2)
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "1m", "max_rows": 25})])
    run.once()
    gone = [number for number in range(200) if number % 9 == 4]
    readers.delta_table(run.table()).optimize.compact()
    readers.delta_table(run.table()).delete(f"id in {listed(gone)}")
    ended = run.run("compact", "-f", str(run.spec), code=None, env={"FAILPOINTS": f"{point}=1*return"})
    assert ended.code in (-signal.SIGABRT, 128 + signal.SIGABRT), ended.said[-2000:]
    run.command("compact")
    expected = [row for row in orders.rows(0, 200) if row["id"] not in gone]
    readers.check(run.table(), expected)
    files.check_same_files(run.table())


def test_what_cannot_be_reconciled(engine, name):
    """Delta's schema is another program's now: Delta stops, says the way out, and the way out works."""
    live = Live(engine, name)
    again(
        lambda: readers.delta_table(live.table).alter.set_table_properties({"delta.appendOnly": "true"})
    )
    wait(lambda: "projection stopped" in live.worker.said(), 30, "Delta to stop")
    stopped = next(line for line in live.worker.said().splitlines() if "projection stopped" in line)
    for part in ("delta version", "was written by another program", "schema, properties or protocol", "_delta_log"):
        assert part in stopped, stopped
    before = len(live.ids("delta-rs"))
    live.more(100)
    assert len(live.ids("delta-rs")) == before, "Delta stands still, Iceberg goes on"
    ended = live.run.run("compact", "-f", str(live.run.spec), code=None)
    assert ended.code == 1 and "_delta_log" in ended.said, ended.said
    live.load.stop()
    assert live.worker.stop() != 0
    shutil.rmtree(live.table.store.inner(f"{live.table.location}/data/_delta_log"))
    live.run.once()
    readers.check(live.table, live.expected())
    files.check_same_files(live.table)
