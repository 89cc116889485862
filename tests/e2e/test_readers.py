"""The readers themselves: on tables that Siltstone did not write they see what was written, and tell a difference."""

import datetime as dt
from decimal import Decimal

import pytest

import readers
import spark
from stores import Folder, Table

COLUMNS = """id bigint not null, yes boolean, small int, ratio float, exact double, price decimal(38, 10), day date,
    local timestamp_ntz, instant timestamp, words string, raw binary,
    inner struct<a: int, b: string>, list array<decimal(5, 2)>, pairs map<string, bigint>"""


def test_every_reader_sees_every_value():
    written = [
        "(1, true, -5, float(1.5), 0.1, 1234567890123456789012345678.0123456789BD, date'2026-02-28', "
        "timestamp_ntz'2026-02-28 01:02:03.456789', timestamp'2026-02-28 01:02:03.456789', 'a ✓', X'00ff', "
        "named_struct('a', 1, 'b', 'x'), array(1.10BD, 2.25BD), map('one', 1L, 'two', 2L))",
        "(2, null, null, null, null, null, null, null, null, null, null, null, null, null)",
    ]
    expected = [
        {
            "id": 1,
            "yes": True,
            "small": -5,
            "ratio": 1.5,
            "exact": 0.1,
            "price": Decimal("1234567890123456789012345678.0123456789"),
            "day": dt.date(2026, 2, 28),
            "local": dt.datetime(2026, 2, 28, 1, 2, 3, 456789),
            "instant": dt.datetime(2026, 2, 28, 1, 2, 3, 456789, tzinfo=dt.UTC),
            "words": "a ✓",
            "raw": b"\x00\xff",
            "inner": {"a": 1, "b": "x"},
            "list": [Decimal("1.10"), Decimal("2.25")],
            "pairs": [("two", 2), ("one", 1)],
        },
        {
            name: None
            for name in [
                "yes",
                "small",
                "ratio",
                "exact",
                "price",
                "day",
                "local",
                "instant",
                "words",
                "raw",
                "inner",
                "list",
                "pairs",
            ]
        }
        | {"id": 2},
    ]
    spark.start()
    table = Table(Folder(str(spark.scratch() / "folders")), "readers.all")
    spark.sql(
        f"create table folders.{table.name} ({COLUMNS}) using iceberg "
        f"tblproperties ('write.data.path' = 'file://{spark.scratch()}/files')"
    )
    spark.sql(f"insert into folders.{table.name} values {', '.join(written)}")
    spark.sql(
        f"create table delta.`{readers.delta_url(table)}` using delta as select * from folders.{table.name}"
    )

    readers.check(table, expected, readers.ALL)
    wrong = [{**expected[0], "price": Decimal("1234567890123456789012345678.0123456788")}, expected[1]]
    with pytest.raises(AssertionError, match="column price") as fault:
        readers.check(table, wrong, readers.ALL)
    assert all(name in str(fault.value) for name in readers.ALL)
