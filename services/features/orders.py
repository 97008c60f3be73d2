"""The orders of a city's restaurants, from a seeded generator: the same for an hour, whenever it is asked.

It stands in the place of an operational database. Of an order three things are known late: when its food was ready,
when it was delivered, and, from couriers without a connection, that it was.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

SEED = 20260101
RESTAURANTS, COURIERS = 20, 30
CITY = ZoneInfo("America/Chicago")
"""Where noon is when people eat."""
HOUR = timedelta(hours=1)
MATURE = timedelta(hours=8)
"""After so long every order's label is there. Of newer orders only the quick ones have theirs: they are left out."""
_BY_HOUR = (2, 1, 1, 0, 0, 1, 2, 4, 5, 5, 7, 14, 18, 14, 8, 6, 8, 14, 22, 22, 16, 10, 6, 3)
"""Orders in an hour of the city's day, on average."""
_RUSH = range(17, 21)
_OFFLINE = 0.04
"""Share of deliveries that are reported hours later."""
_UTC = "datetime64[ns, UTC]"
_TRAITS = np.random.default_rng(SEED)
_PREPARATION = _TRAITS.uniform(8, 22, RESTAURANTS)
_MINUTES_PER_KM = _TRAITS.uniform(2.2, 5.0, COURIERS)


def between(start: datetime, end: datetime) -> pd.DataFrame:
    """Orders placed in the whole hours from `start` to before `end`, by the time that they were placed.

    Columns: `order`, `restaurant`, `courier`, `distance_km`, `items`; `placed_at`, `ready_at`, `delivered_at`,
    `reported_at` (UTC); `minutes`, from placed to delivered, which is known from `reported_at` on.
    """
    first, last = (int(moment.timestamp()) // 3600 for moment in (start, end))
    return pd.concat([_of_hour(hour) for hour in range(first, last)], ignore_index=True)


def labelled(found: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """Those whose label had arrived by `now`, and that are old enough for all to have theirs."""
    there = (found["reported_at"] <= now) & (found["placed_at"] <= now - MATURE)
    return found[there].reset_index(drop=True)


def every_pair(now: datetime) -> pd.DataFrame:
    """An order placed now for each restaurant with each courier, with one of each that nobody knows."""
    pairs = pd.MultiIndex.from_product(
        [range(RESTAURANTS + 1), range(COURIERS + 1)], names=["restaurant", "courier"]
    ).to_frame(index=False)
    placed = pd.Series(pd.Timestamp(now), index=pairs.index).astype(_UTC)
    return pairs.assign(distance_km=2.5, items=2, placed_at=placed)


def _of_hour(hour: int) -> pd.DataFrame:
    draw = np.random.default_rng([SEED, hour])
    start = datetime.fromtimestamp(hour * 3600, UTC)
    local = start.astimezone(CITY)
    count = int(draw.poisson(_BY_HOUR[local.hour]))
    restaurant, courier = draw.integers(RESTAURANTS, size=count), draw.integers(COURIERS, size=count)
    distance, items = np.round(0.4 + draw.gamma(2.0, 1.1, count), 2), 1 + draw.poisson(1.4, count)
    # A restaurant and a courier have good and bad days: what the features of the last day tell.
    today = np.random.default_rng([SEED, 1, hour // 24])
    kitchen, legs = today.lognormal(0, 0.25, RESTAURANTS), today.lognormal(0, 0.2, COURIERS)
    rush = 1.3 if local.hour in _RUSH else 1.0
    preparation = _PREPARATION[restaurant] * kitchen[restaurant] * rush * draw.lognormal(0, 0.1, count) + 0.5 * items
    ride = distance * _MINUTES_PER_KM[courier] * legs[courier] * draw.lognormal(0, 0.1, count)
    delay = draw.exponential(1.0, count) + np.where(draw.random(count) < _OFFLINE, draw.uniform(60, 300, count), 0)
    placed = pd.Series(pd.to_datetime(hour * 3600 + np.sort(draw.integers(3600, size=count)), unit="s", utc=True))
    placed = placed.astype(_UTC)
    ready = placed + _minutes(preparation)
    delivered = ready + _minutes(ride + 2)
    return pd.DataFrame(
        {
            "order": hour * 1000 + np.arange(count), "restaurant": restaurant, "courier": courier,
            "distance_km": distance, "items": items, "placed_at": placed, "ready_at": ready,
            "delivered_at": delivered, "reported_at": delivered + _minutes(delay),
            "minutes": (delivered - placed).dt.total_seconds() / 60,
        }
    )  # fmt: skip


def _minutes(numbers: np.ndarray) -> pd.Series:
    """Durations, to the second."""
    return pd.Series(pd.to_timedelta(np.round(60 * numbers), unit="s")).astype("timedelta64[ns]")
