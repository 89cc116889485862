"""Several workers on one table: they share its partitions, and no row is lost or doubled when they come and go."""

import threading
import time

import orders
import readers
from produce import create_topic, group_members, send
from siltstone import wait


class Producing:
    """Sends orders in the background until told to stop."""

    def __init__(self, topic: str, partitions: int, each: int = 40, pause: float = 0.15):
        self.topic, self.partitions, self.each, self.pause = topic, partitions, each, pause
        self.sent = 0
        self.fault: Exception | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                send(self.topic, orders.records(self.sent, self.each, self.partitions))
                self.sent += self.each
                time.sleep(self.pause)
        except Exception as fault:  # noqa: BLE001 - raised again by stop()
            self.fault = fault

    def stop(self) -> int:
        self.stopping.set()
        self.thread.join(30)
        if self.fault:
            raise self.fault
        return self.sent


def shares(group: str) -> list[int]:
    return sorted(len(member) for member in group_members(group))


def test_two_workers_share_partitions_and_one_takes_over(engine, name):
    topic = create_topic(partitions=6)
    run = engine([orders.orders_table(name, topic)])
    group = f"siltstone-{name}"
    load = Producing(topic, 6)
    first = run.worker().ready()
    wait(lambda: shares(group) == [6], 30, "one worker to have all partitions")
    second = run.worker().ready()
    wait(lambda: shares(group) == [3, 3], 30, "both to have three partitions each")
    time.sleep(2)
    first.kill()
    wait(lambda: shares(group) == [6], 30, "the other to take over")
    third = run.worker().ready()
    wait(lambda: shares(group) == [3, 3], 30, "a new one to take its share")
    time.sleep(1)
    assert third.stop() == 0
    wait(lambda: shares(group) == [6], 30, "the leaving one to give its partitions back")
    sent = load.stop()
    wait(lambda: readers.count(run.table()) >= sent, 40, "all rows")
    assert second.stop() == 0
    readers.check(run.table(), orders.rows(0, sent))


def test_many_short_lives_under_load(engine, name):
    """Workers start and stop all the time, gracefully; the rows are exactly those sent."""
    topic = create_topic(partitions=4)
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "200ms"})])
    load = Producing(topic, 4)
    steady = run.worker()
    for _ in range(5):
        other = run.worker(http=False)
        time.sleep(1.5)
        assert other.stop() == 0, other.said()[-3000:]
    sent = load.stop()
    wait(lambda: run.table().exists() and readers.count(run.table()) >= sent, 40, "all rows")
    assert steady.stop() == 0
    readers.check(run.table(), orders.rows(0, sent))


def test_once_beside_a_worker(engine, name):
    """`--once` joins, takes part, ends; the worker goes on."""
    topic = create_topic(partitions=4)
    run = engine([orders.orders_table(name, topic)])
    worker = run.worker().ready()
    send(topic, orders.records(0, 200, 4))
    run.once()
    send(topic, orders.records(200, 100, 4))
    wait(lambda: readers.count(run.table()) == 300, 40, "all rows")
    assert worker.stop() == 0
    readers.check(run.table(), orders.rows(0, 300))


def test_more_workers_than_partitions(engine, name):
    topic = create_topic(partitions=1)
    run = engine([orders.orders_table(name, topic)])
    workers = [run.worker().ready() for _ in range(2)]
    send(topic, orders.records(0, 100))
    wait(lambda: run.table().exists() and readers.count(run.table()) == 100, 40, "all rows")
    assert sorted(shares(f"siltstone-{name}")) == [0, 1]
    assert [worker.stop() for worker in workers] == [0, 0]
