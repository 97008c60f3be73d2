#!/usr/bin/env bash
# Feast: with a created_timestamp_column, training reads the newest of rows with one timestamp in small files alone.
#
# With:      feast 0.67.0, its Dask offline store (the default for files) and its SQLite online store.
# Data:      drivers, each with three feature rows of one event timestamp: 1, then 3, then 2; the 3 was created last.
# Expected:  training and serving read 3 for every driver: the column is there to tell such rows apart.
# Seen:      of 5 drivers training reads 3 for all; of 300, 1 or 2 for nearly all, and serving 3 for all. The join
#            sorts by the time of creation, then by the event's, with a sort that does not keep the order of equals,
#            and takes the last row; up to 16 rows it happens to. Issue 3360 saw it in 2022, and was closed.
# Way out:   one row for each key and timestamp in the file. feast-same-timestamp.sh is the same without the column.
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
from collections import Counter

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64

MOMENT = pd.Timestamp.now(tz="UTC").floor("s") - pd.Timedelta(hours=3)
MINUTE = pd.Timedelta(minutes=1)


def answers(number):
    """What training and serving read for so many drivers: how often each value."""
    drivers = list(range(number))
    rows = [(driver, value, MOMENT + value * MINUTE) for value in (1, 3, 2) for driver in drivers]
    frame = pd.DataFrame(rows, columns=["driver", "trips", "made"])
    frame["at"] = MOMENT
    frame.to_parquet(f"{number}.parquet")
    store = FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=f"{number}.db",
            online_store={"type": "sqlite", "path": f"online-{number}.db"},
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
        source=FileSource(path=f"{number}.parquet", timestamp_field="at", created_timestamp_column="made"),
    )
    store.apply([driver, view])
    asked = pd.DataFrame({"driver": drivers, "event_timestamp": [MOMENT + 60 * MINUTE] * number})
    training = store.get_historical_features(entity_df=asked, features=["stats:trips"]).to_df()["trips"]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        hour = 60 * MINUTE
        store.materialize(start_date=(MOMENT - hour).to_pydatetime(), end_date=(MOMENT + hour).to_pydatetime())
    rows = [{"driver": driver} for driver in drivers]
    serving = store.get_online_features(features=["stats:trips"], entity_rows=rows).to_dict()["trips"]
    return Counter(training.tolist()), Counter(serving)


few, many = answers(5), answers(300)
for number, (training, serving) in ((5, few), (300, many)):
    print(f"{number} drivers: training {dict(training)}, serving {dict(serving)}")
sys.exit(not (few == ({3: 5}, {3: 5}) and many[0][3] < 30 and many[1] == {3: 300}))
PY
