"""The wall: records full of tokens go through a whole worker; no token is in anything that may leave or be logged."""

import json
import secrets

import orders
import pytest
import readers
from canary import Tokens
from plane import Plane
from produce import AvroWriter, Registry, Sent, create_topic, framed, send
from proxies import Faults, S3Proxy
from siltstone import cluster, json_table, table, wait
from stores import Bucket

TRACE = {"RUST_LOG": "trace"}


def everything_told(run, worker=None) -> list[tuple[str, str]]:
    """(what, text) of all that a person, a log or the control plane may get to see."""
    told = []
    for spec in run.tables:
        for words in (["status"], ["files"], ["snapshots"], ["ledger"]):
            for more in ([], ["--json"]):
                told.append((" ".join(words), run.command(*words, spec["name"], *more, code=None).said))
    for more in ([], ["--json"]):
        told.append(("plan", run.command("plan", *more, code=None).said))
    if worker is not None:
        told.append(("/metrics", worker.metrics()))
        told.append(("/readyz", worker.get("/readyz").text))
        told.append(("the worker's log", worker.said()))
    import pathlib

    lake = pathlib.Path(run.store.path)
    told.append(("file names", "\n".join(str(path) for path in lake.rglob("*"))))
    for path in lake.rglob("_siltstone/**/*"):
        if path.is_file():
            told.append((f"the ledger, {path.name}", path.read_bytes().decode("latin-1")))
    return told


@pytest.fixture
def plane():
    """A control plane that keeps every byte."""
    one = Plane()
    yield one
    one.close()


RECORD = ("--record", "sent.txt")
PLANE_KEY = f"tkn-key-{secrets.token_hex(8)}"


def report_to(run, plane: Plane) -> None:
    run.environment["PLANE_KEY"] = PLANE_KEY
    run.spec.write_text(run.spec.read_text() + f"control_plane: {json.dumps(plane.spec)}\n")


def told_to_the_control_plane(run, plane: Plane) -> list[tuple[str, str]]:
    """Waits until the ledgers are reported."""
    for spec in run.tables:
        for place in (run.table(spec["name"]), run.table(spec["name"]).dead_letters):
            if place.exists():
                entries = len(place.ledger())
                wait(
                    lambda name=place.name, entries=entries: len(plane.entries.get(name, [])) >= entries,
                    60,
                    "the reports",
                )
    wait(lambda: {"/worker/v1/health", "/worker/v1/events"} <= plane.paths(), 60, "health and events")
    record = run.folder / "sent.txt"
    told = [("the bytes to the control plane", plane.bytes()), ("the recording", record.read_text())]
    told += [("what can cross", run.command("disclosures", *more).said) for more in ([], ["--json"])]
    assert PLANE_KEY not in record.read_text()
    return told


def test_json_records(engine, name, plane):
    tokens = Tokens()
    topic = create_topic(partitions=2)
    columns = [
        {"name": "id", "type": "long"},
        {"name": "region", "type": "string"},
        {"name": "note", "type": "string"},
        {"name": "amount", "type": "decimal(20, 2)"},
        {"name": "inner", "type": {"struct": [{"name": "a", "type": "string"}]}},
        {"name": "tags", "type": "map<string, string>"},
    ]

    def good(n: int) -> Sent:
        value = {
            "id": tokens.number(),
            "region": tokens(),
            "note": tokens(),
            "amount": tokens.number(),
            "inner": {"a": tokens()},
            "tags": {tokens(): tokens()},
            tokens(): tokens(),
        }
        headers = ((tokens(), tokens().encode()),)
        return Sent(json.dumps(value).encode(), tokens().encode(), headers, partition=n % 2)

    def bad(n: int) -> Sent:
        values = [
            tokens().encode(),
            f'{{"id": "{tokens()}"}}'.encode(),
            f'{{"id": 1, "region": {{"{tokens()}": 1}}}}'.encode(),
            f'{{"id": {tokens.number()}99999, "note": "{tokens()}"}}'.encode(),
            f'{{"note": "{tokens()}'.encode(),
            f'{{"amount": "{tokens()}"}}'.encode(),
            f'["{tokens()}"]'.encode(),
            f'{{"note": "{tokens()}\\q"}}'.encode(),
            b'{"note": "' + tokens().encode() + b'\xff"}',
            f'{{"{tokens()}": }}'.encode(),
        ]
        return Sent(
            values[n % len(values)], tokens().encode(), ((tokens(), tokens().encode()),), partition=n % 2
        )

    send(topic, [one(n) for n in range(40) for one in (good, bad)])
    run = engine(
        [
            json_table(
                name,
                topic,
                columns,
                kafka_metadata=True,
                partition_by=["truncate(24, region)"],
                sort_by=["note"],
                files={"bloom_filters": ["note"]},
            )
        ],
        env=TRACE,
    )
    report_to(run, plane)
    worker = run.worker(arguments=RECORD)
    wait(lambda: run.table().exists() and readers.count(run.table()) == 40, 60, "the rows")
    wait(
        lambda: run.table().dead_letters.exists() and readers.count(run.table().dead_letters) == 40,
        30,
        "the dead letters",
    )
    send(topic, [good(n) for n in range(10)])
    wait(lambda: readers.count(run.table()) == 50, 30, "more rows")
    told = everything_told(run, worker) + told_to_the_control_plane(run, plane)
    assert worker.stop() == 0
    told.append(("the worker's log", worker.said()))
    assert PLANE_KEY not in worker.said()
    assert "TRACE" in worker.said(), "the log is not at trace"
    for what, text in told:
        tokens.check(what, text)
    # The tokens did go through: the table holds them.
    held = repr(readers.ICEBERG["PyIceberg"](run.table()).to_pylist())
    assert sum(token in held for token in tokens.made) > 200


def test_extra_members_that_are_rejected(engine, name):
    tokens = Tokens()
    topic = create_topic()
    send(topic, [Sent(f'{{"id": 1, "{tokens()}": "{tokens()}"}}'.encode()) for _ in range(5)])
    for mode in ("dead_letter", "skip", "stop"):
        spec = json_table(
            f"{name}_{mode}", topic, [{"name": "id", "type": "long"}], extra_fields="reject", dlq_mode=mode
        )
        run = engine([spec], env=TRACE)
        ended = run.once(code=None)
        assert ended.code == (1 if mode == "stop" else 0)
        tokens.check(f"the output with dlq_mode {mode}", ended.said)


def test_avro_schemas_and_records(engine, name, plane):
    """Docs, defaults, symbols and aliases of schemas are not metadata of ours; nor is what a refused schema says."""
    tokens = Tokens()
    registry = Registry()
    topic = create_topic()

    def schema(note_type, **more) -> dict:
        return {
            "type": "record",
            "name": "Row",
            "namespace": "e2e",
            "doc": tokens(),
            "owner": tokens(),
            "fields": [
                {"name": "id", "type": "long", "doc": tokens()},
                {"name": "note", "type": note_type, "doc": tokens(), **more},
                {
                    "name": "kind",
                    "type": {
                        "type": "enum",
                        "name": "Kind",
                        "doc": tokens(),
                        "symbols": [tokens(), tokens()],
                    },
                },
            ],
        }

    first = schema(["string", "null"], default=tokens())
    writer = AvroWriter(first, registry.register(f"{topic}-value", first))
    symbols = first["fields"][2]["type"]["symbols"]

    def good() -> Sent:
        row = {"id": tokens.number(), "note": tokens(), "kind": symbols[0]}
        return Sent(writer(row), tokens().encode(), ((tokens(), tokens().encode()),))

    other = schema({"type": "map", "values": "string"}, default={tokens(): tokens()})
    incompatible = AvroWriter(other, registry.register(f"{topic}-other", other))
    recursive = {
        "type": "record",
        "name": "Loop",
        "doc": tokens(),
        "fields": [
            {"name": "id", "type": "long", "doc": tokens()},
            {"name": "next", "type": ["null", "Loop"], "doc": tokens()},
        ],
    }
    looping = AvroWriter(recursive, registry.register(f"{topic}-loop", recursive))
    records = [
        good(),
        Sent(
            incompatible(
                {"id": 1, "note": {tokens(): tokens()}, "kind": other["fields"][2]["type"]["symbols"][1]}
            )
        ),
        Sent(looping({"id": 1, "next": {"id": 2, "next": None}})),
        Sent(framed(writer.schema_id, b"\x02\x00\x40" + tokens().encode())),
        Sent(b"\0\0" + tokens().encode()),
        good(),
    ]
    send(topic, records)
    run = engine([table(name, topic, dlq_mode="dead_letter")], env=TRACE)
    report_to(run, plane)
    worker = run.worker(arguments=RECORD)
    wait(lambda: run.table().exists() and readers.count(run.table()) == 2, 60, "the rows")
    wait(
        lambda: run.table().dead_letters.exists() and readers.count(run.table().dead_letters) == 4,
        30,
        "the dead letters",
    )
    told = everything_told(run, worker) + told_to_the_control_plane(run, plane)
    assert worker.stop() == 0
    told.append(("the worker's log", worker.said()))
    for what, text in told:
        tokens.check(what, text)

    stopping = engine([table(f"{name}_stop", topic, dlq_mode="stop")], env=TRACE)
    tokens.check("the output of a stopped run", stopping.once(code=1).said)


def test_faults_on_every_path(engine, name, plane, registry_proxy):
    """The registry is down and hangs, the store refuses and loses, schemas change, rows are rejected: no error of all
    that says a token."""
    tokens = Tokens()
    registry = Registry()
    topic = create_topic(partitions=2)

    def writer(*more: dict) -> AvroWriter:
        fields = [{"name": "id", "type": "long", "doc": tokens()}, {"name": "note", "type": "string"}, *more]
        schema = {"type": "record", "name": "Row", "namespace": "e2e", "doc": tokens(), "fields": fields}
        return AvroWriter(schema, registry.register(f"{topic}-value", schema))

    def some(one: AvroWriter, count: int) -> list[Sent]:
        rows = []
        for n in range(count):
            row = {"id": tokens.number(), "note": tokens(), "more": tokens()}
            headers = ((tokens(), tokens().encode()),)
            rows.append(Sent(one(row), tokens().encode(), headers, partition=n % 2))
            poison = framed(one.schema_id, b"\x02\x7f" + tokens().encode())
            rows.append(Sent(poison, tokens().encode(), headers, partition=n % 2))
        return rows

    def both_are(rows: int) -> bool:
        return (
            run.table().exists()
            and run.table().dead_letters.exists()
            and readers.count(run.table()) == rows
            and readers.count(run.table().dead_letters) == rows
        )

    proxy = S3Proxy(3, Faults(reset=0.05, slow_down=0.15, lost=0.05))
    try:
        registry_proxy.mode = "fail"
        send(topic, some(writer(), 20))
        run = engine(
            [table(name, topic, kafka_metadata=True, partition_by=["truncate(30, note)"], sort_by=["note"])],
            [cluster(registry=registry_proxy.url)],
            store=Bucket(f"wall-{secrets.token_hex(5)}"),
            env={**TRACE, **proxy.env},
        )
        report_to(run, plane)
        worker = run.worker(arguments=RECORD)
        wait(lambda: "/schemas/ids" in " ".join(registry_proxy.requests) or registry_proxy.requests, 60, "a try")
        registry_proxy.mode = "forward"
        wait(lambda: both_are(20), 120, "the rows")
        # The schema grows while the registry hangs.
        registry_proxy.mode = "hang"
        send(topic, some(writer({"name": "more", "type": ["null", "string"], "default": None}), 20))
        wait(lambda: worker.metric("siltstone_retries_total") > 0, 60, "a retry")
        registry_proxy.mode = "forward"
        wait(lambda: both_are(40), 120, "the rows of the schema that grew")
        proxy.faults = Faults()
        told = told_to_the_control_plane(run, plane)
        told += [("/metrics", worker.metrics()), ("/readyz", worker.get("/readyz").text)]
        assert worker.stop(60) == 0
        assert any(fault.startswith("slow_down") for fault in proxy.made)
        told.append(("the worker's log", worker.said()))
        assert "TRACE" in worker.said() and "WARN" in worker.said()
        for what, text in told:
            tokens.check(what, text)
        held = repr(readers.ICEBERG["PyIceberg"](run.table()).to_pylist())
        assert sum(token in held for token in tokens.made) > 80
    finally:
        registry_proxy.mode = "forward"
        proxy.close()


@pytest.mark.parametrize("place", ["flush.begin", "flush.files_written", "flush.committed"])
def test_panics(engine, name, plane, place):
    """A panic in the midst of a flush, with rows in its hands."""
    tokens = Tokens()
    topic = create_topic()
    rows = [{"id": tokens.number(), "note": tokens()} for _ in range(10)]
    send(topic, [Sent(json.dumps(row).encode(), tokens().encode()) for row in rows] + [Sent(tokens().encode())])
    columns = [{"name": "id", "type": "long"}, {"name": "note", "type": "string"}]
    spec = json_table(name, topic, columns, sort_by=["note"], partition_by=["truncate(30, note)"])
    run = engine([spec], env={**TRACE, "FAILPOINTS": f"{place}=1*panic", "RUST_BACKTRACE": "full"})
    report_to(run, plane)
    ended = run.once(*RECORD, code=None)
    assert "panicked" in ended.err
    tokens.check("the output", ended.said)
    tokens.check("the bytes to the control plane", plane.bytes())
    tokens.check("the recording", (run.folder / "sent.txt").read_text())


def test_secrets_of_the_spec(engine, name):
    """Passwords are references; neither faults of the spec nor logs show what they stand for."""
    tokens = Tokens()
    password = tokens()
    topic = orders.topic_of(1)
    registry = {"url": "http://127.0.0.1:9", "username": "${E2E_USER}", "password": "${E2E_PASSWORD}"}
    run = engine(
        [orders.orders_table(name, topic)],
        [cluster(registry=registry)],
        env={**TRACE, "E2E_USER": tokens(), "E2E_PASSWORD": password},
    )
    tokens.check("a run", run.once().said)
    tokens.check("the ledger", repr(run.table().ledger()))
    written = run.spec.read_text().replace("${E2E_PASSWORD}", tokens())
    run.spec.write_text(written)
    tokens.check("the faults of the spec", run.command("spec", "check", code=2).said)
