#!/usr/bin/env bash
# oidc-provider, from npm: an OpenID provider with login forms.   oidc.sh fetch|up|down|status
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SOURCE="$SERVICES_DIR/oidc"
APP="$SILTSTONE_LAB/dist/oidc-$(cat "$SOURCE/package-lock.json" "$SOURCE/server.js" | sha256sum | cut -c1-16)"
STOP_SECONDS=5

fetch() {
  [ -f "$APP/.complete" ] && return 0
  say "fetching the OpenID provider"
  rm -rf "$APP"; mkdir -p "$APP"
  cp "$SOURCE"/* "$APP"
  retry 3 npm_of_node ci --silent --no-audit --no-fund --ignore-scripts --prefix "$APP" >"$SILTSTONE_LAB/log/oidc-fetch.log" 2>&1 \
    || { cat "$SILTSTONE_LAB/log/oidc-fetch.log" >&2; return 1; }
  touch "$APP/.complete"
}

up() {
  if alive oidc; then say "oidc is already up"; return 0; fi
  refuse_taken_port oidc "$OIDC_PORT"
  local node; node=$(find_node)
  spawn oidc env NODE_ENV=test "$node" "$APP/server.js" "$OIDC_PORT"
  wait_ready oidc 60 http_ok "http://127.0.0.1:$OIDC_PORT/.well-known/openid-configuration"
}

main oidc "$@"
