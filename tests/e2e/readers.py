"""Tables read by clients that know nothing of Siltstone, every value brought to one form."""

from __future__ import annotations

import functools
import glob
import importlib
import pathlib

import pyarrow as pa

import spark
from stores import Bucket, Table
from values import assert_same_rows, canonical_row


# --- One function per client: a table as Arrow -------------------------------------------------------------------


def _pyiceberg(table: Table) -> pa.Table:
    return static_table(table).scan().to_arrow()


def _duckdb_iceberg(table: Table) -> pa.Table:
    return _duckdb(table, f"select * from iceberg_scan('{table.store.url(table.metadata_path())}')")


def _deltalake(table: Table) -> pa.Table:
    from deltalake import QueryBuilder

    return pa.table(QueryBuilder().register("t", delta_table(table)).execute("select * from t").read_all())


def _duckdb_delta(table: Table) -> pa.Table:
    return _duckdb(table, f"select * from delta_scan('{delta_url(table)}')")


def _spark_iceberg(table: Table) -> pa.Table:
    return spark.read("iceberg", spark_url(table.store.file_url(table.location)))


def _spark_delta(table: Table) -> pa.Table:
    return spark.read("delta", spark_url(delta_url(table)))


ICEBERG = {"PyIceberg": _pyiceberg, "DuckDB iceberg_scan": _duckdb_iceberg}
DELTA = {"delta-rs": _deltalake, "DuckDB delta_scan": _duckdb_delta}
SPARK = {"Spark Iceberg": _spark_iceberg, "Spark Delta": _spark_delta}
QUICK = {**ICEBERG, **DELTA}
ALL = {**QUICK, **SPARK}


# --- Comparing --------------------------------------------------------------------------------------------------


def rows(table: Table, reader, ignore=()) -> list[tuple]:
    fields = [field for field in table.fields() if field["name"] not in ignore]
    arrow = reader(table)
    return [
        canonical_row(_as_seen_by(reader, row, fields), fields)
        for row in _python_rows(arrow.drop_columns(list(ignore)) if ignore else arrow)
    ]


def _as_seen_by(reader, row: dict, fields: list[dict]) -> dict:
    """PyIceberg 0.12 makes lists and maps of structs anew without their nulls: one that is null comes as an empty one. So for
    PyIceberg alone, both are one."""
    if reader is not _pyiceberg:
        return row
    kinds = {field["name"]: field["type"] for field in fields}
    return {name: _without_nulls(value, kinds.get(name)) for name, value in row.items()}


def _without_nulls(value, kind):
    if not isinstance(kind, dict):
        return value
    if kind["type"] == "struct":
        if not isinstance(value, dict):
            return value
        members = {member["name"]: member["type"] for member in kind["fields"]}
        return {name: _without_nulls(member, members.get(name)) for name, member in value.items()}
    inside = kind["element"] if kind["type"] == "list" else kind["value"]
    if not isinstance(inside, dict):
        return value
    if value is None:
        empty = [] if kind["type"] == "list" else {}
        return empty if inside["type"] == "struct" else None
    if kind["type"] == "list":
        return [_without_nulls(item, inside) for item in value]
    entries = value.items() if isinstance(value, dict) else value
    return [(key, _without_nulls(item, inside)) for key, item in entries]


def check(table: Table, expected: list[dict], readers=QUICK, ignore=()) -> None:
    """Every reader sees exactly the expected rows. All readers are tried before a fault is raised."""
    fields = [field for field in table.fields() if field["name"] not in ignore]
    faults = []
    for name, reader in readers.items():
        try:
            wanted = [canonical_row(_as_seen_by(reader, row, fields), fields) for row in expected]
            assert_same_rows(rows(table, reader, ignore), wanted, f"{name} on {table.name}")
        except Exception as fault:  # noqa: BLE001 - a client may raise anything; all of it is told
            text = str(fault)
            faults.append(
                text if name in text else f"{name} on {table.name}: {type(fault).__name__}: {text[:1500]}"
            )
    assert not faults, "\n".join(faults)


def count(table: Table) -> int:
    return _pyiceberg(table).num_rows


def _python_rows(arrow: pa.Table) -> list[dict]:
    return arrow.to_pylist()


# --- Clients ----------------------------------------------------------------------------------------------------


def static_table(table: Table):
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(table.store.url(table.metadata_path()), table.store.iceberg_options)


def delta_url(table: Table) -> str:
    """The Delta table's root is the folder of the data files."""
    return table.store.url(f"{table.location}/data")


def delta_table(table: Table):
    from deltalake import DeltaTable

    return DeltaTable(delta_url(table), storage_options=table.store.delta_options)


def spark_url(url: str) -> str:
    return url if "://" in url else f"file://{url}"


def _duckdb(table: Table, query: str) -> pa.Table:
    connection = duckdb_connection()
    if isinstance(table.store, Bucket):
        duckdb_secret(connection, table.store)
    result = connection.execute(query).arrow()
    return result.read_all() if isinstance(result, pa.RecordBatchReader) else result


def duckdb_secret(connection, store: Bucket) -> None:
    """Lets DuckDB read the bucket."""
    options = store.iceberg_options
    endpoint = options["s3.endpoint"].removeprefix("http://")
    connection.execute(
        "create or replace secret lake (type s3, url_style 'path', use_ssl false, region 'us-east-1', "
        f"endpoint '{endpoint}', key_id '{options['s3.access-key-id']}', secret '{options['s3.secret-access-key']}')"
    )


def new_duckdb():
    """DuckDB with the extensions that come from the package index; it downloads nothing itself, and remembers nothing."""
    import duckdb

    connection = duckdb.connect(
        config={
            "allow_unsigned_extensions": "true",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    for name in ("avro", "httpfs", "iceberg", "delta"):
        folder = importlib.import_module(f"duckdb_extension_{name}").__path__[0]
        found = glob.glob(str(pathlib.Path(folder) / "**" / "*.duckdb_extension"), recursive=True)
        connection.execute(f"load '{found[0]}'")
    connection.execute("set timezone = 'UTC'")
    # Tables grow between two reads: nothing may be remembered.
    connection.execute("set enable_external_file_cache = false")
    return connection


duckdb_connection = functools.cache(new_duckdb)
