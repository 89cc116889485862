"""Transforms and protected columns: what readers see, what fails, and what is nowhere to be found in the clear."""

import datetime as dt
import decimal
import importlib.util
import io
import json
import pathlib
import time

import fastavro

import lab
import readers
from canary import Tokens
from produce import AvroWriter, Registry, Sent, create_topic, dead_letter, send
from siltstone import CLUSTER, json_table, table

KEY = "an-example-key-of-the-tests-0123456789"
ENV = {"PII_KEY": KEY, "RUST_LOG": "trace"}
START_MS = 1_750_000_000_000

_spec = importlib.util.spec_from_file_location(
    "protected_columns", pathlib.Path(lab.REPOSITORY) / "examples" / "protected_columns.py"
)
protected = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(protected)

V1 = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "amount", "type": "string"},
        {"name": "country", "type": ["null", "string"], "default": None},
        {"name": "internal_note", "type": "string"},
        {
            "name": "cust",
            "type": {
                "type": "record",
                "name": "Customer",
                "fields": [
                    {"name": "nr", "type": "int"},
                    {"name": "mail", "type": "string"},
                    {"name": "phone", "type": ["null", "string"], "default": None},
                ],
            },
        },
        {"name": "card", "type": "string"},
        {"name": "ssn", "type": "string"},
        {"name": "secret", "type": "string"},
    ],
}
V2 = json.loads(json.dumps(V1))
V2["fields"][0]["type"] = "long"
V2["fields"].append({"name": "channel", "type": ["null", "string"], "default": None})

TRANSFORMS = {
    "filter": "country is null or country <> 'XX'",
    "drop": ["internal_note"],
    "rename": {"cust": "customer", "cust.nr": "number"},
    "cast": {"amount": "decimal(12, 2)", "customer.number": "string"},
    "constant": {"region": {"type": "string", "value": "eu"}, "version": {"type": "int", "value": 3}},
}
PROTECT = {
    "customer.mail": "hash",
    "customer.phone": "mask",
    "card": "tokenize",
    "ssn": "encrypt",
    "secret": "drop",
    "_kafka.key": "hash",
    "_kafka.headers": "drop",
}


def spec(name: str, topic: str, **changes) -> dict:
    return table(
        name,
        topic,
        transforms=TRANSFORMS,
        protect=PROTECT,
        protection={"key": "${PII_KEY}"},
        kafka_metadata=True,
        # What leaks can be seen in the files as they lie there.
        files={"compression": "none"},
        sort_by=["customer.mail"],
        **changes,
    )


class Payments:
    """Records with tokens where nothing may be seen, and the rows that they become."""

    def __init__(self, topic: str):
        self.topic = topic
        subject = f"{topic}-value"
        self.writers = [AvroWriter(V1, Registry().register(subject, V1))]
        self.tokens = Tokens()
        self.rows: list[dict] = []
        self.bad: list[Sent] = []
        self.encrypted: dict[int, str] = {}
        self.number = 0

    def add_version(self) -> None:
        self.writers.append(AvroWriter(V2, Registry().register(f"{self.topic}-value", V2)))

    def send(self, count: int) -> None:
        made = [self.one(self.number + n) for n in range(count)]
        self.number += count
        sent = send(self.topic, [record for record, _ in made])
        for one, (_, row) in zip(sent, made):
            if row == "bad":
                self.bad.append(one)
            elif row is not None:
                row["_kafka"]["offset"] = one.offset
                self.rows.append(row)

    def one(self, n: int):
        version = n % len(self.writers)
        secret = self.tokens
        mail, phone = f"{secret()}@example.com", f"+49 {secret.number()}" if n % 4 else None
        card, ssn = secret(), secret()
        country = [None, "DE", "XX", "FR"][n % 4]
        bad = n % 10 == 7 and country != "XX"
        value = {
            "id": n,
            "amount": "a lot" if n % 10 == 7 else f"{n}.5",
            "country": country,
            "internal_note": secret(),
            "cust": {"nr": n * 3, "mail": mail, "phone": phone},
            "card": card,
            "ssn": ssn,
            "secret": secret(),
            "channel": f"web {n}",
        }
        key = secret().encode()
        record = Sent(
            self.writers[version](value), key, (("trace", secret().encode()),), START_MS + n, partition=n % 2
        )
        if bad:
            return record, "bad"
        if country == "XX":
            return record, None
        self.encrypted[n] = ssn
        key_bytes = KEY.encode()
        return record, {
            "id": n,
            "amount": decimal.Decimal(f"{n}.50"),
            "country": country,
            "customer": {
                "number": str(n * 3),
                "mail": protected.hash_of(key_bytes, mail.encode()),
                "phone": protected.mask_of(phone) if phone else None,
            },
            "card": protected.token_of(key_bytes, card.encode()),
            "region": "eu",
            "version": 3,
            "channel": value["channel"] if version else None,
            "_kafka": {
                "topic": self.topic,
                "partition": n % 2,
                "offset": None,
                "timestamp": _time(START_MS + n),
                "key": protected.hash_of(key_bytes, key),
            },
        }

    def check(self, run, reader_set=readers.QUICK) -> None:
        place = run.table()
        expected = [{name: value for name, value in row.items()} for row in self.rows]
        if "channel" not in {field["name"] for field in place.fields()}:
            for row in expected:
                del row["channel"]
        readers.check(place, expected, reader_set, ignore=("ssn",))
        found = readers.ICEBERG["PyIceberg"](place).select(["id", "ssn"]).to_pylist()
        opened = {row["id"]: protected.decrypt(KEY.encode(), row["ssn"]).decode() for row in found}
        assert opened == self.encrypted
        assert len({row["ssn"] for row in found}) == len(found)
        self.check_dead_letters(place)

    def check_dead_letters(self, place) -> None:
        letters = [
            {
                **dead_letter(CLUSTER, self.topic, one, "transform_failed", self.schema_id(one)),
                "timestamp": _time(one.timestamp_ms),
                "field": "amount",
                "detail": "string that is no decimal(12, 2)",
            }
            for one in self.bad
        ]
        readers.check(place.dead_letters, letters, ignore=("rejected_at",))

    def schema_id(self, one: Sent) -> int:
        return int.from_bytes(one.value[1:5], "big")


def _time(ms: int):

    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)


def counted(run) -> dict[str, int]:
    """Rejected records by reason, by the ledger."""
    counts: dict[str, int] = {}
    for entry in run.table().ledger():
        for one in entry["change"].get("rejected", []):
            counts[one["reason"]] = counts.get(one["reason"], 0) + one["records"]
    return counts


def _plain(name: str, data: bytes) -> str:
    """An object's content as text, manifests unpacked."""
    if name.endswith(".avro"):
        return json.dumps([repr(one) for one in fastavro.reader(io.BytesIO(data))])
    return data.decode("latin-1")


def check_nothing_leaked(run, tokens: Tokens) -> None:
    """No token is in any object of the main table, nor in its name."""
    place = run.table()
    names = [name for name in place.names_below(f"{place.location}/") if "." in name.rsplit("/", 1)[-1]]
    assert len([name for name in names if name.endswith(".parquet")]) > 0
    for name in names:
        tokens.check("a name", name)
        with place.filesystem.open_input_stream(name) as stream:
            tokens.check(name, _plain(name, stream.read()))


def test_every_transform_and_protection(engine, bucket, name):
    """Avro from the registry, a column added in mid-topic, restarts, four readers; nothing in the clear anywhere."""
    topic = create_topic(partitions=2)
    payments = Payments(topic)
    run = engine([spec(name, topic)], store=bucket, env=ENV)
    plan = run.command("plan").out
    assert "+ customer struct" in plan and "+ amount decimal(12, 2)" in plan and "+ ssn string" in plan, plan
    assert "internal_note" not in plan and "secret" not in plan, plan
    said = run.once("--log-format", "json").said
    payments.send(60)
    said += run.once().said
    payments.check(run)
    payments.add_version()
    payments.send(60)
    said += run.once().said
    payments.send(20)
    said += run.once().said
    payments.check(run, readers.ALL)
    n = range(payments.number)
    assert counted(run) == {
        "filtered": sum(one % 4 == 2 for one in n),
        "transform_failed": len(payments.bad),
    }
    check_nothing_leaked(run, payments.tokens)
    payments.tokens.check("the log", said)
    assert KEY not in said
    assert run.json("status", name)[0]["dead_letters"] == len(payments.bad)
    said = run.command("compact", "--table", name).said
    payments.check(run)
    check_nothing_leaked(run, payments.tokens)


def test_workers_that_are_killed(engine, name):
    """Each row, filtered record and dead letter is there once, however often a worker is killed."""
    topic = create_topic(partitions=2)
    payments = Payments(topic)
    run = engine([spec(name, topic, freshness={"max_age": "200ms", "max_rows": 20})], env=ENV)
    for kill in ("flush.dead_letters_done", "flush.files_written", "flush.committed"):
        payments.send(30)
        ended = run.once(code=None, env={"FAILPOINTS": f"{kill}=1*return", "RUST_LOG": "info"})
        assert ended.code != 0, f"{kill} was not passed"
    payments.add_version()
    worker = run.worker({"RUST_LOG": "info"}).ready()
    payments.send(40)
    time.sleep(1)
    worker.kill()
    payments.send(30)
    run.once(env={"RUST_LOG": "info"})
    payments.check(run)
    counts = counted(run)
    assert counts["filtered"] == sum(one % 4 == 2 for one in range(payments.number))
    assert counts["transform_failed"] == len(payments.bad)


def test_json_raw_and_tombstones(engine, name):
    """Inline JSON with `select`, rows of nulls, and raw values under another name."""
    topic = create_topic()
    columns = [
        {"name": "k", "type": "long"},
        {"name": "wide", "type": {"struct": [{"name": "a", "type": "string"}, {"name": "b", "type": "long"}]}},
        {"name": "tags", "type": "list<string>"},
        {"name": "rest", "type": "string"},
    ]
    tables = [
        json_table(
            f"{name}_json",
            topic,
            columns,
            transforms={
                "select": ["k", "wide.b", "tags"],
                "rename": {"wide.b": "c"},
                "cast": {"k": "string"},
                "constant": {"day": {"type": "date", "value": "2026-01-31"}},
            },
            kafka_metadata=True,
            tombstones="row",
        ),
        table(
            f"{name}_raw",
            topic,
            "raw",
            transforms={"rename": {"value": "body"}, "filter": "value is not null"},
            protect={"body": "hash"},
            protection={"key": "${PII_KEY}"},
        ),
    ]
    values = [
        json.dumps({"k": n, "wide": {"a": "x", "b": n} if n % 3 else None, "tags": ["t"] * (n % 3), "rest": "r"})
        for n in range(30)
    ]
    sent = send(topic, [Sent(value.encode(), b"key", timestamp_ms=START_MS) for value in values] + [Sent(None, b"gone", timestamp_ms=START_MS)])
    run = engine(tables, env=ENV)
    run.once(env={"RUST_LOG": "info"})

    def row(n: int, one: Sent) -> dict:
        value = json.loads(one.value) if one.value else None
        wide = value and value["wide"]
        return {
            "k": str(value["k"]) if value else None,
            "wide": {"c": wide["b"]} if wide else None,
            "tags": value["tags"] if value else None,
            "day": dt.date(2026, 1, 31),
            "_kafka": {
                "topic": topic,
                "partition": 0,
                "offset": n,
                "timestamp": _time(START_MS),
                "key": one.key,
                "headers": [],
            },
        }

    readers.check(run.table(f"{name}_json"), [row(n, one) for n, one in enumerate(sent)])
    hashes = [{"body": protected.hash_of(KEY.encode(), value.encode())} for value in values]
    readers.check(run.table(f"{name}_raw"), hashes)


def test_mistakes_are_told_before_anything_is_written(engine, name):
    topic = create_topic()
    Registry().register(f"{topic}-value", V1)

    def said(transforms=None, protect=None) -> str:
        more = {"protection": {"key": "${PII_KEY}"}} if protect and "hash" in protect.values() else {}
        run = engine([table(name, topic, transforms=transforms or {}, protect=protect or {}, **more)], env=ENV)
        ended = run.run("plan", "-f", str(run.spec), code=None, env={"RUST_LOG": "error"})
        once = run.once(code=None, env={"RUST_LOG": "error"})
        assert ended.code != 0 and once.code != 0
        assert not run.table().exists()
        return ended.said

    assert "did you mean cust.mail?" in said(protect={"cust.mial": "hash"})
    assert "did you mean country?" in said(transforms={"filter": "contry = 'DE'"})
    assert "SQL error" in said(transforms={"filter": "country ="})
    assert "did you mean card?" in said(transforms={"drop": ["crad"]})
    assert "long cannot be cast to date" in said(transforms={"cast": {"id": "date"}})


def test_stop_at_a_row_that_cannot_be_cast(engine, name):
    """With `dlq_mode: stop` nothing past the record is committed, and what is mended goes on from there."""
    topic = create_topic()
    columns = [{"name": "k", "type": "long"}, {"name": "n", "type": "string"}]
    one = json_table(name, topic, columns, transforms={"cast": {"n": "int"}}, dlq_mode="stop")
    send(topic, [Sent(json.dumps({"k": n, "n": "x" if n == 5 else str(n)}).encode()) for n in range(10)])
    run = engine([one])
    ended = run.once(code=None)
    told = "offset 5: transform_failed at n: string that is no int; mend the producer, change transforms"
    assert ended.code != 0 and told in ended.said, ended.said[-2000:]
    assert run.committed().get(0, 0) <= 5
    run.write([{**one, "dlq_mode": "skip"}])
    run.once()
    readers.check(run.table(), [{"k": n, "n": n} for n in range(10) if n != 5])
