#!/usr/bin/env bash
# Feast: a feature declared as Int64 is trained with 0.7 and served as 0.
#
# With:      feast 0.67.0, its Dask offline store (the default for files) and its SQLite online store.
# Data:      a Parquet file with a column of rates 0.7 and 1.9, declared as Int64 in the feature view, as happens where
#            a count becomes a rate; and the same column declared as String and as Float64.
# Expected:  apply or materialize refuses, as it does for Bool; or training and serving read the same values.
# Seen:      get_historical_features takes the file's type: 0.7 and 1.9. materialize takes the declared one and cuts:
#            0 and 1 are served, without a warning. As String the model gets 0.7 in training and '0.7' in serving.
#            Declared as Float64 both are equal.
# Way out:   compare the file's schema with the declared one in a test.
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

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Bool, Float64, Int64, String

MOMENT = pd.Timestamp("2026-03-01T12:00:00Z")
pd.DataFrame({"driver": [1, 2], "event_timestamp": [MOMENT, MOMENT], "rate": [0.7, 1.9]}).to_parquet("rates.parquet")
asked = pd.DataFrame({"driver": [1, 2], "event_timestamp": [MOMENT, MOMENT]})


def trained_and_served(declared):
    """The feature as both stores answer it, where it is declared so."""
    config = RepoConfig(
        project="rides",
        provider="local",
        registry=f"{declared}.db",
        online_store={"type": "sqlite", "path": f"{declared}-online.db"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    view = FeatureView(
        name="rides",
        entities=[driver],
        ttl=dt.timedelta(0),
        schema=[Field(name="rate", dtype=declared)],
        source=FileSource(path="rates.parquet", timestamp_field="event_timestamp"),
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.apply([driver, view])
        store.materialize(dt.datetime(2026, 2, 1), dt.datetime(2026, 4, 1))
        rows = store.get_historical_features(entity_df=asked, features=["rides:rate"]).to_df()
        online = store.get_online_features(features=["rides:rate"], entity_rows=[{"driver": 1}, {"driver": 2}])
    return rows.sort_values("driver")["rate"].tolist(), online.to_dict()["rate"]


seen = {str(declared): trained_and_served(declared) for declared in (Int64, String, Float64)}
for declared, (trained, served) in seen.items():
    print(f"{declared}: trained {trained}, served {served}")
try:
    print(f"Bool: {trained_and_served(Bool)}")
    refused = False
except AssertionError as error:
    print(f"Bool: refused, {error}")
    refused = True
rates = [0.7, 1.9]
sys.exit(not (refused and list(seen.values()) == [(rates, [0, 1]), (rates, ["0.7", "1.9"]), (rates, rates)]))
PY
