"""Minutes from an order to its delivery, of features that the feature store kept. The settings are in model.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = "s3://datasets/features/delivery-times.csv"
"""Written each hour by services/features: orders whose labels are there, with the features of when they were placed."""
COLUMNS = [
    "distance_km", "items", "hour", "weekday", "preparation_minutes", "restaurant_orders", "minutes_per_km",
    "courier_deliveries",
]  # fmt: skip
"""In the order that the service of the features sends them in."""
OF_ORDER = 4
"""How many of them the order itself tells."""
LONGEST, NEAR = 240, 5
"""Minutes: a delivery that took longer is a fault of the data; what is near enough."""


def data() -> pd.DataFrame:
    """The rows as the feature store wrote them; of a stack without one there are none."""
    try:
        return pd.read_csv(ROWS, float_precision="round_trip")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no {ROWS}: platform/features writes it, which profile lab has (docs/how-to/features.md)"
        ) from None


def faults(rows: pd.DataFrame) -> Iterator[str]:
    """Why rows cannot be trained on."""
    found = [column for column in rows.columns if column not in {"order", "placed_at", "rush", "minutes"}]
    if found != COLUMNS:
        yield f"the columns are {', '.join(found)}, not {', '.join(COLUMNS)}"
        return
    if missing := int(rows[COLUMNS].isna().any(axis=1).sum()):
        yield f"{missing} rows with missing features"
    if wrong := int((~rows["minutes"].between(1, LONGEST)).sum()):
        yield f"{wrong} deliveries of less than 1 or more than {LONGEST} minutes"
    if twice := int(rows["order"].duplicated().sum()):
        yield f"{twice} orders that are there twice"


def train(
    features: np.ndarray, minutes: np.ndarray, seed: int, variant: str | None = None
) -> HistGradientBoostingRegressor:
    """Trees that predict the median. The variant `blind` does not see what the feature store knows."""
    if variant == "blind":
        features = features.copy()
        features[:, OF_ORDER:] = -1
    model = HistGradientBoostingRegressor(loss="absolute_error", max_iter=100, learning_rate=0.1, random_state=seed)
    return model.fit(features, minutes)


def evaluate(predict: Callable[[np.ndarray], np.ndarray], features: np.ndarray, minutes: np.ndarray) -> np.ndarray:
    """Whether the model is right about each order: within five minutes."""
    return np.abs(predict(features) - minutes) <= NEAR
