#!/usr/bin/env bash
# Starts every service side by side and writes run/services.env, which tests read. Safe to run again.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Downloads one after the other, so that they do not fight for the line; starts side by side.
"$SERVICES_DIR/s3.sh" fetch
"$SERVICES_DIR/kafka.sh" fetch
"$SERVICES_DIR/registry.sh" fetch
"$SERVICES_DIR/azure.sh" fetch
"$SERVICES_DIR/gcs.sh" fetch
"$SERVICES_DIR/iceberg.sh" fetch
"$SERVICES_DIR/postgres.sh" fetch
"$SERVICES_DIR/oidc.sh" fetch

starts=()
for service in "kafka.sh up" "registry.sh up open" "registry.sh up auth" "s3.sh up" "azure.sh up" "gcs.sh up json" "gcs.sh up xml" \
  "iceberg.sh up" "postgres.sh up" "oidc.sh up"; do
  # shellcheck disable=SC2086
  "$SERVICES_DIR"/$service & starts+=($!)
done
failed=0
for start in "${starts[@]}"; do wait "$start" || failed=1; done
[ "$failed" -eq 0 ] || { say "a service did not start"; exit 1; }

cat >"$SILTSTONE_LAB/run/services.env" <<ENV
SILTSTONE_LAB=$SILTSTONE_LAB
SILTSTONE_TEST_KAFKA=127.0.0.1:$KAFKA_PORT
SILTSTONE_TEST_KAFKA_SASL_PLAINTEXT=127.0.0.1:$((KAFKA_PORT + 2))
SILTSTONE_TEST_KAFKA_SASL_SSL=127.0.0.1:$((KAFKA_PORT + 3))
SILTSTONE_TEST_KAFKA_SSL=127.0.0.1:$((KAFKA_PORT + 4))
SILTSTONE_TEST_KAFKA_USER=$KAFKA_USER
SILTSTONE_TEST_KAFKA_PASSWORD=$KAFKA_PASSWORD
SILTSTONE_TEST_TLS=$SILTSTONE_LAB/data/tls
SILTSTONE_TEST_KAFKA_CA=$SILTSTONE_LAB/data/tls/ca.pem
SILTSTONE_TEST_REGISTRY=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
SILTSTONE_TEST_REGISTRY_AUTH=http://127.0.0.1:$REGISTRY_AUTH_PORT/apis/ccompat/v7
SILTSTONE_TEST_REGISTRY_USER=$REGISTRY_USER
SILTSTONE_TEST_REGISTRY_PASSWORD=$REGISTRY_PASSWORD
SILTSTONE_TEST_S3_ENDPOINT=http://127.0.0.1:$S3_PORT
SILTSTONE_TEST_S3_BUCKET=$S3_BUCKET
SILTSTONE_TEST_S3_ACCESS_KEY=$S3_ACCESS_KEY
SILTSTONE_TEST_S3_SECRET_KEY=$S3_SECRET_KEY
SILTSTONE_TEST_S3_CATALOG=http://127.0.0.1:$((S3_PORT + 8))
SILTSTONE_TEST_S3_TABLE_BUCKET=$S3_TABLE_BUCKET
SILTSTONE_TEST_ICEBERG=http://127.0.0.1:$ICEBERG_PORT
SILTSTONE_TEST_GCS_ENDPOINT=http://127.0.0.1:$GCS_PORT
SILTSTONE_TEST_GCS_XML_ENDPOINT=http://127.0.0.1:$GCS_XML_PORT
SILTSTONE_TEST_GCS_BUCKET=$GCS_BUCKET
SILTSTONE_TEST_AZURE_ENDPOINT=http://127.0.0.1:$AZURE_PORT
SILTSTONE_TEST_AZURE_CONTAINER=$AZURE_CONTAINER
SILTSTONE_TEST_AZURE_ACCOUNT=$AZURE_ACCOUNT
SILTSTONE_TEST_AZURE_KEY=$AZURE_KEY
SILTSTONE_TEST_POSTGRES=$("$SERVICES_DIR/postgres.sh" url)
SILTSTONE_TEST_OIDC=http://127.0.0.1:$OIDC_PORT
ENV
say "services are up; addresses in $SILTSTONE_LAB/run/services.env"
