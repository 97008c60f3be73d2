"""What is looked at of a model's answers; its inputs are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LABEL, PROBABILITIES = "label", "probabilities"
"""A classifier's outputs, as the model server names them."""
CLASS, CONFIDENCE, LAYER, VALUE = "class", "confidence", "layer", "value"
"""The parts of an answer, and the tests of them."""
MOST_COLUMNS = 64
SMALLEST = 1e-12
"""Probabilities below are this one: their logarithms would be noise."""


class DriftError(Exception):
    """Nothing can be said about a model's drift; why."""


def rows_of(outputs: Mapping[str, NDArray[Any]]) -> int:
    """How many rows outputs have.

    Raises:
        DriftError: not all have as many.
    """
    shapes = {name: np.shape(values) for name, values in outputs.items()}
    if len({shape[:1] for shape in shapes.values()}) != 1 or () in shapes.values():
        raise DriftError(f"the model's outputs are no rows: {shapes}")
    return len(next(iter(outputs.values())))


def parts(outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The parts of the answers to n rows that tests look at.

    Of a classifier with probabilities (n, k): `class` (n,), `confidence` (n, 1), its highest probability, and `layer`
    (n, k), the logarithms of the probabilities around their mean: what the last layer said before they were made of it.
    Of one without: `class`. Of a regression: `value` (n, k). Of more than 64 columns there are 64, at equal distances.

    Raises:
        DriftError: the answers are neither classes nor numbers.
    """
    rows_of(outputs)
    likely = outputs.get(PROBABILITIES)
    if likely is not None and likely.dtype.kind == "f" and likely.ndim == 2:
        label = outputs[LABEL].ravel() if LABEL in outputs else likely.argmax(axis=1)
        if len(label) != len(likely):
            raise DriftError(f"{len(label)} labels in {len(likely)} rows")
        logarithms = np.log(np.maximum(likely, SMALLEST))
        around = _columns(logarithms - logarithms.mean(axis=1, keepdims=True))
        return {CLASS: label, CONFIDENCE: likely.max(axis=1, keepdims=True).astype(np.float32), LAYER: around}
    answers = outputs.get(LABEL, next(iter(outputs.values())))
    if answers.dtype.kind == "f":
        return {VALUE: _columns(answers.reshape(len(answers), -1))}
    if answers.dtype.kind in "biuSUO" and answers.size == len(answers):
        return {CLASS: answers.ravel()}
    raise DriftError(f"answers of type {answers.dtype} and shape {answers.shape} are neither classes nor numbers")


def _columns(values: NDArray[Any]) -> NDArray[np.float32]:
    count = values.shape[1]
    if count > MOST_COLUMNS:
        values = values[:, np.linspace(0, count - 1, MOST_COLUMNS).astype(int)]
    return values.astype(np.float32)
