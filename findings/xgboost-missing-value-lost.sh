#!/usr/bin/env bash
# XGBoost: a stored classifier forgets which number stands for "missing", and MLflow serves it so.
#
# With:      xgboost 3.2.0, mlflow-skinny 3.17.2, scikit-learn 1.9.1.
# Model:     XGBClassifier(missing=-999.0), fitted on a table in which that number stands for a value that was not
#            measured, as in many sensor logs.
# Expected:  a model that is stored and read again predicts what it predicted; or a warning.
# Seen:      save_model writes the trees and the classes, but not `missing`, the one setting of the classifier that
#            predictions depend on too. The loaded model has NaN there, so -999 counts as a very small number: one
#            row in five gets another class.
#            mlflow.xgboost stores with save_model: load_model and the served model (pyfunc) answer the same.
# Way out:   NaN in the table; or set_params(missing=-999.0) after each load, which a model server does not do.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  xgboost==3.2.0 mlflow-skinny==3.17.2 scikit-learn==1.9.1 numpy==2.4.6 pandas==2.3.3 || exit 2

cd "$work"
HOME=$work "$work/venv/bin/python" -W ignore - 2>program.log <<'PY' || { code=$?; tail -n 20 program.log; exit "$code"; }
import sys

import mlflow.pyfunc
import mlflow.xgboost
import numpy
from xgboost import XGBClassifier

NOT_MEASURED = -999.0
random = numpy.random.default_rng(0)
table = random.normal(size=(500, 4)).astype("float32")
table[random.random(table.shape) < 0.3] = NOT_MEASURED
classes = ((table[:, 0] > 0) | (table[:, 1] == NOT_MEASURED)).astype(int)
model = XGBClassifier(n_estimators=20, max_depth=3, missing=NOT_MEASURED).fit(table, classes)
answers = model.predict(table)

model.save_model("model.json")
loaded = XGBClassifier()
loaded.load_model("model.json")
mlflow.xgboost.save_model(model, "stored")
stored = mlflow.xgboost.load_model("stored")
repaired = mlflow.xgboost.load_model("stored").set_params(missing=NOT_MEASURED)
changed = {
    "load_model of xgboost": loaded.predict(table),
    "load_model of mlflow.xgboost": stored.predict(table),
    "served by mlflow.pyfunc": mlflow.pyfunc.load_model("stored").predict(table),
    "load_model and set_params": repaired.predict(table),
}
print(f"missing: {model.missing} before, {loaded.missing} and {stored.missing} after")
shares = {name: float((answer != answers).mean()) for name, answer in changed.items()}
for name, share in shares.items():
    print(f"{name}: {share:.3f} of the rows get another class")
*wrong, right = shares.values()
sys.exit(not (min(wrong) > 0.1 and right == 0 and numpy.isnan([loaded.missing, stored.missing]).all()))
PY
