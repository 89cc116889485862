"""The spec changes on a live table: columns are renamed, dropped, retyped, come back; partitions and order move. Old rows
and new ones are read by every reader, every value."""

from __future__ import annotations

import datetime as dt
import json
import random

import pytest
from pyiceberg.expressions import EqualTo, GreaterThanOrEqual

import chaos
import files
import orders
import readers
import spark
from produce import Sent, create_topic, send
from siltstone import json_table, wait

UTC = dt.UTC
COLUMNS = [
    {"name": "id", "type": "long", "required": True},
    {"name": "cust", "type": "string"},
    {"name": "amount", "type": "int"},
    {"name": "note", "type": "string"},
    {"name": "price", "type": "double"},
    {"name": "at", "type": "timestamptz"},
    {"name": "shop", "type": "int"},
    {
        "name": "who",
        "type": {
            "struct": [
                {"name": "name", "type": "string"},
                {"name": "age", "type": "int"},
                {"name": "nick", "type": "string"},
            ]
        },
    },
]


def record(number: int) -> dict:
    dice = random.Random(number)
    maybe = lambda value: None if dice.random() < 0.15 else value  # noqa: E731
    return {
        "id": number,
        "cust": maybe(f"cust {dice.randrange(40)}"),
        "amount": maybe(dice.randrange(-(2**31), 2**31)),
        "note": maybe(f"note {number}"),
        "price": maybe(dice.random() * 1000),
        "at": dt.datetime(2026, 3, 1, tzinfo=UTC) + dt.timedelta(minutes=number),
        "shop": maybe(dice.randrange(3)),
        "who": maybe({"name": maybe(f"name {number}"), "age": maybe(dice.randrange(90)), "nick": maybe("n")}),
    }


def sent(numbers) -> list[Sent]:
    rows = ({**record(number), "at": record(number)["at"].isoformat()} for number in numbers)
    return [Sent(json.dumps(row).encode(), partition=row["id"] % 2) for row in rows]


def renamed(row: dict, amount=None, note=...) -> dict:
    """A row in the changed form; `note`: where the column came back."""
    who = row["who"] and {"full": row["who"]["name"], "age": row["who"]["age"]}
    changed = {
        "id": row["id"],
        "customer": row["cust"],
        "amount": amount,
        "price": row["price"],
        "at": row["at"],
        "store": row["shop"],
        "who": who,
    }
    return changed if note is ... else {**changed, "note": note}


def text(amount) -> str | None:
    return None if amount is None else str(amount)


EAGER = {"min_inputs": 2, "quiet_after": "0s"}
LAYOUT = {"partition_by": ["shop"], "sort_by": ["amount", "id"], "files": {"bloom_filters": ["cust"]}}
CHANGED_LAYOUT = {
    "partition_by": ["store"],
    "sort_by": ["amount", "id"],
    "files": {"bloom_filters": ["customer"]},
    "compaction": EAGER,
}
CHANGES = {
    "rename": {"cust": "customer", "shop": "store", "who.name": "full"},
    "drop": ["note", "who.nick"],
    "cast": {"amount": "string"},
}


def test_columns_of_a_live_table(engine, name):
    topic = create_topic(partitions=2)
    send(topic, sent(range(0, 60)))
    spec = lambda **changes: json_table(name, topic, COLUMNS, dlq_mode="stop", **changes)  # noqa: E731
    run = engine([spec(**LAYOUT)])
    run.once()
    table = run.table()
    first = [record(number) for number in range(60)]
    readers.check(table, first, readers.ALL)
    ids = {field["name"]: field["id"] for field in table.fields()}
    before = table.ledger()[-1]["version"]

    # A worker of the new spec does not write before the table was changed: it would add columns beside the old ones.
    send(topic, sent(range(60, 100)))
    run.write([spec(**CHANGED_LAYOUT, transforms=CHANGES)])
    ended = run.once(code=None)
    assert ended.code not in (0, None) and "siltstone apply" in ended.err, ended.err[-2000:]

    said = run.command("plan").out
    for line in (
        "~ column cust: renamed to customer",
        "- column note: dropped, rows already written no longer show it",
        "- column amount: int becomes string, rows already written read null there",
        "~ column shop: renamed to store",
        "~ column who.name: renamed to full",
        "- column who.nick: dropped",
        "~ delta: column mapping",
    ):
        assert line in said, f"{line} is not in\n{said}"
    steps = run.json("plan")[0]["steps"]
    assert {"step": "rename_column", "column": "cust", "name": "customer"} in steps
    assert {"step": "map_columns"} in steps

    refused = run.command("apply", code=2)
    assert "apply --allow-data-loss" in refused.out, refused.out
    assert table.ledger()[-1]["version"] == before
    run.command("apply", "--allow-data-loss")
    assert "nothing to do" in run.command("plan").out
    assert "set_schema" in run.command("ledger", name).out

    # At once, before any new row.
    readers.check(table, [renamed(row) for row in first], readers.ALL)
    now = {field["name"]: field["id"] for field in table.fields()}
    assert now["customer"] == ids["cust"] and now["store"] == ids["shop"]
    assert now["amount"] > max(ids.values()), "a retyped column has an id of its own"

    run.once()
    second = [record(number) for number in range(60, 100)]
    expected = [renamed(row) for row in first] + [renamed(row, text(row["amount"])) for row in second]
    readers.check(table, expected, readers.ALL)
    files.check_same_files(table)
    pruned(table, expected)

    # What was dropped comes back when a person says so, and as a new column.
    run.write([spec(**CHANGED_LAYOUT, transforms={**CHANGES, "drop": ["who.nick"]})])
    send(topic, sent(range(100, 130)))
    ended = run.once(code=None)
    assert ended.code not in (0, None) and "column note was dropped" in ended.err, ended.err[-2000:]
    run.command("apply")
    run.once()
    third = [record(number) for number in range(100, 130)]
    expected = [renamed(row, note=None) for row in first]
    expected += [renamed(row, text(row["amount"]), note=None) for row in second]
    expected += [renamed(row, text(row["amount"]), note=row["note"]) for row in third]
    readers.check(table, expected, readers.ALL)
    pruned(table, expected)

    # Files of all three schemas become one.
    run.command("compact")
    run.command("compact")
    readers.check(table, expected, readers.ALL)
    files.check_same_files(table)
    pruned(table, expected)
    schemas = {file["schema_id"] for entry in table.ledger() for file in entry["change"].get("added", [])}
    assert schemas == {entry["change"]["schema"]["schema-id"] for entry in table.ledger() if is_schema(entry)} - {1}


def is_schema(entry: dict) -> bool:
    return entry["change"]["kind"] == "set_schema"


def pruned(table, expected: list[dict]) -> None:
    """Filters on renamed columns, on a partition column, on a column that has values in new rows only."""
    wanted = {
        "customer = 'cust 7'": lambda row: row["customer"] == "cust 7",
        "store = 1": lambda row: row["store"] == 1,
        "amount = '0'": lambda row: row["amount"] == "0",
        "amount is null": lambda row: row["amount"] is None,
    }
    iceberg = f"iceberg_scan('{table.store.url(table.metadata_path())}')"
    delta = f"delta_scan('{readers.delta_url(table)}')"
    for condition, keeps in wanted.items():
        ids = sorted(row["id"] for row in expected if keeps(row))
        for place in (iceberg, delta):
            found = readers._duckdb(table, f"select id from {place} where {condition} order by id")
            assert found.column("id").to_pylist() == ids, (place, condition)
        found = readers.static_table(table).scan(row_filter=condition).to_arrow()
        assert sorted(found.column("id").to_pylist()) == ids, condition


def test_widening_and_what_delta_cannot_show(engine, name):
    """A type that the old one widens to keeps the column; Delta has no form for it, and says so before anything is done."""
    topic = create_topic()
    send(topic, [Sent(json.dumps({"id": n, "n": n}).encode()) for n in range(20)])
    columns = [{"name": "id", "type": "long", "required": True}, {"name": "n", "type": "int"}]
    kinds = {f"{name}_iceberg": ["iceberg"], f"{name}_both": ["iceberg", "delta"]}

    def write(**changes):
        return [json_table(t, topic, columns, group=t, formats=f, **changes) for t, f in kinds.items()]

    run = engine(write())
    run.once()
    run.write(write(transforms={"cast": {"n": "long"}}))
    said = run.command("plan", code=2).out
    assert "~ column n: int becomes long" in said
    assert "delta and column n" in said and "type widening" in said, said
    run.command("apply", code=2)
    lake = run.table(f"{name}_iceberg")
    wide = [{"id": n, "n": n} for n in range(20)]
    readers.check(lake, wide, readers.ICEBERG)
    assert {field["name"]: field["type"] for field in lake.fields()}["n"] == "long"
    assert {field["name"]: field["type"] for field in run.table(f"{name}_both").fields()}["n"] == "int"


def test_a_column_of_partitions_stays(engine, name):
    """Iceberg keeps every partition spec, and some readers look up its columns."""
    topic = create_topic(partitions=2)
    send(topic, sent(range(10)))
    spec = lambda **changes: json_table(name, topic, COLUMNS, **changes)  # noqa: E731
    run = engine([spec(partition_by=["day(at)"], retention={"rows": "10000d", "rows_by": "at"})])
    run.once()
    run.write([spec(transforms={"drop": ["at", "note"]}, files={"bloom_filters": ["cust"]})])
    said = run.command("plan", code=2).out
    assert "! column at is dropped" in said and "Iceberg keeps every partition spec" in said, said


@pytest.mark.parametrize("point", ["commit.before_put", "commit.after_put", "delta.before_put", "iceberg.after_metadata"])
def test_apply_is_killed_while_a_worker_writes(engine, name, point):
    """A worker of the old spec goes on over a rename; apply dies at every step, and is run again."""
    if point not in chaos.all_crash_points():
        pytest.fail(f"{point} is no crash point: {chaos.all_crash_points()}")
    topic = create_topic(partitions=2)
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "200ms"})])
    load = chaos.Load(topic, 2, seed=5)
    worker = run.worker().ready()
    wait(lambda: run.table().exists() and readers.count(run.table()) > 50, 60, "rows")
    new = orders.orders_table(
        name,
        topic,
        freshness={"max_age": "200ms"},
        sort_by=["buyer", "id"],
        partition_by=["region"],
        transforms={"rename": {"customer_id": "buyer"}},
    )
    run.write([new])
    ended = run.run("apply", "-f", str(run.spec), code=None, env={"FAILPOINTS": f"{point}=1*return"})
    # The live worker may show the new version first; then apply has nothing to show, and ends well.
    assert ended.code != 0 or not point.startswith("commit."), ended.said
    run.command("apply")
    shown = readers.count(run.table())
    wait(lambda: readers.count(run.table()) > shown + 50, 60, f"the old worker to go on:\n{worker.said()[-3000:]}")
    # A rolling restart.
    other = run.worker().ready()
    assert worker.stop() == 0
    shown = readers.count(run.table())
    wait(lambda: readers.count(run.table()) > shown + 50, 60, f"the new worker to go on:\n{other.said()[-3000:]}")
    load.stop()
    assert other.stop() == 0
    run.once()
    table = run.table()
    expected = [{("buyer" if key == "customer_id" else key): value for key, value in row.items()} for row in load.expected()]
    readers.check(table, expected, readers.ALL if point == "commit.after_put" else readers.QUICK)
    files.check_same_files(table)


def test_partitions_and_order_of_a_live_table(engine, name):
    """They move under a running worker; files keep the spec by which they were laid down, and compaction never mixes."""
    topic = create_topic(partitions=2)
    pace = {"freshness": {"max_age": "200ms"}, "compaction": {"min_inputs": 2, "quiet_after": "0s", "busy_percent": 100}}
    layouts = [
        {"partition_by": ["region"], "sort_by": ["id"]},
        {"partition_by": ["region", "day(ordered_at)"], "sort_by": ["customer_id desc", "id"]},
        {"partition_by": ["bucket(4, customer_id)"], "sort_by": ["id"]},
        {},
    ]
    run = engine([orders.orders_table(name, topic, **pace, **layouts[0])])
    load = chaos.Load(topic, 2, seed=8)
    worker = run.worker().ready()
    table = run.table()

    def more(rows: int) -> None:
        shown = readers.count(table) if table.exists() else 0
        wait(
            lambda: table.exists() and readers.count(table) > shown + rows,
            60,
            f"more rows:\n{worker.said()[-2000:]}",
        )

    more(100)
    for layout in layouts[1:]:
        run.write([orders.orders_table(name, topic, **pace, **layout)])
        assert "for new files only" in run.command("plan").out
        run.command("apply")
        assert "nothing to do" in run.command("plan").out
        more(150)
    load.stop()
    assert worker.stop() == 0
    run.once()
    for _ in range(2):
        run.command("compact")
        readers.check(table, load.expected(), readers.ALL)
        files.check_same_files(table)
    ledger = table.ledger()
    specs = {entry["change"]["partition_spec"]["spec-id"] for entry in ledger if "partition_spec" in entry["change"]}
    laid_down = [file for entry in ledger for file in entry["change"].get("files", [])]
    assert {file["spec_id"] for file in laid_down} == specs == {0, 1, 2, 3}
    spec_of = {file["path"]: file["spec_id"] for entry in ledger for file in rewritten(entry) + entry["change"].get("files", [])}
    for entry in ledger:
        if entry["change"]["kind"] == "replace":
            of = {spec_of[path] for path in entry["change"]["removed"]}
            of |= {file["spec_id"] for file in entry["change"]["added"]}
            assert len(of) == 1, "files of two partition specs were merged"
    # Scans pass over what cannot match, whatever spec a file is of.
    all_files = set(files.iceberg_files(table))
    for where, keeps in (
        (EqualTo("region", "eu-west"), lambda row: row["region"] == "eu-west"),
        (GreaterThanOrEqual("ordered_at", "2026-01-04T00:00:00+00:00"), lambda row: row["ordered_at"].day >= 4),
        (EqualTo("customer_id", 17), lambda row: row["customer_id"] == 17),
    ):
        assert set(files.iceberg_files(table, where)) < all_files, where
        found = readers.static_table(table).scan(row_filter=where).to_arrow().column("id").to_pylist()
        assert sorted(found) == sorted(row["id"] for row in load.expected() if keeps(row)), where


def rewritten(entry: dict) -> list[dict]:
    return entry["change"].get("added", [])


def test_other_programs_and_retention_on_a_mapped_table(engine, name):
    """Spark writes to the Delta form after a rename; what it wrote is taken in under the columns' names in files."""
    topic = create_topic(partitions=2)
    send(topic, sent(range(0, 40)))
    spec = lambda **changes: json_table(name, topic, COLUMNS, dlq_mode="stop", **changes)  # noqa: E731
    run = engine([spec()])
    run.once()
    run.write([spec(transforms=CHANGES)])
    run.command("apply", "--allow-data-loss")
    send(topic, sent(range(40, 60)))
    run.once()
    table = run.table()
    there = f"delta.`{readers.spark_url(readers.delta_url(table))}`"
    columns = [field["name"] for field in table.fields() if field["name"] != "id"]
    spark.sql(f"INSERT INTO {there} SELECT -id AS id, {', '.join(columns)} FROM {there} WHERE id IN (3, 50)")
    spark.sql(f"DELETE FROM {there} WHERE id IN (5, 52)")
    run.command("compact")
    rows = [renamed(record(n)) for n in range(40)]
    rows += [renamed(record(n), text(record(n)["amount"])) for n in range(40, 60)]
    copied = [{**row, "id": -row["id"]} for row in rows if row["id"] in (3, 50)]
    expected = [row for row in rows if row["id"] not in (5, 52)] + copied
    readers.check(table, expected, readers.ALL)
    files.check_same_files(table)
    run.command("expire")
    run.command("vacuum")
    readers.check(table, expected, readers.ALL)
