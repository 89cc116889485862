"""Records that cannot become rows: kept with every byte, skipped, or a reason to stop. No good row is harmed."""

import contextlib
import datetime as dt
import os
import pty
import subprocess

import pytest

import orders
import readers
from produce import (
    ORDER_AVRO,
    AvroWriter,
    Registry,
    Sent,
    avro_poison,
    create_topic,
    dead_letter,
    framed,
    json_poison,
    order,
    order_avro,
    order_expected,
    send,
)
from siltstone import CLUSTER, table, wait

REASONS = {
    "null_value",
    "bad_framing",
    "unknown_schema_id",
    "wrong_schema_format",
    "incompatible_schema",
    "truncated",
    "trailing_bytes",
    "malformed",
    "invalid_utf8",
    "wrong_type",
    "missing_field",
    "unknown_field",
    "out_of_range",
    "bad_timestamp",
    "bad_length",
    "too_large",
    "too_deep",
    "other_event_type",
}
HEADERS = (("trace", b"\x00\xff"), ("trace", b"twice"), ("nothing", None))


def mixed(good: list[Sent], bad: list[bytes]) -> tuple[list[Sent], list[Sent]]:
    """Bad records strewn among good ones, with keys, headers and times. Gives (all, the bad among them)."""
    records, marked = list(good), []
    for index, value in enumerate(bad):
        key = None if index % 3 == 0 else b"key-%d" % index
        one = Sent(value, key, HEADERS if index % 2 else (), 1_750_000_000_000 + index, good[0].partition)
        records.insert((index * 7) % (len(records) + 1), one)
        marked.append(one)
    return records, marked


def check_dead_letters(
    lake, topic: str, sent: list[Sent], bad: list[Sent], reader_set=readers.QUICK
) -> dict[bytes, str]:
    """The dead-letter table holds exactly the bad records, byte by byte. Gives the reason by value."""
    letters = lake.dead_letters
    found = readers.ICEBERG["PyIceberg"](letters).to_pylist()
    reasons = {(one["partition"], one["offset"]): one["reason"] for one in found}
    schema_ids = {(one["partition"], one["offset"]): one["schema_id"] for one in found}
    assert set(reasons.values()) <= REASONS
    wanted = {(one.value, one.key, one.timestamp_ms) for one in bad}
    expected = []
    for one in sent:
        if (one.value, one.key, one.timestamp_ms) in wanted:
            place = (one.partition, one.offset)
            row = dead_letter(CLUSTER, topic, one, reasons.get(place), schema_ids.get(place))
            row["timestamp"] = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
                milliseconds=one.timestamp_ms
            )
            expected.append(row)
    readers.check(letters, expected, reader_set, ignore=("rejected_at", "field", "detail"))
    now = dt.datetime.now(dt.UTC)
    assert all(
        now - dt.timedelta(minutes=10) < one["rejected_at"] <= now + dt.timedelta(seconds=5) for one in found
    )
    return {one["value"]: one["reason"] for one in found}


def told_about(lake) -> dict[bytes, tuple[str | None, str | None]]:
    """Field and detail of every dead letter, by value."""
    found = readers.ICEBERG["PyIceberg"](lake.dead_letters).to_pylist()
    return {one["value"]: (one["field"], one["detail"]) for one in found}


def test_json_poison_is_kept_byte_by_byte(engine, name):
    topic = create_topic()
    records, bad = mixed(orders.records(0, 100), [value for _, value in json_poison()])
    sent = send(topic, records)
    run = engine([orders.orders_table(name, topic)])
    run.once()
    readers.check(run.table(), orders.rows(0, 100), readers.ALL)
    reasons = check_dead_letters(run.table(), topic, sent, bad, readers.ALL)
    told = {what: reasons[value] for what, value in json_poison()}
    assert told["required column missing"] == told["required column null"] == "missing_field"
    assert told["text where a number belongs"] == told["object where text belongs"] == "wrong_type"
    assert told["number too large for long"] == "out_of_range"
    assert told["impossible day"] == told["not a time"] == "bad_timestamp"
    assert told["not UTF-8"] == "invalid_utf8"
    assert told["more after the end"] == "trailing_bytes"
    assert told["cut off"] == "truncated"
    assert run.json("status", name)[0]["dead_letters"] == len(bad)


def test_avro_poison_is_kept_byte_by_byte(engine, name):
    topic = create_topic()
    schema_id = Registry().register(f"{topic}-value", ORDER_AVRO)
    writer = AvroWriter(ORDER_AVRO, schema_id)
    poison = avro_poison(schema_id, writer(order_avro(order(1))))
    good = [
        Sent(writer(order_avro(order(n))), key=b"%d" % n, timestamp_ms=order(n)["ordered_ms"])
        for n in range(100)
    ]
    records, bad = mixed(good, [value for _, value in poison])
    sent = send(topic, records)
    run = engine([table(name, topic)])
    run.once()
    readers.check(run.table(), [order_expected(order(n)) for n in range(100)])
    reasons = check_dead_letters(run.table(), topic, sent, bad)
    told = {what: reasons[value] for what, value in poison}
    assert told["wrong magic byte"] == told["bare JSON"] == told["too short for a frame"] == "bad_framing"
    assert told["unknown schema"] == "unknown_schema_id"
    assert told["cut off"] == told["no body"] == "truncated"
    assert told["more after the end"] == "trailing_bytes"
    about = told_about(run.table())
    about = {what: about[value] for what, value in poison}
    assert about["wrong magic byte"] == about["unknown schema"] == (None, None)
    assert about["no body"] == ("id", "the record ends before its long does")
    assert about["more after the end"] == (None, "bytes after the last field of the writer's schema")
    assert about["length beyond the end"] == ("region", "the record ends before its string does")
    assert about["negative length"] == ("region", "string whose encoding is broken")
    assert about["unknown union branch"] == ("region", "union branch that the writer's schema does not have")
    assert about["endless variable-length integer"] == ("id", "long whose encoding is broken")


def test_topic_of_nothing_but_poison(engine, name):
    topic = create_topic()
    sent = send(topic, [Sent(b"junk-%d" % n, timestamp_ms=1_750_000_000_000 + n) for n in range(50)])
    run = engine([orders.orders_table(name, topic)])
    run.once()
    run.once()
    assert readers.count(run.table()) == 0
    check_dead_letters(run.table(), topic, sent, sent)


def _junk(count: int, begin: int = 0, size: int = 0) -> list[Sent]:
    """Records that are rejected without a schema: they have no frame."""
    return [
        Sent(b"junk-%d" % n + b"x" * size, timestamp_ms=1_750_000_000_000 + n)
        for n in range(begin, begin + count)
    ]


def _good(topic: str, count: int) -> list[Sent]:
    """Good records, with their schema registered now and not before."""
    writer = AvroWriter(ORDER_AVRO, Registry().register(f"{topic}-value", ORDER_AVRO))
    return [Sent(writer(order_avro(order(n)))) for n in range(count)]


def _check_accounts(run, topic: str, rejected: int) -> None:
    """The ledger covers the topic from its beginning, each offset once, and counts every rejected record once."""
    [(place, ranges)] = run.table().committed_ranges().items()
    moving = [one for one in ranges if one[0] < one[1]]
    assert place == (topic, 0) and moving[0][0] == 0, ranges
    assert all(before[1] == after[0] for before, after in zip(moving, moving[1:])), ranges
    counts = [one for entry in run.table().ledger() for one in entry["change"].get("rejected", [])]
    assert sum(one["records"] for one in counts) == rejected, counts


def test_poison_before_there_is_a_table(engine, name):
    """No schema is known, so no table: bad records are kept all the same, once, and the table begins where they began."""
    topic = create_topic()
    run = engine([table(name, topic)])
    sent = send(topic, _junk(50))
    summary = run.once("--json").json()["tables"][0]
    assert (summary["version"], summary["records_rejected"]) == (None, 50)
    assert not run.table().exists()
    check_dead_letters(run.table(), topic, sent, sent)
    run.once()
    check_dead_letters(run.table(), topic, sent, sent)
    bad = send(topic, _junk(20, 50))
    sent += bad + send(topic, _good(topic, 30))
    run.once()
    readers.check(run.table(), [order_expected(order(n)) for n in range(30)])
    check_dead_letters(run.table(), topic, sent, [one for one in sent if one.value.startswith(b"junk")])
    _check_accounts(run, topic, 70)
    assert run.committed() == {0: 100}


def test_poison_before_there_is_a_table_under_a_worker_that_is_killed(engine, name):
    """A running worker writes it as it comes, and a kill at any time neither loses nor doubles a record."""
    topic = create_topic()
    run = engine([table(name, topic)])
    letters, sent = run.table().dead_letters, []
    for round_ in range(3):
        worker = run.worker().ready()
        sent += send(topic, _junk(20, 20 * round_))
        wait(lambda: letters.exists() and readers.count(letters) == len(sent), 40, "the dead letters")
        worker.kill()
        check_dead_letters(run.table(), topic, sent, sent)
        assert not run.table().exists()
    bad = list(sent)
    worker = run.worker().ready()
    sent += send(topic, _good(topic, 30))
    wait(lambda: run.table().exists() and readers.count(run.table()) == 30, 40, "the rows")
    assert worker.stop() == 0
    readers.check(run.table(), [order_expected(order(n)) for n in range(30)])
    check_dead_letters(run.table(), topic, sent, bad)
    _check_accounts(run, topic, 60)


def test_poison_before_there_is_a_table_holds_little_memory(engine, name):
    """More poison than the budget: it goes to the dead letters while it comes, whatever the age of the buffer."""
    topic = create_topic()
    sent = send(topic, _junk(600, size=100_000))
    run = engine([table(name, topic, freshness={"max_age": "1h"})])
    worker = run.worker(arguments=("--memory", "32MiB")).ready()
    letters, most = run.table().dead_letters, 0.0

    def most_is_written() -> bool:
        nonlocal most
        most = max(most, worker.metric("siltstone_memory_bytes"))
        return letters.exists() and readers.count(letters) >= 400

    wait(most_is_written, 60, "the dead letters")
    assert worker.metric("siltstone_flushes_total", reason="pressure") >= 2
    assert most <= 32 << 20
    assert worker.stop() == 0
    check_dead_letters(run.table(), topic, sent, sent)


def test_start_latest_is_kept_before_there_is_a_table(engine, name):
    """What comes while no worker runs is not passed over: the dead letters say where the last one was."""
    topic = create_topic()
    send(topic, _junk(10))
    run = engine([table(name, topic, start="latest")])
    worker = run.worker().ready()
    wait(lambda: "partitions assigned" in worker.said(), 30, "the assignment")
    sent = send(topic, _junk(5, 10))
    letters = run.table().dead_letters
    wait(lambda: letters.exists() and readers.count(letters) == 5, 40, "the dead letters")
    assert worker.stop() == 0
    send(topic, _good(topic, 7))
    run.once()
    readers.check(run.table(), [order_expected(order(n)) for n in range(7)])
    check_dead_letters(run.table(), topic, sent, sent)


def test_two_bounded_runs_before_there_is_a_table(engine, name):
    """Each ends when the other's partitions are done, though no ledger of the table says so."""
    topic = create_topic(partitions=4)
    sent = send(topic, [Sent(one.value, timestamp_ms=one.timestamp_ms, partition=n % 4) for n, one in enumerate(_junk(80))])
    run = engine([table(name, topic)])
    workers = [run.worker(arguments=("--once",)) for _ in range(2)]
    assert [worker.process.wait(60) for worker in workers] == [0, 0], workers[0].said()[-2000:]
    check_dead_letters(run.table(), topic, sent, sent)


def test_skip_counts_and_goes_on(engine, name):
    topic = create_topic()
    records, bad = mixed(orders.records(0, 50), [value for _, value in json_poison()])
    send(topic, records)
    run = engine([orders.orders_table(name, topic, dlq_mode="skip")])
    summary = run.once("--json").json()
    assert summary["tables"][0]["records_rejected"] == len(bad)
    readers.check(run.table(), orders.rows(0, 50))
    assert not run.table().dead_letters.exists()
    counted = sum(
        one["records"] for entry in run.table().ledger() for one in entry["change"].get("rejected", [])
    )
    assert counted == len(bad)


def test_stop_names_the_place_and_never_the_value(engine, name):
    topic = create_topic(partitions=3)
    send(topic, orders.records(0, 30, 3))
    bad = Sent(
        b'{"id": "SECRET-VALUE-4711"}',
        key=b"SECRET-KEY-4712",
        headers=(("h", b"SECRET-HEADER-4713"),),
        partition=2,
    )
    [placed] = send(topic, [bad])
    send(topic, orders.records(30, 30, 3))
    run = engine([orders.orders_table(name, topic, dlq_mode="stop")], env={"RUST_LOG": "trace"})
    ended = run.once(code=1)
    place = f"record rejected at topic {topic}, partition 2, offset {placed.offset}: "
    what = "wrong_type at id: string where long is wanted; mend the producer, or set dlq_mode: dead_letter"
    # The message is broken into lines.
    said = " ".join(ended.err.split())
    for word in (name, place + what):
        assert word in said, f"{word} is not named:\n{ended.err[-3000:]}"
    assert "SECRET" not in ended.said
    # What was read before may be committed; nothing beyond the bad record of its partition is.
    assert run.committed().get(2, 0) <= placed.offset
    # Again and again the same, until somebody decides; then all good records are there, once.
    run.once(code=1)
    run.write([orders.orders_table(name, topic, dlq_mode="skip")])
    run.once()
    readers.check(run.table(), orders.rows(0, 60))


def test_stop_names_the_field_and_the_schema(engine, name):
    topic = create_topic()
    line = {"type": "record", "name": "Line", "fields": [{"name": "note", "type": "string"}]}
    fields = [{"name": "id", "type": "long"}, {"name": "lines", "type": {"type": "array", "items": line}}]
    schema = {"type": "record", "name": "Order", "fields": fields}
    schema_id = Registry().register(f"{topic}-value", schema)
    good = {"id": 1, "lines": [{"note": "a"}]}
    # An order of one line, whose note of seven bytes is not UTF-8.
    bad = framed(schema_id, b"\x02\x02\x0eSECRET\xff\x00")
    send(topic, [Sent(AvroWriter(schema, schema_id)(good)), Sent(bad)])
    run = engine([table(name, topic, dlq_mode="stop")], env={"RUST_LOG": "trace"})
    ended = run.once(code=1)
    told = (
        f"topic {topic}, partition 0, offset 1: invalid_utf8 at lines[].note: string that is not UTF-8 where "
        f"string is wanted (schema id {schema_id}); mend the producer, or set dlq_mode: dead_letter"
    )
    assert told in " ".join(ended.err.split()), ended.err[-3000:]
    assert "SECRET" not in ended.said
    run.write([table(name, topic)])
    run.once()
    readers.check(run.table(), [good])
    field = ("lines[].note", "string that is not UTF-8 where string is wanted")
    assert told_about(run.table()) == {bad: field}


def test_stop_leaves_other_tables_alone(engine, name):
    bad, good = create_topic(), create_topic()
    send(bad, [Sent(b"junk")])
    send(good, orders.records(0, 20))
    run = engine(
        [
            orders.orders_table(f"{name}_a", bad, dlq_mode="stop"),
            orders.orders_table(f"{name}_b", good, dlq_mode="stop"),
        ]
    )
    worker = run.worker()
    wait(
        lambda: run.table(f"{name}_b").exists() and readers.count(run.table(f"{name}_b")) == 20,
        40,
        "the good table",
    )
    send(good, orders.records(20, 20))
    wait(lambda: readers.count(run.table(f"{name}_b")) == 40, 40, "the good table to go on")
    assert worker.get("/readyz").status_code == 503
    worker.stop()


@pytest.mark.parametrize("mode", ["skip", "reject", "row"])
def test_tombstones(engine, name, mode):
    topic = create_topic()
    columns = [{"name": "id", "type": "long"}, {"name": "note", "type": "string"}]
    sent = send(
        topic,
        [
            Sent(b'{"id": 1, "note": "a"}', key=b"1", timestamp_ms=1),
            Sent(None, key=b"1", timestamp_ms=2),
            Sent(b'{"id": 2, "note": "b"}', key=b"2", timestamp_ms=3),
        ],
    )
    changes = {"kafka_metadata": True} if mode == "row" else {}
    run = engine(
        [
            {
                **orders.orders_table(name, topic, tombstones=mode, **changes),
                "input_schema": {"fields": columns},
            }
        ]
    )
    run.once()
    rows = [{"id": 1, "note": "a"}, {"id": 2, "note": "b"}]
    if mode == "row":
        rows.insert(1, {"id": None, "note": None})
        for row, one in zip(rows, sent):
            stamp = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=one.timestamp_ms)
            row["_kafka"] = {
                "topic": topic,
                "partition": 0,
                "offset": one.offset,
                "timestamp": stamp,
                "key": one.key,
                "headers": [],
            }
    readers.check(run.table(), rows)
    if mode == "reject":
        assert check_dead_letters(run.table(), topic, sent, [sent[1]]) == {None: "null_value"}
    else:
        assert not run.table().dead_letters.exists()


def on_a_terminal(run, *words: str) -> str:
    """What a person at a terminal sees."""
    ours, theirs = pty.openpty()
    command = [run.binary, *words, "-f", str(run.spec)]
    process = subprocess.Popen(
        command, cwd=run.folder, env=run.environment, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    seen = b""
    # The end of a terminal that its program left is an error.
    with contextlib.suppress(OSError):
        while some := os.read(ours, 65_536):
            seen += some
    _, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0, err.decode()
    return seen.decode()


def test_dead_letters_are_listed(engine, name):
    topic = create_topic(partitions=2)
    poison = [value for _, value in json_poison()] + [b'{"\x1b[31mred\x1b[0m'] * 3
    records, bad = mixed(orders.records(0, 20), poison)
    send(topic, records)
    run = engine([orders.orders_table(name, topic)])
    assert "no dead letters" in run.command("dead-letters", "list", name).out
    run.once()
    found = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert len(found) == len(bad)
    # Counts.
    listed = run.json("dead-letters", "list", name)
    wanted: dict[tuple, list[int]] = {}
    for one in found:
        wanted.setdefault((one["reason"], one["topic"], one["partition"]), []).append(one["offset"])
    told = {
        (one["reason"], one["topic"], one["partition"]): (
            one["records"],
            one["first_offset"],
            one["last_offset"],
        )
        for one in listed
    }
    assert told == {place: (len(at), min(at), max(at)) for place, at in wanted.items()}
    assert [one["records"] for one in listed] == sorted((one["records"] for one in listed), reverse=True)
    # Single records, and those of one reason.
    single = run.json("dead-letters", "list", name, "--records", "1000")
    assert {(one["partition"], one["offset"], one["reason"]) for one in single} == {
        (one["partition"], one["offset"], one["reason"]) for one in found
    }
    assert all({"key", "value"}.isdisjoint(one) for one in single)
    few = run.json("dead-letters", "list", name, "--records", "2", "--reason", "wrong_type")
    assert [one["reason"] for one in few] == ["wrong_type"] * 2
    assert "the reasons are" in run.command("dead-letters", "list", name, "--reason", "no'; --", code=2).err
    # Advice with the counts; never a value, but on a terminal where it is asked for.
    out = run.command("dead-letters", "list", name).out
    assert "missing_field: A required column has no value" in out
    assert "takes a terminal" in run.command(
        "dead-letters", "list", name, "--records", "5", "--show-values", code=2
    ).err
    seen = on_a_terminal(run, "dead-letters", "list", name, "--records", "1000", "--show-values")
    assert "\\u{1b}[31mred\\u{1b}[0m" in seen and "\x1b[31m" not in seen
