"""Tables on the S3 service of the tests, for the benchmarks that count requests or wait for them.

Run with the Python of the end-to-end tests (`tests/setup.sh` makes it); their helpers are used."""

import os
import subprocess
import sys
import time

from bench import ROOT, SILTSTONE, SORTED, filled, parser, registry, write_spec

sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import lab  # noqa: E402 - found by the path just given
from stores import Bucket, Table  # noqa: E402

REGISTRY = "127.0.0.1:39185"
NAME = "bench.orders"
# All that there is, into few files, at once.
COMPACTION = {"quiet_after": "0s", "min_inputs": 2, "max_inputs": 1000, "max_overlap": 1}


def options_with_services(about):
    """The options of a benchmark, with the services of the tests up and their broker as the default."""
    lab.start()
    os.environ.setdefault("SILTSTONE_BENCH_KAFKA", lab.address("KAFKA"))
    return parser(about)


class Orders:
    """Orders in many small files, each of them over the whole range of keys, in a bucket."""

    def __init__(self, options, rows, count, **table):
        self.store = Bucket(f"bench-{int(time.time() * 1000)}")
        self.table = Table(self.store, NAME)
        topic = f"orders-avro-{rows}"
        filled(options.dir, options.bootstrap, topic, "orders-avro", rows)
        each = {"max_age": "1h", "max_rows": -(-rows // count)}
        table = {"freshness": each, "compaction": COMPACTION, **SORTED, **table}
        self.spec = write_spec(options.dir / f"{self.store.prefix}.yaml", options.bootstrap, REGISTRY,
                               self.store.destination, NAME, topic, **table)
        with registry(REGISTRY):
            self.run("run", "--once")

    def run(self, *words):
        """Output of a command on the table, and its wall time."""
        began = time.monotonic()
        command = [SILTSTONE, "--quiet", *words, "-f", self.spec]
        done = subprocess.run(command, env={**os.environ, **self.store.env}, stdout=subprocess.PIPE, check=True)
        return done.stdout.decode(), time.monotonic() - began
