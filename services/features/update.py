"""One pass: new rows of the offline store, the online store, the skew between both, and the rows to train with."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3  # type: ignore[import-untyped]
import pandas as pd
import psycopg
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from services.features import columns, orders, tables
from services.features.errors import BAD_DATA, FeaturesError
from services.features.store import Store
from services.features.tables import AT, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.features.settings import Told

DAYS = timedelta(days=14)
"""How far back orders are trained with."""
HOURS = 24 * DAYS.days
"""How many hours the first pass goes back."""
TRAINING = "delivery-times.csv"
ASIDE = ["order", "placed_at", "rush"]
"""What the training rows have beside the model's columns and the label."""
LABEL = "minutes"
RUSH = (17, 21)
LOCK = 20260101


class Objects:
    """Files below a prefix of a bucket."""

    def __init__(self, url: str) -> None:
        self._bucket, _, self._prefix = url.removeprefix("s3://").partition("/")
        self._s3 = boto3.client("s3")

    def get(self, path: Path) -> None:
        """Bring a file, if there is one of its name."""
        try:
            content = self._s3.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{path.name}")["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
                return
            raise
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def put(self, path: Path) -> None:
        """Keep a file."""
        self._s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{path.name}", Body=path.read_bytes())


def update(told: Told, moment: datetime | None = None) -> dict[str, Any]:
    """Bring all to a moment in UTC, by default to now; counts of what was done.

    Raises:
        FeaturesError: rows are faulty, or training and serving would differ. The rows to train with are then the old.
    """
    with _alone(told):
        now = moment or datetime.now(UTC).replace(microsecond=0)
        store, objects = Store(told), Objects(told.data_url)
        known = orders.between(now - DAYS - 2 * tables.DAY, now + orders.HOUR)
        known = known[known["placed_at"] <= now]
        added = 0
        for table in TABLES:
            objects.get(store.path(table))
            former = store.read(table)
            # What was not published when it could have been is not made up later: nobody was served it.
            moments = [now] if former is not None else [now - number * orders.HOUR for number in range(HOURS, -1, -1)]
            if former is not None and former[AT].max() >= now:
                raise FeaturesError(f"there are newer rows of {table.name} already, of {former[AT].max()}", BAD_DATA)
            new = tables.rows(table, known, moments)
            added += len(new)
            rows = new if former is None else pd.concat([former, new], ignore_index=True)
            store.write(table, rows[rows[AT] > now - DAYS - tables.DAY])
            objects.put(store.path(table))
        store.apply()
        store.materialize(now)
        compared, differ = skew(store, now)
        if differ:
            raise FeaturesError(f"{differ} of {compared} rows are served otherwise than trained with", BAD_DATA)
        training = rows_to_train(store, known, now)
        file = told.folder / TRAINING
        training.to_csv(file, index=False, lineterminator="\n")
        objects.put(file)
    counts = {"new_rows": added, "training_rows": len(training), "compared": compared, "skew": differ}
    return {"as_of": now.isoformat(), **counts}


def skew(store: Store, now: datetime) -> tuple[int, int]:
    """How many rows were asked of both stores as of `now`, and how many differ in any of the model's columns."""
    asked = orders.every_pair(now)
    trained, served = (columns.of(found) for found in (store.historical(asked), store.online(asked, now)))
    return len(asked), int((trained.to_numpy() != served.to_numpy()).any(axis=1).sum())


def rows_to_train(store: Store, known: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """What the model is trained with: orders whose labels are there, with the features of when they were placed."""
    placed = orders.labelled(known[known["placed_at"] > now - DAYS], now)
    local = placed["placed_at"].dt.tz_convert(orders.CITY).dt.hour
    rush = local.between(RUSH[0], RUSH[1] - 1)
    aside = placed.assign(rush=rush.map({True: "rush", False: "calm"}))[ASIDE]
    return pd.concat([aside, columns.of(store.historical(placed)), placed[[LABEL]]], axis=1)


@contextmanager
def _alone(told: Told) -> Iterator[None]:
    """No other pass runs meanwhile, on whatever node."""
    login = f"{quote(told.user, safe='')}:{quote(told.password, safe='')}"
    with psycopg.connect(f"postgresql://{login}@{told.database}", connect_timeout=5, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield
