#!/usr/bin/env bash
# Pulumi: a dynamic provider that holds a set of strings is serialized to another text at every run.
#
# With:      pulumi 3.272.0 (the Python SDK; no CLI is needed).
# Program:   a dynamic provider whose method tests `state in {"ACTIVE", "ERROR", ...}`.
# Expected:  the provider is serialized to the same text each time: the SDK sorts dictionaries for that, and
#            the text is an input of the resource (`__provider`).
# Seen:      sets are not sorted. Their order follows Python's hash seed, which is new in each process, so
#            the text differs from run to run. The same method with a tuple is stable.
# Way out:   a tuple, or PYTHONHASHSEED set to a number.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pulumi==3.272.0 || exit 2

cd "$work"
cat > program.py <<'PY'
import hashlib
import sys

from pulumi.dynamic import CreateResult, ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider


class WithSet(ResourceProvider):
    def create(self, props):
        known = props["state"] in {"ACTIVE", "BUILD", "DELETED", "ERROR", "PENDING"}
        return CreateResult("1", {**props, "known": known})


class WithTuple(ResourceProvider):
    def create(self, props):
        known = props["state"] in ("ACTIVE", "BUILD", "DELETED", "ERROR", "PENDING")
        return CreateResult("1", {**props, "known": known})


provider = WithSet() if sys.argv[1] == "set" else WithTuple()
print(hashlib.sha256(serialize_provider(provider).encode()).hexdigest()[:12])
PY

# Seeds of our own, so that this script itself does the same each time.
different() {
  for seed in 1 2 3 4 5 6; do
    PYTHONHASHSEED=$seed "$work/venv/bin/python" program.py "$1"
  done | sort -u | wc -l
}
with_set=$(different set)
with_tuple=$(different tuple)
echo "six runs: $with_set different providers with a set, $with_tuple with a tuple"
[ "$with_set" -gt 1 ] && [ "$with_tuple" -eq 1 ]
