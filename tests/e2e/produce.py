"""Producers: every kind of record that a topic may hold, made from seeds so that each run sends the same."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import io
import json
import random
import struct
import time
import uuid
from decimal import Decimal

import fastavro
import requests
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

import lab

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclasses.dataclass(frozen=True)
class Sent:
    """A record to send, and, once sent, where it went."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    partition: int = 0
    offset: int | None = None


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


# --- Topics -----------------------------------------------------------------------------------------------------


def brokers() -> str:
    return lab.address("KAFKA")


@functools.cache
def admin() -> AdminClient:
    """One for the whole run: its futures end with it."""
    return AdminClient({"bootstrap.servers": brokers()})


def create_topic(name: str | None = None, partitions: int = 1, **config: str) -> str:
    name = name or unique("topic")
    admin().create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)
    return name


def delete_records(topic: str, before: dict[int, int]) -> None:
    """Makes the broker forget what lies before these offsets, as retention does."""
    wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    for future in admin().delete_records(wanted).values():
        future.result(30)


def end_offsets(topic: str, partitions: int) -> dict[int, int]:
    asked = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(partitions)}
    return {
        where.partition: future.result(30).offset for where, future in admin().list_offsets(asked).items()
    }


def group_members(group: str) -> list[set[int]]:
    """The partitions of each member of a consumer group."""
    described = admin().describe_consumer_groups([group])[group].result(30)
    return [{part.partition for part in member.assignment.topic_partitions} for member in described.members]


# --- Sending ----------------------------------------------------------------------------------------------------


def send(topic: str, records, codec: str = "none") -> list[Sent]:
    """Sends and waits; gives the records back with their offsets, in the order given."""
    return _deliver(_producer(codec), topic, list(records))


@functools.cache
def _producer(codec: str) -> Producer:
    """One a codec for the whole run: to begin one takes longer than to send."""
    return Producer(
        {
            "bootstrap.servers": brokers(),
            "compression.type": codec,
            "enable.idempotence": True,
            "linger.ms": 5,
        }
    )


def _deliver(producer: Producer, topic: str, records: list[Sent], commit: bool | None = None) -> list[Sent]:
    """`commit`: None outside a transaction, else whether to commit or to abort it."""
    offsets: list[int | None] = [None] * len(records)
    failures = []
    deadline = time.monotonic() + 10

    def on_delivery(index):
        def delivered(error, message):
            if error:
                failures.append(error)
            else:
                offsets[index] = message.offset()

        return delivered

    for index, record in enumerate(records):
        arguments = {} if record.timestamp_ms is None else {"timestamp": record.timestamp_ms}
        while True:
            try:
                producer.produce(
                    topic,
                    record.value,
                    record.key,
                    partition=record.partition,
                    headers=list(record.headers),
                    on_delivery=on_delivery(index),
                    **arguments,
                )
                break
            except BufferError:
                producer.poll(0.1)
            except KafkaException as fault:
                # Partitions added since the producer last looked.
                if fault.args[0].code() != KafkaError._UNKNOWN_PARTITION or time.monotonic() > deadline:
                    raise
                producer.list_topics(topic, timeout=10)
                producer.poll(0.1)
            except KafkaException as error:
                # A partition made a moment ago: this producer's view of the topic is older.
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION or index > 0:
                    raise
                producer.list_topics(topic, timeout=10)
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(60) or failures:
        raise RuntimeError(f"records were not delivered: {failures[:3]}")
    if commit is not None:
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    return [dataclasses.replace(record, offset=offset) for record, offset in zip(records, offsets)]


class Transactions:
    """A transactional producer: what `commit` sends is there for readers, what `abort` sends is not."""

    def __init__(self, topic: str, codec: str = "none"):
        self.topic = topic
        self.producer = Producer(
            {
                "bootstrap.servers": brokers(),
                "transactional.id": unique("tx"),
                "compression.type": codec,
                "linger.ms": 5,
            }
        )
        self.producer.init_transactions(60)

    def commit(self, records) -> list[Sent]:
        self.producer.begin_transaction()
        return _deliver(self.producer, self.topic, list(records), commit=True)

    def abort(self, records) -> list[Sent]:
        self.producer.begin_transaction()
        return _deliver(self.producer, self.topic, list(records), commit=False)

    def leave_open(self, records) -> list[Sent]:
        """Sends without an end: readers must wait. `close` ends it by an abort."""
        self.producer.begin_transaction()
        return _deliver(self.producer, self.topic, list(records))

    def close(self, commit: bool = False) -> None:
        (self.producer.commit_transaction if commit else self.producer.abort_transaction)(30)


# --- Schemas ----------------------------------------------------------------------------------------------------


class Registry:
    """The schema registry's API, as producers use it."""

    def __init__(self, url: str | None = None, auth: tuple[str, str] | None = None):
        self.url = url or lab.address("REGISTRY")
        self.session = requests.Session()
        self.session.auth = auth

    def register(self, subject: str, schema, kind: str = "AVRO", references=()) -> int:
        """References are (name, subject, version). Gives the id."""
        body = {"schema": schema if isinstance(schema, str) else json.dumps(schema)}
        if kind != "AVRO":
            body["schemaType"] = kind
        if references:
            body["references"] = [dict(zip(("name", "subject", "version"), one)) for one in references]
        for attempt in range(5):
            answer = self.session.post(f"{self.url}/subjects/{subject}/versions", json=body, timeout=30)
            if answer.status_code < 500:
                break
            time.sleep(0.5 * (attempt + 1))
        answer.raise_for_status()
        return answer.json()["id"]


def framed(schema_id: int, body: bytes) -> bytes:
    """Confluent's framing: a zero byte, the schema's id, the body."""
    return b"\0" + struct.pack(">I", schema_id) + body


def avro_body(schema: dict, datum) -> bytes:
    """One Avro datum. `schema` is complete: references are written out."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), datum)
    return out.getvalue()


class AvroWriter:
    """Encodes rows of one registered schema."""

    def __init__(self, schema: dict, schema_id: int):
        self.parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
        self.schema_id = schema_id

    def __call__(self, datum) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self.parsed, datum)
        return framed(self.schema_id, out.getvalue())


# --- Rows -------------------------------------------------------------------------------------------------------

ORDER_COLUMNS = [
    {"name": "id", "type": "long", "required": True},
    {"name": "customer_id", "type": "long"},
    {"name": "region", "type": "string"},
    {"name": "ordered_at", "type": "timestamptz"},
    {"name": "amount", "type": "decimal(12, 2)"},
    {"name": "note", "type": "string"},
]
REGIONS = ("eu-central", "eu-west", "us-east", "us-west", "ap-south", "sa-east")
FIRST_ORDER_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def order(number: int, seed: int = 7) -> dict:
    """Order `number`: a pure function of the number and the seed."""
    dice = random.Random(seed * 1_000_003 + number)
    return {
        "id": number,
        "customer_id": dice.randrange(500),
        "region": dice.choice(REGIONS) if dice.random() > 0.03 else None,
        "ordered_ms": FIRST_ORDER_MS + number * 601_000 + dice.randrange(3_600_000),
        "cents": dice.randrange(1, 10_000_000),
        "note": None
        if dice.random() < 0.1
        else "".join(dice.choice("abcdefgh äöü✓") for _ in range(dice.randrange(30))),
    }


def order_json(row: dict) -> bytes:
    stamp = (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(row["ordered_ms"] // 1000))
        + f".{row['ordered_ms'] % 1000:03d}Z"
    )
    cents = f"{row['cents'] // 100}.{row['cents'] % 100:02d}"
    return (
        '{"id": %d, "customer_id": %d, "region": %s, "ordered_at": "%s", "amount": %s, "note": %s}'
        % (row["id"], row["customer_id"], json.dumps(row["region"]), stamp, cents, json.dumps(row["note"]))
    ).encode()


def order_expected(row: dict) -> dict:
    """The row of the table that `order_json` and `order_avro` become."""
    return {
        "id": row["id"],
        "customer_id": row["customer_id"],
        "region": row["region"],
        "ordered_at": dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=row["ordered_ms"]),
        "amount": Decimal(row["cents"]).scaleb(-2),
        "note": row["note"],
    }


ORDER_AVRO = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer_id", "type": "long"},
        {"name": "region", "type": ["null", "string"], "default": None},
        {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}


def order_avro(row: dict) -> dict:
    """The datum of `ORDER_AVRO`."""
    return order_expected(row)


# --- Records that no table takes --------------------------------------------------------------------------------


def json_poison() -> list[tuple[str, bytes]]:
    """(what is wrong, value) for topics of `ORDER_COLUMNS` as JSON."""
    good = order_json(order(1))
    return [
        ("empty", b""),
        ("not JSON", b"this is not JSON"),
        ("cut off", good[: len(good) // 2]),
        ("more after the end", good + b"}"),
        ("not an object", b"[1, 2, 3]"),
        ("a bare number", b"42"),
        ("not UTF-8", b'{"id": 1, "region": "\xff\xfe"}'),
        ("lone surrogate", b'{"id": 1, "region": "\\ud800"}'),
        ("text where a number belongs", b'{"id": "twelve"}'),
        ("object where text belongs", b'{"id": 1, "region": {"a": 1}}'),
        ("required column missing", b'{"customer_id": 5}'),
        ("required column null", b'{"id": null}'),
        ("number too large for long", b'{"id": 9223372036854775808}'),
        ("fraction where an integer belongs", b'{"id": 1.5}'),
        ("not a time", b'{"id": 1, "ordered_at": "yesterday"}'),
        ("impossible day", b'{"id": 1, "ordered_at": "2026-02-30T00:00:00Z"}'),
        ("too many digits", b'{"id": 1, "amount": 99999999999.99}'),
        ("too deep", b'{"id": 1, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ]


def avro_poison(schema_id: int, good: bytes) -> list[tuple[str, bytes]]:
    """(what is wrong, value) beside `good`, a framed record of the schema."""
    body = good[5:]
    return [
        ("empty", b""),
        ("too short for a frame", b"\0\0\0"),
        ("wrong magic byte", b"\1" + good[1:]),
        ("bare JSON", b'{"id": 1}'),
        ("unknown schema", b"\0" + struct.pack(">I", 0x7FFF_FFF0) + body),
        ("no body", framed(schema_id, b"")),
        ("cut off", good[:-1]),
        ("more after the end", good + b"\x02"),
        ("length beyond the end", framed(schema_id, b"\x02\x02\x02\xfe\xff\xff\xff\x0f")),
        ("negative length", framed(schema_id, b"\x02\x02\x02\x01")),
        ("unknown union branch", framed(schema_id, b"\x02\x02\x0a")),
        ("endless variable-length integer", framed(schema_id, b"\xff" * 12)),
    ]


def dead_letter(cluster: str, topic: str, record: Sent, reason, schema_id: int | None = None) -> dict:
    """The open row of the dead-letter table for a rejected record, but for the time of rejection and what it is about."""
    return {
        "cluster": cluster,
        "topic": topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": record.key,
        "value": record.value,
        "headers": [{"key": name, "value": value} for name, value in record.headers],
        "schema_id": schema_id,
        "reason": reason,
        "replayed_at": None,
    }
