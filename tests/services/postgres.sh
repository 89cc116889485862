#!/usr/bin/env bash
# PostgreSQL, from Maven Central.   postgres.sh fetch|up|down|status|url|crash [shared|crashing]
#
# `shared` (the default) is for all tests, each in a database of its own. `crashing` is for those that end it under
# load: `crash` ends it as a power cut would, and starts it on what it left. PostgreSQL refuses to run as root: for root it
# runs as `nobody`, who cannot look into root's folders, and so lives in SILTSTONE_POSTGRES_HOME.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION="${SILTSTONE_POSTGRES_VERSION:-17.6.0}"
case "$(uname -m)" in
  x86_64) ARCHITECTURE=linux-amd64 SUM=23da5a044b4fb7a5a081a45008c95749c873305328d73f86aefd56922ce1d29d ;;
  aarch64) ARCHITECTURE=linux-arm64v8 SUM=84427ea54a5238247924ef3b0f940e7d027e58760f19d7325242e50d22fa014a ;;
  *) say "postgres: no binaries for $(uname -m)"; exit 1 ;;
esac
ARTIFACT="embedded-postgres-binaries-$ARCHITECTURE"
# AS: the words before a command that let it run as a user whom PostgreSQL takes.
if [ "$(id -u)" -eq 0 ]; then
  ROOM="${SILTSTONE_POSTGRES_HOME:-/var/tmp/siltstone-lab}"
  AS=(setpriv --reuid nobody --regid "$(id -g nobody)" --clear-groups)
  mkdir -p "$ROOM"
  # Others may write beside it: what is run must be root's own.
  [ "$(stat -c %u "$ROOM")" = 0 ] || { say "postgres: $ROOM is not root's; set SILTSTONE_POSTGRES_HOME"; exit 1; }
  chmod 755 "$ROOM"
else
  ROOM="$SILTSTONE_LAB" AS=()
fi
APP="$ROOM/dist/postgres-$VERSION"
case "${2:-shared}" in
  shared) NAME=postgres PORT=$POSTGRES_PORT ;;
  crashing) NAME=postgres-crashing PORT=$((POSTGRES_PORT + 1)) ;;
  *) say "usage: $0 fetch|up|down|status|url|crash [shared|crashing]"; exit 2 ;;
esac
DATA="$ROOM/data/$NAME"

unpack() {
  [ -x "$APP/bin/postgres" ] && return 0
  say "fetching PostgreSQL $VERSION"
  maven "$MAVEN_DEPENDENCY":get -Dartifact="io.zonky.test.postgres:$ARTIFACT:$VERSION" -Dtransitive=false
  local jar="$SILTSTONE_LAB/m2/io/zonky/test/postgres/$ARTIFACT/$VERSION/$ARTIFACT-$VERSION.jar"
  if [ -z "${SILTSTONE_POSTGRES_VERSION:-}" ] && [ "$(sha256sum <"$jar" | cut -d' ' -f1)" != "$SUM" ]; then
    say "postgres: $jar is not what was published when this was written"
    return 1
  fi
  rm -rf "$APP.part"; mkdir -p "$APP.part"; chmod 755 "$APP.part"
  python3 - "$jar" "$APP.part" <<'PY'
import io, sys, tarfile, zipfile
jar, target = sys.argv[1:]
with zipfile.ZipFile(jar) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".txz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name)), mode="r:xz") as inner:
        inner.extraction_filter = getattr(tarfile, "tar_filter", None)  # older ones know none
        inner.extractall(target)
PY
  mv "$APP.part" "$APP"
}

# Both instances share one download, so it has a lock of its own.
fetch() { locked postgres-dist unpack; }

start() {
  spawn "$NAME" "${AS[@]}" "$APP/bin/postgres" -D "$DATA"
  wait_ready "$NAME" 60 port_open "$PORT"
}

up() {
  if alive "$NAME"; then say "$NAME is already up"; return 0; fi
  refuse_taken_port "$NAME" "$PORT"
  rm -rf "$DATA"; mkdir -p "$DATA"; chmod 700 "$DATA"
  printf %s "$POSTGRES_PASSWORD" >"$DATA.password"
  [ "${#AS[@]}" -eq 0 ] || chown nobody "$DATA" "$DATA.password"
  # Of a locale in which text is not ordered by its bytes: the program must not count on the database's.
  (cd / && "${AS[@]}" "$APP/bin/initdb" -D "$DATA" -U "$POSTGRES_USER" -A scram-sha-256 --pwfile "$DATA.password" \
    -E UTF8 --locale C --locale-provider icu --icu-locale en-US --no-sync) >"$SILTSTONE_LAB/log/$NAME-init.log" 2>&1 \
    || { cat "$SILTSTONE_LAB/log/$NAME-init.log" >&2; return 1; }
  cat >>"$DATA/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
# A test outlives the server at most, never the machine.
fsync = off
full_page_writes = off
log_statement = none
CONF
  start
}

# As in a power cut: nothing is told to end.
crash() {
  (cd / && "${AS[@]}" "$APP/bin/pg_ctl" -D "$DATA" -m immediate -s stop)
  start
}

# INT lets it end without waiting for its clients.
halt() {
  if alive "$NAME"; then (cd / && "${AS[@]}" "$APP/bin/pg_ctl" -D "$DATA" -m fast -s stop) || true; fi
  stop "$NAME"
}

case "${1:-}" in
  crash) locked "$NAME" crash ;;
  down) locked "$NAME" halt ;;
  url) echo "postgres://$POSTGRES_USER:$POSTGRES_PASSWORD@127.0.0.1:$PORT/postgres" ;;
  *) main "$NAME" "$@" ;;
esac
