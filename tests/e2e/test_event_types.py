"""Several event types in one topic: one table each, or one wide table; interleaved; a new type in mid-topic."""

import json

import pytest

import files
import readers
from produce import AvroWriter, Registry, Sent, create_topic, framed, send
from protobufs import Proto, framed_message
from siltstone import table

PLACED, PAID, SENT_OUT = "com.shop.OrderPlaced", "com.shop.OrderPaid", "com.shop.OrderSent"


class Events:
    """Events of one format: how they are registered and encoded, and the columns that each type has."""

    # (name, type) of the fields of each type; `order_id` and `amount` are of several.
    FIELDS = {
        PLACED: {"order_id": "long", "customer": "string", "amount": "long"},
        PAID: {"order_id": "long", "amount": "double", "method": "string"},
        SENT_OUT: {"order_id": "long", "parcel": "string"},
    }

    @staticmethod
    def datum(name: str, number: int) -> dict:
        if name == PLACED:
            return {"order_id": number, "customer": f"c-{number % 5}", "amount": 1_000 + number}
        if name == PAID:
            return {"order_id": number, "amount": number + 0.5, "method": "card"}
        return {"order_id": number, "parcel": f"parcel {number}"}


class AvroEvents(Events):
    format = "avro"

    def __init__(self, topic: str):
        self.topic, self.writers, self.ids = topic, {}, {}

    def register(self, name: str) -> None:
        """By topic and record: TopicRecordName."""
        space, short = name.rsplit(".", 1)
        fields = [{"name": field, "type": kind} for field, kind in self.FIELDS[name].items()]
        schema = {"type": "record", "name": short, "namespace": space, "fields": fields}
        self.ids[name] = Registry().register(f"{self.topic}-{name}", schema)
        self.writers[name] = AvroWriter(schema, self.ids[name])

    def encode(self, name: str, number: int) -> bytes:
        return self.writers[name](self.datum(name, number))

    # What only one type has is null in the others.
    nothing = {"customer": None, "amount": None, "method": None, "parcel": None}


class JsonEvents(Events):
    format = "json"
    nothing = AvroEvents.nothing

    def __init__(self, topic: str):
        self.topic, self.ids = topic, {}

    def register(self, name: str) -> None:
        kinds = {"long": {"type": "integer"}, "double": {"type": "number"}, "string": {"type": "string"}}
        schema = {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": name,
            "type": "object",
            "properties": {field: kinds[kind] for field, kind in self.FIELDS[name].items()},
            "required": ["order_id"],
        }
        self.ids[name] = Registry().register(f"{self.topic}-{name}", schema, "JSON")

    def encode(self, name: str, number: int) -> bytes:
        return framed(self.ids[name], json.dumps(self.datum(name, number)).encode())


class ProtobufEvents(Events):
    """All types are messages of one schema, as one subject of the topic; records name theirs."""

    format = "protobuf"
    nothing = {"customer": None, "amount": None, "method": None, "parcel": None}

    def __init__(self, topic: str):
        self.topic, self.types = topic, []

    def register(self, name: str) -> None:
        self.types.append(name)
        text = 'syntax = "proto3";\npackage com.shop;\n'
        for one in self.types:
            fields = enumerate(self.FIELDS[one].items(), 1)
            kinds = {"long": "int64", "double": "double", "string": "string"}
            members = "".join(
                f"  {'' if field == 'order_id' else 'optional '}{kinds[kind]} {field} = {number};\n"
                for number, (field, kind) in fields
            )
            text += f"message {one.rsplit('.', 1)[1]} {{\n{members}}}\n"
        self.proto = Proto(text)
        self.id = Registry().register(f"{self.topic}-value", text, "PROTOBUF")

    def encode(self, name: str, number: int) -> bytes:
        message = self.proto[name](**self.datum(name, number))
        return framed_message(self.id, message, (self.types.index(name),))


ALL = [AvroEvents, JsonEvents, ProtobufEvents]


def interleaved(events: Events, names: list[str], first: int, count: int) -> list[tuple[str, int]]:
    return [(names[number % len(names)], number) for number in range(first, first + count)]


def put(topic: str, events: Events, sequence: list[tuple[str, int]]) -> list[Sent]:
    return send(topic, [Sent(events.encode(name, n), timestamp_ms=1, partition=n % 2) for name, n in sequence])


def rows_of(name: str, sequence: list[tuple[str, int]]) -> list[dict]:
    return [Events.datum(name, number) for of, number in sequence if of == name]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.format)
def test_one_table_each(engine, name, kind):
    """Each table has its own group, its own types, and every position of the topic."""
    topic = create_topic(partitions=2)
    events = kind(topic)
    for one in (PLACED, PAID):
        events.register(one)
    tables = [
        table(f"{name}_placed", topic, kind.format, event_types=[PLACED]),
        table(f"{name}_paid", topic, kind.format, event_types={"take": [PAID], "column": "event_type"}),
        table(f"{name}_sent", topic, kind.format, event_types=[SENT_OUT]),
    ]
    run = engine(tables)
    # Tables come to be with the subjects of their types, before the first record.
    run.command("apply")
    assert run.table(f"{name}_placed").exists() or kind is ProtobufEvents
    sequence = interleaved(events, [PLACED, PAID], 0, 60)
    put(topic, events, sequence)
    run.once()
    # A new type comes by in mid-topic.
    events.register(SENT_OUT)
    later = interleaved(events, [SENT_OUT, PLACED, PAID], 60, 60)
    put(topic, events, later)
    run.once()
    sequence += later
    readers.check(run.table(f"{name}_placed"), rows_of(PLACED, sequence))
    paid = [{**row, "event_type": PAID} for row in rows_of(PAID, sequence)]
    readers.check(run.table(f"{name}_paid"), paid)
    readers.check(run.table(f"{name}_sent"), rows_of(SENT_OUT, sequence))
    for one in ("placed", "paid", "sent"):
        place = run.table(f"{name}_{one}")
        assert not place.dead_letters.exists(), "records of other tables are dead letters"
        assert sum(run.committed(f"{name}_{one}").values()) == len(sequence)
        counts = [count for entry in place.ledger() for count in entry["change"].get("rejected", [])]
        assert {count["reason"] for count in counts} == {"other_event_type"}
        passed_over = len(sequence) - readers.count(place)
        assert sum(count["records"] for count in counts) == passed_over
        files.check_same_files(place)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.format)
def test_one_wide_table(engine, name, kind):
    """All fields of all types, and the name of each record's type."""
    topic = create_topic(partitions=2)
    events = kind(topic)
    for one in (PAID, PLACED):
        events.register(one)
    wide = table(name, topic, kind.format, kafka_metadata=False, event_types={"take": "all", "column": "event_type"})
    run = engine([wide])
    sequence = interleaved(events, [PAID, PLACED], 0, 60)
    put(topic, events, sequence)
    run.once()
    events.register(SENT_OUT)
    later = interleaved(events, [PLACED, SENT_OUT, PAID], 60, 60)
    put(topic, events, later)
    run.once()
    wanted = []
    for of, number in sequence + later:
        row = {**kind.nothing, **Events.datum(of, number), "event_type": of}
        # One column for both: the wider type.
        row["amount"] = None if row["amount"] is None else float(row["amount"])
        wanted.append(row)
    readers.check(run.table(), wanted)
    assert not run.table().dead_letters.exists()
    files.check_same_files(run.table())


def test_wide_tables_and_what_does_not_fit(engine, name):
    """A field that is text in one type and a number in another: the later type's records are dead letters, by policy."""
    topic = create_topic()
    events = AvroEvents(topic)
    events.register(PLACED)
    other = {
        "type": "record",
        "name": "com.shop.OrderVoid",
        "fields": [{"name": "order_id", "type": "long"}, {"name": "customer", "type": "long"}],
    }
    writer = AvroWriter(other, Registry().register(f"{topic}-com.shop.OrderVoid", other))
    send(topic, [Sent(events.encode(PLACED, 1)), Sent(writer({"order_id": 2, "customer": 3})), Sent(events.encode(PLACED, 4))])
    run = engine([table(name, topic, event_types={"column": "event_type"})])
    run.once()
    readers.check(run.table(), [{**Events.datum(PLACED, n), "event_type": PLACED} for n in (1, 4)])
    [letter] = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert (letter["reason"], letter["offset"]) == ("incompatible_schema", 1)
    # A table of that type alone takes it; the others are passed over.
    run.write([table(f"{name}_void", topic, event_types=["com.shop.OrderVoid"])])
    run.once()
    readers.check(run.table(f"{name}_void"), [{"order_id": 2, "customer": 3}])


def test_what_the_spec_refuses(engine, name):
    topic = create_topic()
    cases = {
        "needs schema_mode: registry": {"event_types": ["a"], "schema_mode": "registry_latest"},
        "names a type that stands before": {"event_types": ["a", "a"]},
        "the name of kafka_metadata's column": {"event_types": {"column": "_kafka"}},
        "a record without a value is of no type": {
            "event_types": ["a"],
            "tombstones": "row",
            "kafka_metadata": True,
        },
        "keep one of both": {"event_types": ["a"], "message_type": "a", "source_format": "protobuf"},
        "did you mean column": {"event_types": {"colum": "x"}},
    }
    for message, changes in cases.items():
        run = engine([{**table(name, topic), **changes}])
        assert message in run.command("spec", "check", code=2).err, message
