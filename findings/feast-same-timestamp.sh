#!/usr/bin/env bash
# Feast: of two feature rows with one timestamp, training reads the last and serving the first.
#
# With:      feast 0.67.0, its Dask offline store (the default for files) and its SQLite online store.
# Data:      one entity; rows of its feature with equal event timestamps, no column of creation times.
# Expected:  get_historical_features and get_online_features answer the same row, whichever Feast picks;
#            else the model is served values that it was not trained on.
# Seen:      the offline store keeps the last row of the file, materialize the first.
# Way out:   one row for each key and timestamp in the file. A `created_timestamp_column` helps few rows alone:
#            feast-created-timestamp.sh.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  feast==0.67.0 pandas==2.3.3 numpy==2.4.6 dask==2026.8.0 pyarrow==26.0.1 || exit 2

cd "$work"
HOME=$work FEAST_USAGE=False "$work/venv/bin/python" -W ignore - <<'PY'
import contextlib
import datetime as dt
import io
import sys
import tempfile

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64

MOMENT = pd.Timestamp.now(tz="UTC").floor("s") - pd.Timedelta(hours=3)
MINUTE = pd.Timedelta(minutes=1)


def answers(values, created=None):
    """What training and serving read for rows that differ in nothing but their value (and creation time)."""
    folder = tempfile.mkdtemp(dir=".")
    rows = {"driver": [1] * len(values), "at": [MOMENT] * len(values), "trips": values}
    source = {"path": f"{folder}/rows.parquet", "timestamp_field": "at"}
    if created:
        rows["made"] = created
        source["created_timestamp_column"] = "made"
    pd.DataFrame(rows).to_parquet(source["path"])
    store = FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=f"{folder}/registry.db",
            online_store={"type": "sqlite", "path": f"{folder}/online.db"},
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
        )
    )
    driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    view = FeatureView(
        name="stats",
        entities=[driver],
        ttl=dt.timedelta(days=1),
        schema=[Field(name="trips", dtype=Int64)],
        source=FileSource(**source),
    )
    store.apply([driver, view])
    asked = pd.DataFrame({"driver": [1], "event_timestamp": [MOMENT + 60 * MINUTE]})
    training = store.get_historical_features(entity_df=asked, features=["stats:trips"]).to_df()["trips"].tolist()
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        hour = 60 * MINUTE
        store.materialize(start_date=(MOMENT - hour).to_pydatetime(), end_date=(MOMENT + hour).to_pydatetime())
    serving = store.get_online_features(features=["stats:trips"], entity_rows=[{"driver": 1}]).to_dict()["trips"]
    return training, serving


seen = {
    "rows 10, 20": answers([10, 20]),
    "rows 20, 10": answers([20, 10]),
    "rows 10, 20 with creation times": answers([10, 20], created=[MOMENT + MINUTE, MOMENT + 2 * MINUTE]),
}
for name, (training, serving) in seen.items():
    print(f"{name}: training {training}, serving {serving}")
recorded = [([20], [10]), ([10], [20]), ([20], [20])]
sys.exit(list(seen.values()) != recorded)
PY
