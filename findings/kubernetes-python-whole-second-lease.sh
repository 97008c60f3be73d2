#!/usr/bin/env bash
# Kubernetes' Python client: a Lease renewed on a whole second is not read by Kubernetes.
#
# With:      kubernetes 37.0.1 from PyPI, k8s.io/api and k8s.io/apimachinery v0.37.2: the types that the API
#            server decodes requests with. Needs Go 1.26.
# Data:      a Lease whose renew_time is a datetime with a time zone.
# Expected:  each such datetime arrives.
# Seen:      the client writes times with isoformat, which leaves out the fraction where it is zero;
#            Kubernetes' MicroTime wants six digits and refuses the whole object otherwise. A controller that
#            renews its lease with now() fails once in a million; one that rounds to seconds always does.
#            Times of the type Time, such as a Pod's, are read either way.
# Way out:   replace(microsecond=1) where it is zero.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes==37.0.1 || exit 2
# A module cache that can be removed again.
export GOPATH=$work/go GOCACHE=$work/cache GOFLAGS="-modcacherw -mod=mod"

mkdir "$work/decode"
cd "$work/decode"
cat > go.mod <<'MOD'
module decode

go 1.26.0

require (
	k8s.io/api v0.37.2
	k8s.io/apimachinery v0.37.2
)
MOD
cat > main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	coordination "k8s.io/api/coordination/v1"
)

func main() {
	var lease coordination.Lease
	if err := json.NewDecoder(os.Stdin).Decode(&lease); err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("read:", lease.Spec.RenewTime.UTC(), "created", lease.CreationTimestamp.UTC())
}
GO
{ go mod tidy && go build -o decode .; } 2>go.log || { tail -n 20 go.log; exit 2; }

cat > lease.py <<'PY'
import datetime
import json
import sys

from kubernetes import client

second = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.timezone.utc)
lease = client.V1Lease(
    metadata=client.V1ObjectMeta(name="leader", creation_timestamp=second),
    spec=client.V1LeaseSpec(renew_time=second.replace(microsecond=int(sys.argv[1]))),
)
print(json.dumps(client.ApiClient().sanitize_for_serialization(lease)))
PY
changed=0
check() {
  local written seen
  written=$("$work/venv/bin/python" lease.py "$1")
  seen=$(./decode <<<"$written")
  printf '%s\n  %s\n' "$written" "$seen"
  [[ $seen == "$2"* ]] || changed=1
}
check 1 "read:"
check 500000 "read:"
check 0 'refused: parsing time "2026-03-01T12:00:00+00:00"'
exit "$changed"
