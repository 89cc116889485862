#!/usr/bin/env bash
# The end-to-end tests alone: services, environments, program, pytest. Arguments go to pytest.
#
#   tests/e2e.sh                       all of it
#   tests/e2e.sh test_kafka.py -k sasl some of it
#
# SILTSTONE_BIN names a program to test in place of the one that is built here (with feature `failpoints`).
# SILTSTONE_KEEP_SERVICES=1 leaves the services up for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
SILTSTONE_LAB="${SILTSTONE_LAB:-$HOME/.cache/siltstone-lab}"

./setup.sh
if [ -z "${SILTSTONE_KEEP_SERVICES:-}" ]; then trap "$PWD/services/down.sh" EXIT; fi
./services/up.sh
cd e2e
"$SILTSTONE_LAB/venv/bin/python" -m pytest "$@"
