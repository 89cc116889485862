"""Every Avro type and logical type, value by value, in both formats, by every reader."""

import datetime as dt
import random
import uuid
from decimal import Decimal

import files
import readers
from produce import AvroWriter, Registry, Sent, create_topic, send
from siltstone import table

UTC = dt.UTC


def decimal_type(base: dict, precision: int, scale: int) -> dict:
    return {**base, "logicalType": "decimal", "precision": precision, "scale": scale}


def nullable(kind) -> list:
    return ["null", kind]


# Column -> (Avro type, Iceberg type).
PLAIN = {
    "a_boolean": ("boolean", "boolean"),
    "an_int": ("int", "int"),
    "a_long": ("long", "long"),
    "a_float": ("float", "float"),
    "a_double": ("double", "double"),
    "some_bytes": ("bytes", "binary"),
    "a_string": ("string", "string"),
    "an_enum": ({"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN", "BLUE"]}, "string"),
    "a_date": ({"type": "int", "logicalType": "date"}, "date"),
    "at_millis": ({"type": "long", "logicalType": "timestamp-millis"}, "timestamptz"),
    "at_micros": ({"type": "long", "logicalType": "timestamp-micros"}, "timestamptz"),
    "local_millis": ({"type": "long", "logicalType": "local-timestamp-millis"}, "timestamp"),
    "local_micros": ({"type": "long", "logicalType": "local-timestamp-micros"}, "timestamp"),
    "decimal_bytes": (decimal_type({"type": "bytes"}, 38, 10), "decimal(38, 10)"),
    "decimal_fixed": (decimal_type({"type": "fixed", "name": "Price", "size": 9}, 20, 5), "decimal(20, 5)"),
    "decimal_small": (decimal_type({"type": "bytes"}, 5, 0), "decimal(5, 0)"),
}
# Types that Delta does not have: it shows UUIDs and fixed bytes as binary, and no time of day.
ICEBERG_ONLY = {
    "time_millis": ({"type": "int", "logicalType": "time-millis"}, "time"),
    "time_micros": ({"type": "long", "logicalType": "time-micros"}, "time"),
    "a_uuid": ({"type": "string", "logicalType": "uuid"}, "uuid"),
    "a_fixed": ({"type": "fixed", "name": "Seven", "size": 7}, "fixed[7]"),
}

LOW = {
    "a_boolean": False,
    "an_int": -(2**31),
    "a_long": -(2**63),
    "a_float": -3.4028234663852886e38,
    "a_double": -0.0,
    "some_bytes": b"",
    "a_string": "",
    "an_enum": "RED",
    "a_date": dt.date(1, 1, 1),
    "at_millis": dt.datetime(1, 1, 1, tzinfo=UTC),
    "at_micros": dt.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    "local_millis": dt.datetime(1, 1, 1),
    "local_micros": dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
    "decimal_bytes": Decimal("-9999999999999999999999999999.9999999999"),
    "decimal_fixed": Decimal("-999999999999999.99999"),
    "decimal_small": Decimal("-99999"),
    "time_millis": dt.time(0),
    "time_micros": dt.time(0),
    "a_uuid": uuid.UUID(int=0),
    "a_fixed": b"\0" * 7,
}
HIGH = {
    "a_boolean": True,
    "an_int": 2**31 - 1,
    "a_long": 2**63 - 1,
    "a_float": float("nan"),
    "a_double": float("inf"),
    "some_bytes": bytes(range(256)),
    "a_string": 'naïve ✓ 𝄞 \0 \n\t"',
    "an_enum": "BLUE",
    "a_date": dt.date(9999, 12, 31),
    "at_millis": dt.datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    "at_micros": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "local_millis": dt.datetime(9999, 12, 31, 23, 59, 59, 999000),
    "local_micros": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    "decimal_bytes": Decimal("9999999999999999999999999999.9999999999"),
    "decimal_fixed": Decimal("999999999999999.99999"),
    "decimal_small": Decimal("99999"),
    "time_millis": dt.time(23, 59, 59, 999000),
    "time_micros": dt.time(23, 59, 59, 999999),
    "a_uuid": uuid.UUID(int=2**128 - 1),
    "a_fixed": b"\xff" * 7,
}


def some(dice: random.Random, column: str):
    """A value of the column in the midst of its range."""
    moment = dt.datetime(2020, 1, 1) + dt.timedelta(microseconds=dice.randrange(10**15))
    millis = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return {
        "a_boolean": lambda: dice.random() < 0.5,
        "an_int": lambda: dice.randrange(-1000, 1000),
        "a_long": lambda: dice.randrange(-(10**15), 10**15),
        "a_float": lambda: float(dice.randrange(-1000, 1000)) / 8,
        "a_double": lambda: dice.uniform(-1e300, 1e300),
        "some_bytes": lambda: dice.randbytes(dice.randrange(20)),
        "a_string": lambda: "".join(dice.choice("abc äß✓𝄞") for _ in range(dice.randrange(40))),
        "an_enum": lambda: dice.choice(["RED", "GREEN", "BLUE"]),
        "a_date": lambda: moment.date(),
        "at_millis": lambda: millis.replace(tzinfo=UTC),
        "at_micros": lambda: moment.replace(tzinfo=UTC),
        "local_millis": lambda: millis,
        "local_micros": lambda: moment,
        "decimal_bytes": lambda: Decimal(dice.randrange(-(10**37), 10**37)).scaleb(-10),
        "decimal_fixed": lambda: Decimal(dice.randrange(-(10**19), 10**19)).scaleb(-5),
        "decimal_small": lambda: Decimal(dice.randrange(-99999, 99999)),
        "time_millis": lambda: millis.time(),
        "time_micros": lambda: moment.time(),
        "a_uuid": lambda: uuid.UUID(int=dice.getrandbits(128)),
        "a_fixed": lambda: dice.randbytes(7),
    }[column]()


def rows_of(columns: dict, count: int = 60) -> list[dict]:
    dice = random.Random(11)
    columns = sorted(columns)
    rows = [{c: LOW[c] for c in columns}, {c: HIGH[c] for c in columns}]
    for _ in range(count):
        rows.append({c: some(dice, c) for c in columns})
    return rows


def record(fields: dict, name: str = "Row") -> dict:
    return {
        "type": "record",
        "name": name,
        "namespace": "e2e",
        "fields": [{"name": n, "type": t} for n, t in fields.items()],
    }


def ingest(engine, name, schema, rows, **changes):
    topic = create_topic(partitions=2)
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(topic, [Sent(writer(row), partition=index % 2) for index, row in enumerate(rows)])
    run = engine([table(name, topic, **changes)])
    run.once()
    return run.table()


def check_types(lake, columns: dict) -> None:
    types = {field["name"]: (field["type"], field["required"]) for field in lake.fields()}
    assert types == {name: (kind, True) for name, (_, kind) in columns.items()}


def test_plain_types(engine, name):
    columns = {"row": ("long", "long"), **PLAIN}
    rows = [{"row": number, **row} for number, row in enumerate(rows_of(PLAIN))]
    lake = ingest(engine, name, record({c: avro for c, (avro, _) in columns.items()}), rows)
    check_types(lake, columns)
    files.check_same_files(lake)
    files.check_layout(lake)
    readers.check(lake, rows, readers.ALL)


def test_uuid_and_fixed(engine, name):
    """In Delta both are shown as their bytes."""
    columns = {"row": ("long", "long"), **{c: ICEBERG_ONLY[c] for c in ("a_uuid", "a_fixed")}}
    rows = [
        {"row": number, **row} for number, row in enumerate(rows_of(ICEBERG_ONLY.keys() & columns.keys()))
    ]
    lake = ingest(engine, name, record({c: avro for c, (avro, _) in columns.items()}), rows)
    check_types(lake, columns)
    readers.check(lake, rows, readers.ALL)


def test_time_of_day(engine, name):
    """Delta has none, so such a table is Iceberg's alone. Spark reads no time of day, whoever wrote it."""
    columns = {"row": ("long", "long"), **{c: ICEBERG_ONLY[c] for c in ("time_millis", "time_micros")}}
    rows = [
        {"row": number, **row} for number, row in enumerate(rows_of(ICEBERG_ONLY.keys() & columns.keys()))
    ]
    lake = ingest(
        engine, name, record({c: avro for c, (avro, _) in columns.items()}), rows, formats=["iceberg"]
    )
    check_types(lake, columns)
    readers.check(lake, rows, readers.ICEBERG)


def test_time_of_day_is_refused_in_delta(engine, name):
    """By the column's name, with what to do."""
    topic = create_topic()
    schema = record({"row": "long", "opens": ICEBERG_ONLY["time_micros"][0]})
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(topic, [Sent(writer({"row": 1, "opens": dt.time(9)}))])
    ended = engine([table(name, topic)]).once(code=None)
    assert ended.code in (1, 2)
    for word in (name, "opens", "delta"):
        assert word in ended.err, ended.err


def test_further_logical_types(engine, name):
    """Finer or rarer than the table's types: nanoseconds are rounded down, the others keep their bytes."""
    nanos = {"type": "long", "logicalType": "timestamp-nanos"}
    local = {"type": "long", "logicalType": "local-timestamp-nanos"}
    schema = record(
        {
            "row": "long",
            "at": nanos,
            "local": local,
            "span": {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"},
            "wide": {"type": "bytes", "logicalType": "big-decimal"},
            "other": {"type": "string", "logicalType": "no-such-type"},
            "misfit": {"type": "string", "logicalType": "date"},
        }
    )
    stamps = [1_700_000_000_123_456_789, -1, 0, -1_000]
    moments = [
        "2023-11-14 22:13:20.123456",
        "1969-12-31 23:59:59.999999",
        "1970-01-01 00:00:00.000000",
        "1969-12-31 23:59:59.999999",
    ]
    rest = {"span": bytes(range(12)), "wide": b"\x02\x01\x04", "other": "o", "misfit": "m"}
    topic = create_topic()
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(
        topic,
        [Sent(writer({"row": n, "at": stamp, "local": stamp, **rest})) for n, stamp in enumerate(stamps)],
    )
    run = engine([table(name, topic)])
    run.once()
    types = {field["name"]: field["type"] for field in run.table().fields()}
    assert types == {
        "row": "long",
        "at": "timestamptz",
        "local": "timestamp",
        "span": "fixed[12]",
        "wide": "binary",
        "other": "string",
        "misfit": "string",
    }
    expected = []
    for number, text in enumerate(moments):
        moment = dt.datetime.fromisoformat(text)
        expected.append({"row": number, "at": moment.replace(tzinfo=UTC), "local": moment, **rest})
    readers.check(run.table(), expected)


def test_every_type_may_be_null(engine, name):
    columns = {**PLAIN, "a_uuid": ICEBERG_ONLY["a_uuid"]}
    rows = [{"row": 0, **{c: None for c in columns}}, {"row": 1, **{c: HIGH[c] for c in columns}}]
    for number, absent in enumerate(columns, start=2):
        rows.append({"row": number, **{c: LOW[c] for c in columns}, absent: None})
    schema = record({"row": "long", **{c: nullable(avro) for c, (avro, _) in columns.items()}})
    lake = ingest(engine, name, schema, rows)
    assert all(not field["required"] for field in lake.fields() if field["name"] != "row")
    readers.check(lake, rows)


def test_nested_types(engine, name):
    point = record({"x": "double", "y": nullable("double")}, "Point")
    money = decimal_type({"type": "bytes"}, 12, 2)
    moment = {"type": "long", "logicalType": "timestamp-micros"}
    schema = record(
        {
            "row": "long",
            "point": point,
            "maybe_point": nullable("e2e.Point"),
            "numbers": {"type": "array", "items": "long"},
            "maybe_numbers": nullable({"type": "array", "items": nullable("int")}),
            "points": {"type": "array", "items": "e2e.Point"},
            "grid": {"type": "array", "items": {"type": "array", "items": "string"}},
            "prices": {"type": "map", "values": money},
            "maybe_tags": nullable({"type": "map", "values": nullable("string")}),
            "tree": {
                "type": "map",
                "values": {
                    "type": "array",
                    "items": record({"at": moment, "p": nullable("e2e.Point")}, "Leaf"),
                },
            },
        }
    )
    stamp = dt.datetime(2026, 3, 1, 12, 30, 15, 250001, tzinfo=UTC)
    full = {
        "point": {"x": 1.5, "y": -2.25},
        "maybe_point": {"x": 0.0, "y": None},
        "numbers": [1, -(2**63), 2**63 - 1],
        "maybe_numbers": [1, None, 3],
        "points": [{"x": 1.0, "y": None}, {"x": 2.0, "y": 3.0}],
        "grid": [["a", ""], [], ["ü"]],
        "prices": {"a": Decimal("1.10"), "b": Decimal("-9999999999.99")},
        "maybe_tags": {"k": None, "": "empty key"},
        "tree": {"t": [{"at": stamp, "p": None}, {"at": stamp, "p": {"x": 9.0, "y": 8.0}}], "u": []},
    }
    bare = {
        "point": {"x": 0.0, "y": None},
        "maybe_point": None,
        "numbers": [],
        "maybe_numbers": None,
        "points": [],
        "grid": [],
        "prices": {},
        "maybe_tags": None,
        "tree": {},
    }
    rows = [{"row": number, **(full if number % 3 else bare)} for number in range(30)]
    lake = ingest(engine, name, schema, rows)
    files.check_layout(lake)
    readers.check(lake, rows, readers.ALL)


def test_unions_of_several_types_keep_value_and_branch(engine, name):
    """Each branch has a member of its own, called as Avro calls the branch; exactly the branch in use is set."""
    schema = record({"row": "long", "either": ["null", "long", "string", record({"a": "int"}, "Inner")]})
    values = [None, 5, "text", {"a": 7}, -1, ""]
    lake = ingest(
        engine, name, schema, [{"row": number, "either": value} for number, value in enumerate(values)]
    )
    members = {int: "long", str: "string", dict: "Inner"}
    blank = dict.fromkeys(members.values())
    expected = [
        {"row": number, "either": None if value is None else {**blank, members[type(value)]: value}}
        for number, value in enumerate(values)
    ]
    readers.check(lake, expected, readers.ALL)


def test_topic_whose_values_are_no_records(engine, name):
    """Bare strings become a table of one column."""
    topic = create_topic()
    schema = {"type": "string"}
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    send(topic, [Sent(writer(text)) for text in ("a", "", "ü✓")])
    run = engine([table(name, topic)])
    run.once()
    readers.check(run.table(), [{"value": text} for text in ("a", "", "ü✓")])


def test_kafka_metadata_column(engine, name):
    topic = create_topic(partitions=2)
    schema = record({"id": "long"})
    writer = AvroWriter(schema, Registry().register(f"{topic}-value", schema))
    headers = (("trace", b"\x00\x01"), ("trace", b"again"), ("none", None), ("empty", b""))
    sent = send(
        topic,
        [
            Sent(
                writer({"id": 0}), key=b"k\xff", headers=headers, timestamp_ms=1_700_000_000_123, partition=0
            ),
            Sent(writer({"id": 1}), key=None, timestamp_ms=1, partition=1),
            Sent(writer({"id": 2}), key=b"", timestamp_ms=1_700_000_000_999, partition=1),
        ],
    )
    run = engine([table(name, topic, kafka_metadata=True)])
    run.once()
    expected = [
        {
            "id": number,
            "_kafka": {
                "topic": topic,
                "partition": one.partition,
                "offset": one.offset,
                "timestamp": dt.datetime(1970, 1, 1, tzinfo=UTC)
                + dt.timedelta(milliseconds=one.timestamp_ms),
                "key": one.key,
                "headers": [{"key": key, "value": value} for key, value in one.headers],
            },
        }
        for number, one in enumerate(sent)
    ]
    readers.check(run.table(), expected)
