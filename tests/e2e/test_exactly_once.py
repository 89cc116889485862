"""Exactly once: workers are killed, aborted between any two steps and frozen; every record is there, once."""

import dataclasses
import os
import random
import signal
import time

import pytest

import chaos
import files
import lab
import orders
import readers
from produce import Sent, create_topic, send
from proxies import LosesReplies
from siltstone import wait

# Passed only when the store leaves the outcome of a put open, which a folder never does: these have a store that does.
OPEN = [point for point in chaos.crash_points() if point.endswith(".before_read_back")]
# Those of maintenance are passed in test_maintenance.py.
POINTS = [point for point in chaos.crash_points() if point not in OPEN and not point.startswith("maintenance.")]
# What the names of the objects hold whose replies are lost.
WORDS = {
    "commit.before_read_back": "/_siltstone/ledger/",
    "iceberg.before_read_back": ".metadata.json",
    "delta.before_read_back": "/_delta_log/",
}
# Passed once in a hundred commits.
CHECKPOINTS = [point for point in POINTS if "checkpoint" in point]
STEPS = [point for point in POINTS if point not in CHECKPOINTS]
KILLS, KILLS_IN_A_BUCKET = 50, 10
SEED = int(os.environ.get("SILTSTONE_SEED", "20260101"))


def aborted(code: int) -> bool:
    return code in (-signal.SIGABRT, 128 + signal.SIGABRT)


def test_there_are_crash_points():
    assert len(POINTS) >= 10, POINTS
    assert sorted(WORDS) == OPEN


@pytest.mark.parametrize("point", STEPS)
def test_abort_at_every_step(engine, name, point):
    """A run that aborts there, twice, at a first and at a later pass; then a run that ends well."""
    topic = create_topic(partitions=2)
    rejected = send(topic, [Sent(b"poison %d" % n, timestamp_ms=1, partition=n % 2) for n in range(4)])
    send(topic, orders.records(0, 60, 2))
    # Several commits a run, so that there are later passes.
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "1m", "max_rows": 15})])
    first = run.once(code=None, env={"FAILPOINTS": f"{point}=1*return"})
    assert aborted(first.code), f"{point} was not passed:\n{first.err[-2000:]}"
    chaos.check_so_far(run.table())
    second = run.once(code=None, env={"FAILPOINTS": f"{point}=1*off->1*return"})
    assert aborted(second.code) or second.code == 0, second.err[-2000:]
    chaos.check_so_far(run.table())
    run.once()
    chaos.check_in_the_end(run.table(), orders.rows(0, 60), topic, rejected)
    files.check_same_files(run.table())


@pytest.mark.parametrize("point", CHECKPOINTS)
def test_abort_at_a_checkpoint(engine, name, point):
    topic = create_topic()
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "100ms"})])
    load = chaos.Load(topic, 1, seed=3, pause=0.01)
    worker = run.worker({"FAILPOINTS": f"{point}=1*return"}, http=False)
    wait(lambda: worker.code is not None, 120, f"{point} to be passed")
    load.stop()
    assert aborted(worker.code), worker.said()[-2000:]
    chaos.check_so_far(run.table())
    run.once()
    chaos.check_in_the_end(run.table(), load.expected(), topic, load.bad)


@pytest.fixture
def loses_replies():
    made = []

    def make(word: str, every: int = 1) -> LosesReplies:
        made.append(LosesReplies(lab.address("GCS_XML_ENDPOINT"), word, every))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("point", OPEN)
def test_abort_with_an_open_outcome(engine, name, google, loses_replies, point):
    """A put is done, its reply is lost, and the worker dies before it can look: the next one finds out."""
    topic = create_topic(partitions=2)
    rejected = send(topic, [Sent(b"poison %d" % n, timestamp_ms=1, partition=n % 2) for n in range(4)])
    send(topic, orders.records(0, 60, 2))
    table = orders.orders_table(name, topic, freshness={"max_age": "1m", "max_rows": 15})
    proxy = loses_replies(WORDS[point])
    run = engine([table], store=dataclasses.replace(google, endpoint=proxy.url))
    for passes in ("1*return", "2*off->1*return"):
        before = len(proxy.lost)
        ended = run.once(code=None, env={"FAILPOINTS": f"{point}={passes}"})
        assert aborted(ended.code), f"{point} was not passed:\n{ended.err[-2000:]}"
        assert len(proxy.lost) > before
        chaos.check_so_far(run.table())
    # No reply comes back of any such put: each outcome has to be looked up.
    send(topic, orders.records(60, 60, 2))
    run.once()
    assert all(WORDS[point] in path for path in proxy.lost)
    chaos.check_in_the_end(run.table(), orders.rows(0, 120), topic, rejected, chaos.CLOUD)
    files.check_same_files(run.table())


def test_replies_are_lost_under_load(engine, name, google, loses_replies):
    """Two workers race, and of every third conditional put, of whatever object, nobody hears."""
    topic = create_topic(partitions=4)
    proxy = loses_replies("", every=3)
    store = dataclasses.replace(google, endpoint=proxy.url)
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "200ms"})], store=store)
    load = chaos.Load(topic, 4, seed=SEED)
    workers = [run.worker(http=False), run.worker(http=False)]
    time.sleep(10)
    load.stop()
    codes = [worker.stop() for worker in workers]
    assert codes == [0, 0], [worker.said()[-2000:] for worker in workers]
    run.once()
    for word in WORDS.values():
        assert any(word in path for path in proxy.lost), f"no reply of a put to {word} was lost"
    chaos.check_in_the_end(run.table(), load.expected(), topic, load.bad, chaos.CLOUD)
    files.check_same_files(run.table())


def test_killed_fifty_times_under_load(engine, name):
    """Two workers at once, killed at random moments or aborted at random steps, while records pour in."""
    killed_under_load(engine, name, None, KILLS, readers.ALL)


def test_killed_under_load_in_a_bucket(engine, name, bucket):
    """The same on a store where every step takes a request, and puts are in flight when a worker dies."""
    killed_under_load(engine, name, bucket, KILLS_IN_A_BUCKET, readers.QUICK)


def killed_under_load(engine, name, store, kills, which):
    dice = random.Random(SEED)
    topic = create_topic(partitions=4)
    table = orders.orders_table(name, topic, freshness={"max_age": "200ms", "max_rows": 200})
    run = engine([table], store=store)
    load = chaos.Load(topic, 4, seed=SEED)

    def begin():
        env = {}
        if dice.random() < 0.5:
            env["FAILPOINTS"] = f"{dice.choice(POINTS)}={dice.randrange(6)}*off->1*return"
        return run.worker(env, http=False)

    workers, deaths, by_points, seen = [begin(), begin()], 0, 0, chaos.Seen(0, 0)
    while deaths < kills:
        # Long enough, now and then, to get past the rebalance and into the commits.
        deadline = time.monotonic() + dice.choice([0.5, 2.0, 4.0, 8.0]) * dice.random()
        while time.monotonic() < deadline and all(worker.code is None for worker in workers):
            time.sleep(0.05)
        ended = [index for index, worker in enumerate(workers) if worker.code is not None]
        for index in ended:
            assert aborted(workers[index].code), workers[index].said()[-3000:]
            by_points += 1
        for index in ended or [dice.randrange(2)]:
            workers[index].kill()
            deaths += 1
            workers[index] = begin()
        if deaths % min(10, kills // 2) == 0:
            seen = chaos.check_so_far(run.table())
    load.stop()
    for worker in workers:
        worker.kill()
    assert seen.rows > 0, "nothing was committed while workers were being killed"
    assert by_points > 0, "no worker passed a crash point"
    run.once(timeout=240)
    commits = sum(entry["change"]["kind"] == "append" for entry in run.table().ledger())
    print(
        f"seed {SEED}: {deaths} deaths, {by_points} of them at crash points; {len(load.rows)} rows, {len(load.bad)} rejected"
    )
    print(f"{seen.rows} rows were there before the end; {commits} commits are in the ledger")
    chaos.check_in_the_end(run.table(), load.expected(), topic, load.bad, which)
    files.check_same_files(run.table())


def test_frozen_past_its_session(engine, name):
    """A worker stops for longer than its session lasts; another commits in its stead; then it wakes up."""
    topic = create_topic(partitions=4)
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "300ms"})])
    load = chaos.Load(topic, 4, seed=9, pause=0.05)
    frozen, other = run.worker(http=False), run.worker(http=False)
    wait(lambda: chaos.check_so_far(run.table()).rows > 100, 60, "both to work")
    for _ in range(4):
        frozen.pause()
        before = chaos.check_so_far(run.table()).rows
        time.sleep(4)  # twice the session
        wait(lambda: chaos.check_so_far(run.table()).rows > before + 100, 30, "the other to go on")
        frozen.resume()
        time.sleep(2)
        chaos.check_so_far(run.table())
        frozen, other = other, frozen
    load.stop()
    wait(lambda: chaos.check_so_far(run.table()).rows == len(load.rows), 60, "all rows")
    assert [frozen.stop(), other.stop()] == [0, 0]
    chaos.check_in_the_end(run.table(), load.expected(), topic, load.bad)


def test_all_frozen_and_woken_together(engine, name):
    """Nobody to take over: the one worker wakes, its session is gone, and it starts again from the ledger."""
    topic = create_topic(partitions=2)
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "300ms"})])
    load = chaos.Load(topic, 2, seed=10, pause=0.05)
    worker = run.worker(http=False)
    wait(lambda: chaos.check_so_far(run.table()).rows > 50, 60, "it to work")
    for _ in range(2):
        worker.pause()
        time.sleep(5)
        worker.resume()
        before = chaos.check_so_far(run.table()).rows
        wait(lambda: chaos.check_so_far(run.table()).rows > before + 50, 40, "it to go on")
    load.stop()
    wait(lambda: chaos.check_so_far(run.table()).rows == len(load.rows), 60, "all rows")
    assert worker.stop() == 0
    chaos.check_in_the_end(run.table(), load.expected(), topic, load.bad)


def test_the_same_topic_again_and_again(engine, name):
    """Bounded runs over a topic that grows; runs with nothing to do change nothing."""
    topic = create_topic(partitions=3)
    run = engine([orders.orders_table(name, topic)])
    for round_ in range(4):
        send(topic, orders.records(round_ * 50, 50, 3))
        run.once()
        version = run.json("status", name)[0]["version"]
        run.once()
        assert run.json("status", name)[0]["version"] == version
    readers.check(run.table(), orders.rows(0, 200))
