"""The feature tables: what each has, how long a row of it counts, and how its rows are made of orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pandas as pd

from services.features.orders import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

AT, CREATED = "event_timestamp", "created"
"""From when on a row counts, and when it was written: the one not before the other, for it is served from then on."""
UTC_TIME = "datetime64[ns, UTC]"
"""How both are kept: pandas has several types of times in UTC, which it does not put in one column."""
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Table:
    """A feature view: one row for each key and moment."""

    name: str
    key: str
    lasts: timedelta
    """How old a row may be; an older one counts for nothing, in training and in serving."""
    features: Mapping[str, str]
    """Each one's type, as numpy calls it."""
    of_day: Callable[[pd.DataFrame], pd.DataFrame]
    """The features by key, of a day's orders."""


def _restaurants(day: pd.DataFrame) -> pd.DataFrame:
    minutes = (day["ready_at"] - day["placed_at"]).dt.total_seconds() / 60
    of_each = minutes.groupby(day["restaurant"])
    return pd.DataFrame({"preparation_minutes": of_each.mean(), "restaurant_orders": of_each.size()})


def _couriers(day: pd.DataFrame) -> pd.DataFrame:
    of_each = day.assign(ride=(day["delivered_at"] - day["ready_at"]).dt.total_seconds() / 60).groupby("courier")
    return pd.DataFrame(
        {
            "minutes_per_km": of_each["ride"].sum() / of_each["distance_km"].sum(),
            "courier_deliveries": of_each.size(),
        }
    )


RESTAURANTS = Table(
    "restaurants",
    "restaurant",
    3 * HOUR,
    {"preparation_minutes": "float64", "restaurant_orders": "int64"},
    _restaurants,
)
COURIERS = Table(
    "couriers", "courier", 3 * HOUR, {"minutes_per_km": "float64", "courier_deliveries": "int64"}, _couriers
)
TABLES = (RESTAURANTS, COURIERS)


def rows(table: Table, orders: pd.DataFrame, moments: Iterable[datetime]) -> pd.DataFrame:
    """The rows of a table that count from some moments on, of the orders of the day before that were known then."""
    found = []
    for moment in map(pd.Timestamp, moments):
        # An order that was reported later is not known yet, though it was delivered.
        known = orders[(orders["reported_at"] <= moment) & (orders["reported_at"] > moment - DAY)]
        found.append(table.of_day(known).reset_index().assign(**{AT: moment, CREATED: moment}))
    return pd.concat(found, ignore_index=True).astype({AT: UTC_TIME, CREATED: UTC_TIME})
