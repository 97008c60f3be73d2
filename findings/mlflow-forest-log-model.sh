#!/usr/bin/env bash
# MLflow: log_model refuses the forest that autolog has just stored.
#
# With:      mlflow-skinny 3.17.2, scikit-learn 1.9.1, skops 0.16.0, all settings as they come.
# Program:   a RandomForestClassifier and a LogisticRegression; each stored by autolog and by
#            mlflow.sklearn.log_model(model, name="model").
# Expected:  what one of MLflow's two ways stores, the other stores too.
# Seen:      log_model writes skops' format and stops at skops' list of trusted types, where the tree
#            structure behind every forest is missing. autolog writes cloudpickle, and stores both. A script
#            that changes from one way to the other loses its model, for one kind of estimator only.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  mlflow-skinny==3.17.2 scikit-learn==1.9.1 skops==0.16.0 numpy==2.4.6 pandas==3.1.1 \
  sqlalchemy==2.1.9 alembic==1.20.1 || exit 2

cd "$work"
export HOME=$work MLFLOW_DISABLE_TELEMETRY=true MLFLOW_TRACKING_URI=sqlite:///mlflow.db
"$work/venv/bin/python" -W ignore - 2>program.log <<'PY' || { code=$?; tail -n 20 program.log; exit "$code"; }
import sys

import mlflow
import numpy
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

DATA = numpy.array([[0.0], [1.0]] * 5)
LABELS = numpy.array([0, 1] * 5)


def by_autolog(model):
    mlflow.sklearn.autolog(log_datasets=False)
    with mlflow.start_run() as run:
        model.fit(DATA, LABELS)
    mlflow.sklearn.autolog(disable=True)
    stored = mlflow.search_logged_models(output_format="list")
    return any(each.source_run_id == run.info.run_id and str(each.status) == "READY" for each in stored)


def by_log_model(model):
    try:
        with mlflow.start_run():
            info = mlflow.sklearn.log_model(model.fit(DATA, LABELS), name="model")
    except mlflow.MlflowException as error:
        return "sklearn.tree._tree.Tree" not in str(error) and None  # None: refused, but for another reason
    return bool(len(mlflow.sklearn.load_model(info.model_uri).predict(DATA)))


seen = {
    "linear, autolog": by_autolog(LogisticRegression()),
    "linear, log_model": by_log_model(LogisticRegression()),
    "forest, autolog": by_autolog(RandomForestClassifier(3)),
    "forest, log_model": by_log_model(RandomForestClassifier(3)),
}
for name, stored in seen.items():
    print(f"{name}: {'stored' if stored else 'refused'}")
sys.exit(list(seen.values()) != [True, True, True, False])
PY
