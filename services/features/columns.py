"""What the model is given of an order: one function, which training rows and requests go through alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.features.orders import CITY
from services.features.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

FEATURES = [feature for table in TABLES for feature in table.features]
COLUMNS = ["distance_km", "items", "hour", "weekday", *FEATURES]
"""In the model's order."""
UNKNOWN = -1.0
"""Of a feature that there is no row for, or only one that is too old; no feature is negative."""


def of(orders: pd.DataFrame) -> pd.DataFrame:
    """The model's columns for orders with their features, a row each, as 64-bit numbers; `placed_at` is in UTC."""
    local = orders["placed_at"].dt.tz_convert(CITY)
    found = orders.assign(hour=local.dt.hour + local.dt.minute / 60, weekday=local.dt.weekday)[COLUMNS]
    return found.astype("float64").fillna(UNKNOWN)
