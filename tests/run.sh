#!/usr/bin/env bash
# The whole test suite, on a machine with Rust, a C toolchain, Python 3.11+ and Java 17+.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo test --workspace --locked
