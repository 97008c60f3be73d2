#!/usr/bin/env bash
# MLflow: a metric sent with a fractional timestamp is stored as 0, with a status of 200.
#
# With:      mlflow-skinny 3.17.2 (the REST handlers of the tracking server) on SQLite.
# Request:   runs/log-metric with a value of 0.93 and "timestamp": 1772366400123.4, as a client has it that
#            multiplies seconds by 1,000 and does not round.
# Expected:  the metric with its timestamp cut to milliseconds, or a 400 that names the field, as the
#            same number in quotes gets.
# Seen:      200 and an empty answer. The number passes the handler's own check; then protobuf's JSON parser
#            stops at it, and that error is swallowed: this field and each one after it keep their
#            defaults. Which those are depends on the order of the keys: with the timestamp before the
#            value, the metric is 0.0 at step 0 of 1970; with the value first, only the rest is lost.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  mlflow-skinny==3.17.2 flask==3.1.3 flask-cors==6.0.5 sqlalchemy==2.1.9 alembic==1.20.1 pandas==3.1.1 || exit 2

cd "$work"
export HOME=$work MLFLOW_DISABLE_TELEMETRY=true
export _MLFLOW_SERVER_FILE_STORE=sqlite:///mlflow.db _MLFLOW_SERVER_ARTIFACT_ROOT=$work/artifacts
"$work/venv/bin/python" -W ignore - 2>server.log <<'PY' || { code=$?; tail -n 20 server.log; exit "$code"; }
import json
import sys

from mlflow.server import app

server = app.test_client()


def post(path, text):
    return server.post(f"/api/2.0/mlflow/{path}", data=text, content_type="application/json")


def logged(order, timestamp):
    """The status, and the metric as it is read back."""
    run = post("runs/create", '{"experiment_id": "0"}').json["run"]["info"]["run_id"]
    fields = {"run_id": run, "key": "accuracy", "value": 0.93, "timestamp": timestamp, "step": 7}
    status = post("runs/log-metric", json.dumps({key: fields[key] for key in order})).status_code
    query = {"run_id": run, "metric_key": "accuracy"}
    history = server.get("/api/2.0/mlflow/metrics/get-history", query_string=query).json.get("metrics", [])
    return status, [(metric["value"], metric["timestamp"], metric["step"]) for metric in history]


value_last = ["run_id", "key", "timestamp", "value", "step"]
value_first = ["run_id", "key", "value", "step", "timestamp"]
cases = [
    ("whole, value last", value_last, 1772366400123, (200, [(0.93, 1772366400123, 7)])),
    ("fractional, value last", value_last, 1772366400123.4, (200, [(0.0, 0, 0)])),
    ("fractional, value first", value_first, 1772366400123.4, (200, [(0.93, 0, 7)])),
    ("fractional in quotes", value_last, "1772366400123.4", (400, [])),
]
changed = False
for name, order, timestamp, recorded in cases:
    seen = logged(order, timestamp)
    print(f"{name}: status {seen[0]}, stored (value, timestamp, step) {seen[1]}")
    changed = changed or seen != recorded
sys.exit(changed)
PY
