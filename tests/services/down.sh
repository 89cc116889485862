#!/usr/bin/env bash
# Ends every service that up.sh started, and nothing else.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

stops=()
for service in "kafka.sh down" "registry.sh down open" "registry.sh down auth" "s3.sh down" "azure.sh down" "gcs.sh down json" \
  "gcs.sh down xml" "iceberg.sh down" "postgres.sh down" "postgres.sh down crashing" "oidc.sh down"; do
  # shellcheck disable=SC2086
  "$SERVICES_DIR"/$service & stops+=($!)
done
failed=0
for stop in "${stops[@]}"; do wait "$stop" || failed=1; done
rm -f "$SILTSTONE_LAB/run/services.env"
exit "$failed"
