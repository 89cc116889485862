"""Schemas that change in mid-topic, on live tables: each change, from each source format, in each table format, by each reader.

Two tables read each topic. `plain` is Iceberg's alone: columns are renamed and widened. `both` is shown as Delta too, which
can do neither: a new name leads to the old column, and a wider type has a column of its own (`new_column`), as has a map whose
structs have other members."""

import functools
import json
import re
from decimal import Decimal

import readers
from produce import AvroWriter, Registry, Sent, create_topic, framed, group_members, send
from protobufs import Proto, framed_message
from siltstone import table, wait

PARTITIONS = 2
ROWS = 12
ICEBERG_ONLY = {**readers.ICEBERG, "Spark Iceberg": readers.SPARK["Spark Iceberg"]}


def record(name: str, *fields) -> dict:
    return {"type": "record", "name": name, "namespace": "e2e", "fields": list(fields)}


def field(name: str, kind, **more) -> dict:
    return {"name": name, "type": kind, **more}


def optional(name: str, kind, **more) -> dict:
    return field(name, ["null", kind], default=None, **more)


def decimal(precision: int) -> dict:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 2}


def enum(*symbols: str) -> dict:
    return {"type": "enum", "name": "Kind", "symbols": list(symbols)}


def array(items) -> dict:
    return {"type": "array", "items": items}


def mapping(values) -> dict:
    return {"type": "map", "values": values}


def variants(row: dict, *names: str) -> dict:
    """The row with null in the columns that values of other types have."""
    return {**dict.fromkeys(names), **row}


def apart(version: int, named: dict) -> tuple[dict | None, dict | None]:
    """Delta's readers follow no new member inside a map: the newer map has a column of its own."""
    return (named, None) if version == 1 else (None, named)


def parted(version: int, value: dict, name: str, kind: str, since: int = 2) -> dict:
    """With the column beside it that takes a member's values since a version."""
    is_new = version >= since
    value[f"{name}_{kind}"] = value[name] if is_new else None
    value[name] = None if is_new else value[name]
    return value


class Avro:
    """What producers write, and what the tables hold of it; version 1, 2 and 3 of a schema."""

    kind = "avro"
    more: dict = {}
    schemas = [
        record(
            "Row",
            field("id", "long"),
            field("count", "int"),
            field("ratio", "float"),
            field("price", decimal(9)),
            field("label", "string"),
            field("gone", "string"),
            field("must", "string"),
            field("kind", enum("A", "B")),
            field("inner", record("Inner", field("a", "int"), field("b", "string"))),
            field("items", array(record("Item", field("x", "int"), field("y", "string")))),
            field("named", mapping(record("Value", field("v", "float")))),
            field("choice", ["null", "string", "long"]),
            field("what", "int"),
        ),
        # Reordered; widened; renamed; dropped; optional; a symbol, a branch, members more; a default.
        record(
            "Row",
            field("added", "string", default="fallback"),
            field("choice", ["null", "string", "long", "boolean"]),
            field("title", "string", aliases=["label"]),
            field("count", "long"),
            field("ratio", "double"),
            field("price", decimal(12)),
            optional("must", "string"),
            field("kind", enum("A", "B", "C")),
            field("inner", record("Inner", field("c", "string", default=""), field("a", "long"), optional("b", "string"))),
            field("items", array(record("Item", optional("z", "int"), field("x", "long"), field("why", "string", aliases=["y"])))),
            field("named", mapping(record("Value", field("v", "double"), optional("w", "string")))),
            field("what", "int"),
            field("id", "long"),
        ),
        record("Row", field("id", "long"), field("what", "string")),
    ]
    common = dict.fromkeys(("added", "choice", "gone", "must", "count", "ratio", "price", "kind", "inner", "items", "named", "what"))

    def __init__(self, topic: str):
        self.topic = topic
        self.writers: list[AvroWriter] = []

    def register(self, version: int) -> None:
        schema = self.schemas[version - 1]
        self.writers.append(AvroWriter(schema, Registry().register(f"{self.topic}-value", schema)))

    def encode(self, version: int, n: int) -> bytes:
        return self.writers[version - 1](self.datum(version, n))

    def datum(self, version: int, n: int) -> dict:
        choices = [None, f"text-{n}", n, n % 2 == 0]
        if version == 3:
            return {"id": n, "what": f"what-{n}"}
        if version == 1:
            return {
                "id": n,
                "count": -n,
                "ratio": n / 4,
                "price": Decimal(n).scaleb(-2),
                "label": f"label-{n}",
                "gone": f"gone-{n}",
                "must": f"must-{n}",
                "kind": "AB"[n % 2],
                "inner": {"a": n, "b": f"b-{n}"},
                "items": [{"x": n, "y": f"y-{n}"}] * (n % 3),
                "named": {f"k{n}": {"v": n / 8}},
                "choice": choices[n % 3],
                "what": n,
            }
        return {
            "id": n,
            "added": f"added-{n}",
            "count": 2**40 + n,
            "ratio": n / 3,
            "price": Decimal(10**11 + n).scaleb(-2),
            "title": f"title-{n}",
            "must": None if n % 4 == 0 else f"must-{n}",
            "kind": "ABC"[n % 3],
            "inner": {"a": 2**41 + n, "b": None, "c": f"c-{n}"},
            "items": [{"x": 2**42 + n, "why": f"why-{n}", "z": n}] * (n % 3),
            "named": {f"k{n}": {"v": n / 7, "w": f"w-{n}"}},
            "choice": choices[n % 4],
            "what": -n,
        }

    def choice(self, value) -> dict | None:
        if value is None:
            return None
        name = {str: "string", int: "long", bool: "boolean"}[type(value)]
        return {"string": None, "long": None, "boolean": None, name: value}

    def plain(self, version: int, n: int) -> dict | None:
        """The row of the table that is Iceberg's alone; none for what it cannot take."""
        if version == 3:
            return None
        row = {**self.common, **self.datum(version, n)}
        row["title"] = row.pop("label", row.get("title"))
        row["choice"] = self.choice(row["choice"])
        row["inner"] = {"c": None, **row["inner"]}
        row["items"] = [{"z": None, "x": one["x"], "why": one.get("y", one.get("why"))} | {k: one[k] for k in ("z",) if k in one} for one in row["items"]]
        row["named"] = {key: {"w": None, **value} for key, value in row["named"].items()}
        return row

    def both(self, version: int, n: int) -> dict:
        row = {**self.common, "label": None, **self.datum(version, n)}
        if version == 2:
            row["label"] = row.pop("title")
        row["choice"] = self.choice(row["choice"])
        row["named_map"] = None
        wide = {"count": "long", "ratio": "double", "price": "decimal"}
        for name, kind in {**wide, "what": "string"}.items():
            is_wide = version == 3 if name == "what" else version == 2
            row[f"{name}_{kind}"] = row[name] if is_wide else None
            row[name] = None if is_wide else row[name]
        if version == 3:
            return row

        split = functools.partial(parted, version)
        row["inner"] = split({"c": None, **row["inner"]}, "a", "long")
        row["items"] = [
            split({"z": one.get("z"), "x": one["x"], "y": one.get("y", one.get("why"))}, "x", "long") for one in row["items"]
        ]
        row["named"], row["named_map"] = apart(version, row["named"])
        return row


class Json:
    """JSON Schema has no aliases; all else is as with Avro."""

    kind = "json"
    more: dict = {}

    @staticmethod
    def schema(required, **properties) -> dict:
        return {"type": "object", "properties": properties, "required": list(required)}

    small, large, text = {"type": "integer", "format": "int32"}, {"type": "integer"}, {"type": "string"}
    narrow, number = {"type": "number", "format": "float"}, {"type": "number"}

    def __init__(self, topic: str):
        self.topic = topic
        self.ids: list[int] = []
        some = self.schema
        self.schemas = [
            some(
                ["id", "count", "gone", "must"],
                id=self.large,
                count=self.small,
                ratio=self.narrow,
                gone=self.text,
                must=self.text,
                kind={"enum": ["A", "B"]},
                inner=some(["a"], a=self.small, b=self.text),
                items={"type": "array", "items": some([], x=self.small)},
                named={"type": "object", "additionalProperties": some([], v=self.narrow)},
                what=self.small,
            ),
            some(
                ["id", "count"],
                added={"type": "string", "default": "fallback"},
                named={"type": "object", "additionalProperties": some([], v=self.number, w=self.text)},
                items={"type": "array", "items": some([], z=self.small, x=self.large)},
                inner=some([], c=self.text, a=self.large),
                kind={"enum": ["A", "B", "C"]},
                must=self.text,
                ratio=self.number,
                count=self.large,
                what=self.small,
                id=self.large,
            ),
            some(["id"], id=self.large, what=self.text),
        ]

    def register(self, version: int) -> None:
        self.ids.append(Registry().register(f"{self.topic}-value", self.schemas[version - 1], "JSON"))

    def encode(self, version: int, n: int) -> bytes:
        return framed(self.ids[version - 1], json.dumps(self.datum(version, n)).encode())

    def datum(self, version: int, n: int) -> dict:
        if version == 3:
            return {"id": n, "what": f"what-{n}"}
        if version == 1:
            return {
                "id": n,
                "count": -n,
                "ratio": n / 4,
                "gone": f"gone-{n}",
                "must": f"must-{n}",
                "kind": "AB"[n % 2],
                "inner": {"a": n, "b": f"b-{n}"},
                "items": [{"x": n}] * (n % 3),
                "named": {f"k{n}": {"v": n / 8}},
                "what": n,
            }
        row = {
            "id": n,
            "added": f"added-{n}",
            "count": 2**40 + n,
            "ratio": n / 3,
            "kind": "ABC"[n % 3],
            "inner": {"c": f"c-{n}"} | ({"a": 2**41 + n} if n % 2 else {}),
            "items": [{"x": 2**42 + n, "z": n}] * (n % 3),
            "named": {f"k{n}": {"v": n / 7, "w": f"w-{n}"}},
            "what": -n,
        }
        return row | ({"must": f"must-{n}"} if n % 4 else {})

    def plain(self, version: int, n: int) -> dict | None:
        if version == 3:
            return None
        row = {**dict.fromkeys(("added", "gone", "must")), **self.datum(version, n)}
        row["inner"] = {"a": None, "b": None, "c": None, **row["inner"]}
        row["items"] = [{"z": None, **one} for one in row["items"]]
        row["named"] = {key: {"w": None, **value} for key, value in row["named"].items()}
        return row

    def both(self, version: int, n: int) -> dict:
        names = ("added", "gone", "must", "count", "ratio", "kind", "inner", "items", "named", "named_map", "what")
        row = {**dict.fromkeys(names), **(self.plain(version, n) or self.datum(version, n))}

        split = functools.partial(parted, version)
        split(split(split(row, "count", "long"), "ratio", "double"), "what", "string", 3)
        if version == 3:
            return row
        split(row["inner"], "a", "long")
        row["items"] = [split(one, "x", "long") for one in row["items"]]
        row["named"], row["named_map"] = apart(version, self.datum(version, n)["named"])
        return row


class Protobuf:
    """A field is known by its number: another name for it is a rename."""

    kind = "protobuf"
    more = {"message_type": "e2e.Row"}
    texts = [
        """syntax = "proto3"; package e2e;
        enum Kind { A = 0; B = 1; }
        message Inner { int32 a = 1; string b = 2; }
        message Item { int32 x = 1; string y = 2; }
        message Row {
          int64 id = 1; int32 count = 2; float ratio = 3; string label = 4; string gone = 5; string must = 6; Kind kind = 7;
          Inner inner = 8; repeated Item items = 9; map<string, Item> named = 10;
          oneof choice { string text = 11; int64 number = 12; } int32 what = 14;
        }""",
        """syntax = "proto3"; package e2e;
        enum Kind { A = 0; B = 1; C = 2; }
        message Inner { string c = 3; int64 a = 1; string b = 2; }
        message Item { int64 x = 1; string why = 2; optional int32 z = 3; }
        message Row {
          string added = 15; oneof choice { string text = 11; int64 number = 12; bool flag = 13; }
          string title = 4; int64 count = 2; double ratio = 3; optional string must = 6; Kind kind = 7;
          Inner inner = 8; repeated Item items = 9; map<string, Item> named = 10; int32 what = 14; int64 id = 1;
        }""",
        """syntax = "proto3"; package e2e; message Row { int64 id = 1; string what = 14; }""",
    ]

    def __init__(self, topic: str):
        self.topic = topic
        self.versions: list[tuple[int, type]] = []

    def register(self, version: int) -> None:
        text = self.texts[version - 1]
        schema_id = Registry().register(f"{self.topic}-value", text, "PROTOBUF")
        self.versions.append((schema_id, Proto(text)["e2e.Row"]))

    def encode(self, version: int, n: int) -> bytes:
        schema_id, message = self.versions[version - 1]
        return framed_message(schema_id, message(**self.datum(version, n)), (2 if version < 3 else 0,))

    def datum(self, version: int, n: int) -> dict:
        choices = [{}, {"text": f"text-{n}"}, {"number": n}, {"flag": n % 2 == 0}]
        if version == 3:
            return {"id": n, "what": f"what-{n}"}
        if version == 1:
            return {
                "id": n,
                "count": -n,
                "ratio": n / 4,
                "label": f"label-{n}",
                "gone": f"gone-{n}",
                "must": f"must-{n}",
                "kind": "AB"[n % 2],
                "inner": {"a": n, "b": f"b-{n}"},
                "items": [{"x": n, "y": f"y-{n}"}] * (n % 3),
                "named": {f"k{n}": {"x": -n, "y": f"y-{n}"}},
                "what": n,
                **choices[n % 3],
            }
        row = {
            "id": n,
            "added": f"added-{n}",
            "count": 2**40 + n,
            "ratio": n / 3,
            "title": f"title-{n}",
            "kind": "ABC"[n % 3],
            "inner": {"a": 2**41 + n, "b": f"b-{n}", "c": f"c-{n}"},
            "items": [{"x": 2**42 + n, "why": f"why-{n}", "z": n}] * (n % 3),
            "named": {f"k{n}": {"x": 2**43 + n, "why": f"why-{n}"}},
            "what": -n,
            **choices[n % 4],
        }
        return row | ({"must": f"must-{n}"} if n % 4 else {})

    def item(self, one: dict) -> dict:
        return {"x": one["x"], "why": one.get("y", one.get("why")), "z": one.get("z")}

    def plain(self, version: int, n: int) -> dict | None:
        if version == 3:
            return None
        row = {**dict.fromkeys(("added", "gone", "must", "text", "number", "flag")), **self.datum(version, n)}
        row["title"] = row.pop("label", row.get("title"))
        row["inner"] = {"c": None, **row["inner"]}
        row["items"] = [self.item(one) for one in row["items"]]
        row["named"] = {key: self.item(one) for key, one in row["named"].items()}
        return row

    def both(self, version: int, n: int) -> dict:
        names = ("added", "gone", "must", "text", "number", "flag", "count", "ratio", "title", "kind", "inner", "items", "named", "named_map", "what")
        row = {**dict.fromkeys(names), **(self.plain(version, n) or self.datum(version, n))}
        row["label"] = row.pop("title")

        split = functools.partial(parted, version)
        split(split(split(row, "count", "long"), "ratio", "double"), "what", "string", 3)
        if version == 3:
            return {**row, "items": None, "named": None}
        split(row["inner"], "a", "long")
        for one in row["items"]:
            one["y"] = one.pop("why")
            split(one, "x", "long")
        row["named"], row["named_map"] = apart(version, row["named"])
        for one in (row["named"] or {}).values():
            one["y"] = one.pop("why")
            one.pop("z")
        return row


def test_every_change_in_every_format_by_every_reader(engine, name):
    """A live worker; after each new version, records of all versions so far, interleaved over the partitions."""
    sources = [source(create_topic(partitions=PARTITIONS)) for source in (Avro, Json, Protobuf)]
    tables, sent = [], {source.kind: [] for source in sources}
    for source in sources:
        source.register(1)
        shared = {**source.more}
        tables.append(table(f"{name}_{source.kind}_plain", source.topic, source.kind, formats=["iceberg"], **shared))
        tables.append(table(f"{name}_{source.kind}_both", source.topic, source.kind, on_incompatible="new_column", **shared))
    run = engine(tables)

    def produce(*versions: int) -> None:
        for source in sources:
            batch = []
            for _ in range(ROWS):
                n = len(sent[source.kind])
                version = versions[n // PARTITIONS % len(versions)]
                sent[source.kind].append((version, n))
                batch.append(Sent(source.encode(version, n), partition=n % PARTITIONS))
            send(source.topic, batch)

    def expected(source, shape: str) -> list[dict]:
        rows = (getattr(source, shape)(version, n) for version, n in sent[source.kind])
        return [row for row in rows if row is not None]

    def arrived() -> bool:
        for source in sources:
            for shape in ("plain", "both"):
                place = run.table(f"{name}_{source.kind}_{shape}")
                assert worker.code is None, worker.said()[-3000:]
                if not place.exists() or readers.count(place) < len(expected(source, shape)):
                    return False
        return True

    produce(1)
    worker = run.worker()
    wait(arrived, 60, "rows of the first version")
    for version in (2, 3):
        for source in sources:
            source.register(version)
        produce(*range(1, version + 1))
        wait(arrived, 60, f"rows of version {version}")
    assert worker.stop() == 0, worker.said()[-3000:]

    for source in sources:
        plain, both = (run.table(f"{name}_{source.kind}_{shape}") for shape in ("plain", "both"))
        readers.check(plain, expected(source, "plain"), ICEBERG_ONLY)
        readers.check(both, expected(source, "both"), readers.ALL)
        assert not both.dead_letters.exists()
        rejected = readers.ICEBERG["PyIceberg"](plain.dead_letters).to_pylist()
        assert {one["reason"] for one in rejected} == {"incompatible_schema"}
        assert len(rejected) == sum(version == 3 for version, _ in sent[source.kind])
        changes = [entry["change"] for entry in both.ledger() if entry["change"]["kind"] == "set_schema"]
        assert 2 <= len(changes) <= 3, "each change is in the ledger, once"

    # A rename keeps the field's id, and files rewritten together come out right.
    ids = {field["name"]: field["id"] for field in run.table(f"{name}_avro_plain").fields()}
    first = next(entry["change"] for entry in run.table(f"{name}_avro_plain").ledger() if entry["change"]["kind"] == "create")
    assert ids["title"] == next(field["id"] for field in first["schema"]["fields"] if field["name"] == "label")
    run.command("compact")
    for source in sources:
        readers.check(run.table(f"{name}_{source.kind}_plain"), expected(source, "plain"), readers.ICEBERG)
        readers.check(run.table(f"{name}_{source.kind}_both"), expected(source, "both"))


def test_two_workers_that_meet_different_schemas_first_agree(engine, name):
    """Each has a partition, and in it another next version of the schema, at the same time."""
    topic = create_topic(partitions=2)
    registry = Registry()
    first = record("Row", field("id", "long"), field("old", "int"))
    left = record("Row", field("id", "long"), field("new", "int", aliases=["old"]), optional("left", "string"))
    right = record("Row", optional("right", "string"), field("old", "long"), field("id", "long"))
    writers = [AvroWriter(schema, registry.register(f"{topic}-{n}", schema)) for n, schema in enumerate((first, left, right))]
    registry.register(f"{topic}-value", first)
    run = engine([table(name, topic, formats=["iceberg"], group=f"group-{topic}")])
    rows = [{"id": n, "new": n, "left": None, "right": None} for n in range(10)]
    send(topic, [Sent(writers[0]({"id": n, "old": n}), partition=n % 2) for n in range(10)])
    workers = [run.worker(), run.worker()]
    wait(lambda: sorted(map(sorted, group_members(f"group-{topic}"))) == [[0], [1]], 40, "a partition for each worker")
    wait(lambda: run.table().exists() and readers.count(run.table()) == 10, 40, "the first rows")
    batch = []
    for n in range(10, 40):
        batch.append(Sent(writers[1]({"id": n, "new": n, "left": f"l{n}"}), partition=0))
        rows.append({"id": n, "new": n, "left": f"l{n}", "right": None})
        n += 1000
        batch.append(Sent(writers[2]({"id": n, "old": 2**40 + n, "right": f"r{n}"}), partition=1))
        rows.append({"id": n, "new": 2**40 + n, "left": None, "right": f"r{n}"})
        n += 1000
        batch.append(Sent(writers[0]({"id": n, "old": n}), partition=n % 2))
        rows.append({"id": n, "new": n, "left": None, "right": None})
    send(topic, batch)
    wait(lambda: readers.count(run.table()) == len(rows), 60, "all rows")
    assert [worker.stop() for worker in workers] == [0, 0]
    readers.check(run.table(), rows, ICEBERG_ONLY)
    assert not run.table().dead_letters.exists()
    changes = [entry for entry in run.table().ledger() if entry["change"]["kind"] == "set_schema"]
    assert len(changes) == 2, "one for each schema, whoever met it first"


def test_plan_tells_what_a_registered_version_will_do(engine, name):
    """Before anybody produces with it; and nothing is refused that records may do."""
    topic = create_topic()
    registry = Registry()
    schema = record("Row", field("id", "long"), field("old", "int"), field("must", "string"))
    writer = AvroWriter(schema, registry.register(f"{topic}-value", schema))
    send(topic, [Sent(writer({"id": 1, "old": 1, "must": "a"}))])
    shapes = {"plain": {"formats": ["iceberg"]}, "both": {}, "variants": {"on_incompatible": "new_column"}, "stops": {"on_incompatible": "stop"}}
    run = engine([table(f"{name}_{shape}", topic, **more) for shape, more in shapes.items()])
    run.once()
    newer = record("Row", field("id", "long"), field("new", "long", aliases=["old"]), optional("added", "string"))
    registry.register(f"{topic}-value", newer)
    told = run.command("plan").out
    texts = re.split(r"\n(?=e2e\.)", told)
    plans = {text.split(":")[0].removeprefix(f"{name}_"): text for text in texts}
    for said in ("~ column old: renamed to new", "~ column new: int becomes long", "+ column added string", "~ column must: becomes optional"):
        assert said in plans["plain"], told
    assert "records of the newest schema do not fit, they are rejected: column old: records have long for a column of int" in plans["both"]
    assert "+ column old_long long" in plans["variants"] and "column old takes the values of fields called new" in plans["variants"]
    assert "the table stops at their first" in plans["stops"]
    run.command("apply")
    told = run.command("plan").out
    assert told.count("nothing to do") == 4, told

    newest = AvroWriter(newer, registry.register(f"{topic}-value", newer))
    send(topic, [Sent(newest({"id": 2, "new": 2**40, "added": "b"}))])
    ended = run.once(code=None)
    stop = next(line for line in ended.said.splitlines() if "on_incompatible" in line and f"{name}_stops" in line)
    for said in (f"topic {topic}", "partition 0", "offset 1", str(newest.schema_id), "at old", "long", "int", "stop"):
        assert said in stop, f"{said} in {stop}"
    readers.check(run.table(f"{name}_plain"), [{"id": 1, "new": 1, "must": "a", "added": None}, {"id": 2, "new": 2**40, "must": None, "added": "b"}], readers.ICEBERG)
    readers.check(
        run.table(f"{name}_variants"),
        [{"id": 1, "old": 1, "must": "a", "added": None, "old_long": None}, {"id": 2, "old": None, "must": None, "added": "b", "old_long": 2**40}],
    )
    for shape in ("both", "stops"):
        readers.check(run.table(f"{name}_{shape}"), [{"id": 1, "old": 1, "must": "a"}])
    [letter] = readers.ICEBERG["PyIceberg"](run.table(f"{name}_both").dead_letters).to_pylist()
    assert (letter["offset"], letter["reason"]) == (1, "incompatible_schema")
    assert not run.table(f"{name}_stops").dead_letters.exists()
