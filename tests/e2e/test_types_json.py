"""JSON records against columns of every type: exact numbers, times with offsets, what is missing and what is extra."""

import base64
import datetime as dt
import json
import uuid
from decimal import Decimal

import files
import readers
import spark
from produce import Registry, Sent, create_topic, framed, send
from siltstone import json_table, table

UTC = dt.UTC

COLUMNS = [
    {"name": "id", "type": "long", "required": True},
    {"name": "yes", "type": "boolean"},
    {"name": "small", "type": "int"},
    {"name": "large", "type": "long"},
    {"name": "ratio", "type": "float"},
    {"name": "exact", "type": "double"},
    {"name": "price", "type": "decimal(10, 2)"},
    {"name": "huge", "type": "decimal(38, 0)"},
    {"name": "fine", "type": "decimal(38, 18)"},
    {"name": "day", "type": "date"},
    {"name": "local", "type": "timestamp"},
    {"name": "instant", "type": "timestamptz"},
    {"name": "words", "type": "string"},
    {"name": "raw", "type": "binary"},
    {"name": "numbers", "type": "list<long>"},
    {"name": "prices", "type": "map<string, decimal(12, 4)>"},
    {
        "name": "customer",
        "type": {
            "struct": [
                {"name": "id", "type": "uuid"},
                {"name": "since", "type": "date"},
                {
                    "name": "addresses",
                    "type": {
                        "list": {
                            "struct": [
                                {"name": "city", "type": "string"},
                                {"name": "floor", "type": "int"},
                            ]
                        }
                    },
                },
            ]
        },
    },
]
NAMES = [column["name"] for column in COLUMNS]
WHO = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")


def row(**values) -> dict:
    return {**{name: None for name in NAMES}, **values}


# (record as text, row of the table)
CASES = [
    ('{"id": 1}', row(id=1)),
    (json.dumps({name: None for name in NAMES} | {"id": 2}), row(id=2)),
    (
        '{"id": 3, "yes": true, "small": -2147483648, "large": -9223372036854775808}',
        row(id=3, yes=True, small=-(2**31), large=-(2**63)),
    ),
    (
        '{"id": 4, "yes": false, "small": 2147483647, "large": 9223372036854775807}',
        row(id=4, yes=False, small=2**31 - 1, large=2**63 - 1),
    ),
    ('{"id": 5, "large": 9007199254740993}', row(id=5, large=2**53 + 1)),
    ('{"id": 6, "ratio": 0.1, "exact": 0.1}', row(id=6, ratio=0.1, exact=0.1)),
    (
        '{"id": 7, "exact": 1.7976931348623157e308, "ratio": -1.5E-3}',
        row(id=7, exact=1.7976931348623157e308, ratio=-1.5e-3),
    ),
    ('{"id": 8, "exact": 5e-324}', row(id=8, exact=5e-324)),
    ('{"id": 9, "exact": -0.0}', row(id=9, exact=-0.0)),
    ('{"id": 10, "exact": 12345678901234567890}', row(id=10, exact=12345678901234567890.0)),
    (
        '{"id": 11, "price": 99999999.99, "huge": 99999999999999999999999999999999999999}',
        row(id=11, price=Decimal("99999999.99"), huge=Decimal(10**38 - 1)),
    ),
    (
        '{"id": 12, "price": -0.01, "huge": -99999999999999999999999999999999999999}',
        row(id=12, price=Decimal("-0.01"), huge=Decimal(1 - 10**38)),
    ),
    (
        '{"id": 13, "price": 5, "fine": 12345678901234567890.123456789012345678}',
        row(id=13, price=Decimal("5.00"), fine=Decimal("12345678901234567890.123456789012345678")),
    ),
    (
        '{"id": 14, "price": "12.34", "fine": "0.000000000000000001"}',
        row(id=14, price=Decimal("12.34"), fine=Decimal("0.000000000000000001")),
    ),
    ('{"id": 15, "price": 1.5e2}', row(id=15, price=Decimal("150.00"))),
    (
        '{"id": 16, "day": "2024-02-29", "instant": "2026-01-02T03:04:05Z"}',
        row(id=16, day=dt.date(2024, 2, 29), instant=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ),
    (
        '{"id": 17, "instant": "2026-01-02T03:04:05.678901+05:30"}',
        row(id=17, instant=dt.datetime(2026, 1, 1, 21, 34, 5, 678901, tzinfo=UTC)),
    ),
    (
        '{"id": 18, "instant": "1969-12-31T23:59:59.999999-00:00"}',
        row(id=18, instant=dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ),
    (
        '{"id": 19, "local": "2026-10-25T02:30:00.5"}',
        row(id=19, local=dt.datetime(2026, 10, 25, 2, 30, 0, 500000)),
    ),
    (
        '{"id": 20, "words": "\\u00fc \\ud834\\udd1e \\n \\" \\\\ \\/ \\u0000"}',
        row(id=20, words='ü 𝄞 \n " \\ / \0'),
    ),
    ('{"id": 21, "words": ""}', row(id=21, words="")),
    (json.dumps({"id": 22, "words": "ä✓𝄞"}, ensure_ascii=False), row(id=22, words="ä✓𝄞")),
    (
        json.dumps({"id": 23, "raw": base64.b64encode(b"\x00\xff\xfe").decode()}),
        row(id=23, raw=b"\x00\xff\xfe"),
    ),
    (
        '{"id": 24, "numbers": [1, null, 3], "prices": {"a": 1.5, "b": null}}',
        row(id=24, numbers=[1, None, 3], prices={"a": Decimal("1.5000"), "b": None}),
    ),
    ('{"id": 25, "numbers": [], "prices": {}}', row(id=25, numbers=[], prices={})),
    (
        '{"id": 26, "customer": {"id": "%s", "since": "2020-01-31", "addresses": [{"city": "Köln", "floor": 3}, {"city": null}, {}, null]}}'
        % WHO,
        row(
            id=26,
            customer={
                "id": WHO,
                "since": dt.date(2020, 1, 31),
                "addresses": [
                    {"city": "Köln", "floor": 3},
                    {"city": None, "floor": None},
                    {"city": None, "floor": None},
                    None,
                ],
            },
        ),
    ),
    (
        '{"id": 27, "customer": {"addresses": []}}',
        row(id=27, customer={"id": None, "since": None, "addresses": []}),
    ),
    ('{"unknown": {"deep": [1, {"id": 99}]}, "id": 28, "also": "x"}', row(id=28)),
    ('\n {"id" : 29 ,\t"large":\r\n 7 }  \n', row(id=29, large=7)),
]


def test_every_type(engine, name):
    topic = create_topic()
    send(topic, [Sent(text.encode()) for text, _ in CASES], codec="zstd")
    run = engine([json_table(name, topic, COLUMNS, dlq_mode="stop")])
    run.once()
    assert [field["required"] for field in run.table().fields()] == [True] + [False] * (len(COLUMNS) - 1)
    files.check_layout(run.table())
    readers.check(run.table(), [expected for _, expected in CASES])


def test_null_list_inside_a_struct(engine, name):
    """PyIceberg makes an empty list of it, so the others are asked."""
    topic = create_topic()
    send(topic, [Sent(b'{"id": 1, "customer": {}}'), Sent(b'{"id": 2, "customer": {"addresses": null}}')])
    columns = [column for column in COLUMNS if column["name"] in ("id", "customer")]
    run = engine([json_table(name, topic, columns, dlq_mode="stop")])
    run.once()
    empty = {"id": None, "since": None, "addresses": None}
    others = {who: reader for who, reader in readers.ALL.items() if who != "PyIceberg"}
    readers.check(run.table(), [{"id": 1, "customer": empty}, {"id": 2, "customer": empty}], others)


def test_spark_reads_json_tables(engine, name):
    """Without the nested struct: absent ones, and UUIDs in one, have tests of their own."""
    topic = create_topic()
    columns = [column for column in COLUMNS if column["name"] != "customer"]
    send(topic, [Sent(text.encode()) for text, _ in CASES])
    run = engine([json_table(name, topic, columns, dlq_mode="stop")])
    run.once()
    expected = [{k: v for k, v in expected.items() if k != "customer"} for _, expected in CASES]
    readers.check(run.table(), expected, readers.ALL)


def test_uuids_at_every_depth(engine, name):
    """Iceberg's readers see UUIDs, Delta's their sixteen bytes: at the top, and in structs, lists and maps."""
    columns = [
        {"name": "id", "type": "uuid", "required": True},
        {"name": "inner", "type": {"struct": [{"name": "u", "type": "uuid"}, {"name": "n", "type": "int"}]}},
        {"name": "items", "type": "list<uuid>"},
        {"name": "by_name", "type": "map<string, uuid>"},
    ]
    rows = []
    for number in range(40):
        some = [uuid.uuid5(WHO, f"{number}.{index}") for index in range(4)]
        rows.append(
            {
                "id": some[0],
                "inner": {"u": some[1] if number % 3 else None, "n": number},
                "items": some[: number % 4],
                "by_name": {"a": some[2], "b": some[3]},
            }
        )
    topic = create_topic()
    send(topic, [Sent(json.dumps(row, default=str).encode()) for row in rows])
    run = engine([json_table(name, topic, columns, dlq_mode="stop")])
    run.once()
    readers.check(run.table(), rows, readers.ALL)
    # Spark takes a column marked as a UUID for an error where it looks at the file's own schema.
    url = readers.delta_url(run.table())
    wanted = rows[7]["id"].hex
    for place in (f"delta.`{url}`", f"parquet.`{url}/*.parquet`"):
        found = spark.sql(f"select inner.n from {place} where id = X'{wanted}'")
        assert found.column("n").to_pylist() == [7], place
    vectorized = "spark.sql.parquet.enableVectorizedReader"
    spark.sql(f"set {vectorized}=false")
    try:
        readers.check(run.table(), rows, readers.SPARK)
    finally:
        spark.sql(f"set {vectorized}=true")
    assert marks(run.table()) == {"NONE"}


def test_uuids_are_marked_where_delta_does_not_show_them(engine, name):
    topic = create_topic()
    rows = [{"id": uuid.uuid5(WHO, str(number))} for number in range(9)]
    send(topic, [Sent(json.dumps(row, default=str).encode()) for row in rows])
    columns = [{"name": "id", "type": "uuid"}]
    run = engine([json_table(name, topic, columns, formats=["iceberg"])])
    run.once()
    readers.check(run.table(), rows, {**readers.ICEBERG, "Spark Iceberg": readers.SPARK["Spark Iceberg"]})
    assert marks(run.table()) == {"UUID"}


def marks(lake) -> set[str]:
    """What the files say of their sixteen-byte columns."""
    found = set()
    for name in files.iceberg_files(lake):
        schema = files.open_file(lake, name).schema
        columns = [schema.column(index) for index in range(len(schema))]
        found |= {str(column.logical_type.type) for column in columns if column.length == 16}
    return found


def test_extra_fields_can_be_rejected(engine, name):
    topic = create_topic()
    send(topic, [Sent(b'{"id": 1}'), Sent(b'{"id": 2, "more": 1}'), Sent(b'{"id": 3}')])
    columns = [{"name": "id", "type": "long", "required": True}]
    run = engine([json_table(name, topic, columns, extra_fields="reject")])
    run.once()
    readers.check(run.table(), [{"id": 1}, {"id": 3}])
    rejected = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert [(one["offset"], one["reason"]) for one in rejected] == [(1, "unknown_field")]


def test_json_schema_from_the_registry(engine, name):
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Reading",
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "value": {"type": "number"},
            "label": {"type": ["string", "null"]},
            "at": {"type": "string", "format": "date-time"},
            "flags": {"type": "array", "items": {"type": "boolean"}},
        },
        "required": ["id", "value"],
    }
    topic = create_topic()
    schema_id = Registry().register(f"{topic}-value", schema, "JSON")
    rows = [
        {"id": 1, "value": 2.5, "label": "a", "at": "2026-01-01T00:00:00Z", "flags": [True, False]},
        {"id": 2, "value": 3, "label": None},
    ]
    send(topic, [Sent(framed(schema_id, json.dumps(row).encode())) for row in rows])
    run = engine([table(name, topic, "json")])
    run.once()
    readers.check(
        run.table(),
        [
            {
                "id": 1,
                "value": 2.5,
                "label": "a",
                "at": dt.datetime(2026, 1, 1, tzinfo=UTC),
                "flags": [True, False],
            },
            {"id": 2, "value": 3.0, "label": None, "at": None, "flags": None},
        ],
    )


def test_raw_records_become_one_column(engine, name):
    topic = create_topic()
    values = [b"", b"\x00\xff", b"text", bytes(range(256)) * 100]
    send(topic, [Sent(value) for value in values])
    run = engine([table(name, topic, "raw")])
    run.once()
    readers.check(run.table(), [{"value": value} for value in values])
