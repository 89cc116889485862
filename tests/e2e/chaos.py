"""Load and checks for the tests that hurt workers: what was sent is known exactly, so what is read must be it."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import random
import re
import threading
import time

import lab
import orders
import readers
from produce import Sent, Transactions, dead_letter, order_json, order, send
from siltstone import CLUSTER
from stores import Table


# Readers of the emulated clouds; DuckDB and Spark would look for the real ones.
CLOUD = {name: readers.QUICK[name] for name in ("PyIceberg", "delta-rs")}


def crash_points() -> list[str]:
    """Every place that ingestion passes where a worker can be told to abort, without a REST catalog."""
    elsewhere = ("compact.", "absorb.", "rest.", "replay.", "backfill.", "reset.", "import.")
    return [point for point in all_crash_points() if not point.startswith(elsewhere)]


def all_crash_points() -> list[str]:
    """Every place where a process can be told to abort, as the sources name them."""
    found = set()
    for source in (lab.REPOSITORY / "crates").rglob("*.rs"):
        if source.name == "crash.rs":
            continue
        found |= set(re.findall(r'crash_point!\(\s*"([^"]+)"', pathlib.Path(source).read_text()))
    return sorted(found)


class Load:
    """Orders with poison among them, some in transactions of which some are aborted, until told to stop.

    Several loads share a topic when each has partitions of its own, from `base` on, and numbers, from `first` on.
    """

    def __init__(self, topic: str, partitions: int, seed: int, pause: float = 0.1, base: int = 0, first: int = 0):
        self.topic, self.partitions, self.pause = topic, range(base, base + partitions), pause
        self.dice = random.Random(seed)
        self.number = first
        # What is sent or about to be, and the same by partition: in order of offset.
        self.rows: list[int] = []
        self.sequences: dict[int, list[int]] = {partition: [] for partition in self.partitions}
        self.bad: list[Sent] = []
        self.fault: Exception | None = None
        self.transactions = Transactions(topic, codec="lz4")
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(60)
        if self.fault:
            raise self.fault

    def expected(self) -> list[dict]:
        return [orders.order_expected(order(number)) for number in self.rows]

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._send_some()
                time.sleep(self.pause)
        except Exception as fault:  # noqa: BLE001 - raised again by stop()
            self.fault = fault

    def _send_some(self) -> None:
        batch, numbers = [], []
        for _ in range(self.dice.randrange(5, 60)):
            partition = self.dice.choice(self.partitions)
            if self.dice.random() < 0.05:
                value = b"poison %d" % self.number
                batch.append(
                    Sent(
                        value,
                        b"%d" % self.number,
                        (("n", b"%d" % self.number),),
                        1_750_000_000_000,
                        partition,
                    )
                )
            else:
                batch.append(Sent(order_json(order(self.number)), b"%d" % self.number, partition=partition))
                numbers.append((partition, self.number))
            self.number += 1
        way = self.dice.random()
        if way < 0.2:
            self.transactions.abort(batch)
            return
        for partition, number in numbers:
            self.rows.append(number)
            self.sequences[partition].append(number)
        sent = self.transactions.commit(batch) if way < 0.5 else send(self.topic, batch, "zstd")
        self.bad += [one for one in sent if one.value.startswith(b"poison")]


@dataclasses.dataclass
class Seen:
    rows: int
    rejected: int


def check_so_far(lake: Table) -> Seen:
    """In the midst of it all: both formats can be read, and hold no row twice."""
    rows = 0
    for name, there in (("PyIceberg", lake.exists()), ("delta-rs", lake.list("data/_delta_log"))):
        if there:
            ids = readers.QUICK[name](lake).column("id").to_pylist()
            twice = [number for number, times in collections.Counter(ids).items() if times > 1]
            assert not twice, f"{name}: {len(twice)} rows twice, such as {twice[:5]}"
            rows = max(rows, len(ids))
    rejected = 0
    if lake.dead_letters.exists():
        letters = readers.QUICK["PyIceberg"](lake.dead_letters).to_pylist()
        places = collections.Counter((one["partition"], one["offset"]) for one in letters)
        assert max(places.values(), default=1) == 1, f"rejected records twice: {places.most_common(3)}"
        rejected = len(letters)
    return Seen(rows, rejected)


def check_in_the_end(
    lake: Table, load_rows: list[dict], topic: str, bad: list[Sent], which=readers.QUICK
) -> None:
    """Row by row what was sent, in the table and in the dead letters; ledger ranges touch and never overlap."""
    readers.check(lake, load_rows, which)
    if bad:
        found = readers.QUICK["PyIceberg"](lake.dead_letters).to_pylist()
        reasons = {(one["partition"], one["offset"]): one["reason"] for one in found}
        times = {(one["partition"], one["offset"]): one["timestamp"] for one in found}
        expected = []
        for one in bad:
            place = (one.partition, one.offset)
            expected.append(
                {**dead_letter(CLUSTER, topic, one, reasons.get(place)), "timestamp": times.get(place)}
            )
        readers.check(lake.dead_letters, expected, which, ignore=("rejected_at", "field", "detail"))
    for table in (lake, lake.dead_letters):
        for place, ranges in table.committed_ranges().items():
            for before, after in zip(ranges, ranges[1:]):
                assert before[1] <= after[0], f"{table.name} {place}: {before} and {after} overlap"
