"""The variants of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

if TYPE_CHECKING:
    from digits.data import Dataset


def train_sklearn(data: Dataset, seed: int) -> Any:
    """A linear model on an approximated kernel: as good as a support vector machine here, and quicker to ask."""
    kernel = Nystroem(gamma=0.02, n_components=300, random_state=seed)
    model = make_pipeline(MinMaxScaler(), kernel, LogisticRegression(C=100.0, max_iter=2000, random_state=seed))
    return model.fit(data.pixels, data.labels)


def train_bad(data: Dataset, seed: int) -> Any:
    """The same on shuffled labels: what a fault in a data pipeline makes, and what the gate is there for."""
    shuffled = np.random.default_rng(seed).permutation(data.labels)
    return train_sklearn(type(data)(data.version, data.pixels, shuffled), seed)
