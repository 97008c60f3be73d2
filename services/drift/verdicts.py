"""Tests whether answers have the distribution of a reference's: one test for each part, one alarm for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import chdtrc, kolmogorov

from services.drift.answers import CLASS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from services.drift.reference import Reference

ALPHA = 0.01
"""The false positive rate of a window, over all tests."""
MIN_EXPECTED = 5
"""Classes that are expected less often are counted as one."""


def p_values(reference: Reference, window: dict[str, NDArray[Any]]) -> dict[str, float]:
    """The p-value of each test; below `ALPHA` the answers have changed.

    They are corrected for the number of tests and of a part's columns (Bonferroni), so that each is compared with the
    same limit. `window` is as `Reference.encode` returns it, n rows in each part.
    """
    found = {
        name: _chi_square(known.ravel(), window[name].ravel())
        if name == CLASS
        else _kolmogorov_smirnov(known, window[name])
        for name, known in reference.parts.items()
    }
    return {name: min(1.0, p * len(found)) for name, p in found.items()}


def _kolmogorov_smirnov(reference: NDArray[Any], window: NDArray[Any]) -> float:
    rows, others = len(reference), len(window)
    farthest = 0.0
    for one, other in zip(np.sort(reference.T), np.sort(window.T), strict=True):
        both = np.concatenate([one, other])
        shares = one.searchsorted(both, "right") / rows, other.searchsorted(both, "right") / others
        farthest = max(farthest, float(np.abs(shares[0] - shares[1]).max()))
    # Stephens (1970): the limit distribution for these sample sizes, to some hundredths of p.
    size = np.sqrt(rows * others / (rows + others))
    p = float(kolmogorov((size + 0.12 + 0.11 / size) * farthest))
    return p * len(reference.T)


def _chi_square(reference: NDArray[Any], window: NDArray[Any]) -> float:
    """Of two samples of class indices. Classes that the reference does not have count with its rare ones."""
    classes = int(reference.max()) + 1
    counts = np.array([np.bincount(part + 1, minlength=classes + 1) for part in (reference, window)])
    expected = counts.sum(axis=0) * min(len(reference), len(window)) / counts.sum()
    rare = expected < MIN_EXPECTED
    counts = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 1.0
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    return float(chdtrc(counts.shape[1] - 1, ((counts - expected) ** 2 / expected).sum()))
