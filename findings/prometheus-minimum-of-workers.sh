#!/usr/bin/env bash
# prometheus_client: the minimum over a server's worker processes is 0 until each of them has set it.
#
# With:      prometheus-client 0.26.0 in multiprocess mode, as under Gunicorn.
# Program:   a gauge with multiprocess_mode="min" (say, the lowest share of free GPU memory), set to 5 by one worker
#            and to 7 by another; a third worker has imported the module, and had no request yet.
# Expected:  5. Without the third worker it is. The mode is the smallest value that was set.
# Seen:      0: a gauge without labels is written as 0 when it is made, and the minimum counts that. "max" has the
#            same fault where values are negative, such as a log-likelihood. The 0 stays when that worker
#            dies, since its file does: an alert on the lowest value fires after each restart. With a label, a
#            worker's value counts from when it is first asked for.
# Way out:   labels on such gauges, or a first set() at import with a value that cannot win.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check prometheus-client==0.26.0 || exit 2

cd "$work"
cat > worker.py <<'PY'
import sys

from prometheus_client import Gauge

free = Gauge("free", "Free memory.", multiprocess_mode="min")
likelihood = Gauge("likelihood", "Log-likelihood.", multiprocess_mode="max")
labelled = Gauge("labelled", "Free memory of a model.", ["model"], multiprocess_mode="min")
for value in map(float, sys.argv[1:]):
    free.set(value)
    likelihood.set(-value)
    labelled.labels("digits").set(value)
PY
cat > scrape.py <<'PY'
from prometheus_client import CollectorRegistry, multiprocess

registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
samples = [sample for metric in registry.collect() for sample in metric.samples]
print(*(f"{each.name}={each.value:g}" for each in sorted(samples, key=lambda each: each.name)))
PY
export PROMETHEUS_MULTIPROC_DIR=$work/values
mkdir values
"$work/venv/bin/python" worker.py 5
"$work/venv/bin/python" worker.py 7
before=$("$work/venv/bin/python" scrape.py)
"$work/venv/bin/python" worker.py
after=$("$work/venv/bin/python" scrape.py)
printf 'two workers have set 5 and 7: %s\na third has set nothing:      %s\n' "$before" "$after"
[ "$before" = "free=5 labelled=5 likelihood=-5" ] && [ "$after" = "free=0 labelled=5 likelihood=0" ]
