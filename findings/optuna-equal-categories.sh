#!/usr/bin/env bash
# Optuna: a study reports max_features=1 as the best, where the best trial ran with 1.0.
#
# With:      optuna 5.0.0, scikit-learn 1.9.1.
# Study:     suggest_categorical("max_features", [1, 0.5, 1.0]) for a regression forest; to scikit-learn 1 is one
#            feature a split and 1.0 all of them. bootstrap: [True, 1] and the like are the same case.
# Expected:  best_params is what the best trial ran with, and a forest fitted with it has the study's best score.
# Seen:      trials run with 1.0, and are stored as 1: a choice is stored by its place in the list, which Python
#            finds by ==. The study's history, best_params and a retry of the trial all say 1. The forest that
#            is then fitted with best_params scores less.
# Way out:   texts as choices, such as "1" and "all", and a table of what they mean.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  optuna==5.0.0 scikit-learn==1.9.1 numpy==2.4.6 sqlalchemy==2.1.9 || exit 2

cd "$work"
HOME=$work "$work/venv/bin/python" -W ignore - <<'PY'
import sys

import optuna
from sklearn.datasets import make_regression
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import cross_val_score

optuna.logging.set_verbosity(optuna.logging.ERROR)
table, target = make_regression(n_samples=120, n_features=12, n_informative=2, random_state=0)
used = []


def score(chosen):
    forest = RandomForestRegressor(n_estimators=10, max_features=chosen, random_state=0)
    return float(cross_val_score(forest, table, target, cv=3).mean())


def objective(trial):
    used.append(trial.suggest_categorical("max_features", [1, 0.5, 1.0]))
    return score(used[-1])


as_recorded = []
for storage in (None, "sqlite:///study.db"):
    used.clear()
    study = optuna.create_study(storage=storage, direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(objective, n_trials=10)
    stored = [trial.params["max_features"] for trial in study.trials]
    ran_with = used[study.best_trial.number]
    best = study.best_params["max_features"]
    print("ran with:", used)
    print("stored:  ", stored)
    print(f"best trial: ran with {ran_with!r}, score {study.best_value:.3f}; stored {best!r}, score {score(best):.3f}")
    as_recorded += [
        repr(1.0) in map(repr, used), repr(1.0) not in map(repr, stored), repr(ran_with) == "1.0", repr(best) == "1",
        score(best) < study.best_value - 0.05,
    ]
sys.exit(not all(as_recorded))
PY
