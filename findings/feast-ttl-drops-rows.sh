#!/usr/bin/env bash
# Feast: a training row whose feature is too old vanishes from the training set, label and all.
#
# With:      feast 0.67.0 and its Dask offline store (the default for files).
# Data:      three labelled rows: a driver with a fresh feature, one whose newest feature is older than
#            the feature view's ttl, one without any feature.
# Expected:  three rows back, with an empty feature for the second and the third: the labels are the
#            caller's, and a row without any feature is kept.
# Seen:      two rows: the driver without any feature stays, the one with an expired feature is gone.
#            No warning. The same happens to a row whose features are all newer than its timestamp.
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
import datetime as dt
import sys
import tempfile

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64

MOMENT = pd.Timestamp("2026-03-01T12:00:00Z")
HOUR = pd.Timedelta(hours=1)


def drivers_left(second_feature_at):
    """The drivers in the training set; the second one's only feature has the given timestamp."""
    folder = tempfile.mkdtemp(dir=".")
    path = f"{folder}/rows.parquet"
    pd.DataFrame({"driver": [1, 2], "at": [MOMENT - HOUR, second_feature_at], "trips": [10, 20]}).to_parquet(path)
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
        ttl=dt.timedelta(hours=2),
        schema=[Field(name="trips", dtype=Int64)],
        source=FileSource(path=path, timestamp_field="at"),
    )
    store.apply([driver, view])
    labelled = pd.DataFrame({"driver": [1, 2, 3], "event_timestamp": [MOMENT] * 3, "label": [1, 0, 1]})
    frame = store.get_historical_features(entity_df=labelled, features=["stats:trips"]).to_df()
    return sorted(frame["driver"].tolist())


seen = {
    "fresh": drivers_left(MOMENT - HOUR),
    "expired": drivers_left(MOMENT - 5 * HOUR),
    "in the future": drivers_left(MOMENT + 5 * HOUR),
}
for name, left in seen.items():
    print(f"driver 2's feature {name}: asked for drivers [1, 2, 3], got {left}")
sys.exit(list(seen.values()) != [[1, 2, 3], [1, 3], [1, 3]])
PY
