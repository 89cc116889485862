"""A soak: ingestion, compaction and maintenance together, on a store and with workers that fail all the time.

    python soak.py --minutes 20 [--workers 3] [--seed 1] [--out samples.jsonl]

Producers never pause; every worker reaches the S3 service through a proxy that makes faults; workers are killed at random
moments, or abort at random steps. Every few seconds the table is looked at from the side, without faults: its numbers
become a line of JSON, and some of the snapshots and versions that it retains are read: each partition's rows are
those of a prefix of what was sent. When the faults have ended and the workers have caught up, every row is there once,
in both formats and by every reader, dead letters too; what is retained is readable; what nothing names is gone.

No file may go that is younger than an hour, and no log younger than a day. So the proxy's listings let objects grow old faster
than they do (`AGEING`), and for the last vacuum everything is old.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import random
import signal
import tempfile
import time

import chaos
import files
import lab
import lake_watch
import orders
import readers
import siltstone
import spark
from produce import create_topic, unique
from proxies import Faults, S3Proxy
from siltstone import Siltstone
from stores import Bucket

LOADS, PARTITIONS_EACH = 2, 3
PARTITIONS = LOADS * PARTITIONS_EACH
FAULTS = Faults(reset=0.01, slow_down=0.01, lost=0.02, hang=0.002, slow_list=0.1)
# An hour and the margin of five minutes pass in 130 s, a day in five minutes: longer than any step of a worker.
AGEING = {"/_siltstone/ledger/": 300.0, "/_delta_log/": 300.0, "/data/": 30.0, "/metadata/": 30.0}
DAYS_LATER = 3 * 86_400.0
# Seconds that a bounded command may take after the storm.
LONG = 300
SNAPSHOTS_SECONDS, SNAPSHOTS_MAX = 120, 60
MAX_INPUTS, TARGET_SIZE = 8, 1 << 20
# Until what grows old as above is deleted, rounds of maintenance that did not come to their end among it.
WINDOW_SECONDS = 600.0
POLICY = {
    "freshness": {"max_age": "1s"},
    "sort_by": ["customer_id", "id"],
    "compaction": {
        "min_inputs": 2,
        "max_inputs": MAX_INPUTS,
        "max_overlap": 2,
        "quiet_after": "2s",
        "busy_percent": 80,
    },
    "files": {"target_size": TARGET_SIZE, "row_group_bytes": "256KiB"},
    "maintenance": {"every": "1m"},
    "retention": {"snapshots": f"{SNAPSHOTS_SECONDS}s", "snapshots_max": SNAPSHOTS_MAX, "orphans": "1h"},
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a soak is made."""

    seconds: float
    workers: int = 3
    # Mean time between two deaths.
    kill_every: float = 20.0
    sample_every: float = 12.0
    seed: int = 1
    faults: Faults = FAULTS
    # Off in a short run: nothing grows old enough there, and a machine may stand still for seconds.
    ageing: bool = True
    out: pathlib.Path | None = None


class Soak:
    def __init__(self, binary: pathlib.Path, folder: pathlib.Path, plan: Plan):
        self.plan = plan
        self.dice = random.Random(plan.seed)
        self.proxy = S3Proxy(plan.seed, plan.faults)
        self.proxy.ageing = dict(AGEING) if plan.ageing else {}
        self.topic = create_topic(partitions=PARTITIONS)
        table = orders.orders_table("soak.orders", self.topic, **POLICY)
        # Connections to the broker do not go through the proxy: it is no HTTP.
        self.run_ = Siltstone(binary, folder, Bucket(unique("soak")), [table], env=self.proxy.env)
        self.loads: list[chaos.Load] = []
        self.workers: list[siltstone.Worker] = []
        self.deaths = self.aborts = 0
        self.watch = lake_watch.Watch(self.run_.table(), self.dice, SNAPSHOTS_SECONDS)

    def run(self) -> dict:
        """Raises what is wrong; gives the summary."""
        try:
            self._storm()
            self._calm()
            return self._check()
        finally:
            self.run_.close()
            self.proxy.close()

    # --- The storm ----------------------------------------------------------------------------------------------

    def _storm(self) -> None:
        for number in range(LOADS):
            base, first = number * PARTITIONS_EACH, number * 100_000_000
            load = chaos.Load(self.topic, PARTITIONS_EACH, self.plan.seed + number, 0.2, base, first)
            self.loads.append(load)
        # The first one stays, unless it ends at a crash point: maintenance begins up to a minute after its worker.
        self.workers = [self._worker(number) for number in range(self.plan.workers)]
        began = time.monotonic()
        next_death, next_sample = self._until_death(), self.plan.sample_every
        while (elapsed := time.monotonic() - began) < self.plan.seconds:
            self._bury()
            if elapsed > next_death:
                self._kill()
                next_death = elapsed + self._until_death()
            if elapsed > next_sample:
                self._sample(elapsed)
                next_sample = time.monotonic() - began + self.plan.sample_every
            time.sleep(0.2)

    def _until_death(self) -> float:
        return self.dice.expovariate(1 / self.plan.kill_every)

    def _worker(self, number: int) -> siltstone.Worker:
        env = {}
        if number > 0 and self.dice.random() < 0.3:
            env["FAILPOINTS"] = (
                f"{self.dice.choice(chaos.all_crash_points())}={self.dice.randrange(6)}*off->1*return"
            )
        return self.run_.worker(env)

    def _kill(self) -> None:
        index = self.dice.randrange(min(1, self.plan.workers - 1), self.plan.workers)
        self.workers[index].kill()
        self.deaths += 1
        self.workers[index] = self._worker(index)

    def _bury(self) -> None:
        """A worker that ended by itself did so at a crash point, or it is a fault."""
        for index, worker in enumerate(self.workers):
            if worker.code is not None:
                aborted = worker.code in (-signal.SIGABRT, 128 + signal.SIGABRT)
                assert aborted, f"a worker ended with {worker.code}:\n{worker.said()[-4000:]}"
                self.aborts += 1
                self.workers[index] = self._worker(index)

    def _sample(self, elapsed: float) -> None:
        produced = sum(len(load.rows) for load in self.loads)
        line = {
            "elapsed_s": round(elapsed, 1),
            "produced": produced,
            "deaths": self.deaths,
            "aborts": self.aborts,
        }
        line |= self.watch.sample() | self.watch.read_some(self._sequences())
        self._say(line)

    def _sequences(self) -> dict[int, list[int]]:
        return {partition: ids for load in self.loads for partition, ids in load.sequences.items()}

    def _say(self, line: dict) -> None:
        print(json.dumps(line), flush=True)
        if self.plan.out:
            with open(self.plan.out, "a") as out:
                out.write(json.dumps(line) + "\n")

    # --- The calm -----------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        for load in self.loads:
            load.stop()
        self.proxy.faults = Faults()
        self._bury()
        codes = [worker.stop(LONG) for worker in self.workers]
        aborted = {-signal.SIGABRT, 128 + signal.SIGABRT}
        assert set(codes) <= {0} | aborted, [worker.said()[-2000:] for worker in self.workers]
        self.run_.once(timeout=LONG)
        self._by_hand("compact")
        self.watch.read_ledger()

    def _by_hand(self, command: str):
        return self.run_.run(command, "-f", str(self.run_.spec), "--json", timeout=LONG).json()

    def _check(self) -> dict:
        table = self.run_.table()
        rows = [row for load in self.loads for row in load.expected()]
        bad = [one for load in self.loads for one in load.bad]
        chaos.check_in_the_end(table, rows, self.topic, bad, readers.ALL)
        live = files.check_same_files(table, self.watch.entries)
        files.check_sorted(table, [("customer_id", False, True), ("id", False, True)])
        retained = self.watch.read_all_retained(self._sequences(), 20 if self.plan.ageing else 8)
        self.proxy.older = DAYS_LATER
        self._by_hand("expire")
        vacuumed = self._by_hand("vacuum")
        orphans = [found for one in (table, table.dead_letters) for found in lake_watch.unnamed(one)]
        assert not orphans, f"nothing names these, and they are old: {orphans[:10]} of {len(orphans)}"
        chaos.check_in_the_end(table, rows, self.topic, bad, readers.QUICK)
        window = WINDOW_SECONDS if self.plan.ageing else float("inf")
        self.watch.check_bounds(SNAPSHOTS_MAX, MAX_INPUTS, TARGET_SIZE, window)
        summary = {
            "rows": len(rows),
            "dead_letters": len(bad),
            "deaths": self.deaths,
            "aborts": self.aborts,
            "live_files": len(live),
            "ledger_version": self.watch.version,
            "replaces": self.watch.replaces(),
            "faults": dict(sorted(self.proxy.made.items())),
            "requests": sum(self.proxy.requests.values()),
            "retained_read": retained,
            "vacuumed": {one["table"]: one["deleted"] for one in vacuumed},
        }
        self._say({"summary": summary})
        return summary


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--minutes", type=float, default=20)
    options.add_argument("--workers", type=int, default=Plan.workers)
    options.add_argument(
        "--kill-every", type=float, default=Plan.kill_every, help="mean seconds between deaths"
    )
    options.add_argument("--seed", type=int, default=Plan.seed)
    for fault in dataclasses.fields(Faults):
        option = f"--{fault.name.replace('_', '-')}"
        options.add_argument(
            option, type=float, default=getattr(FAULTS, fault.name), help="see proxies.Faults"
        )
    options.add_argument("--no-ageing", action="store_true", help="objects grow old as fast as they do")
    options.add_argument("--out", type=pathlib.Path, help="samples are added to this file")
    options.add_argument(
        "--dir", type=pathlib.Path, help="where the workers' logs are kept; default: deleted"
    )
    options = options.parse_args()
    lab.start()
    faults = Faults(**{fault.name: getattr(options, fault.name) for fault in dataclasses.fields(Faults)})
    plan = Plan(
        options.minutes * 60,
        options.workers,
        options.kill_every,
        seed=options.seed,
        faults=faults,
        ageing=not options.no_ageing,
        out=options.out,
    )
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.dir or pathlib.Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            Soak(siltstone.build(), folder, plan).run()
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
