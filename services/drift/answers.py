"""The parts of a model's answers that drift detection compares."""

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
MAX_COLUMNS = 64
MIN_PROBABILITY = 1e-12
"""Smaller probabilities are raised to it: their logarithms would be noise."""


class DriftError(Exception):
    """Drift of a model cannot be detected."""


def rows_of(outputs: Mapping[str, NDArray[Any]]) -> int:
    """The number of rows of outputs.

    Raises:
        DriftError: the outputs differ in it.
    """
    shapes = {name: np.shape(values) for name, values in outputs.items()}
    if len({shape[:1] for shape in shapes.values()}) != 1 or () in shapes.values():
        raise DriftError(f"the model's outputs have no common number of rows: {shapes}")
    return len(next(iter(outputs.values())))


def parts(outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The parts of the answers to n rows, by test.

    For a classifier with probabilities (n, k): `class` (n,), `confidence` (n, 1), the highest probability, and `layer`
    (n, k), the log-probabilities minus their mean, as the last layer's logits. For one without: `class`. For a
    regression: `value` (n, k). Of more than 64 columns it takes 64, evenly spaced.

    Raises:
        DriftError: the answers are neither classes nor numbers.
    """
    rows_of(outputs)
    probabilities = outputs.get(PROBABILITIES)
    if probabilities is not None and probabilities.dtype.kind == "f" and probabilities.ndim == 2:
        label = outputs[LABEL].ravel() if LABEL in outputs else probabilities.argmax(axis=1)
        if len(label) != len(probabilities):
            raise DriftError(f"{len(label)} labels in {len(probabilities)} rows")
        logarithms = np.log(np.maximum(probabilities, MIN_PROBABILITY))
        around = _columns(logarithms - logarithms.mean(axis=1, keepdims=True))
        return {CLASS: label, CONFIDENCE: probabilities.max(axis=1, keepdims=True).astype(np.float32), LAYER: around}
    answers = outputs.get(LABEL, next(iter(outputs.values())))
    if answers.dtype.kind == "f":
        return {VALUE: _columns(answers.reshape(len(answers), -1))}
    if answers.dtype.kind in "biuSUO" and answers.size == len(answers):
        return {CLASS: answers.ravel()}
    raise DriftError(f"answers of type {answers.dtype} and shape {answers.shape} are neither classes nor numbers")


def _columns(values: NDArray[Any]) -> NDArray[np.float32]:
    count = values.shape[1]
    if count > MAX_COLUMNS:
        values = values[:, np.linspace(0, count - 1, MAX_COLUMNS).astype(int)]
    return values.astype(np.float32)
