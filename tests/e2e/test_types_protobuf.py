"""Every Protobuf type, encoded by Google's library, value by value, in both formats; framing, references, versions."""

import datetime as dt
import json
import random
import struct
from decimal import Decimal

import pytest

import readers
from produce import Registry, Sent, create_topic, dead_letter, framed, send, unique
from protobufs import Proto, framed_message
from siltstone import cluster, table

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Type -> (Iceberg type, lowest, highest).
SCALARS = {
    "bool": ("boolean", False, True),
    "int32": ("int", -(2**31), 2**31 - 1),
    "sint32": ("int", -(2**31), 2**31 - 1),
    "sfixed32": ("int", -(2**31), 2**31 - 1),
    "uint32": ("long", 1, 2**32 - 1),
    "fixed32": ("long", 1, 2**32 - 1),
    "int64": ("long", -(2**63), 2**63 - 1),
    "sint64": ("long", -(2**63), 2**63 - 1),
    "sfixed64": ("long", -(2**63), 2**63 - 1),
    "uint64": ("decimal(20, 0)", 1, 2**64 - 1),
    "fixed64": ("decimal(20, 0)", 1, 2**64 - 1),
    "float": ("float", -3.4028234663852886e38, 1.5),
    "double": ("double", -1.7976931348623157e308, 5e-324),
    "string": ("string", "", "äß✓𝄞\n\0"),
    "bytes": ("binary", b"\xff", bytes(range(256))),
    "Color": ("string", "RED", "FAR"),
}
NUMBERS = {"NONE": 0, "RED": 1, "FAR": 100_000}
ZERO = {"bool": False, "string": "", "bytes": b"", "Color": "NONE"}
HEAD = """syntax = "proto3";
package e2e;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Color { NONE = 0; RED = 1; FAR = 100000; }
"""


def registered(topic: str, text: str, references=()) -> int:
    return Registry().register(f"{topic}-value", text, "PROTOBUF", references)


def ingest(engine, name, proto, messages, **changes):
    topic = create_topic(partitions=2)
    schema_id = registered(topic, proto.text)
    send(topic, [Sent(framed_message(schema_id, one), partition=n % 2) for n, one in enumerate(messages)])
    run = engine([table(name, topic, "protobuf", **changes)])
    run.once()
    assert not run.table().dead_letters.exists()
    return run.table()


def zero(kind: str):
    return ZERO.get(kind, Decimal(0) if "decimal" in SCALARS[kind][0] else 0)


def column(kind: str, value):
    """What the table holds for what Python's library takes."""
    if kind in ("uint64", "fixed64"):
        return Decimal(value)
    if kind == "float":
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def number(kind: str, value):
    return NUMBERS[value] if kind == "Color" else value


def test_scalars(engine, name):
    """Alone, with presence, and repeated; set, unset, and set to the default."""
    lines = ["int64 row = 1;"]
    for index, kind in enumerate(SCALARS):
        lines.append(f"{kind} a_{kind.lower()} = {10 + index};")
        lines.append(f"optional {kind} maybe_{kind.lower()} = {40 + index};")
        lines.append(f"repeated {kind} many_{kind.lower()} = {70 + index};")
    proto = Proto(HEAD + "message Row { " + "\n".join(lines) + " }")
    Row = proto["e2e.Row"]
    messages, expected = [], []
    for row, which in enumerate(["unset", "low", "high", "zero"] * 5):
        message, wanted = Row(row=row), {"row": row}
        for kind, (_, low, high) in SCALARS.items():
            field = kind.lower()
            value = {"unset": None, "low": low, "high": high, "zero": zero(kind)}[which]
            many = [low, high, low] if which == "low" else [high] if which == "high" else []
            if value is not None:
                given = int(value) if isinstance(value, Decimal) else number(kind, value)
                setattr(message, f"a_{field}", given)
                setattr(message, f"maybe_{field}", given)
            getattr(message, f"many_{field}").extend(number(kind, one) for one in many)
            wanted[f"a_{field}"] = zero(kind) if value is None else column(kind, value)
            wanted[f"maybe_{field}"] = None if value is None else column(kind, value)
            wanted[f"many_{field}"] = [column(kind, one) for one in many]
        messages.append(message)
        expected.append(wanted)
    lake = ingest(engine, name, proto, messages)
    types = {field["name"]: (field["type"], field["required"]) for field in lake.fields()}
    for kind, (iceberg, _, _) in SCALARS.items():
        assert types[f"a_{kind.lower()}"] == (iceberg, True)
        assert types[f"maybe_{kind.lower()}"] == (iceberg, False)
        element = types[f"many_{kind.lower()}"][0]
        assert (element["type"], element["element"]) == ("list", iceberg)
    readers.check(lake, expected, readers.ALL)


def test_nested_maps_and_oneofs(engine, name):
    proto = Proto(
        HEAD
        + """message Row {
          int64 row = 1;
          Inner inner = 2;
          repeated Inner inners = 3;
          map<string, Inner> named = 4;
          map<int32, string> by_int = 5;
          map<uint64, Color> by_exact = 6;
          map<bool, double> by_bool = 7;
          oneof either { int64 a_number = 8; string a_text = 9; Inner an_inner = 10; }
          google.protobuf.Empty nothing = 11;
          message Inner { int32 a = 1; optional string b = 2; repeated Deep deep = 3; }
          message Deep { map<string, bytes> x = 1; }
        }"""
    )
    Row = proto["e2e.Row"]
    full = {"a": 5, "b": "ü", "deep": [{"x": {"k": b"\0"}}, {"x": {}}]}
    bare = {"a": 0, "b": None, "deep": []}
    plain = {"inner": None, "inners": [], "named": {}, "by_int": {}, "by_exact": {}, "by_bool": {}}
    none = {"a_number": None, "a_text": None, "an_inner": None}
    messages, expected = [], []

    def add(wanted, **fields):
        row = len(messages)
        messages.append(Row(row=row, **fields))
        expected.append({"row": row, **plain, **none, **wanted})

    given = {"a": 5, "b": "ü", "deep": [{"x": {"k": b"\0"}}, {}]}
    add({})
    add({"inner": bare}, inner={}, nothing={})
    add({"inner": full, "inners": [bare, full]}, inner=given, inners=[{}, given])
    add({"named": {"": bare, "k": full}}, named={"": Row.Inner(), "k": Row.Inner(**given)})
    add(
        {
            "by_int": {-1: "a", 2**31 - 1: ""},
            "by_exact": {Decimal(2**64 - 1): "RED"},
            "by_bool": {True: 0.5, False: -0.0},
        },
        by_int={-1: "a", 2**31 - 1: ""},
        by_exact={2**64 - 1: 1},
        by_bool={True: 0.5, False: -0.0},
    )
    add({"a_number": 0}, a_number=0)
    add({"a_text": ""}, a_text="")
    add({"an_inner": full}, an_inner=given)
    lake = ingest(engine, name, proto, messages)
    assert "nothing" not in [field["name"] for field in lake.fields()]
    readers.check(lake, expected, readers.ALL)


def test_well_known_types(engine, name):
    wrapped = {
        "Bool": ("boolean", True, False),
        "Int32": ("int", -5, 0),
        "Int64": ("long", 2**62, 0),
        "UInt32": ("long", 2**32 - 1, 0),
        "UInt64": ("decimal(20, 0)", 2**64 - 1, 0),
        "Float": ("float", 0.5, 0.0),
        "Double": ("double", 1e300, 0.0),
        "String": ("string", "ä", ""),
        "Bytes": ("binary", b"\xff", b""),
    }
    lines = [f"google.protobuf.{kind}Value w_{kind.lower()} = {20 + n};" for n, kind in enumerate(wrapped)]
    proto = Proto(
        HEAD
        + "message Row { int64 row = 1; google.protobuf.Timestamp at = 2; google.protobuf.Duration span = 3;"
        + "google.protobuf.Struct object = 4; google.protobuf.Value value = 5; google.protobuf.ListValue array = 6;"
        + "google.protobuf.Any any = 7; google.protobuf.FieldMask mask = 8;"
        + "repeated google.protobuf.Timestamp times = 9;"
        + "\n".join(lines)
        + "}"
    )
    Row = proto["e2e.Row"]
    rows = []
    for row in range(4):
        message = Row(row=row)
        wanted = {
            "row": row,
            **dict.fromkeys(["at", "span", "object", "value", "array", "any", "mask"]),
            "times": [],
        }
        for kind, (_, high, low) in wrapped.items():
            wanted[f"w_{kind.lower()}"] = None
            if row in (1, 2):
                value = high if row == 1 else low
                getattr(message, f"w_{kind.lower()}").value = value
                getattr(message, f"w_{kind.lower()}").SetInParent()
                wanted[f"w_{kind.lower()}"] = Decimal(value) if kind == "UInt64" else value
        if row == 1:
            content = {"b": [1, -2.5, None, True, {"z": 'ä"\n', "a": {}}], "": 1e300, "n": 2**53 - 1}
            message.at.FromJsonString("9999-12-31T23:59:59.999999Z")
            message.span.FromNanoseconds(-1_500_000_001)
            message.object.update(content)
            message.value.list_value.extend([1, "x", None])
            message.array.extend([content["b"]])
            message.any.Pack(Row(row=7))
            message.mask.paths.extend(["a.b", "c"])
            message.times.add().FromJsonString("0001-01-01T00:00:00Z")
            message.times.add().FromJsonString("1969-12-31T23:59:59.123456789Z")
            wanted |= {
                "at": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
                "span": -1_500_001,
                "object": content,
                "value": [1, "x", None],
                "array": [content["b"]],
                "any": {"type_url": "type.googleapis.com/e2e.Row", "value": Row(row=7).SerializeToString()},
                "mask": ["a.b", "c"],
                "times": [
                    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
                    dt.datetime(1969, 12, 31, 23, 59, 59, 123456, tzinfo=dt.UTC),
                ],
            }
        if row == 2:
            for field in ("at", "span", "object", "array", "any", "mask"):
                getattr(message, field).SetInParent()
            message.value.null_value = 0
            wanted |= {"at": EPOCH, "span": 0, "object": {}, "array": [], "mask": []}
            wanted |= {"value": "null", "any": {"type_url": "", "value": b""}}
        rows.append((message, wanted))
    for _, wanted in rows:
        for field in ("object", "value", "array"):
            if wanted[field] is not None and wanted[field] != "null":
                wanted[field] = json.dumps(
                    wanted[field], ensure_ascii=False, sort_keys=True, separators=(",", ":")
                )
    lake = ingest(engine, name, proto, [message for message, _ in rows])
    types = {field["name"]: field["type"] for field in lake.fields()}
    assert {f"w_{kind.lower()}": one[0] for kind, one in wrapped.items()}.items() <= types.items()
    assert (types["at"], types["span"], types["object"]) == ("timestamptz", "long", "string")
    readers.check(lake, [wanted for _, wanted in rows])


def test_proto2(engine, name):
    """Required fields, groups, defaults, fields that are not packed, enum numbers without a name, extensions."""
    proto = Proto(
        """syntax = "proto2";
        package e2e;
        message Row {
          required int64 row = 1;
          optional int32 count = 2 [default = 7];
          repeated int32 apart = 3;
          repeated group Part = 4 { optional string a = 1; required sint32 b = 2; }
          optional Level level = 5;
          enum Level { HIGH = 9; LOW = 2; }
          extensions 100 to 199;
        }
        extend Row { optional string more = 100; }"""
    )
    Row = proto["e2e.Row"]
    some = Row(row=1, count=0, apart=[1, -1, 2**31 - 1], level=2)
    some.part.add(a="x", b=-3)
    some.part.add(b=4)
    some.Extensions[proto.pool.FindExtensionByName("e2e.more")] = "unknown to the table"
    topic = create_topic()
    schema_id = registered(topic, proto.text)
    # A number that a newer writer has a name for.
    unnamed = Sent(framed(schema_id, b"\0" + Row(row=2).SerializeToString() + b"\x28\x37"))
    sent = [Sent(framed_message(schema_id, Row(row=0))), Sent(framed_message(schema_id, some)), unnamed]
    missing = Sent(framed(schema_id, b"\0\x10\x05"))
    sent = send(topic, [*sent, missing])
    run = engine([table(name, topic, "protobuf")])
    run.once()
    parts = [{"a": "x", "b": -3}, {"a": None, "b": 4}]
    none = {"count": None, "apart": [], "part": [], "level": None}
    readers.check(
        run.table(),
        [
            {"row": 0, **none},
            {"row": 1, "count": 0, "apart": [1, -1, 2**31 - 1], "part": parts, "level": "LOW"},
            {"row": 2, **none, "level": "55"},
        ],
        readers.ALL,
    )
    expected = [dead_letter("lab", topic, sent[3], "missing_field", schema_id)]
    readers.check(run.table().dead_letters, expected, ignore=("rejected_at", "timestamp", "field", "detail"))


def test_many_random_messages(engine, name):
    """Nested and repeated at random; also in pieces, which the library merges as it reads them."""
    proto = Proto(
        HEAD
        + """message Row { int64 row = 1; optional Color color = 2; repeated sint64 deltas = 3; Row2 inner = 4;
             map<string, int32> counts = 5; oneof o { string s = 6; Row2 r = 7; } }
             message Row2 { uint32 a = 1; repeated string b = 2; optional double c = 3; }"""
    )
    Row, dice = proto["e2e.Row"], random.Random(5)

    def inner():
        some = [dice.choice(["", "x", "ü"]) for _ in range(dice.randrange(3))]
        return {
            "a": dice.randrange(2**32),
            "b": some,
            **({"c": dice.random()} if dice.random() < 0.5 else {}),
        }

    def fields():
        has = {}
        if dice.random() < 0.5:
            has["color"] = dice.choice([0, 1, 100_000])
        has["deltas"] = [dice.randrange(-(2**63), 2**63) for _ in range(dice.randrange(4))]
        if dice.random() < 0.5:
            has["inner"] = inner()
        has["counts"] = {dice.choice("abcd"): dice.randrange(-9, 9) for _ in range(dice.randrange(5))}
        if dice.random() < 0.7:
            has |= {"s": "t"} if dice.random() < 0.5 else {"r": inner()}
        return has

    def shown(message):
        return {"a": message.a, "b": list(message.b), "c": message.c if message.HasField("c") else None}

    names = {value: name for name, value in NUMBERS.items()}
    topic = create_topic(partitions=2)
    schema_id = registered(topic, proto.text)
    sent, expected = [], []
    for row in range(3000):
        pieces = [Row(row=row, **fields()).SerializeToString() for _ in range(1 + dice.randrange(3))]
        body = b"".join(pieces)
        sent.append(Sent(framed(schema_id, b"\0" + body), partition=row % 2))
        read = Row.FromString(body)
        expected.append(
            {
                "row": row,
                "color": names[read.color] if read.HasField("color") else None,
                "deltas": list(read.deltas),
                "inner": shown(read.inner) if read.HasField("inner") else None,
                "counts": dict(read.counts),
                "s": read.s if read.WhichOneof("o") == "s" else None,
                "r": shown(read.r) if read.WhichOneof("o") == "r" else None,
            }
        )
    send(topic, sent)
    run = engine([table(name, topic, "protobuf")])
    run.once()
    assert not run.table().dead_letters.exists()
    readers.check(run.table(), expected)


def test_references_and_versions(engine, name):
    """A schema with an import of an import; then a version with more fields, both interleaved."""
    topic, registry = create_topic(), Registry()
    country = 'syntax = "proto3"; package geo; message Country { string code = 1; }'
    address = """syntax = "proto3"; package geo; import "country.proto";
        message Address { string street = 1; Country country = 2; }"""
    first = """syntax = "proto3"; package e2e; import "geo/address.proto";
        message Row { int64 row = 1; geo.Address home = 2; }"""
    second = first.replace(
        "geo.Address home = 2;", "geo.Address home = 2; repeated geo.Address more = 3; int32 added = 4;"
    )
    countries, addresses = unique("country"), unique("address")
    registry.register(countries, country, "PROTOBUF")
    registry.register(addresses, address, "PROTOBUF", [("country.proto", countries, 1)])
    imports = {"country.proto": country, "geo/address.proto": address}
    references = [("geo/address.proto", addresses, 1)]
    old, new = (Proto(text, imports)["e2e.Row"] for text in (first, second))
    old_id = registered(topic, first, references)
    home = {"street": "s", "country": {"code": "DE"}}
    send(topic, [Sent(framed_message(old_id, old(row=0, home=home)))])
    run = engine([table(name, topic, "protobuf")])
    run.once()
    new_id = registered(topic, second, references)
    assert new_id != old_id
    rows = [Sent(framed_message(new_id, new(row=n, more=[home], added=n))) for n in (1, 3)]
    rows.insert(1, Sent(framed_message(old_id, old(row=2))))
    send(topic, rows)
    run.once()
    expected = [
        {"row": 0, "home": home, "more": None, "added": None},
        {"row": 1, "home": None, "more": [home], "added": 1},
        {"row": 2, "home": None, "more": None, "added": None},
        {"row": 3, "home": None, "more": [home], "added": 3},
    ]
    # PyIceberg reads a list of structs that is null as an empty one.
    readers.check(
        run.table(), expected, {name: one for name, one in readers.ALL.items() if name != "PyIceberg"}
    )
    without = [{column: value for column, value in row.items() if column != "more"} for row in expected]
    readers.check(run.table(), without, {"PyIceberg": readers.ALL["PyIceberg"]}, ignore=("more",))
    assert not run.table().dead_letters.exists()


def test_message_indexes_and_poison(engine, name):
    """`message_type` chooses among the messages of a schema; what is broken is kept aside with its reason."""
    topic = create_topic()
    text = """syntax = "proto3"; package e2e; message Other { bool x = 1; }
        message Row { int64 row = 1; string s = 2; message In { int32 z = 1; } }"""
    proto = Proto(text)
    schema_id = registered(topic, text)
    Row = proto["e2e.Row"]
    good = framed_message(schema_id, Row(row=1, s="x"), (1,))
    poison = [
        ("incompatible_schema", framed_message(schema_id, proto["e2e.Other"](x=True))),
        ("incompatible_schema", framed_message(schema_id, Row.In(z=1), (1, 0))),
        ("bad_framing", framed(schema_id, b"\x02\x08")),
        ("bad_framing", framed(schema_id, b"\x01")),
        ("bad_framing", framed(schema_id, b"")),
        ("unknown_schema_id", framed(2_000_000_000, b"\0")),
        ("truncated", good[:-1]),
        ("malformed", good + b"\0"),
        ("malformed", good + b"\x0c"),
        ("wrong_type", framed(schema_id, b"\x02\x02\x0a\x01x")),
        ("invalid_utf8", framed(schema_id, b"\x02\x02\x12\x01\xff")),
    ]
    sent = send(topic, [Sent(good), *(Sent(value) for _, value in poison), Sent(good)])
    run = engine([table(name, topic, "protobuf", message_type="e2e.Row")])
    run.once()
    readers.check(run.table(), [{"row": 1, "s": "x"}] * 2)
    rejected = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    reasons = {one["offset"]: one["reason"] for one in rejected}
    assert [reasons[one.offset] for one in sent[1:-1]] == [reason for reason, _ in poison]
    about = {one["offset"]: (one["reason"], one["field"], one["detail"]) for one in rejected}
    assert [about[one.offset] for one in sent[-4:-1]] == [
        ("malformed", None, "message whose encoding is broken"),
        ("wrong_type", "row", "length-delimited value where int64 is wanted"),
        ("invalid_utf8", "s", "string that is not UTF-8 where string is wanted"),
    ]


@pytest.mark.parametrize("where", ["text", "file"])
def test_bare_messages_need_no_registry(engine, name, where):
    topic = create_topic()
    proto = Proto(
        HEAD
        + "message Skipped { int32 a = 1; } message Row { int64 row = 1; google.protobuf.Timestamp at = 2; }"
    )
    Row = proto["e2e.Row"]
    messages = [Row(row=n, at={"seconds": n}) for n in range(10)]
    send(topic, [Sent(one.SerializeToString()) for one in messages])
    schema = {"protobuf": proto.text} if where == "text" else {"protobuf_file": "row.proto"}
    run = engine(
        [table(name, topic, "protobuf", input_schema=schema, message_type="Row")], [cluster(registry=False)]
    )
    (run.folder / "row.proto").write_text(proto.text)
    run.once()
    readers.check(run.table(), [{"row": n, "at": EPOCH + dt.timedelta(seconds=n)} for n in range(10)])


def test_recursive_schema_is_refused_by_its_path(engine, name):
    topic = create_topic()
    text = """syntax = "proto3"; package e2e; message Tree { int64 v = 1; Node left = 2; }
        message Node { Tree tree = 1; }"""
    schema_id = registered(topic, text)
    send(topic, [Sent(framed_message(schema_id, Proto(text)["e2e.Tree"](v=1)))])
    run = engine([table(name, topic, "protobuf")])
    ended = run.once(code=None)
    assert ended.code != 0 or run.table().dead_letters.exists()
    assert "left.tree" in ended.err and "e2e.Tree" in ended.err, ended.err
