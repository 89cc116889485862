"""`backfill` from the topic and `reset`: each offset once, whatever was read before, killed or beside a worker."""

import dataclasses

import pytest

import readers
from produce import Sent, create_topic, send
from siltstone import json_table, wait

COLUMNS = [{"name": "id", "type": "long"}, {"name": "text", "type": "string"}]


def record(number: int, text: str) -> Sent:
    return Sent(b'{"id": %d, "text": "%s"}' % (number, text.encode()))


def row(number: int, text: str) -> dict:
    return {"id": number, "text": text}


def rows_of(run) -> list[dict]:
    found = readers.ICEBERG["PyIceberg"](run.table()).select(["id", "text"]).to_pylist()
    return sorted(found, key=lambda one: one["id"])


def letters_of(run) -> list[tuple]:
    if not run.table().dead_letters.exists():
        return []
    found = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    return sorted((one["partition"], one["offset"], one["reason"]) for one in found)


def check_both(run, expected: list[dict]) -> None:
    for name in ("PyIceberg", "DuckDB iceberg_scan"):
        found = readers.ICEBERG[name](run.table()).select(["id", "text"]).to_pylist()
        assert sorted(found, key=lambda one: one["id"]) == expected, name
    for name, read in readers.DELTA.items():
        found = read(run.table()).select(["id", "text"]).to_pylist()
        assert sorted(found, key=lambda one: one["id"]) == expected, name


def spec(name: str, topic: str, **changes) -> dict:
    return json_table(name, topic, COLUMNS, kafka_metadata=True, **changes)


def test_holes_are_filled_once(engine, name):
    topic = create_topic()
    send(topic, [record(number, "old") if number % 10 else Sent(b"junk") for number in range(200)])
    run = engine([spec(name, topic, start="latest")])
    run.once()
    send(topic, [record(number, "new") for number in range(200, 250)])
    run.once()
    assert rows_of(run) == [row(number, "new") for number in range(200, 250)]
    plan = run.command("backfill", name, "--from", "50", "--dry-run", "--json").json()
    assert (plan["offsets"], plan["partitions"][0]["ranges"]) == (150, [[50, 200]])
    done = run.command("backfill", name, "--from", "50", "--to", "120", "--json").json()
    assert (done["rows"], done["rejected"], done["commits"]) == (63, 7, 1)
    # The whole topic: what is there already is not read again.
    done = run.command("backfill", name, "--json").json()
    assert (done["offsets"], done["rows"], done["rejected"]) == (130, 117, 13)
    done = run.command("backfill", name, "--json").json()
    assert (done["offsets"], done["commits"]) == (0, 0)
    expected = [row(n, "old" if n < 200 else "new") for n in range(250) if n >= 200 or n % 10]
    check_both(run, expected)
    assert letters_of(run) == [(0, n, "malformed") for n in range(0, 200, 10)]
    # Live consumption goes on where it was.
    send(topic, [record(number, "new") for number in range(250, 260)])
    run.once()
    check_both(run, expected + [row(n, "new") for n in range(250, 260)])


def test_a_table_may_begin_with_its_history(engine, name):
    topic = create_topic(partitions=2)
    for partition in range(2):
        send(topic, [dataclasses.replace(record(n * 2 + partition, "a"), partition=partition) for n in range(50)])
    run = engine([spec(name, topic)])
    done = run.command("backfill", name, "--from", "10", "--to", "40", "--json").json()
    assert (done["rows"], [one["begins_at"] for one in done["partitions"]]) == (60, [40, 40])
    run.once()
    assert rows_of(run) == [row(n, "a") for n in range(20, 100)]


POINTS = [
    "backfill.dead_letters_pinned",
    "backfill.dead_letters_done",
    "backfill.committed",
    "commit.before_put",
    "commit.after_put",
]


def test_a_backfill_killed_at_every_step(engine, name):
    topic = create_topic()
    send(topic, [record(n, "a") if n % 7 else Sent(b"[]") for n in range(100)])
    run = engine([spec(name, topic, start="latest")])
    run.once()
    send(topic, [record(n, "b") for n in range(100, 110)])
    run.once()
    for point in POINTS:
        words = ("backfill", name, "-f", str(run.spec), "--to", "100")
        run.run(*words, code=None, env={"FAILPOINTS": f"{point}=return"})
    run.command("backfill", name)
    expected = [row(n, "a" if n < 100 else "b") for n in range(110) if n >= 100 or n % 7]
    check_both(run, expected)
    assert [offset for _, offset, _ in letters_of(run)] == list(range(0, 100, 7))


@pytest.mark.parametrize("point", [None, "backfill.dead_letters_pinned", "reset.dead_letters_done",
                                   "reset.files_written", "reset.committed"])  # fmt: skip
def test_a_range_is_replaced_in_one_commit(engine, name, point):
    topic = create_topic()
    # Text in `id` is no number for this table ...
    send(topic, [record(n, "a") if n % 5 else Sent(b'{"id": "%d", "text": "t"}' % n) for n in range(100)])
    run = engine([spec(name, topic)])
    run.once()
    before = [row(n, "a") for n in range(100) if n % 5]
    check_both(run, before)
    assert len(letters_of(run)) == 20
    # ... and the spec is mended: the column takes text.
    plan = run.command("reset", name, "--from", "20", "--to", "60", "--dry-run", "--json").json()
    assert (plan["offsets"], plan["rows_removed"]) == (40, 32)
    if point:
        words = ("reset", name, "-f", str(run.spec), "--from", "20", "--to", "60")
        ended = run.run(*words, code=None, env={"FAILPOINTS": f"{point}=return"})
        assert ended.code != 0, point
    done = run.command("reset", name, "--from", "20", "--to", "60", "--json").json()
    assert (done["rows"], done["rejected"], done["commits"]) == (32, 8, 1)
    check_both(run, before)
    assert [offset for _, offset, _ in letters_of(run)] == list(range(0, 100, 5))
    kinds = [entry["change"]["kind"] for entry in run.command("ledger", name, "--json").json()]
    assert "overwrite" in kinds


def test_a_reset_beside_a_worker(engine, name):
    topic = create_topic()
    run = engine([spec(name, topic, freshness={"max_age": "100ms"}, compaction={"min_inputs": 2})])
    worker = run.worker().ready()
    for first in range(0, 300, 50):
        send(topic, [record(n, "a") for n in range(first, first + 50)])
        wait(lambda first=first: readers.count(run.table()) == first + 50, 30, "rows")
    for first in range(300, 600, 50):
        send(topic, [record(n, "a") for n in range(first, first + 50)])
        done = run.command("reset", name, "--from", "10", "--to", "250", "--json").json()
        assert (done["rows"], done["rows_removed"]) == (240, 240)
    wait(lambda: readers.count(run.table()) == 600, 30, "all rows")
    assert worker.stop() == 0
    check_both(run, [row(n, "a") for n in range(600)])


def test_what_cannot_be_reset_is_refused(engine, name):
    topic = create_topic()
    send(topic, [record(n, "a") for n in range(20)])
    run = engine([json_table(name, topic, COLUMNS)])
    run.once()
    said = run.command("reset", name, "--from", "0", "--to", "10", code=2).said
    assert "kafka_metadata" in said
    said = run.command("backfill", name, "--from", "yesterday", code=2).said
    assert "earliest" in said
