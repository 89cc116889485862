#!/usr/bin/env python3
"""Where the CPU time of an ingest, or of a backfill from files, goes, stage by stage.

    python3 benches/stages.py -- target/release/siltstone --quiet run -f SPEC --once

Runs the command under `perf record` with call stacks and counts each sample for the first stage that its stack, from
the outside in, or its thread, names. Needs Linux's `perf`; only the standard library besides.
Prints one JSON object: samples, and each stage's share in percent."""

import collections
import json
import os
import re
import subprocess
import sys
import tempfile

# The first match wins. A gather runs inside the encoder, and a commit never runs inside a flush's blocking part.
STAGES = [
    ("read files", re.compile(r"siltstone_datafile::import|siltstone_ingest::files|worker::import::input")),
    ("take", re.compile(r"siltstone_datafile::gather|arrow_select::interleave")),
    ("sort", re.compile(r"siltstone_datafile::sort|datafile::partition|datafile::transform")),
    ("spill", re.compile(r"rewrite::spill|arrow_ipc")),
    ("encode", re.compile(r"siltstone_datafile::encode|siltstone_datafile::write|parquet::|ZSTD_")),
    ("upload", re.compile(r"siltstone_datafile::upload|object_store::")),
    ("commit", re.compile(r"siltstone_lakehouse|projector|::flush::")),
    ("decode", re.compile(r"siltstone_ingest::(avro|json|columns|decoder|wire)|Intake")),
    ("consume", re.compile(r"rd_kafka|rd_slice|siltstone_ingest::kafka|LZ4_")),
]
POLL = re.compile(r"^poll-")
CLIENT = re.compile(r"^rdk:")


def stage_of(thread, frames):
    if CLIENT.match(thread):
        return "consume (client's threads)"
    stack = " ".join(frames)
    for name, pattern in STAGES:
        if pattern.search(stack):
            return name
    return "other of the polling thread" if POLL.match(thread) else "other"


def samples(data):
    """(thread, frames) of each sample."""
    script = subprocess.Popen(["perf", "script", "-i", data, "--no-inline", "-F", "comm,ip,sym"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    thread, frames = None, []
    for line in script.stdout:
        if not line.strip():
            if thread is not None:
                yield thread, frames
            thread, frames = None, []
        elif not line[0].isspace():
            thread = line.strip()
        else:
            frames.append(line.strip().split(" ", 1)[-1])
    if thread is not None:
        yield thread, frames


def main():
    if "--" not in sys.argv:
        sys.exit(__doc__)
    command = sys.argv[sys.argv.index("--") + 1:]
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "perf.data")
        subprocess.run(["perf", "record", "-q", "-F", "197", "--call-graph", "dwarf,8192", "-o", data, *command],
                       check=True, stdout=subprocess.DEVNULL)
        counts = collections.Counter(stage_of(*sample) for sample in samples(data))
    total = sum(counts.values())
    shares = {name: round(100 * count / total, 1) for name, count in counts.most_common()}
    print(json.dumps({"samples": total, "percent": shares}))


main()
