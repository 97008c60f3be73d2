#!/usr/bin/env bash
# Feast: a backfill of older days puts the online features back to those days, and nothing repairs them.
#
# With:      feast 0.67.0, its Dask offline store (the default for files) and its SQLite online store.
# Data:      one driver with a feature row five days old (10 trips) and one a day old (20 trips).
# Calls:     materialize of the last two days, then materialize of the days before, as one fills a gap;
#            then materialize_incremental; and write_to_online_store with the older row, as a late event does.
# Expected:  the online store keeps the row with the newest event timestamp ("only the latest", say its docs), which
#            is the one that get_historical_features joins, in whatever order the rows arrive.
# Seen:      the store compares no timestamps: the last write wins. The driver is served 10 trips, also after
#            materialize_incremental, which goes on from where the newest days ended. Training reads 20.
# Way out:   backfill in the order of time, and materialize the newest days again after each.
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
from feast.types import Int64

NOW = pd.Timestamp.now(tz="UTC").floor("s")
DAY = pd.Timedelta(days=1)

older = pd.DataFrame({"driver": [1], "at": [NOW - 5 * DAY], "trips": [10]})
newer = pd.DataFrame({"driver": [1], "at": [NOW - 1 * DAY], "trips": [20]})
pd.concat([older, newer]).to_parquet("rows.parquet")
store = FeatureStore(
    config=RepoConfig(
        project="p",
        provider="local",
        registry="registry.db",
        online_store={"type": "sqlite", "path": "online.db"},
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
    )
)
driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
view = FeatureView(
    name="stats",
    entities=[driver],
    ttl=dt.timedelta(days=30),
    schema=[Field(name="trips", dtype=Int64)],
    source=FileSource(path="rows.parquet", timestamp_field="at"),
)
store.apply([driver, view])


def served(call, *arguments):
    """What the online store answers after a call."""
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        call(*arguments)
    return store.get_online_features(features=["stats:trips"], entity_rows=[{"driver": 1}]).to_dict()["trips"][0]


def at(days):
    return (NOW - days * DAY).to_pydatetime()


asked = pd.DataFrame({"driver": [1], "event_timestamp": [NOW]})
seen = {
    "served, last two days materialized": served(store.materialize, at(2), at(0)),
    "served after a backfill of older days": served(store.materialize, at(6), at(4)),
    "served after materialize_incremental": served(store.materialize_incremental, at(0)),
    "served after the last two days again": served(store.materialize, at(2), at(0)),
    "served after a late event": served(store.write_to_online_store, "stats", older),
    "read by training": store.get_historical_features(entity_df=asked, features=["stats:trips"]).to_df()["trips"][0],
}
for name, trips in seen.items():
    print(f"{name}: {trips}")
sys.exit(list(seen.values()) != [20, 10, 10, 20, 10, 20])
PY
