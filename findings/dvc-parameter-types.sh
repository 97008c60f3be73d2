#!/usr/bin/env bash
# DVC: a parameter changed from 1 to 1.0 leaves the old model, and DVC reports that nothing changed.
#
# With:      dvc 3.67.1, scikit-learn 1.9.1, ruamel.yaml as DVC installs it.
# Stage:     fits a forest with `max_features` of params.yaml, once 1 and then 1.0. To scikit-learn the first is one
#            feature a split and the second all of them; min_samples_leaf, max_samples and test_size are alike.
# Expected:  `dvc repro` runs the stage again, and `dvc params diff` shows the change: the file differs, and so does
#            the model.
# Seen:      "Stage 'train' didn't change, skipping", and an empty diff. DVC compares the values as Python does,
#            where 1, 1.0 and true are equal. dvc.lock keeps the old value beside the new file, and a run with
#            --force gives a model with other predictions.
# Way out:   dvc repro --force after such a change.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  dvc==3.67.1 scikit-learn==1.9.1 numpy==2.4.6 || exit 2

mkdir "$work/repository"
cd "$work/repository"
export HOME=$work PATH=$work/venv/bin:$PATH DVC_NO_ANALYTICS=true
git init --quiet
git config user.name "A Name"
git config user.email name@example.org
dvc init --quiet
cat > train.py <<'PY'
from pathlib import Path

from ruamel.yaml import YAML
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

table, classes = load_wine(return_X_y=True)
chosen = YAML(typ="safe").load(Path("params.yaml"))["forest"]["max_features"]
forest = RandomForestClassifier(n_estimators=10, max_depth=2, max_features=chosen, random_state=0)
Path("predictions.txt").write_text(repr(forest.fit(table, classes).predict_proba(table)[:3].round(2).tolist()))
PY
cat > dvc.yaml <<'YAML'
stages:
  train:
    cmd: python train.py
    deps: [train.py]
    params: [forest.max_features]
    outs: [predictions.txt]
YAML
echo "forest: {max_features: 1}" > params.yaml
dvc repro --quiet
git add --all
git commit --quiet --message "one feature"
cp predictions.txt ../before.txt

echo "forest: {max_features: 1.0}" > params.yaml
dvc repro 2>&1 | tee ../repro.txt
echo "dvc params diff: '$(dvc params diff | tee ../diff.txt)'"
cp predictions.txt ../skipped.txt
dvc repro --quiet --force
cd ..
printf 'with 1:             %s\nwith 1.0:           %s\nwith 1.0 and force: %s\n' \
  "$(cat before.txt)" "$(cat skipped.txt)" "$(cat repository/predictions.txt)"
grep --quiet "Stage 'train' didn't change, skipping" repro.txt &&
  [ ! -s diff.txt ] && cmp --quiet before.txt skipped.txt && ! cmp --quiet before.txt repository/predictions.txt
