#!/usr/bin/env bash
# Azurite, from npm: Azure Blob Storage in memory.   azure.sh fetch|up|down|status
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION="${SILTSTONE_AZURITE_VERSION:-3.35.0}"
APP="$SILTSTONE_LAB/dist/azurite-$VERSION"
STOP_SECONDS=5

fetch() {
  [ -f "$APP/.complete" ] && return 0
  say "fetching Azurite $VERSION"
  rm -rf "$APP"; mkdir -p "$APP"
  retry 3 npm_of_node install --silent --no-audit --no-fund --ignore-scripts \
    --prefix "$APP" "azurite@$VERSION" >"$SILTSTONE_LAB/log/azurite-fetch.log" 2>&1 \
    || { cat "$SILTSTONE_LAB/log/azurite-fetch.log" >&2; return 1; }
  touch "$APP/.complete"
}

# A container is made by a signed request: the account's key signs the words that the service signs too.
container_made() {
  python3 - "$AZURE_PORT" "$AZURE_ACCOUNT" "$AZURE_KEY" "$AZURE_CONTAINER" <<'PY'
import base64, email.utils, hashlib, hmac, sys, urllib.error, urllib.request
port, account, key, container = sys.argv[1:]
headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
words = "PUT" + "\n" * 12 + f"{named}/{account}/{account}/{container}\nrestype:container"
signed = base64.b64encode(hmac.digest(base64.b64decode(key), words.encode(), hashlib.sha256)).decode()
headers["Authorization"] = f"SharedKey {account}:{signed}"
url = f"http://127.0.0.1:{port}/{account}/{container}?restype=container"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    opener.open(urllib.request.Request(url, method="PUT", headers=headers), timeout=5)
except urllib.error.HTTPError as error:
    if error.code != 409:
        raise
PY
}

up() {
  if alive azure; then say "azure is already up"; return 0; fi
  refuse_taken_port azure "$AZURE_PORT"
  local node; node=$(find_node)
  spawn azure "$node" "$APP/node_modules/azurite/dist/src/blob/main.js" --blobHost 127.0.0.1 --blobPort "$AZURE_PORT" \
    --inMemoryPersistence --disableTelemetry --silent --skipApiVersionCheck
  wait_ready azure 60 port_open "$AZURE_PORT"
  wait_ready azure 30 container_made
}

main azure "$@"
