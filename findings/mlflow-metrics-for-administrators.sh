#!/usr/bin/env bash
# MLflow: with passwords on, only an administrator can scrape what --expose-prometheus exposes.
#
# With:      mlflow 3.17.2 with its extra `auth`, prometheus-flask-exporter 0.23.2, SQLite.
# Request:   GET /metrics of `mlflow server --app-name basic-auth --expose-prometheus DIR`, as the administrator,
#            and as a user whose default permission is READ, as one makes for Prometheus.
# Expected:  200 for both, or a permission that lets such a user in: both options are of the same server.
# Seen:      200 for the administrator, 403 "Permission denied" for the user, whatever permissions it has: the
#            exporter's route has no rule, and what has none is closed since MLFLOW_BASIC_AUTH_FAIL_CLOSED is on by
#            default. So the scraper's password is one that may do everything.
# Way out:   no /metrics, as here; or that variable off, which opens every other route without a rule too.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  'mlflow[auth]==3.17.2' prometheus-flask-exporter==0.23.2 || exit 2

cd "$work"
export HOME=$work MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export MLFLOW_FLASK_SERVER_SECRET_KEY=for-this-script-alone MLFLOW_AUTH_CONFIG_PATH=$work/auth.ini
cat > auth.ini <<INI
[mlflow]
default_permission = READ
database_uri = sqlite:///$work/users.db
admin_username = admin
admin_password = password-of-the-admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
PATH=$work/venv/bin:$PATH mlflow server --app-name basic-auth --expose-prometheus "$work/metrics" --workers 1 \
  --backend-store-uri "sqlite:///$work/mlflow.db" --host 127.0.0.1 --port "$port" > server.log 2>&1 &
server=$!

"$work/venv/bin/python" - "http://127.0.0.1:$port" <<'PY' || { code=$?; tail -n 20 server.log; exit "$code"; }
import sys
import time

import requests

url = sys.argv[1]
admin, scraper = ("admin", "password-of-the-admin"), ("scraper", "password-of-the-scraper")
until = time.monotonic() + 120
while True:
    try:
        requests.get(f"{url}/health", timeout=5).raise_for_status()
        break
    except requests.RequestException:
        if time.monotonic() > until:
            sys.exit("the server did not come up")
        time.sleep(0.5)
user = dict(zip(("username", "password"), scraper))
requests.post(f"{url}/api/2.0/mlflow/users/create", json=user, auth=admin, timeout=30).raise_for_status()
seen = {}
for name, path, login in (
    ("administrator, /metrics", "/metrics", admin),
    ("user, /metrics", "/metrics", scraper),
    ("user, an experiment", "/api/2.0/mlflow/experiments/get?experiment_id=0", scraper),
):
    answer = requests.get(url + path, auth=login, timeout=30)
    seen[name] = answer.status_code
    print(f"{name}: {answer.status_code} {answer.text.splitlines()[0][:60] if answer.text else ''}")
sys.exit(list(seen.values()) != [200, 403, 200])
PY
