#!/usr/bin/env bash
# lightkube: the CPU use that Kubernetes reports is refused as a quantity.
#
# With:      lightkube 1.0.1; kubernetes 37.0.2, the official client, beside it.
# Data:      "156340125n" and "250u" of CPU, as metrics-server reports the use of pods and nodes
#            (metrics.k8s.io), and "2E3", an exponent as the reference of quantities allows it.
# Expected:  numbers, as the official client reads them: nano, micro, a plain exponent.
# Seen:      parse_quantity refuses each with "Invalid unit suffix", so a check of use against requests fails at
#            its first idle pod; equals_canonically raises too. 2e3 is read, 2E3 is not.
#            And what it reads is rounded up to thousandths: 0.1m and 1m are equal.
# Way out:   parse_quantity of the official client.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lightkube==1.0.1 kubernetes==37.0.2 || exit 2

cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

from kubernetes.utils.quantity import parse_quantity as official
from lightkube.utils.quantity import equals_canonically, parse_quantity


def outcome(call, *arguments):
    try:
        return str(call(*arguments))
    except ValueError as error:
        return f"refused: {error}"


recorded = {
    "156340125n": "refused: Invalid unit suffix: n",
    "250u": "refused: Invalid unit suffix: u",
    "2E3": "refused: Invalid unit suffix: E3",
    "2e3": "2000.000",
    "250m": "0.250",
}
changed = False
for text, expected in recorded.items():
    seen = outcome(parse_quantity, text)
    print(f"{text}: official client {official(text)}, lightkube {seen}")
    changed = changed or seen != expected
same = outcome(equals_canonically, {"cpu": "500000u"}, {"cpu": "0.5"})
tiny = outcome(equals_canonically, {"cpu": "0.1m"}, {"cpu": "1m"})
print(f"500000u equals 0.5: {same}")
print(f"0.1m equals 1m: {tiny}")
sys.exit(changed or same != "refused: Invalid unit suffix: u" or tiny != "True")
PY
