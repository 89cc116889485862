"""The catalog for readers: clients that know its address and a token read what was produced, and change nothing."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import requests
import yaml

import lab
import orders
import readers
import spark
from produce import Sent, create_topic, json_poison, send
from siltstone import json_table, wait

ALL = "reader-of-all-0123456789"
SHOP = "reader-of-one-0123456789=="
ENV = {"ALL_TOKEN": ALL, "SHOP_TOKEN": SHOP}
HOSTILE = [
    {"name": "id", "type": "long", "required": True},
    {"name": "\"quo'ted\"", "type": "string"},
    {"name": "sélect", "type": "int"},
    {"name": "a%1Fb", "type": "string"},
    {"name": "order;--", "type": "long"},
]


def serving(engine, bucket, tables, tokens):
    """An engine whose spec asks for the catalog."""
    run = engine(tables, store=bucket, env=ENV)
    document = yaml.safe_load(run.spec.read_text())
    document["readers_catalog"] = {"tokens": tokens} if tokens else {}
    run.spec.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return run


def tokens(allowed: str) -> list[dict]:
    return [
        {"name": "all", "token": "${ALL_TOKEN}"},
        {"name": "shop", "token": "${SHOP_TOKEN}", "allow": [allowed]},
    ]


def uri(worker) -> str:
    return f"http://127.0.0.1:{worker.port}/iceberg"


# --- Clients ----------------------------------------------------------------------------------------------------


def keys() -> dict:
    """What readers bring along: the catalog hands out no credentials."""
    return {"s3.access-key-id": lab.address("S3_ACCESS_KEY"), "s3.secret-access-key": lab.address("S3_SECRET_KEY")}


def pyiceberg(worker, **login):
    from pyiceberg.catalog.rest import RestCatalog

    return RestCatalog("siltstone", uri=uri(worker), **keys(), **login)


def pyiceberg_reader(catalog):
    return lambda table: catalog.load_table(table.name).scan().to_arrow()


def duckdb_catalog(worker, bucket, login: str):
    """A connection with the catalog attached as `lake`."""
    connection = readers.new_duckdb()
    readers.duckdb_secret(connection, bucket)
    connection.execute(
        f"attach '' as lake_catalog (type iceberg, endpoint '{uri(worker)}', {login}, access_delegation_mode 'none')"
    )
    return connection


def duckdb_name(name: str) -> str:
    *namespace, last = name.split(".")
    return f'lake_catalog."{".".join(namespace)}"."{last}"'


def duckdb_reader(connection, suffix=""):
    def read(table) -> pa.Table:
        result = connection.execute(f"select * from {duckdb_name(table.name)} {suffix}").arrow()
        return result.read_all() if isinstance(result, pa.RecordBatchReader) else result

    return read


def spark_catalog(worker, name: str, **login) -> str:
    settings = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "rest",
        ".uri": uri(worker),
        ".cache-enabled": "false",
        # Spark of the tests has Hadoop's file system for S3 and not Iceberg's bundle for AWS.
        ".io-impl": "org.apache.iceberg.hadoop.HadoopFileIO",
        **{f".{key}": value for key, value in login.items()},
    }
    for key, value in settings.items():
        spark.sql(f"SET `spark.sql.catalog.{name}{key}`={value}")
    return name


def spark_name(catalog: str, name: str) -> str:
    return ".".join([catalog, *(f"`{part}`" for part in name.split("."))])


def spark_reader(catalog, suffix=""):
    return lambda table: spark.sql(f"select * from {spark_name(catalog, table.name)} {suffix}")


# --- Tests ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(name):
    """A table below several namespaces, with letters that databases fold, and its rows."""
    return f"{name}x.Deep-er.Select_From"


def hostile_rows(first: int, count: int) -> list[dict]:
    names = [column["name"] for column in HOSTILE]
    return [
        dict(zip(names, (n, f"'; drop table {n} --", n % 7, None if n % 3 else "%1F\u001f", -n), strict=True))
        for n in range(first, first + count)
    ]


def send_hostile(topic: str, rows: list[dict]) -> None:
    send(topic, [Sent(json.dumps(row).encode(), key=None, partition=0, timestamp_ms=1) for row in rows])


def test_every_client_reads_what_was_produced(engine, bucket, name, hostile):
    spark.start()
    topic, other = orders.topic_of(300), create_topic(partitions=1)
    send(topic, [Sent(value, key=None, partition=0, timestamp_ms=1) for _, value in json_poison()])
    send_hostile(other, hostile_rows(0, 50))
    tables = [
        orders.orders_table(name, topic, partition_by=["day(ordered_at)", "region"], sort_by=["id"]),
        json_table(hostile, other, HOSTILE, formats=["iceberg"]),
    ]
    run = serving(engine, bucket, tables, tokens(name.split(".")[0] + ".*"))
    worker = run.worker().ready()
    table, odd = run.table(), run.table(hostile)
    bad = len(json_poison())
    shown(table, 300)
    shown(table.dead_letters, bad)
    shown(odd, 50)

    secret = f"client_id 'all', client_secret '{ALL}', oauth2_server_uri '{uri(worker)}/v1/oauth/tokens'"
    by_token, by_credential = pyiceberg(worker, token=ALL), pyiceberg(worker, credential=f"shop:{SHOP}")
    duck = duckdb_catalog(worker, bucket, f"token '{ALL}'")
    duck_by_secret = duckdb_catalog(worker, bucket, secret)
    word = f"rest{worker.port}"
    sparks = [
        spark_catalog(worker, f"{word}a", token=ALL),
        spark_catalog(worker, f"{word}b", credential=f"shop:{SHOP}"),
    ]
    everyone = {
        "PyIceberg": pyiceberg_reader(by_token),
        "PyIceberg by credential": pyiceberg_reader(by_credential),
        "DuckDB": duckdb_reader(duck),
        "DuckDB by secret": duckdb_reader(duck_by_secret),
        "Spark": spark_reader(sparks[0]),
        "Spark by credential": spark_reader(sparks[1]),
    }
    unrestricted = {key: reader for key, reader in everyone.items() if "credential" not in key}
    readers.check(table, orders.rows(0, 300), everyone)
    readers.check(odd, hostile_rows(0, 50), unrestricted)
    for client, reader in everyone.items():
        assert reader(table.dead_letters).num_rows == bad, client
    first = table.metadata()["current-snapshot-id"]

    # What is committed later is seen at once, by clients that are at it already.
    send(topic, orders.records(300, 200))
    send_hostile(other, hostile_rows(50, 10))
    shown(table, 500)
    shown(odd, 60)
    readers.check(table, orders.rows(0, 500), everyone)
    readers.check(odd, hostile_rows(0, 60), unrestricted)
    past = {
        "PyIceberg": lambda one: by_token.load_table(one.name).scan(snapshot_id=first).to_arrow(),
        "DuckDB": duckdb_reader(duck, f"at (version => {first})"),
        "Spark": spark_reader(sparks[0], f"version as of {first}"),
    }
    readers.check(table, orders.rows(0, 300), past)

    # Names, as clients list them.
    space, last = name.rsplit(".", 1)
    listed = {tuple(identifier) for identifier in by_token.list_tables(space)}
    assert listed == {(space, last), (space, f"{last}__dead_letters")}
    *levels, _ = hostile.split(".")
    assert tuple(levels[:2]) in by_token.list_namespaces(space)
    assert tuple(hostile.split(".")) in by_token.list_tables(tuple(levels))
    in_spark = spark.sql(f"show tables in {spark_name(sparks[0], space)}").column("tableName").to_pylist()
    assert set(in_spark) == {last, f"{last}__dead_letters"}
    in_duckdb = duck.execute("select table_name from duckdb_tables() where database_name = 'lake_catalog'").fetchall()
    assert {last, f"{last}__dead_letters"} <= {row[0] for row in in_duckdb}


def shown(table, rows: int) -> None:
    wait(lambda: table.exists() and readers.count(table) >= rows, 60, f"{rows} rows of {table.name}")
    assert readers.count(table) == rows


def test_clients_change_nothing_and_strangers_see_nothing(engine, bucket, name):
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, OAuthError, UnauthorizedError

    spark.start()
    other = f"hidden{name}"
    topic, second = orders.topic_of(50), orders.topic_of(50)
    tables = [orders.orders_table(name, topic), orders.orders_table(other, second)]
    run = serving(engine, bucket, tables, tokens(name))
    worker = run.worker().ready()
    table = run.table()
    shown(table, 50)
    shown(run.table(other), 50)
    before = (table.metadata(), table.ledger())

    catalog = pyiceberg(worker, token=SHOP)
    loaded = catalog.load_table(name)
    rows = loaded.scan().to_arrow()
    space = name.rsplit(".", 1)[0]
    for act in (
        lambda: loaded.append(rows),
        lambda: loaded.delete("id = 1"),
        lambda: catalog.drop_table(name),
        lambda: catalog.rename_table(name, f"{space}.renamed"),
        lambda: catalog.create_table(f"{space}.new", rows.schema),
        lambda: catalog.create_namespace("new"),
        lambda: catalog.drop_namespace(space),
    ):
        with pytest.raises(Exception) as told:  # noqa: PT011 - each act has its own
            act()
        assert "read-only" in str(told.value) or "does not support" in str(told.value), told.value
    lake = spark_catalog(worker, f"rest{worker.port}c", token=SHOP)
    for words in ("delete from {} where id = 1", "drop table {}", "alter table {} add column x int"):
        with pytest.raises(RuntimeError, match="UnsupportedOperation|read-only|not supported"):
            spark.sql(words.format(spark_name(lake, name)))

    assert catalog.table_exists(name) and not catalog.table_exists(other)
    assert catalog.list_namespaces() == [(space,)]
    for unknown in (other, f"{space}.nothing"):
        with pytest.raises(NoSuchTableError):
            catalog.load_table(unknown)
    with pytest.raises(NoSuchNamespaceError):
        catalog.list_tables(other.rsplit(".", 1)[0])
    for login in ({}, {"token": "a-wrong-token-0123456789"}, {"credential": "shop:a-wrong-token-0123456789"}):
        with pytest.raises((UnauthorizedError, OAuthError)):
            pyiceberg(worker, **login).load_table(name)
    with pytest.raises(RuntimeError, match="NotAuthorized"):
        spark.sql(f"select * from {spark_name(spark_catalog(worker, f'rest{worker.port}d', token='x' * 20), name)}")

    answer = requests.get(f"{uri(worker)}/v1/config", timeout=10)
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "NotAuthorizedException")
    answer = requests.get(f"{uri(worker)}/v1/config", headers={"Authorization": f"Bearer {SHOP}"}, timeout=10)
    said = answer.text + worker.said()
    # Clients keep to the endpoints that the catalog names; who does not is refused.
    commit = f"{uri(worker)}/v1/namespaces/{space}/tables/{name.rsplit('.', 1)[1]}"
    answer = requests.post(commit, json={}, headers={"Authorization": f"Bearer {SHOP}"}, timeout=10)
    assert (answer.status_code, answer.json()["error"]["type"]) == (406, "UnsupportedOperationException")
    assert worker.metric("siltstone_readers_catalog_requests_total", status="406") == 1
    for secret in (ALL, SHOP, lab.address("S3_SECRET_KEY")):
        assert secret not in said
    # Clients that may write to the bucket laid down files that nothing names; the table is as it was.
    assert (table.metadata(), table.ledger()) == before
    readers.check(table, orders.rows(0, 50))


def test_every_worker_serves_every_table(engine, bucket, name):
    """One that reads no partition, and one that has nothing to do with the table."""
    topic, second = orders.topic_of(100), orders.topic_of(10)
    tables = [orders.orders_table(name, topic), orders.orders_table(f"{name}b", second)]
    run = serving(engine, bucket, tables, [])
    workers = [run.worker().ready(), run.worker().ready(), run.worker(arguments=["--table", f"{name}b"]).ready()]
    table = run.table()
    shown(table, 100)
    for worker in workers:
        readers.check(table, orders.rows(0, 100), {"PyIceberg": pyiceberg_reader(pyiceberg(worker))})
    send(topic, orders.records(100, 50))
    shown(table, 150)
    for worker in workers:
        readers.check(table, orders.rows(0, 150), {"PyIceberg": pyiceberg_reader(pyiceberg(worker))})


def test_without_tokens_only_loopback_is_served(engine, bucket, name):
    run = serving(engine, bucket, [orders.orders_table(name, orders.topic_of(1))], [])
    told = run.run("run", "-f", str(run.spec), "--once", "--http", "0.0.0.0:0", code=2).said
    assert "readers_catalog: has no tokens" in told
    run = engine([orders.orders_table(name, orders.topic_of(1))], store=bucket)
    worker = run.worker().ready()
    assert worker.get("/iceberg/v1/config").status_code == 404
