#!/usr/bin/env bash
# Makes the Python environments and fetches the Spark jars that the tests read tables with. Skipped when done.
source "$(dirname "${BASH_SOURCE[0]}")/services/common.sh"

PYTHON_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")/python" && pwd)"
PYTHON="${SILTSTONE_PYTHON:-python3}"

# stamp_of FILE...: what a finished step is known by.
stamp_of() { cat "$@" | sha256sum | cut -c1-16; }

find_uv() {
  if command -v uv >/dev/null; then command -v uv; return 0; fi
  local home="$SILTSTONE_LAB/dist/uv"
  if [ ! -x "$home/bin/uv" ]; then
    "$PYTHON" -m venv "$home"
    retry 3 "$home/bin/pip" install -q --disable-pip-version-check "uv>=0.9" >&2
  fi
  echo "$home/bin/uv"
}

# environment NAME REQUIREMENTS
environment() {
  local home="$SILTSTONE_LAB/$1" stamp uv; stamp=$(stamp_of "$2")
  [ "$(cat "$home/.stamp" 2>/dev/null)" = "$stamp" ] && return 0
  say "making $home"
  uv=$(find_uv)
  rm -rf "$home"
  "$uv" venv -q --python "$PYTHON" "$home"
  retry 3 "$uv" pip install -q --python "$home/bin/python" -r "$2"
  echo "$stamp" >"$home/.stamp"
}

# Chromium, for the tests of the console: the one that is there, else the distribution's.
chromium() {
  local name
  for name in "${SILTSTONE_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null; then return 0; fi
  done
  say "installing chromium"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { retry 3 apt-get update -qq && DEBIAN_FRONTEND=noninteractive retry 3 apt-get install -y -qq --no-install-recommends chromium \
      fonts-dejavu-core fonts-liberation; } \
      >"$SILTSTONE_LAB/log/chromium.log" 2>&1 && return 0
  fi
  say "NO CHROMIUM could be installed: the tests of the console are passed over (set SILTSTONE_CHROMIUM)"
}

spark_jars() {
  local home="$SILTSTONE_LAB/dist/spark-jars" stamp; stamp=$(stamp_of "$PYTHON_DIR"/spark*.pom.xml)
  [ "$(cat "$home/.stamp" 2>/dev/null)" = "$stamp" ] && return 0
  say "fetching Spark's jars for Iceberg, Delta and S3"
  rm -rf "$home"
  maven -f "$PYTHON_DIR/spark.pom.xml" "$MAVEN_DEPENDENCY":copy-dependencies \
    -DincludeScope=runtime -DexcludeTransitive=true -DoutputDirectory="$home"
  maven -f "$PYTHON_DIR/spark-s3.pom.xml" "$MAVEN_DEPENDENCY":copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$home"
  echo "$stamp" >"$home/.stamp"
}

setup() {
  environment venv "$PYTHON_DIR/requirements.txt"
  environment venv-spark "$PYTHON_DIR/requirements-spark.txt"
  spark_jars
  chromium
  # Spark runs on Java 17 or 21.
  java_between 17 21 >"$SILTSTONE_LAB/run/spark-java" || { say "Spark needs a Java 17 or 21: set SILTSTONE_JAVA"; return 1; }
}

locked setup setup
