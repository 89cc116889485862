"""The soak in short: all of it at once on a store and with workers that fail, and everything is there in the end."""

import soak


def test_soak(binary, tmp_path):
    plan = soak.Plan(seconds=40, workers=2, kill_every=8, sample_every=8, seed=7, ageing=False)
    summary = soak.Soak(binary, tmp_path, plan).run()
    assert summary["rows"] > 1_000 and summary["dead_letters"] > 50, summary
    assert summary["deaths"] + summary["aborts"] >= 1, summary
    assert summary["replaces"] >= 1, "files were compacted meanwhile"
    kinds = {fault.split()[0] for fault in summary["faults"]}
    assert kinds >= {"reset", "slow_down", "lost"}, summary["faults"]
    assert summary["retained_read"] >= 5, summary
