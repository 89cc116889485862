"""What lies in the data files themselves, and what the formats' metadata say of them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from readers import delta_table, static_table
from stores import Table


def iceberg_files(table: Table, where=None) -> list[str]:
    """Names of the data files that a scan reads, as Iceberg plans it."""
    scan = static_table(table).scan(row_filter=where) if where is not None else static_table(table).scan()
    return sorted(name_of(task.file.file_path) for task in scan.plan_files())


def delta_files(table: Table) -> list[str]:
    return sorted(name_of(uri) for uri in delta_table(table).file_uris())


def delta_actions(table: Table) -> list[dict]:
    """The live `add` actions with their statistics, flat: `min.id`, `max.id`, `null_count.id`, `num_records`."""
    return pa.table(delta_table(table).get_add_actions(flatten=True)).to_pylist()


def live_files(ledger: list[dict]) -> set[str]:
    """Names of the files that are live after these entries, which are all from the first one on."""
    live: set[str] = set()
    for entry in ledger:
        change = entry["change"]
        live |= {name_of(file["path"]) for file in change.get("files", []) + change.get("added", [])}
        live -= {name_of(path) for path in change.get("removed", [])}
    return live


def check_same_files(table: Table, ledger: list[dict] | None = None) -> list[str]:
    """Iceberg, Delta and the ledger name the same files, each of which is there. Gives their names.

    `ledger`: its entries, when the first ones do not lie there any more.
    """
    iceberg, delta = iceberg_files(table), delta_files(table)
    live = live_files(table.ledger() if ledger is None else ledger)
    assert iceberg == delta == sorted(live), (iceberg, delta, sorted(live))
    missing = set(iceberg) - set(table.list("data"))
    assert not missing, f"named but not there: {missing}"
    return iceberg


def check_layout(table: Table, codec: str = "ZSTD") -> None:
    """Field ids are the schema's, columns are compressed, pages are indexed, types are plain."""
    fields = {field["name"]: field for field in table.fields()}
    for name in iceberg_files(table):
        file = open_file(table, name)
        for column in file.schema_arrow:
            _check_field_ids(column, fields[column.name], name)
        groups = file.metadata
        for group in range(groups.num_row_groups):
            for index in range(groups.num_columns):
                chunk = groups.row_group(group).column(index)
                assert chunk.compression == codec, (name, chunk.path_in_schema, chunk.compression)
                assert chunk.has_offset_index, (name, chunk.path_in_schema, "no offset index")
                assert chunk.has_column_index, (name, chunk.path_in_schema, "no column index")


def check_sorted(table: Table, keys: list[tuple[str, bool, bool]]) -> None:
    """Rows of every file are in order of `keys`: (column, descending, nulls first)."""
    for name in iceberg_files(table):
        rows = open_file(table, name).read(columns=[column for column, _, _ in keys]).to_pylist()
        for before, after in zip(rows, rows[1:]):
            assert _ordered(before, after, keys), f"{name}: {before} stands before {after}"


def open_file(table: Table, name: str) -> pq.ParquetFile:
    path = table.store.inner(f"{table.location}/data/{name}")
    return pq.ParquetFile(table.filesystem.open_input_file(path))


def _ordered(before: dict, after: dict, keys) -> bool:
    for column, descending, nulls_first in keys:
        left, right = before[column], after[column]
        if left == right:
            continue
        if left is None or right is None:
            return (left is None) == nulls_first
        return (left > right) if descending else (left < right)
    return True


def _check_field_ids(column: pa.Field, field: dict, name: str) -> None:
    assert _field_id(column) == field["id"], (name, column.name, _field_id(column), field["id"])
    kind = field["type"]
    assert not any(view in str(column.type) for view in ("string_view", "binary_view")), (name, column)
    if not isinstance(kind, dict):
        return
    if kind["type"] == "struct":
        members = {member["name"]: member for member in kind["fields"]}
        for index in range(column.type.num_fields):
            member = column.type.field(index)
            _check_field_ids(member, members[member.name], name)
    elif kind["type"] == "list":
        element = {"id": kind["element-id"], "type": kind["element"]}
        _check_field_ids(column.type.value_field, element, name)
    else:
        _check_field_ids(column.type.key_field, {"id": kind["key-id"], "type": kind["key"]}, name)
        _check_field_ids(column.type.item_field, {"id": kind["value-id"], "type": kind["value"]}, name)


def _field_id(column: pa.Field) -> int:
    return int((column.metadata or {}).get(b"PARQUET:field_id", b"-1"))


def name_of(path: str) -> str:
    return path.rsplit("/", 1)[-1]
