#!/usr/bin/env bash
# The whole test suite, on a machine with Rust, a C toolchain, Python 3.11+, Java 17+ and Maven.
#
# What it needs besides (a broker, a registry, stores of three clouds, readers) it fetches into SILTSTONE_LAB, by
# default ~/.cache/siltstone-lab, starts on the loopback interface, and ends again. Node.js 18+ and Go 1.21+ are taken
# where they are there, and fetched too where not (the emulators of Azure and Google and the OpenID provider are written in them).
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
export CARGO_TARGET_DIR

# One selection of packages and features for every step: another one would build the dependencies anew.
selection=(--workspace --locked --features siltstone-cli/failpoints)

cargo fmt --all --check
cargo clippy "${selection[@]}" --all-targets -- -D warnings
# As it is built for use: without crash points.
cargo clippy --workspace --locked -- -D warnings
cargo build "${selection[@]}" --all-targets

tests/deny.sh

# Tests of crates find the services by SILTSTONE_TEST_*; without them they run against stand-ins alone.
trap tests/services/down.sh EXIT
tests/setup.sh
tests/services/up.sh
set -a
# shellcheck disable=SC1091
source "${SILTSTONE_LAB:-$HOME/.cache/siltstone-lab}/run/services.env"
set +a
export AWS_ACCESS_KEY_ID="$SILTSTONE_TEST_S3_ACCESS_KEY" AWS_SECRET_ACCESS_KEY="$SILTSTONE_TEST_S3_SECRET_KEY"
export AZURITE_BLOB_STORAGE_URL="$SILTSTONE_TEST_AZURE_ENDPOINT"
cargo test "${selection[@]}"

export SILTSTONE_CONTROL_PLANE_BIN="$CARGO_TARGET_DIR/debug/siltstone-control-plane"
SILTSTONE_KEEP_SERVICES=1 SILTSTONE_BIN="$CARGO_TARGET_DIR/debug/siltstone" tests/e2e.sh
