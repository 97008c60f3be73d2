#!/usr/bin/env bash
# ONNX Runtime and XGBoost read a big-endian array as if it were little-endian, and answer nonsense.
#
# With:      onnxruntime 1.32.0, onnx 1.23.2, xgboost 3.2.0, lightgbm 4.7.0, scikit-learn 1.9.1, numpy 2.4.6.
# Data:      arrays of the type >f4, as NumPy gets them from FITS images, NetCDF 3, IDX files (the original digits)
#            and many instruments. To NumPy they equal the arrays of <f4; sums, plots and comparisons agree.
# Expected:  the answers for the same numbers, as scikit-learn and LightGBM give them; or a refusal, as
#            onnx's own numpy_helper has it.
# Seen:      an ONNX model that hands its input on turns 1.0 into 4.6e-41. An XGBoost classifier gives half of the rows
#            another class. No error, no warning: both take the buffer and leave the byte order out.
# Way out:   array.astype("float32") before.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 xgboost==3.2.0 lightgbm==4.7.0 scikit-learn==1.9.1 numpy==2.4.6 || exit 2

cd "$work"
HOME=$work "$work/venv/bin/python" -W ignore - <<'PY'
import sys

import lightgbm
import numpy
import onnxruntime
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier

random = numpy.random.default_rng(0)
little = random.normal(size=(200, 3)).astype("<f4")
big = little.astype(">f4")
print("NumPy: equal", numpy.array_equal(little, big))

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString())
(handed_on,) = session.run(None, {"x": numpy.array([[1, 2, 3]], ">f4")})
print("ONNX Runtime: [1, 2, 3] becomes", handed_on[0])
try:
    numpy_helper.from_array(big)
    refused = False
except ValueError as error:
    refused = True
    print("onnx.numpy_helper:", error)

classes = (little[:, 0] > 0).astype(int)
changed = {}
for classifier in (
    xgboost.XGBClassifier(n_estimators=5),
    lightgbm.LGBMClassifier(n_estimators=5, verbose=-1),
    RandomForestClassifier(n_estimators=5, random_state=0),
):
    classifier.fit(little, classes)
    name = type(classifier).__name__
    changed[name] = float((classifier.predict(little) != classifier.predict(big)).mean())
    print(f"{name}: {changed[name]:.2f} of the rows get another class")
sys.exit(
    not (
        numpy.array_equal(little, big)
        and numpy.abs(handed_on).max() < 1e-30
        and refused
        and changed["XGBClassifier"] > 0.2
        and changed["LGBMClassifier"] == changed["RandomForestClassifier"] == 0
    )
)
PY
