"""One form for values, whatever client read or wrote them, so that every value can be compared.

`canonical(value, type)` takes an Iceberg type (its JSON form) and gives a hashable Python value. Clients may differ
in *representation* (a UUID as text, as 16 bytes, or as `uuid.UUID`), never in *content*: a timestamp must have
a zone when the type has one, a decimal keeps its scale, -0.0 is not 0.0.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import re
import struct
import uuid

EXACT = decimal.Context(prec=80)
MIDNIGHT = dt.datetime(1970, 1, 1)


def canonical(value, kind):
    if value is None:
        return None
    if isinstance(kind, dict):
        return _nested(value, kind)
    name = re.split(r"[\[(]", kind)[0]
    return _PRIMITIVES[name](value, kind)


def canonical_row(row: dict, fields: list[dict]) -> tuple:
    """A row as (name, value) pairs in the order of the schema. Unknown and missing columns are faults."""
    names = [field["name"] for field in fields]
    unknown = set(row) - set(names)
    missing = set(names) - set(row)
    if unknown or missing:
        raise AssertionError(
            f"columns differ from the schema: unknown {sorted(unknown)}, missing {sorted(missing)}"
        )
    pairs = []
    for field in fields:
        try:
            pairs.append((field["name"], canonical(row[field["name"]], field["type"])))
        except (AssertionError, TypeError, ValueError, KeyError, struct.error) as fault:
            raise AssertionError(
                f"column {field['name']} ({_kind(field['type'])}): {row[field['name']]!r}: {fault}"
            ) from fault
    return tuple(pairs)


def assert_same_rows(actual: list[tuple], expected: list[tuple], who: str) -> None:
    """Same rows, each as often; in any order."""
    left, right = collections.Counter(actual), collections.Counter(expected)
    if left == right:
        return
    extra, missing = list((left - right).elements()), list((right - left).elements())
    lines = [
        f"{who}: {len(actual)} rows, expected {len(expected)}; {len(extra)} too many, {len(missing)} missing"
    ]
    if extra and missing:
        lines.extend(_first_difference(extra, missing))
    else:
        lines.extend(f"  too many: {_short(row)}" for row in extra[:3])
        lines.extend(f"  missing:  {_short(row)}" for row in missing[:3])
    raise AssertionError("\n".join(lines))


def _first_difference(extra, missing):
    """The pair of rows that agree most, column by column: what a person would look at."""

    def agreement(a, b):
        return sum(x == y for x, y in zip(a, b))

    row = extra[0]
    nearest = max(missing[:500], key=lambda candidate: agreement(row, candidate))
    for ours, theirs in zip(row, nearest):
        if ours != theirs:
            yield f"  column {ours[0]}: has {ours[1]!r}, expected {theirs[1]!r}"
    yield f"  in row {_short(row)}"


def _short(row) -> str:
    text = repr(row)
    return text if len(text) < 600 else text[:600] + "..."


def _kind(kind) -> str:
    return kind if isinstance(kind, str) else kind["type"]


def _nested(value, kind):
    if kind["type"] == "struct":
        if not isinstance(value, dict):
            raise TypeError("not a struct")
        return canonical_row(value, kind["fields"])
    if kind["type"] == "list":
        return tuple(canonical(item, kind["element"]) for item in value)
    if kind["type"] == "map":
        entries = value.items() if isinstance(value, dict) else value
        pairs = [(canonical(k, kind["key"]), canonical(v, kind["value"])) for k, v in entries]
        return ("map", *sorted(pairs, key=lambda pair: repr(pair[0])))
    raise TypeError(f"unknown type {kind['type']}")


def _boolean(value, _):
    if not isinstance(value, bool):
        raise TypeError("not a boolean")
    return value


def _integer(value, _):
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not an integer")
    return value


def _double(value, _):
    if not isinstance(value, (int, float)):
        raise TypeError("not a number")
    return repr(float(value))


def _float(value, _):
    if not isinstance(value, (int, float)):
        raise TypeError("not a number")
    return repr(struct.unpack("<f", struct.pack("<f", value))[0])


def _decimal(value, kind):
    precision, scale = (int(part) for part in re.findall(r"\d+", kind))
    exact = decimal.Decimal(value)
    scaled = EXACT.scaleb(exact, scale)
    if scaled != scaled.to_integral_value(context=EXACT):
        raise ValueError(f"more than {scale} digits after the point")
    if abs(int(scaled)) >= 10**precision:
        raise ValueError(f"more than {precision} digits")
    if exact.as_tuple().exponent < -scale:
        raise ValueError("wrong scale")
    return ("decimal", int(scaled), scale)


def _date(value, _):
    if type(value) is not dt.date:
        raise TypeError("not a date")
    return value.isoformat()


def _time(value, _):
    # Delta has no time of day: there it is the microseconds since midnight.
    if isinstance(value, int) and not isinstance(value, bool):
        value = (MIDNIGHT + dt.timedelta(microseconds=value)).time()
    if not isinstance(value, dt.time) or value.tzinfo:
        raise TypeError("not a time of day")
    return value.isoformat(timespec="microseconds")


def _timestamp(value, _):
    if not isinstance(value, dt.datetime) or value.tzinfo is not None:
        raise TypeError("not a timestamp without zone")
    return value.isoformat(sep=" ", timespec="microseconds")


def _timestamptz(value, _):
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise TypeError("not a timestamp with zone")
    return value.astimezone(dt.UTC).isoformat(sep=" ", timespec="microseconds")


def _string(value, _):
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _uuid(value, _):
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return str(uuid.UUID(bytes=bytes(value)))
    return str(uuid.UUID(value))


def _bytes(value, kind):
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("not bytes")
    value = bytes(value)
    if kind.startswith("fixed") and len(value) != int(re.findall(r"\d+", kind)[0]):
        raise ValueError("wrong length")
    return value


_PRIMITIVES = {
    "boolean": _boolean,
    "int": _integer,
    "long": _integer,
    "float": _float,
    "double": _double,
    "decimal": _decimal,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "string": _string,
    "uuid": _uuid,
    "fixed": _bytes,
    "binary": _bytes,
}
