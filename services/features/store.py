"""Feast as a library: registry and online store in PostgreSQL, offline store in Parquet, and what it needs to be sure.

What Feast does otherwise than one would think, and what is done about it here, is in `README.md`, under Feast.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING
from urllib.parse import quote

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64

from services.features.errors import BAD_DATA, FeaturesError
from services.features.tables import AT, CREATED, TABLES, UTC_TIME, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from services.features.settings import Told

PROJECT = "deliveries"
PLACED = "placed_at"
_TYPES = {"float64": Float64, "int64": Int64}


def config(told: Told, project: str) -> RepoConfig:
    """Feast's settings."""
    address, _, database = told.database.partition("/")
    host, _, port = address.partition(":")
    login = f"{quote(told.user, safe='')}:{quote(told.password, safe='')}"
    return RepoConfig(
        project=project,
        provider="local",
        registry={
            "registry_type": "sql",
            "path": f"postgresql+psycopg://{login}@{told.database}?connect_timeout=5",
            "cache_ttl_seconds": 60,
        },
        online_store={
            "type": "postgres", "host": host, "port": int(port), "database": database, "user": told.user,
            "password": told.password, "sslmode": "disable", # as MLflow's connection: inside the cluster
        },
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
    )  # fmt: skip


class Store:
    """The feature store of some tables.

    Requests are DataFrames with the tables' keys and `placed_at`; they come back with the features as 64-bit numbers,
    NaN where there is no row that counts. All rows of the request come back, in its order.
    """

    def __init__(self, told: Told, tables: Sequence[Table] = TABLES, project: str = PROJECT) -> None:
        self.feast, self._tables, self._folder = FeatureStore(config=config(told, project)), tables, told.folder

    def path(self, table: Table) -> Path:
        """Where a table's rows are."""
        return self._folder / f"{table.name}.parquet"

    def read(self, table: Table) -> pd.DataFrame | None:
        """A table's rows; None if it has never been written."""
        path = self.path(table)
        return pd.read_parquet(path).astype({AT: UTC_TIME, CREATED: UTC_TIME}) if path.exists() else None

    def write(self, table: Table, rows: pd.DataFrame) -> None:
        """Make these the rows of a table; of those with one key and moment the one that was written last.

        Raises:
            FeaturesError: they are not what the table says; all faults are named.
        """
        if faults := list(_faults(table, rows)):
            raise FeaturesError(f"the rows of {table.name} cannot be kept: {'; '.join(faults)}", BAD_DATA)
        unique = rows.assign(**{one: rows[one].astype(UTC_TIME) for one in (AT, CREATED)})
        unique = unique.sort_values([AT, CREATED], kind="stable").drop_duplicates([table.key, AT], keep="last")
        self._folder.mkdir(parents=True, exist_ok=True)
        unique.reset_index(drop=True).to_parquet(self.path(table))

    def apply(self) -> None:
        """Tell Feast's registry of the tables, and make those of the online store; the files must be there."""
        entities = [Entity(name=one.key, join_keys=[one.key], value_type=ValueType.INT64) for one in self._tables]
        views = [
            FeatureView(
                name=one.name,
                entities=[entity],
                ttl=one.lasts,
                schema=[Field(name=feature, dtype=_TYPES[kind]) for feature, kind in one.features.items()],
                source=FileSource(
                    name=one.name, path=str(self.path(one)), timestamp_field=AT, created_timestamp_column=CREATED
                ),
            )
            for one, entity in zip(self._tables, entities, strict=True)
        ]
        with _quiet():
            self.feast.apply([*entities, *views])

    def materialize(self, now: datetime) -> None:
        """Have the newest row of each key served. Always of all that counts now: what is written last is served."""
        for table in self._tables:
            with _quiet():
                self.feast.materialize(start_date=now - table.lasts, end_date=now, feature_views=[table.name])

    def historical(self, orders: pd.DataFrame) -> pd.DataFrame:
        """Orders with the features as of the moment when each was placed, from the offline store.

        Raises:
            FeaturesError: these moments have no time zone. Feast would take them for UTC.
        """
        if not isinstance(orders[PLACED].dtype, pd.DatetimeTZDtype):
            raise FeaturesError(f"{PLACED} has no time zone", BAD_DATA)
        found = orders
        for table in self._tables:
            # One table at a time, and each key and moment once: of several rows with the same Feast gives one back.
            asked = orders[[table.key, PLACED]].drop_duplicates().rename(columns={PLACED: AT})
            with _quiet():
                answer = self.feast.get_historical_features(entity_df=asked, features=_features(table)).to_df()
            answer = answer.rename(columns={AT: PLACED}).astype({PLACED: orders[PLACED].dtype})
            found = _joined(found, answer, table, [table.key, PLACED])
        return found

    def online(self, orders: pd.DataFrame, now: datetime) -> pd.DataFrame:
        """Orders with the features that are served now, from the online store."""
        found = orders
        for table in self._tables:
            keys = [int(key) for key in orders[table.key].unique()]
            answer = self.feast.get_online_features(
                features=_features(table), entity_rows=[{table.key: key} for key in keys]
            ).to_dict(include_event_timestamps=True)
            values = pd.DataFrame({table.key: pd.Series(keys, dtype=orders[table.key].dtype)})
            for feature in table.features:
                # Feast serves rows that are too old as well.
                at = pd.to_datetime(pd.Series(answer[f"{feature}__ts"]), unit="s", utc=True)
                counts = (at <= now) & (at >= now - table.lasts)
                values[feature] = pd.Series(answer[feature], dtype="float64").where(counts)
            found = _joined(found, values, table, [table.key])
        return found


def _features(table: Table) -> list[str]:
    return [f"{table.name}:{feature}" for feature in table.features]


def _joined(orders: pd.DataFrame, values: pd.DataFrame, table: Table, by: list[str]) -> pd.DataFrame:
    """Every order, with the values where there are some: rows whose feature is too old Feast leaves out."""
    wanted = values[[*by, *table.features]].astype(dict.fromkeys(table.features, "float64"))
    return orders.merge(wanted, on=by, how="left", validate="many_to_one")


def _faults(table: Table, rows: pd.DataFrame) -> list[str]:
    expected = {table.key: "int64", **table.features}
    faults = [f"there is no column {one}" for one in (*expected, AT, CREATED) if one not in rows]
    # Feast trains with the file's type, and serves the declared one.
    faults += [
        f"{name} is {rows[name].dtype}, not {kind}" for name, kind in expected.items()
        if name in rows and rows[name].dtype != kind
    ]  # fmt: skip
    # It takes times without a zone for UTC; and those of served rows it tells to the second.
    for name in (AT, CREATED):
        if name not in rows:
            continue
        if not isinstance(rows[name].dtype, pd.DatetimeTZDtype):
            faults.append(f"{name} has no time zone")
        elif (rows[name] != rows[name].dt.floor("s")).any():
            faults.append(f"{name} has missing times, or parts of seconds")
    # It joins what was written later than it counts from, as if it had been known; nobody was served it.
    if not faults and (late := int((rows[CREATED] > rows[AT]).sum())):
        faults.append(f"{late} rows are written after {AT}, from which they count")
    return faults


def _quiet() -> contextlib.ExitStack:
    """Keeps Feast's progress from the output."""
    stack = contextlib.ExitStack()
    for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
        stack.enter_context(redirect(io.StringIO()))
    return stack
