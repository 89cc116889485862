#!/usr/bin/env bash
# Iceberg's own REST catalog server (the test fixtures of its Open API), from Maven Central, over SQLite.
#   iceberg.sh fetch|up|down|status
#
# It keeps tables in the S3 service and hands its keys out with each table. It takes any credential. It binds all
# interfaces: it has no setting for that.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION="${SILTSTONE_ICEBERG_VERSION:-1.11.0}"
JARS="$SILTSTONE_LAB/dist/iceberg-rest-$VERSION"
DATA="$SILTSTONE_LAB/data/iceberg"

fetch() {
  [ -f "$JARS/.complete" ] && return 0
  say "fetching Iceberg's REST catalog server $VERSION"
  maven -f "$SERVICES_DIR/iceberg.pom.xml" -Diceberg.version="$VERSION" "$MAVEN_DEPENDENCY":copy-dependencies \
    -DoutputDirectory="$JARS" -DincludeScope=runtime
  touch "$JARS/.complete"
}

# A variable CATALOG_A__B_C is the catalog's property a-b.c.
up() {
  if alive iceberg; then say "iceberg is already up"; return 0; fi
  refuse_taken_port iceberg "$ICEBERG_PORT"
  local java; java=$(service_java)
  rm -rf "$DATA"; mkdir -p "$DATA"
  cd "$DATA"
  spawn iceberg env CATALOG_CATALOG__IMPL=org.apache.iceberg.jdbc.JdbcCatalog CATALOG_URI="jdbc:sqlite:$DATA/catalog.db" \
    CATALOG_JDBC_SCHEMA__VERSION=V1 CATALOG_WAREHOUSE="s3://$S3_BUCKET/warehouse" \
    CATALOG_IO__IMPL=org.apache.iceberg.aws.s3.S3FileIO CATALOG_S3_ENDPOINT="http://127.0.0.1:$S3_PORT" \
    CATALOG_S3_PATH__STYLE__ACCESS=true CATALOG_S3_ACCESS__KEY__ID="$S3_ACCESS_KEY" \
    CATALOG_S3_SECRET__ACCESS__KEY="$S3_SECRET_KEY" CATALOG_CLIENT_REGION=us-east-1 AWS_REGION=us-east-1 \
    CATALOG_INCLUDE__CREDENTIALS=true CATALOG_REST_PORT="$ICEBERG_PORT" \
    "$java" -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -XX:+AutoCreateSharedArchive -XX:SharedArchiveFile="$JARS/app.jsa" -cp "$JARS/*" org.apache.iceberg.rest.RESTCatalogServer
  wait_ready iceberg 120 http_ok "http://127.0.0.1:$ICEBERG_PORT/v1/config"
}

main iceberg "$@"
