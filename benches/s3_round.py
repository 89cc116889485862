#!/usr/bin/env python3
"""A round of compaction on an S3 server: a table of small files becomes one, by `siltstone compact`.

    python3 benches/s3_round.py [--rows 700000] [--files 100] [--repeat 3]

Each time: orders are ingested into `--files` small files, each of them over the whole range of keys; `siltstone compact --json`
rewrites them in one round and shows the change in both formats; then it is called once more, when there is nothing left to do.
Prints a JSON line each time: what was rewritten, the wall time of the first call, start-up included; that of the
second, which is start-up and looking alone; and the difference. Needs the Python and the services of the end-to-end tests."""

import json
import sys

from bench import load, parsed, report
from lake import Orders, options_with_services


def main():
    options = options_with_services(__doc__)
    options.add_argument("--rows", type=int, default=700_000)
    options.add_argument("--files", type=int, default=100)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--out")
    options = parsed(options)
    for number in range(options.repeat):
        orders = Orders(options, options.rows, options.files)
        said, wall = orders.run("compact", "--json")
        [done] = json.loads(said)
        if done["committed"] != done["plans"] or not done["committed"]:
            sys.exit(f"not all was compacted: {said}")
        again, start = orders.run("compact", "--json")
        if json.loads(again)[0]["plans"]:
            sys.exit(f"something was left to do: {again}")
        kept = ("plans", "input_files", "output_files", "rows", "input_bytes", "output_bytes")
        report({"round": number, **{name: done[name] for name in kept}, "wall_s": round(wall, 3),
                "start_s": round(start, 3), "without_start_s": round(wall - start, 3), "load": load()}, options.out)


main()
