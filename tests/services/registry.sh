#!/usr/bin/env bash
# Apicurio Registry with Confluent's API, from Maven Central, in memory.   registry.sh fetch|up|down|status [open|auth]
#
# `open` (the default) takes anybody; `auth` asks for HTTP basic authentication on a port of its own.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION="${SILTSTONE_REGISTRY_VERSION:-3.3.3}"
APP="$SILTSTONE_LAB/dist/apicurio-$VERSION"
case "${2:-open}" in
  open) NAME=registry PORT=$REGISTRY_PORT CREDENTIALS=() ;;
  auth) NAME=registry-auth PORT=$REGISTRY_AUTH_PORT CREDENTIALS=("$REGISTRY_USER:$REGISTRY_PASSWORD") ;;
  *) say "usage: $0 fetch|up|down|status [open|auth]"; exit 2 ;;
esac

unpack() {
  [ -f "$APP/quarkus-run.jar" ] && return 0
  say "fetching Apicurio Registry $VERSION"
  maven "$MAVEN_DEPENDENCY":get -Dartifact="io.apicurio:apicurio-registry-app:$VERSION:tar.gz:all" -Dtransitive=false
  rm -rf "$APP.part"; mkdir -p "$APP.part"
  tar -xzf "$SILTSTONE_LAB/m2/io/apicurio/apicurio-registry-app/$VERSION/apicurio-registry-app-$VERSION-all.tar.gz" -C "$APP.part"
  mv "$APP.part" "$APP"
}

# Both instances share one download, so it has a lock of its own.
fetch() { locked registry-dist unpack; }

up() {
  if alive "$NAME"; then say "$NAME is already up"; return 0; fi
  refuse_taken_port "$NAME" "$PORT" $((PORT + 1))
  local java settings; java=$(service_java)
  settings=(QUARKUS_HTTP_HOST=127.0.0.1 QUARKUS_HTTP_PORT="$PORT"
    QUARKUS_MANAGEMENT_HOST=127.0.0.1 QUARKUS_MANAGEMENT_PORT=$((PORT + 1))
    APICURIO_STORAGE_KIND=sql APICURIO_STORAGE_SQL_KIND=h2 QUARKUS_HTTP_ACCESS_LOG_ENABLED=false)
  if [ "$NAME" = registry-auth ]; then
    settings+=(QUARKUS_HTTP_AUTH_BASIC=true
      QUARKUS_SECURITY_USERS_EMBEDDED_PLAIN_TEXT=true
      "QUARKUS_SECURITY_USERS_EMBEDDED_USERS_$REGISTRY_USER=$REGISTRY_PASSWORD"
      "QUARKUS_SECURITY_USERS_EMBEDDED_ROLES_$REGISTRY_USER=sr-admin"
      QUARKUS_HTTP_AUTH_PERMISSION_ALL_PATHS='/apis/*' QUARKUS_HTTP_AUTH_PERMISSION_ALL_POLICY=authenticated)
  fi
  cd "$APP"
  spawn "$NAME" env "${settings[@]}" "$java" -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -XX:+AutoCreateSharedArchive -XX:SharedArchiveFile="$APP/$NAME.jsa" -jar quarkus-run.jar
  wait_ready "$NAME" 120 port_open "$PORT"
  wait_ready "$NAME" 60 http_ok "http://127.0.0.1:$PORT/apis/ccompat/v7/subjects" "${CREDENTIALS[@]}"
}

main "$NAME" "$@"
