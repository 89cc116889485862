"""`backfill` from the topic and `reset`: each offset once, whatever was read before, killed or beside a worker."""

import dataclasses
import signal
import subprocess

import pytest

import files
import readers
from produce import ORDER_AVRO, AvroWriter, Registry, Sent, create_topic, order, order_avro, order_expected, send
from siltstone import cluster, json_table, table, wait

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


@pytest.mark.parametrize("point", [None, "reset.rows_written", "backfill.dead_letters_pinned", "reset.files_written",
                                   "reset.dead_letters_done", "reset.committed"])  # fmt: skip
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


def test_a_refused_reset_changes_no_dead_letter(engine, name, folder):
    """Rows from files do not say which records they were made from."""
    topic = create_topic()
    send(topic, [record(n, "a") if n % 5 else Sent(b"junk") for n in range(20)])
    run = engine([spec(name, topic)])
    run.once()
    store = folder.filesystem()
    store.create_dir(folder.inner("more"), recursive=True)
    with store.open_output_stream(folder.inner("more/1.json"), compression=None) as out:
        out.write(b'{"id": 900, "text": "file"}\n')
    pattern = f"{folder.file_url('more')}/*.json"
    assert run.command("backfill", name, "--files", pattern, "--json").json()["rows"] == 1
    before = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert len(before) == 4
    entries = [len(one.ledger()) for one in (run.table(), run.table().dead_letters)]
    for more in ((), ("--dry-run",)):
        said = run.command("reset", name, "--from", "0", "--to", "20", *more, code=2).said
        assert "reset_refused" in said and "rows from files" in " ".join(said.split())
    assert [len(one.ledger()) for one in (run.table(), run.table().dead_letters)] == entries
    after = readers.ICEBERG["PyIceberg"](run.table().dead_letters).to_pylist()
    assert sorted(after, key=lambda one: one["offset"]) == sorted(before, key=lambda one: one["offset"])


def with_hidden(registry_proxy, count: int):
    """Orders, every fifth of a schema that the registry does not know as long as it is hidden."""
    topic = create_topic()
    registry = Registry()
    extended = {**ORDER_AVRO, "fields": [*ORDER_AVRO["fields"], {"name": "extra", "type": ["null", "long"], "default": None}]}
    good = AvroWriter(ORDER_AVRO, registry.register(f"{topic}-value", ORDER_AVRO))
    number = registry.register(f"late-{topic}", extended)
    late = AvroWriter(extended, number)
    registry_proxy.hidden = {number}
    values = [good(order_avro(order(n))) if n % 5 else late({**order_avro(order(n)), "extra": n}) for n in range(count)]
    return topic, send(topic, [Sent(value, timestamp_ms=1) for value in values])


def expected_of(count: int) -> list[dict]:
    """The rows of `with_hidden`, once its schema is known."""
    return [{**order_expected(order(n)), "extra": None if n % 5 else n} for n in range(count)]


def offsets_of(run) -> list[list[int]]:
    """The offsets of the rows, by each reader."""
    tables = [read(run.table()).column("_kafka").to_pylist() for read in readers.QUICK.values()]
    return [sorted(one["offset"] for one in rows) for rows in tables]


def check_once(run, sent: list[Sent]) -> None:
    """Every record of `with_hidden` is a row, once."""
    readers.check(run.table(), expected_of(len(sent)), ignore=("_kafka",))
    assert all(offsets == [one.offset for one in sent] for offsets in offsets_of(run))


@pytest.mark.parametrize("point", ["reset.dead_letters_done", "reset.committed"])
def test_letters_that_a_killed_reset_left_are_replayed_once(engine, name, registry_proxy, point):
    """Killed before its entry, the reset leaves open letters; after it, letters whose records are rows."""
    topic, sent = with_hidden(registry_proxy, 60)
    run = engine([table(name, topic, kafka_metadata=True)], [cluster(registry={"url": registry_proxy.url})])
    run.once()
    registry_proxy.hidden = set()
    words = ("reset", name, "-f", str(run.spec), "--from", "10", "--to", "40")
    assert run.run(*words, code=None, env={"FAILPOINTS": f"{point}=return"}).code != 0
    assert [offset for _, offset, _ in letters_of(run)] == list(range(0, 60, 5)), "none is lost"
    done = run.command("dead-letters", "replay", name, "--json").json()
    open_still = 12 if point == "reset.dead_letters_done" else 6
    assert (done["tried"], done["rows"], done["marked"]) == (open_still, open_still, 12)
    check_once(run, sent)
    run.command("reset", name, "--from", "10", "--to", "40")
    check_once(run, sent)
    assert [offset for _, offset, _ in letters_of(run)] == [n for n in range(0, 60, 5) if not 10 <= n < 40]


@pytest.mark.parametrize("point", ["reset.claimed", "backfill.dead_letters_pinned", "reset.files_written",
                                   "reset.dead_letters_done", "reset.committed"])  # fmt: skip
def test_what_a_killed_reset_rejects_is_no_second_row(engine, name, registry_proxy, point):
    """Its letters come beside rows, which leave with its entry: until then, nothing is to be replayed of them."""
    topic, sent = with_hidden(registry_proxy, 60)
    hidden, registry_proxy.hidden = registry_proxy.hidden, set()
    run = engine([table(name, topic, kafka_metadata=True)], [cluster(registry={"url": registry_proxy.url})])
    run.once()
    check_once(run, sent)
    reset = ("reset", name, "--from", "10", "--to", "40")
    landed = 6 if point == "reset.committed" else 0
    laid_down = 6 if point in ("reset.dead_letters_done", "reset.committed") else 0
    # The second time there may be letters, claimed by the first.
    for _ in range(2):
        registry_proxy.hidden = hidden
        killed = run.run(*reset, "-f", str(run.spec), code=None, env={"FAILPOINTS": f"{point}=return"})
        assert killed.code == -signal.SIGABRT, killed.said[-2000:]
        registry_proxy.hidden = set()
        done = run.command("dead-letters", "replay", name, "--json").json()
        assert (done["tried"], done["rows"], done["marked"]) == (landed, landed, laid_down)
        check_once(run, sent)
    # One that lands takes the rows away, and opens the letters.
    registry_proxy.hidden = hidden
    run.command(*reset)
    rejected = list(range(10, 40, 5))
    assert all(offsets == [n for n in range(60) if n not in rejected] for offsets in offsets_of(run))
    assert letters_of(run) == [(0, n, "unknown_schema_id") for n in rejected]
    registry_proxy.hidden = set()
    done = run.command("dead-letters", "replay", name, "--json").json()
    assert (done["tried"], done["rows"], done["marked"]) == (6, 6, 6)
    check_once(run, sent)
    run.command(*reset)
    check_once(run, sent)
    assert letters_of(run) == []


def begin(run, words: tuple[str, ...], points: str | None = None) -> subprocess.Popen:
    """A command in the background."""
    armed = {"FAILPOINTS": points} if points else {}
    return subprocess.Popen(
        [run.binary, *words, "-f", str(run.spec), "--json"],
        cwd=run.folder,
        env={**run.environment, **armed},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(*begun: subprocess.Popen, aborts: tuple[subprocess.Popen, ...] = ()) -> None:
    """All of them end well, or one is refused and says that it is to be run again. Only those of `aborts` may abort."""
    said = [one.communicate(timeout=120)[1].decode(errors="replace") for one in begun]
    aborted = [one in aborts and one.returncode == -signal.SIGABRT for one in begun]
    refused = [text for one, text, dead in zip(begun, said, aborted) if one.returncode != 0 and not dead]
    assert len(refused) <= 1, refused
    for text in refused:
        assert "error[" in text and "run it again" in text, text[-4000:]


def at_once(run, point: str | None, *commands: tuple[str, ...]) -> None:
    """These commands, begun together; the one that comes to `point` stands still there, so that others overtake it."""
    end(*[begin(run, words, point and f"{point}=1*sleep(3000)") for words in commands])


CLAIMED, LAID_DOWN = "reset.claimed=1*sleep(12000)", "reset.dead_letters_done=1*sleep(12000)"


@pytest.mark.parametrize("rejecting, taking", [
    (CLAIMED, None),
    (LAID_DOWN, None),
    # The letters leave when both entries have landed.
    (LAID_DOWN, "reset.committed=1*sleep(18000)"),
    # Letters of a claim that was overtaken.
    (f"{CLAIMED};reset.dead_letters_done=return", None),
    (f"{LAID_DOWN};reset.letters_again=return", None),
    # It lays its letters down a second time, and comes no further.
    (f"{LAID_DOWN};reset.files_written=2*off->1*return", None),
])  # fmt: skip
def test_a_reset_takes_what_another_one_rejects(engine, name, registry_proxy, rejecting, taking):
    """Whichever lands last, or is killed: each record is a row or an open letter."""
    topic, sent = with_hidden(registry_proxy, 60)
    tables = [table(name, topic, kafka_metadata=True)]
    takes, rejects = engine(tables), engine(tables, [cluster(registry={"url": registry_proxy.url})])
    takes.once()
    check_once(takes, sent)
    reset = ("reset", name, "--from", "10", "--to", "40")
    rejected = list(range(10, 40, 5))
    first = begin(rejects, reset, rejecting)
    if rejecting.startswith(CLAIMED):
        wait(lambda: any(one["change"].get("replayed") for one in takes.table().ledger()), 60, "the claim")
    else:
        letters = takes.table().dead_letters
        wait(lambda: any(one["change"].get("added") for one in letters.ledger()), 60, "the letters")
    dies = "return" in rejecting
    end(first, begin(takes, reset, taking), aborts=(first,) if dies else ())
    landed = [one["change"] for one in takes.table().ledger() if one["change"]["kind"] == "overwrite"]
    overtaken = bool(landed) and not landed[0].get("rejected")
    # One that was not overtaken, as on a machine that is slow, does not come to `letters_again`.
    dies = dies and (overtaken or "letters_again" not in rejecting)
    assert (first.returncode == -signal.SIGABRT) == dies, (first.returncode, overtaken)
    if overtaken and rejecting == LAID_DOWN:
        changes = [one["change"] for one in takes.table().dead_letters.ledger()]
        assert sum(bool(one.get("added") and one.get("ranges")) for one in changes) >= 2, "laid down again"
    takes.command("dead-letters", "replay", name)
    check_once(takes, sent)
    # One after the other, it is as the last one says.
    rejects.command(*reset)
    assert all(offsets == [n for n in range(60) if n not in rejected] for offsets in offsets_of(takes))
    assert letters_of(takes) == [(0, n, "unknown_schema_id") for n in rejected]
    takes.command(*reset)
    check_once(takes, sent)
    assert letters_of(takes) == []
    for one in (takes.table(), takes.table().dead_letters):
        files.check_same_files(one)
    done = takes.command("dead-letters", "replay", name, "--json").json()
    assert (done["tried"], done["rows"], done["commits"], done["marked"]) == (0, 0, 0, 0)


def test_a_hole_is_filled_before_letters_come_into_it(engine, name, registry_proxy):
    """What a reset rejects there is claimed like the rest: killed then, it leaves no open letter beside a row."""
    topic, sent = with_hidden(registry_proxy, 60)
    tables = [table(name, topic, kafka_metadata=True)]
    takes, rejects = engine(tables), engine(tables, [cluster(registry={"url": registry_proxy.url})])
    takes.command("backfill", name, "--from", "40", "--to", "60")
    reset = ("reset", name, "--from", "10", "--to", "50")
    first = begin(rejects, reset, f"{CLAIMED};reset.dead_letters_done=return")
    wait(lambda: any(one["change"].get("replayed") for one in takes.table().ledger()), 60, "the claim of 40 and 45")
    takes.command("backfill", name)
    end(first, aborts=(first,))
    assert first.returncode == -signal.SIGABRT, first.returncode
    # By the claim, or by the entry of the backfill, had that been the slower one.
    done = takes.command("dead-letters", "replay", name, "--json").json()
    assert (done["tried"], done["rows"]) == (0, 0)
    check_once(takes, sent)
    takes.command(*reset)
    check_once(takes, sent)
    assert letters_of(takes) == []


@pytest.mark.parametrize("point", [None, "reset.dead_letters_done", "reset.files_written", "replay.files_written",
                                   "replay.marks_written"])  # fmt: skip
def test_a_reset_beside_a_replay(engine, name, registry_proxy, point):
    """Both make rows of the same dead letters."""
    topic, sent = with_hidden(registry_proxy, 200)
    run = engine([table(name, topic, kafka_metadata=True)], [cluster(registry={"url": registry_proxy.url})])
    run.once()
    assert [reason for *_, reason in letters_of(run)] == ["unknown_schema_id"] * 40
    registry_proxy.hidden = set()
    reset = ("reset", name, "--from", "20", "--to", "150")
    replay = ("dead-letters", "replay", name)
    at_once(run, point, reset, replay)
    run.command(*reset)
    run.command(*replay)
    check_once(run, sent)
    # Letters that became rows by the reset are gone, the others are marked; none is open.
    for read in readers.QUICK.values():
        letters = read(run.table().dead_letters).to_pylist()
        assert sorted(one["offset"] for one in letters) == [n for n in range(0, 200, 5) if not 20 <= n < 150]
        assert all(one["replayed_at"] is not None for one in letters)
    for one in (run.table(), run.table().dead_letters):
        files.check_same_files(one)
    done = run.command(*replay, "--json").json()
    assert (done["tried"], done["rows"], done["commits"], done["marked"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("point", [None, "backfill.dead_letters_pinned", "backfill.dead_letters_done",
                                   "reset.dead_letters_done", "reset.files_written"])  # fmt: skip
def test_a_reset_beside_a_backfill(engine, name, point):
    """The range of the reset begins in the hole that the backfill fills, and ends in rows that live workers wrote."""
    topic = create_topic()
    send(topic, [record(n, "old") if n % 10 else Sent(b"junk") for n in range(200)])
    run = engine([spec(name, topic, start="latest")])
    run.once()
    send(topic, [record(n, "new") for n in range(200, 250)])
    run.once()
    backfill, reset = ("backfill", name), ("reset", name, "--from", "150", "--to", "230")
    at_once(run, point, backfill, reset)
    for words in (backfill, reset):
        run.command(*words)
    check_both(run, [row(n, "old" if n < 200 else "new") for n in range(250) if n >= 200 or n % 10])
    assert letters_of(run) == [(0, n, "malformed") for n in range(0, 200, 10)]
    for one in (run.table(), run.table().dead_letters):
        files.check_same_files(one)
    done = run.command(*backfill, "--json").json()
    assert (done["offsets"], done["commits"]) == (0, 0)
    # Live consumption goes on where it was.
    send(topic, [record(n, "new") for n in range(250, 260)])
    run.once()
    check_both(run, [row(n, "old" if n < 200 else "new") for n in range(260) if n >= 200 or n % 10])
