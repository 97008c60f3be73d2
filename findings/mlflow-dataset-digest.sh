#!/usr/bin/env bash
# MLflow: a dataset with every label turned round has the digest of the old one, and is logged as the old one.
#
# With:      mlflow-skinny 3.17.2 on SQLite, pandas 3.1.1.
# Data:      pairs of tables of which the second differs: every label of a column of booleans; every date; every
#            text of a column with one missing value; a number in row 12,000.
# Expected:  another digest ("hash, fingerprint" of the dataset, say the docs), and in the second run the dataset that
#            it was trained on.
# Seen:      the digest takes columns of numbers and columns in which each value is a text, of the first 10,000
#            rows. All else counts by name only. An experiment keeps one entry for each name and digest: the
#            second run shows the first one's source and profile, so what it says of the data is of another file.
# Way out:   a digest of one's own: from_pandas(..., digest=...).
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1 pandas==3.1.1 numpy==2.4.6 || exit 2

cd "$work"
export HOME=$work MLFLOW_DISABLE_TELEMETRY=true
"$work/venv/bin/python" -W ignore - 2>program.log <<'PY' || { code=$?; tail -n 20 program.log; exit "$code"; }
import sys

import mlflow
import numpy as np
import pandas as pd

mlflow.set_tracking_uri("sqlite:///mlflow.db")
sizes = np.arange(10)
many = np.arange(20_000)
early, late = pd.Timestamp("2026-01-01"), pd.Timestamp("2026-06-01")
pairs = {
    "every label": ({"size": sizes, "label": [True] * 10}, {"size": sizes, "label": [False] * 10}),
    "every date": ({"size": sizes, "day": [early] * 10}, {"size": sizes, "day": [late] * 10}),
    "texts, one missing": (
        {"size": sizes, "kind": ["a"] * 9 + [None]},
        {"size": sizes, "kind": ["b"] * 9 + [None]},
    ),
    "row 12,000": ({"size": many}, {"size": np.where(many == 12_000, -1, many)}),
    "texts, none missing": ({"size": sizes, "kind": ["a"] * 10}, {"size": sizes, "kind": ["b"] * 10}),
    "row 9,000": ({"size": many}, {"size": np.where(many == 9_000, -1, many)}),
}


def dataset(columns, file):
    return mlflow.data.from_pandas(pd.DataFrame(columns), source=file, name="training")


seen = {}
for name, tables in pairs.items():
    first, second = (dataset(columns, "any.parquet").digest for columns in tables)
    seen[name] = first == second
    print(f"{name}: {first} and {second}, {'the same' if seen[name] else 'different'}")

sources = []
for file, columns in zip(("january.parquet", "june.parquet"), pairs["every label"]):
    with mlflow.start_run() as run:
        mlflow.log_input(dataset(columns, file))
    logged = mlflow.get_run(run.info.run_id).inputs.dataset_inputs[0].dataset
    sources.append(logged.source)
    print(f"a run on {file} says that its data was {logged.source}")
same = len(set(sources)) == 1 and "january" in sources[1]
sys.exit(not (list(seen.values()) == [True, True, True, True, False, False] and same))
PY
