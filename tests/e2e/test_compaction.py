"""Compaction: fewer, larger, sorted files with the same rows, in both formats, whatever happens meanwhile."""

import random
import signal
import subprocess
import time

import pytest

import chaos
import files
import orders
import readers
from produce import create_topic, send
from siltstone import wait

EAGER = {"min_inputs": 2, "quiet_after": "0s"}
KEYS = [("customer_id", False, True), ("id", False, True)]
POINTS = [point for point in chaos.all_crash_points() if point.startswith("compact.")]


def many_files(engine, name, **changes):
    """A table of 300 orders in some twenty small commits, and its engine."""
    topic = create_topic(partitions=2)
    send(topic, orders.records(0, 300, 2))
    changes = {"sort_by": ["customer_id", "id"], "compaction": EAGER, **changes}
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "1m", "max_rows": 15}, **changes)])
    run.once()
    assert len(files.check_same_files(run.table())) >= 15
    return run


def newest_snapshot(table):
    return readers.static_table(table).metadata.current_snapshot()


def test_by_hand(engine, name):
    run = many_files(engine, name)
    before, snapshot = files.check_same_files(run.table()), newest_snapshot(run.table())
    delta_before = readers.delta_table(run.table()).version()
    [planned] = run.json("compact", "--dry-run")
    assert planned["input_files"] == len(before) and planned["plans"] >= 1, planned
    assert files.check_same_files(run.table()) == before, "a dry run changes nothing"
    [status] = run.json("status", "--no-lag")
    assert status["compaction"]["backlog_files"] == len(before), status
    assert status["compaction"]["overlap_depth"] > 4, status

    [done] = run.json("compact")
    assert done["committed"] == done["plans"] >= 1 and done["dropped"] == done["failed"] == 0, done
    assert done["rows"] >= 300 and done["input_files"] - done["output_files"] == len(before) - 1, done
    readers.check(run.table(), orders.rows(0, 300), readers.ALL)
    assert len(files.check_same_files(run.table())) == 1
    files.check_layout(run.table())
    files.check_sorted(run.table(), KEYS)

    # Iceberg says what kind of change it was; Delta's readers of changes see none.
    now = newest_snapshot(run.table())
    assert str(now.summary.operation.value) == "replace", now.summary
    changes = [change for entry in run.table().delta_log()[delta_before + 1 :] for change in entry]
    changes = [change for change in changes if "add" in change or "remove" in change]
    assert len([change for change in changes if "remove" in change]) == done["input_files"]
    assert not any(next(iter(change.values()))["dataChange"] for change in changes)

    # Time travel to before.
    old = readers.static_table(run.table()).scan(snapshot_id=snapshot.snapshot_id).to_arrow()
    assert sorted(old.column("id").to_pylist()) == list(range(300))
    from deltalake import DeltaTable

    old = DeltaTable(readers.delta_url(run.table()), version=delta_before).to_pyarrow_table()
    assert sorted(old.column("id").to_pylist()) == list(range(300))

    # A fixed point.
    [again] = run.json("compact")
    assert again["plans"] == 0, again
    [status] = run.json("status", "--no-lag")
    compaction = status["compaction"]
    assert (compaction["plans"], compaction["backlog_files"], compaction["overlap_depth"]) == (0, 0, 1)
    totals = compaction["totals"]
    assert totals["appended_rows"] == 300 and totals["rewritten_rows"] == done["rows"], status
    assert totals["rewrite_output_bytes"] == done["output_bytes"] and totals["rewrites"] == done["committed"]
    written = totals["appended_bytes"] + totals["rewrite_output_bytes"]
    assert abs(compaction["write_amplification"] - written / totals["appended_bytes"]) < 1e-9, status


@pytest.mark.parametrize("cluster", ["zorder", "hilbert"])
def test_curves(engine, name, cluster):
    run = many_files(engine, name, compaction={**EAGER, "cluster": cluster})
    run.command("compact")
    readers.check(run.table(), orders.rows(0, 300))
    assert len(files.check_same_files(run.table())) == 1
    assert run.json("compact")[0]["plans"] == 0


def test_partitions_stay_apart(engine, name):
    run = many_files(engine, name, partition_by=["bucket(3, customer_id)"])
    run.command("compact")
    readers.check(run.table(), orders.rows(0, 300), readers.ALL)
    assert len(files.check_same_files(run.table())) == 3


def test_what_no_compaction_may_touch(engine, name):
    run = many_files(engine, name, compaction={**EAGER, "enabled": False})
    before = files.check_same_files(run.table())
    worker = run.worker().ready()
    time.sleep(15)
    assert worker.stop() == 0
    assert files.check_same_files(run.table()) == before


@pytest.mark.parametrize("point", POINTS)
def test_abort_at_every_step(engine, name, point):
    run = many_files(engine, name)
    ended = run.run("compact", "-f", str(run.spec), code=None, env={"FAILPOINTS": f"{point}=1*return"})
    assert ended.code in (-signal.SIGABRT, 128 + signal.SIGABRT), ended.said[-2000:]
    readers.check(run.table(), orders.rows(0, 300))
    run.command("compact")
    readers.check(run.table(), orders.rows(0, 300), readers.ALL)
    assert len(files.check_same_files(run.table())) == 1


def test_two_at_once(engine, name):
    """The ledger lets one of them through; the other one's work is dropped."""
    run = many_files(engine, name)
    words = [run.binary, "compact", "-f", str(run.spec), "--json"]
    both = [subprocess.Popen(words, env=run.environment, stdout=subprocess.PIPE) for _ in range(2)]
    for one in both:
        assert one.wait(60) == 0, one.stdout.read()
    readers.check(run.table(), orders.rows(0, 300))
    assert len(files.check_same_files(run.table())) == 1


def test_beside_ingestion_and_kills(engine, name):
    """Two workers of one group ingest and compact; one is killed again and again."""
    topic = create_topic(partitions=4)
    dice = random.Random(11)
    changes = {"sort_by": ["customer_id", "id"], "compaction": {**EAGER, "busy_percent": 100}}
    run = engine([orders.orders_table(name, topic, freshness={"max_age": "300ms"}, **changes)])
    load = chaos.Load(topic, 4, seed=5)
    steady = run.worker().ready()
    until = time.monotonic() + 45
    while time.monotonic() < until:
        other = run.worker().ready(60)
        time.sleep(dice.uniform(3, 9))
        other.kill()
        chaos.check_so_far(run.table())
    rewritten = steady.metric("siltstone_compaction_input_files_total", table=name)
    load.stop()
    assert steady.stop() == 0
    run.once()
    assert rewritten >= 5, "the steady worker compacted"
    replaced = [entry for entry in run.table().ledger() if "removed" in entry["change"]]
    assert len(replaced) >= 3
    chaos.check_in_the_end(run.table(), load.expected(), topic, load.bad)
    files.check_same_files(run.table())
    files.check_sorted(run.table(), KEYS)
