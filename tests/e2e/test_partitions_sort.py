"""Partitions and order: every transform, files that hold one partition and sorted rows, plans that pass files over."""

import base64
import datetime as dt
import json
import random
import uuid
from decimal import Decimal

import pytest
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan

import files
import orders
import readers
from produce import AvroWriter, Registry, Sent, create_topic, send
from siltstone import json_table, table

UTC = dt.UTC
COLUMNS = [
    {"name": "id", "type": "long", "required": True},
    {"name": "word", "type": "string"},
    {"name": "number", "type": "int"},
    {"name": "price", "type": "decimal(9, 2)"},
    {"name": "day", "type": "date"},
    {"name": "at", "type": "timestamptz"},
    {"name": "local", "type": "timestamp"},
    {"name": "flag", "type": "boolean"},
    {"name": "raw", "type": "binary"},
]


def rows(count: int, seed: int = 3) -> list[dict]:
    dice = random.Random(seed)
    made = []
    for number in range(count):
        moment = dt.datetime(1969, 12, 30) + dt.timedelta(
            minutes=dice.randrange(60 * 24 * 5), microseconds=dice.randrange(10**6)
        )
        row = {
            "id": number,
            "word": dice.choice(["", " ", "a", "ab", "abc", "abd", "äöü", "äöx", "𝄞 clef", "long " * 10]),
            "number": dice.choice([-(2**31) + 8, -7, -1, 0, 1, 6, 7, 2**31 - 1]),
            "price": Decimal(dice.randrange(-999_999, 999_999)).scaleb(-2),
            "day": moment.date(),
            "at": moment.replace(tzinfo=UTC),
            "local": moment,
            "flag": dice.random() < 0.5,
            "raw": dice.choice([b"", b"\x00", b"ab", b"abc\xff"]),
        }
        for column in row:
            if column != "id" and dice.random() < 0.08:
                row[column] = None
        made.append(row)
    return made


def as_json(row: dict) -> bytes:
    plain = dict(row)
    for column in ("day", "local"):
        plain[column] = row[column] and row[column].isoformat()
    plain["at"] = row["at"] and row["at"].isoformat()
    plain["price"] = None if row["price"] is None else str(row["price"])
    plain["raw"] = None if row["raw"] is None else base64.b64encode(row["raw"]).decode()
    return json.dumps(plain).encode()


def ingest(engine, name, data, **changes):
    topic = create_topic(partitions=2)
    send(topic, [Sent(as_json(row), partition=number % 2) for number, row in enumerate(data)])
    run = engine([json_table(name, topic, COLUMNS, dlq_mode="stop", **changes)])
    run.once()
    return run.table()


TRANSFORMS = [
    "word",
    "number",
    "price",
    "day",
    "flag",
    "truncate(2, word)",
    "truncate(10, number)",
    "truncate(50, price)",
    "truncate(1, raw)",
    "bucket(4, word)",
    "bucket(4, number)",
    "bucket(4, price)",
    "bucket(4, day)",
    "bucket(4, at)",
    "bucket(4, local)",
    "bucket(4, raw)",
    "bucket(4, id)",
    "year(day)",
    "month(day)",
    "day(day)",
    "year(at)",
    "month(at)",
    "day(at)",
    "hour(at)",
    "year(local)",
    "month(local)",
    "day(local)",
    "hour(local)",
]


def test_every_transform_puts_each_row_where_readers_look(engine, name):
    """One table a transform. Values are those that PyIceberg itself computes for the rows of each file."""
    data = rows(150)
    topic = create_topic()
    send(topic, [Sent(as_json(row)) for row in data])
    tables = [
        json_table(
            f"{name}_{index}",
            topic,
            COLUMNS,
            dlq_mode="stop",
            partition_by=[transform],
            group=f"{name}-{index}",
        )
        for index, transform in enumerate(TRANSFORMS)
    ]
    run = engine(tables)
    run.once(timeout=300)
    faults = []
    for transform, spec in zip(TRANSFORMS, tables):
        lake = run.table(spec["name"])
        try:
            readers.check(lake, data)
            _check_partition_values(lake)
        except AssertionError as fault:
            faults.append(f"partition_by {transform}: {fault}")
    assert not faults, "\n".join(faults)


EXTREMES = {
    "flag": ("boolean", [True, False]),
    "small": ("int", [-(2**31), -1, 0, 2**31 - 1]),
    "large": ("long", [-(2**63), -1, 0, 2**63 - 1]),
    "price": ("decimal(38, 10)", [Decimal(f"{sign}{'9' * 28}.{'9' * 10}") for sign in ("-", "")]),
    "cents": ("decimal(9, 2)", [Decimal("-0.05"), Decimal("0.00"), Decimal("9999999.99")]),
    "whole": ("decimal(20, 0)", [Decimal(2**64 - 1), Decimal(0)]),
    "word": ("string", ["", " ", "null", "__HIVE_DEFAULT_PARTITION__", "a=b/c", "é", "long " * 10]),
    "raw": ("binary", [b"", b"\x00", b"\xff\xfe", b"ab"]),
    "code": ("fixed[2]", [b"\x00\x00", b"\xff\xfe"]),
    "key": ("uuid", [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)]),
    "day": ("date", [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(9999, 12, 31)]),
    "at": ("timestamptz", [dt.datetime(1, 1, 1, tzinfo=UTC), dt.datetime(2026, 3, 29, 1, 30, 0, 1, tzinfo=UTC)]),
    "local": ("timestamp", [dt.datetime(1, 1, 1), dt.datetime(2026, 3, 29, 2, 30, 0, 1)]),
    "real": ("float", [-0.5, 0.0, 3.0e38]),
    "double": ("double", [-0.5, 0.0, 1e300, 5e-324]),
}
# What Delta's partition values hold exactly; the others are read from the files.
DELTA_COLUMNS = {"flag", "small", "large", "price", "cents", "whole"}


def extreme_json(row: dict) -> bytes:
    def plain(value):
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if isinstance(value, Decimal | uuid.UUID):
            return str(value)
        return value.isoformat() if isinstance(value, dt.date) else value

    return json.dumps({column: plain(value) for column, value in row.items()}).encode()


def test_identity_partitions_of_every_type_in_every_reader(engine, name):
    """One table a type, of its extremes and null; what partition values cannot hold is no partition column in Delta."""
    topics, tables, rows_of = [], [], {}
    for column, (kind, values) in EXTREMES.items():
        data = [{"id": n, column: value} for n, value in enumerate([*values, None] * 2)]
        topics.append(create_topic())
        send(topics[-1], [Sent(extreme_json(row)) for row in data])
        columns = [{"name": "id", "type": "long"}, {"name": column, "type": kind}]
        tables.append(
            json_table(f"{name}_{column}", topics[-1], columns, dlq_mode="stop", partition_by=[column])
        )
        rows_of[column] = data
    run = engine(tables)
    run.once(timeout=300)
    faults = []
    for column, spec in zip(EXTREMES, tables):
        lake = run.table(spec["name"])
        try:
            # Spark's Iceberg reader fails on a partition column of type fixed ("index out of bounds"); it reads
            # the column when the table is not partitioned by it.
            who = {n: r for n, r in readers.ALL.items() if (n, column) != ("Spark Iceberg", "code")}
            readers.check(lake, rows_of[column], who)
            assert len(files.check_same_files(lake)) == len(EXTREMES[column][1]) + 1
            declared = readers.delta_table(lake).metadata().partition_columns
            assert declared == ([column] if column in DELTA_COLUMNS else []), declared
        except AssertionError as fault:
            faults.append(f"partition_by {column}: {fault}")
    assert not faults, "\n".join(faults)


def test_binary_partitions(engine, name):
    """Delta has no partition values for bytes: there the column is read from the files."""
    data = rows(60)
    lake = ingest(engine, name, data, partition_by=["raw"])
    assert readers.delta_table(lake).metadata().partition_columns == []
    readers.check(lake, data, readers.ALL)
    _check_partition_values(lake)


def _check_partition_values(lake) -> None:
    """Every file holds exactly one partition, and its manifest entry names that partition."""
    opened = readers.static_table(lake)
    spec, schema = opened.spec(), opened.schema()
    [field] = spec.fields
    source = schema.find_field(field.source_id)
    transform = field.transform.transform(source.field_type)
    seen = set()
    for task in opened.scan().plan_files():
        name = task.file.file_path.rsplit("/", 1)[-1]
        column = files.open_file(lake, name).read(columns=[source.name]).column(0)
        values = {transform(_internal(value)) for value in column.to_pylist()}
        assert values == {task.file.partition[0]}, (name, values, task.file.partition)
        seen.add(task.file.partition[0])
    assert len(seen) > 1


def _internal(value):
    """A value as PyIceberg's transforms take it."""
    if isinstance(value, dt.datetime):
        base = dt.datetime(1970, 1, 1, tzinfo=value.tzinfo)
        return (value - base) // dt.timedelta(microseconds=1)
    if isinstance(value, dt.date):
        return (value - dt.date(1970, 1, 1)).days
    return value


def test_spark_reads_several_transforms_together(engine, name):
    data = rows(300)
    spec = ["day(at)", "bucket(3, id)", "truncate(1, word)", "flag"]
    lake = ingest(engine, name, data, partition_by=spec, sort_by=["number desc nulls last", "id"])
    files.check_same_files(lake)
    files.check_layout(lake)
    files.check_sorted(lake, [("number", True, False), ("id", False, True)])
    readers.check(lake, data, readers.ALL)


def test_void_partition_and_names(engine, name):
    data = rows(50)
    lake = ingest(engine, name, data, partition_by=["void(word)", "month(day) as period", "number as n"])
    names = [field["name"] for field in lake.metadata()["partition-specs"][0]["fields"]]
    assert names == ["word_null", "period", "n"]
    readers.check(lake, data)


@pytest.mark.parametrize(
    "keys",
    [
        [("number", False, True), ("id", False, True)],
        [("word", True, False), ("at", False, True), ("id", True, False)],
        [("price", False, False), ("raw", True, True), ("id", False, True)],
        [("flag", True, True), ("day", True, False), ("local", False, False), ("id", False, True)],
    ],
    ids=["int", "string-time", "decimal-binary", "bool-date"],
)
def test_rows_are_sorted_inside_every_file(engine, name, keys):
    data = rows(400)
    words = [
        f"{c} {'desc' if desc else 'asc'} nulls {'first' if first else 'last'}" for c, desc, first in keys
    ]
    lake = ingest(engine, name, data, sort_by=words)
    files.check_sorted(lake, keys)
    orders_ = lake.metadata()["sort-orders"]
    current = next(one for one in orders_ if one["order-id"] == lake.metadata()["default-sort-order-id"])
    assert [(one["direction"], one["null-order"]) for one in current["fields"]] == [
        ("desc" if desc else "asc", "nulls-first" if first else "nulls-last") for _, desc, first in keys
    ]
    readers.check(lake, data)


def test_nan_and_signed_zero_sort_in_one_place(engine, name):
    topic = create_topic()
    schema = {
        "type": "record",
        "name": "Row",
        "fields": [{"name": "id", "type": "long"}, {"name": "x", "type": ["null", "double"]}],
    }
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    values = [1.0, float("nan"), -0.0, 0.0, None, float("-inf"), float("inf"), -1.5, float("nan"), None]
    send(topic, [Sent(writer({"id": n, "x": x})) for n, x in enumerate(values)])
    run = engine([table(name, topic, sort_by=["x asc nulls first"])])
    run.once()
    readers.check(run.table(), [{"id": n, "x": x} for n, x in enumerate(values)], readers.ALL)
    [file] = files.iceberg_files(run.table())
    found = [repr(x) for x in files.open_file(run.table(), file).read(columns=["x"]).column(0).to_pylist()]
    assert found == ["None", "None", "-inf", "-1.5", "-0.0", "0.0", "1.0", "inf", "nan", "nan"]


def test_plans_pass_files_over(engine, name):
    """Partition values and column bounds let readers leave most files alone, and never a needed one."""
    topic = orders.topic_of(600, partitions=2)
    run = engine(
        [
            orders.orders_table(
                name,
                topic,
                partition_by=["day(ordered_at)", "bucket(4, customer_id)"],
                sort_by=["customer_id"],
            )
        ]
    )
    run.once()
    lake = run.table()
    every = files.check_same_files(lake)
    expected = orders.rows(0, 600)
    start = dt.datetime(2026, 1, 3, tzinfo=UTC)
    day = And(
        GreaterThanOrEqual("ordered_at", start.isoformat()),
        LessThan("ordered_at", (start + dt.timedelta(days=1)).isoformat()),
    )
    cases = [
        (day, lambda row: start <= row["ordered_at"] < start + dt.timedelta(days=1), len(every) // 5),
        (EqualTo("customer_id", 17), lambda row: row["customer_id"] == 17, len(every) // 3),
        (LessThan("id", 40), lambda row: row["id"] < 40, len(every) // 3),
    ]
    for where, keeps, most in cases:
        planned = files.iceberg_files(lake, where)
        assert 0 < len(planned) <= most, (where, len(planned), len(every))
        found = readers.static_table(lake).scan(row_filter=where).to_arrow().num_rows
        assert found == sum(keeps(row) for row in expected), where
    # Delta: no partition column for these transforms, so the statistics of the files do the work.
    actions = files.delta_actions(lake)
    useful = [one for one in actions if one["min.id"] < 40]
    assert len(useful) <= len(every) // 3
    assert sum(one["num_records"] for one in actions) == 600


def test_statistics_are_the_truth(engine, name):
    """Bounds and counts of both formats against the rows of each file. Bounds may be wide, never too tight."""
    data = rows(200)
    lake = ingest(engine, name, data, partition_by=["bucket(3, id)"], sort_by=["at"])
    actions = {one["path"].rsplit("/", 1)[-1]: one for one in files.delta_actions(lake)}
    inspected = readers.static_table(lake).inspect.files().to_pylist()
    assert len(inspected) == len(actions) > 1
    for entry in inspected:
        name_ = entry["file_path"].rsplit("/", 1)[-1]
        held = files.open_file(lake, name_).read().to_pylist()
        assert entry["record_count"] == actions[name_]["num_records"] == len(held)
        for column, metrics in entry["readable_metrics"].items():
            values = [row[column] for row in held if row[column] is not None]
            nulls = len(held) - len(values)
            assert metrics["null_value_count"] == nulls, (name_, column)
            assert metrics["value_count"] == len(held), (name_, column)
            if values and column != "flag":
                assert metrics["lower_bound"] <= min(values) and metrics["upper_bound"] >= max(values), (
                    name_,
                    column,
                    metrics,
                )
            assert actions[name_].get(f"null_count.{column}") == nulls, (name_, column)
            low, high = actions[name_].get(f"min.{column}"), actions[name_].get(f"max.{column}")
            if values and low is not None and column in ("id", "number", "price", "day", "word"):
                assert low <= min(values) and high >= max(values), (name_, column, low, high)
            if values and column in ("id", "number", "price", "day"):
                assert low is not None and high is not None, f"{column} has no bounds in Delta"


def test_a_thousand_partitions(engine, name):
    """One flush into a thousand partitions, within the usual memory."""
    topic = create_topic(partitions=2)
    data = [{"id": n, "number": n % 1000} for n in range(3000)]
    send(
        topic,
        [
            Sent(b'{"id": %d, "number": %d}' % (row["id"], row["number"]), partition=row["id"] % 2)
            for row in data
        ],
    )
    columns = [{"name": "id", "type": "long"}, {"name": "number", "type": "int"}]
    run = engine(
        [
            json_table(
                name, topic, columns, partition_by=["number"], sort_by=["id"], freshness={"max_age": "1m"}
            )
        ]
    )
    run.once("--memory", "64MiB", timeout=240)
    lake = run.table()
    assert len(files.check_same_files(lake)) >= 1000
    assert len(files.iceberg_files(lake, EqualTo("number", 77))) <= 2
    assert len(readers.delta_table(lake).file_uris([("number", "=", "77")])) <= 2
    readers.check(lake, data)


def test_partitions_can_change(engine, name):
    """New files go by the new spec, old files stay as they are, readers see all of it."""
    topic = orders.topic_of(100)
    run = engine([orders.orders_table(name, topic, partition_by=["day(ordered_at)"])])
    run.once()
    send(topic, orders.records(100, 100))
    run.write(
        [
            orders.orders_table(
                name, topic, partition_by=["month(ordered_at)", "bucket(2, id)"], sort_by=["id"]
            )
        ]
    )
    run.command("apply")
    run.once()
    assert len(run.table().metadata()["partition-specs"]) == 2
    readers.check(run.table(), orders.rows(0, 200), readers.ALL)
