"""Tables whose Iceberg metadata a REST catalog keeps: two real servers, with every way to log in, and with faults
between them and the engine. Every value is compared."""

from __future__ import annotations

import collections
import dataclasses
import signal
import time

import pytest

import catalogs
import chaos
import lab
import orders
import readers
from catalogs import CatalogTable
from produce import Sent, create_topic, order, send
from proxies import CatalogProxy
from siltstone import wait
from test_foreign import again

EAGER = {"min_inputs": 4, "quiet_after": "0s", "busy_percent": 100}


def chosen(which: str, bucket) -> catalogs.Catalog:
    if which == "iceberg":
        return catalogs.iceberg(bucket.prefix)
    return catalogs.seaweed(which.removeprefix("seaweed-"))


@pytest.fixture(params=["iceberg", "seaweed-oauth2", "seaweed-sigv4"])
def catalog(request, bucket):
    return chosen(request.param, bucket)


@dataclasses.dataclass
class Through:
    """A catalog behind a proxy."""

    catalog: catalogs.Catalog
    proxy: CatalogProxy

    def entry(self, **changes) -> dict:
        return self.catalog.entry(uri=self.proxy.url, **changes)


# Signatures name the address, so those go to the catalog directly.
@pytest.fixture(params=["iceberg", "seaweed-oauth2"])
def through(request, bucket):
    catalog = chosen(request.param, bucket)
    proxy = CatalogProxy(catalog.uri)
    yield Through(catalog, proxy)
    proxy.close()


def formats(catalog) -> list[str]:
    # SeaweedFS lets nothing but Iceberg's own files into a table bucket, so no Delta log.
    return ["iceberg"] if isinstance(catalog.store, catalogs.TableBucket) else ["iceberg", "delta"]


def table_of(catalog, name: str, topic: str, entry=None, **changes) -> dict:
    changes = {"formats": formats(catalog), **changes}
    return orders.orders_table(name, topic, catalogs=[entry or catalog.entry()], **changes)


def check(table: CatalogTable, expected: list[dict], more=None) -> None:
    """Every reader that goes through the catalog, and those of the Delta form, see these rows."""
    which = {**catalogs.READERS, **(more or {})}
    if not isinstance(table.store, catalogs.TableBucket):
        which |= readers.DELTA
    readers.check(table, expected, which)


def test_ingest_and_grow(engine, name, catalog):
    topic = orders.topic_of(300, partitions=2)
    run = engine(
        [table_of(catalog, name, topic, sort_by=["id"], partition_by=["region"])], store=catalog.store, env=catalog.env
    )
    assert catalog.uri in run.command("plan").out
    run.once()
    table = CatalogTable(catalog, name)
    check(table, orders.rows(0, 300), catalogs.SPARK)
    metadata = table.metadata()
    assert metadata["location"].rstrip("/") == catalog.store.url(table.location)
    send(topic, orders.records(300, 100, 2))
    run.once()
    check(table, orders.rows(0, 400))
    assert catalog.uri in run.command("status").out
    assert len(run.json("snapshots", name)) == len(table.metadata()["snapshots"])


def test_changes_of_layout(engine, name, catalog):
    """Columns, partitions and sort order change; the catalog knows each under the ledger's id."""
    topic = orders.topic_of(100, partitions=2)
    first = table_of(catalog, name, topic, partition_by=["region"], sort_by=["id"])
    run = engine([first], store=catalog.store, env=catalog.env)
    run.once()
    table = CatalogTable(catalog, name)
    columns = [*first["input_schema"]["fields"], {"name": "remark", "type": "string"}]
    second = {**first, "input_schema": {"fields": columns}, "partition_by": ["bucket(4, id)"], "sort_by": ["customer_id"]}
    run.write([second])
    run.command("apply")
    send(topic, orders.records(100, 100, 2))
    run.once()
    # Back to the partitions and the order of the first one.
    run.write([{**second, "partition_by": ["region"], "sort_by": ["id"]}])
    run.command("apply")
    send(topic, orders.records(200, 100, 2))
    run.once()
    check(table, [{**row, "remark": None} for row in orders.rows(0, 300)], catalogs.SPARK)
    metadata = table.metadata()
    assert [schema["schema-id"] for schema in metadata["schemas"]] == [0, 1]
    assert metadata["current-schema-id"] == 1
    assert sorted(spec["spec-id"] for spec in metadata["partition-specs"]) == [0, 1]
    assert (metadata["default-spec-id"], metadata["default-sort-order-id"]) == (0, 1)


def test_dead_letters_have_a_table_of_their_own(engine, name, catalog):
    topic = orders.topic_of(20)
    send(topic, [Sent(b"no order", key=b"k")])
    run = engine([table_of(catalog, name, topic)], store=catalog.store, env=catalog.env)
    run.once()
    table = CatalogTable(catalog, name)
    check(table, orders.rows(0, 20))
    found = catalog.load(table.dead_letters.name).scan().to_arrow().to_pylist()
    assert [one["value"] for one in found] == [b"no order"]


class Live:
    """A worker with a load, on a table in a catalog, and what other programs did to it."""

    def __init__(self, engine, name, catalog, entry=None, **changes):
        self.catalog, self.name = catalog, name
        self.topic = create_topic(partitions=2)
        layout = {"sort_by": ["customer_id", "id"], "compaction": EAGER, "freshness": {"max_age": "300ms"}}
        table = table_of(catalog, name, self.topic, entry, **{**layout, **changes})
        self.run = engine([table], store=catalog.store, env=catalog.env)
        self.table = CatalogTable(catalog, name)
        self.load = chaos.Load(self.topic, 2, seed=5)
        self.worker = self.run.worker().ready()
        self.deleted: set[int] = set()
        self.copied: list[dict] = []
        self.more()

    def ids(self) -> list[int]:
        return again(lambda: catalogs.READERS["PyIceberg"](self.table).column("id").to_pylist())

    def more(self, rows: int = 200) -> None:
        before = len(self.ids()) if self.table.exists() else 0
        wait(
            lambda: self.table.exists() and len(self.ids()) >= before + rows,
            60,
            f"{rows} more rows:\n{self.worker.said()[-3000:]}",
        )

    def append(self, numbers) -> None:
        """Another program adds copies of these rows under negative numbers."""
        from pyiceberg.expressions import In

        def act():
            there = self.catalog.load(self.name)
            rows = there.scan(row_filter=In("id", list(numbers))).to_arrow()
            ids = [-value for value in rows.column("id").to_pylist()]
            index = rows.schema.get_field_index("id")
            there.append(rows.set_column(index, rows.schema.field(index), [ids]))
            return [-number for number in ids]

        self.copied += [{**orders.order_expected(order(number)), "id": -number} for number in again(act, 60)]

    def delete(self, numbers) -> None:
        """Another program deletes these rows."""
        from pyiceberg.expressions import In

        again(lambda: self.catalog.load(self.name).delete(In("id", list(numbers))), 60)
        self.deleted |= set(numbers)

    def absorbs(self) -> int:
        return sum(entry["change"]["kind"] == "absorb" for entry in self.table.ledger())

    def taken_in(self, act) -> None:
        before = self.absorbs()
        act()
        self.run.command("compact")
        wait(lambda: self.absorbs() > before, 40, f"it to be taken in:\n{self.worker.said()[-3000:]}")

    def check_in_the_end(self, more=None) -> None:
        self.load.stop()
        assert self.worker.stop() == 0, self.worker.said()[-3000:]
        self.run.once()
        self.run.command("compact")
        expected = [row for row in self.load.expected() if row["id"] not in self.deleted] + self.copied
        check(self.table, expected, more)


def test_other_programs_on_a_live_table(engine, name, catalog):
    """Rows that PyIceberg adds and deletes stay so, beside ingestion, compaction and expiry."""
    retention = {"snapshots_max": 20, "snapshots": "1h"}
    live = Live(engine, name, catalog, retention=retention)
    picked = [number for number in live.ids() if number > 0 and number % 11 == 5][:30]
    live.taken_in(lambda: live.append(picked))
    gone = [number for number in live.ids() if number > 0 and number % 11 == 3][:40]
    live.taken_in(lambda: live.delete(gone))
    live.more(100)
    back = live.deleted & set(live.ids())
    assert not back, f"{len(back)} deleted rows are there"
    live.run.command("expire")
    live.run.command("vacuum")
    live.check_in_the_end(catalogs.SPARK)
    metadata = live.table.metadata()
    assert len(metadata["snapshots"]) <= 21
    assert any(entry["change"]["kind"] == "replace" for entry in live.table.ledger()), "it was compacted"


def test_replies_that_are_lost(engine, name, through):
    """Commits whose answers never come, that never arrive, or that fail: no row twice, none lost."""
    proxy = through.proxy
    proxy.lose = 1
    live = Live(engine, name, through.catalog, through.entry())
    for _ in range(4):
        proxy.lose, proxy.break_, proxy.fail = 2, 1, 1
        live.more(60)
        wait(lambda: not (proxy.lose or proxy.break_ or proxy.fail), 30, "the faults to be met")
    live.check_in_the_end()
    metadata = live.table.metadata()
    versions = collections.Counter(s["summary"].get("siltstone.version") for s in metadata["snapshots"])
    assert max(versions.values()) == 1, versions.most_common(3)


def test_another_committer_is_always_first(engine, name, through):
    """Before each of many commits, another program commits: both are there."""
    proxy = through.proxy
    live = Live(engine, name, through.catalog, through.entry())
    races = []

    def race():
        if len(races) < 6:
            races.append(len(races))
            numbers = [number for number in live.load.rows[:200] if number not in live.deleted][:3]
            live.append(numbers[:2]) if len(races) % 2 else live.delete(numbers[2:])

    proxy.before = race
    wait(lambda: len(races) >= 6, 60, f"races:\n{live.worker.said()[-3000:]}")
    proxy.before = None
    assert sum(status == 409 for _, _, status in proxy.requests) >= 3, collections.Counter(proxy.requests)
    live.more(60)
    live.check_in_the_end()


def test_workers_side_by_side(engine, name, through):
    """Three workers commit to one table of a catalog, some of whose replies are lost; one of them is killed."""
    proxy = through.proxy
    live = Live(engine, name, through.catalog, through.entry())
    others = [live.run.worker().ready() for _ in range(2)]
    for _ in range(3):
        proxy.lose = 3
        live.more(100)
    others[0].kill()
    live.more(100)
    assert others[1].stop() == 0, others[1].said()[-3000:]
    live.check_in_the_end()


def test_a_catalog_that_is_down(engine, name, bucket):
    """Ingestion and Delta go on without the catalog; Iceberg catches up when it is there again."""
    catalog = catalogs.iceberg(bucket.prefix)
    proxy = CatalogProxy(catalog.uri)
    live = Live(engine, name, catalog, catalog.entry(uri=proxy.url))
    proxy.down = True
    shown = set(live.ids())
    rows = lambda: again(lambda: readers.DELTA["delta-rs"](live.table)).num_rows  # noqa: E731
    before = rows()
    wait(lambda: rows() >= before + 200, 60, f"Delta to go on:\n{live.worker.said()[-3000:]}")
    assert len(set(live.ids()) - shown) < 200, "a commit got through"
    proxy.down = False
    live.more(100)
    live.check_in_the_end()
    assert "catalog" in live.worker.said()
    proxy.close()


@pytest.mark.parametrize("through", ["seaweed-oauth2"], indirect=True)
def test_a_login_that_ends(engine, name, through):
    """The catalog no longer takes a token: another one is asked for, and no commit is lost."""
    catalog, proxy = through.catalog, through.proxy
    live = Live(engine, name, catalog, through.entry())
    logins = lambda: sum(path.endswith("/oauth/tokens") for _, path, _ in proxy.requests)  # noqa: E731
    before = logins()
    proxy.refuse = 1
    wait(lambda: not proxy.refuse and logins() > before, 30, "another login")
    live.more(60)
    live.check_in_the_end()
    said = live.worker.said()
    assert catalog.env["CATALOG_SECRET"] not in said and "Bearer" not in said


def test_credentials_of_the_catalog(engine, name, bucket):
    """The engine finds no key in its environment: the catalog's serve for data, ledger and both formats."""
    catalog = catalogs.iceberg(bucket.prefix)

    class Keyless(type(bucket)):
        env = {}

    topic = orders.topic_of(200, partitions=2)
    store = Keyless(bucket.prefix)
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}
    entry = catalog.entry(vended_credentials=True)
    run = engine([table_of(catalog, name, topic, entry)], store=store, env=nowhere)
    run.command("apply")
    run.once()
    table = CatalogTable(catalog, name)
    check(table, orders.rows(0, 200))
    run.command("compact")
    send(topic, orders.records(200, 50, 2))
    run.once()
    check(table, orders.rows(0, 250))
    run.command("expire")
    run.command("vacuum")
    assert run.json("status")[0]["rows"] == 250
    assert "250" in run.run("query", "-f", str(run.spec), f'select count(*) from "{name}"').out


def test_refusals_say_what_to_do(engine, name, bucket):
    catalog = catalogs.seaweed()
    topic = orders.topic_of(5)
    wrong = dataclasses.replace(catalog, env={**catalog.env, "CATALOG_SECRET": "not-the-secret"})
    run = engine([table_of(wrong, name, topic)], store=catalog.store, env=wrong.env)
    ended = run.once(code=2)
    assert "the token endpoint refuses the client; check oauth2.client_id" in ended.said
    assert "not-the-secret" not in ended.said
    plain = catalogs.iceberg(bucket.prefix)
    for entry, word in (
        (plain.entry(uri=plain.uri + "/elsewhere"), "check uri and warehouse"),
        (plain.entry(uri="http://127.0.0.1:9"), "no connection; check uri"),
    ):
        run = engine([table_of(plain, name, topic, entry)], store=plain.store)
        assert word in run.run("apply", "-f", str(run.spec), code=None).said


def test_a_catalog_that_is_added_later(engine, name, bucket):
    """A table that lived in the bucket shows all of its rows in the catalog, and goes on there."""
    catalog = catalogs.iceberg(bucket.prefix)
    topic = orders.topic_of(100, partitions=2)
    run = engine([orders.orders_table(name, topic)], store=catalog.store)
    run.once()
    before = run.table().metadata_version()
    run.write([table_of(catalog, name, topic)])
    run.command("apply")
    table = CatalogTable(catalog, name)
    check(table, orders.rows(0, 100))
    send(topic, orders.records(100, 50, 2))
    run.once()
    check(table, orders.rows(0, 150))
    run.command("vacuum")
    assert run.table().metadata_version() == before, "what the bucket showed is left as it was"


def test_names_of_many_levels_and_tls(engine, name, bucket):
    """A namespace of two levels, at a catalog behind TLS with an authority of its own."""
    catalog = catalogs.iceberg(bucket.prefix)
    proxy = CatalogProxy(catalog.uri, tls=True)
    topic = orders.topic_of(30)
    entry = catalog.entry(uri=proxy.url, namespace="outer.inner", table="orders_" + name.rsplit("_", 1)[1])
    trusted = {**entry, "tls": {"ca_file": f"{lab.address('TLS')}/ca.pem"}}
    run = engine([table_of(catalog, name, topic, entry)], store=catalog.store)
    assert "no connection" in run.run("apply", "-f", str(run.spec), code=None).said
    run.write([table_of(catalog, name, topic, trusted)])
    run.once()
    found = catalog.load(("outer", "inner", entry["table"])).scan().to_arrow().to_pylist()
    assert sorted(row["id"] for row in found) == list(range(30))
    proxy.close()


def test_a_table_that_is_dropped(engine, name, bucket):
    """The catalog forgets the table, its files stay: it is shown anew from the ledger."""
    catalog = catalogs.iceberg(bucket.prefix)
    live = Live(engine, name, catalog)
    uuid = live.table.metadata()["table-uuid"]
    catalog.pyiceberg().drop_table(name)
    live.more(60)
    assert live.table.metadata()["table-uuid"] != uuid
    live.check_in_the_end()


POINTS = ["iceberg.after_metadata", *[point for point in chaos.all_crash_points() if point.startswith("rest.")]]


@pytest.mark.parametrize("point", POINTS)
def test_abort_at_every_step(engine, name, bucket, point):
    """A worker that ends in the midst of a commit: the next one completes it, once."""
    catalog = catalogs.iceberg(bucket.prefix)
    proxy = CatalogProxy(catalog.uri)
    topic = orders.topic_of(200, partitions=2)
    freshness = {"max_age": "1m", "max_rows": 50}
    entry = catalog.entry(uri=proxy.url)
    run = engine([table_of(catalog, name, topic, entry, freshness=freshness)], store=catalog.store)
    if point == "rest.before_read_back":
        proxy.lose = 5
    ended = run.once(code=None, env={"FAILPOINTS": f"{point}=1*off->1*return"})
    assert ended.code in (-signal.SIGABRT, 128 + signal.SIGABRT), ended.said[-2000:]
    proxy.lose = 0
    run.once()
    check(CatalogTable(catalog, name), orders.rows(0, 200))
    proxy.close()
