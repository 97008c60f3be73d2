"""Handwritten digits: 1,797 images of 8 by 8 pixels, which come with scikit-learn. Settings: model.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIXELS, CLASSES, BRIGHTEST = 64, 10, 16
DIGIT = "digit"
ROWS_OF_CLASS = 100
"""With fewer, a digit's score is mostly chance."""


def data() -> pd.DataFrame:
    """The images as scikit-learn ships them, one per row."""
    pixels, digits = load_digits(return_X_y=True)
    columns = [*(f"pixel{number}" for number in range(PIXELS)), DIGIT]
    return pd.DataFrame(np.column_stack([pixels, digits]).astype(int), columns=columns)


def faults(rows: pd.DataFrame) -> Iterator[str]:
    """Why rows cannot be trained on."""
    if rows.shape[1] != PIXELS + 1:
        yield f"{rows.shape[1]} columns, not {PIXELS} pixels and a digit"
        return
    numbers = rows.apply(pd.to_numeric, errors="coerce")
    pixels, digits = numbers.drop(columns=DIGIT).to_numpy(), numbers[DIGIT].to_numpy()
    wrong = ~((pixels >= 0) & (pixels <= BRIGHTEST)).all(axis=1)  # NaN too
    if wrong.any():
        yield f"{wrong.sum()} rows with pixels outside 0 to {BRIGHTEST}, the first in line {wrong.argmax() + 2}"
    wrong = ~np.isin(digits, range(CLASSES))
    if wrong.any():
        yield f"{wrong.sum()} labels that are not digits, the first in line {wrong.argmax() + 2}"
    for digit in range(CLASSES):
        if (count := int((digits == digit).sum())) < ROWS_OF_CLASS:
            yield f"{count} images of {digit}, fewer than {ROWS_OF_CLASS}"


def train(pixels: np.ndarray, digits: np.ndarray, seed: int, variant: str | None) -> Any:
    """A linear model on an approximated kernel: as good as a support vector machine here, and faster to predict.

    The variant `torch` is a small network. The variant `bad` learns from shuffled labels, as after a bug in a data
    pipeline: the gate must refuse it.
    """
    if variant == "torch":
        import network  # noqa: PLC0415 - torch takes seconds to import

        return network.train(pixels, digits, seed)
    if variant == "bad":
        digits = np.random.default_rng(seed).permutation(digits)
    kernel = Nystroem(gamma=0.02, n_components=300, random_state=seed)
    model = make_pipeline(MinMaxScaler(), kernel, LogisticRegression(C=100.0, max_iter=2000, random_state=seed))
    return model.fit(pixels, digits)


def evaluate(predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Whether the model predicts each image correctly, (n,)."""
    return predict(pixels) == digits
