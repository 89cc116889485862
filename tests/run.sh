#!/usr/bin/env bash
# The whole test suite, on a machine with Rust, a C toolchain, Python 3.11+, Java 17+ and Maven.
#
# What it needs besides (a broker, a registry, an S3 store, readers) it fetches into SILTSTONE_LAB, by default
# ~/.cache/siltstone-lab, starts on the loopback interface, and ends again.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings

# Tests of crates find the services by SILTSTONE_TEST_*; without them they run against stand-ins alone.
trap tests/services/down.sh EXIT
tests/services/up.sh
set -a
# shellcheck disable=SC1091
source "${SILTSTONE_LAB:-$HOME/.cache/siltstone-lab}/run/services.env"
set +a
cargo test --workspace --locked
