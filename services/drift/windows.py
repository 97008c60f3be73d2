"""A server's answers, a window after the other; each is judged when it is full."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from services.drift.answers import rows_of
from services.drift.verdicts import ALPHA, p_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from services.drift.reference import Reference

SIZE = 300
"""Answers that are compared. More would find ever smaller changes, so that an alarm came to mean how much is asked."""


@dataclass(frozen=True)
class Verdict:
    """About a window."""

    p_values: dict[str, float]
    answers: int
    """All that were given in it."""

    @property
    def drifted(self) -> bool:
        """Whether its answers are not those of the reference."""
        return min(self.p_values.values()) < ALPHA


class Window:
    """Answers since it was opened, of which 300 are kept: each one as likely as any other. For one thread."""

    def __init__(self, reference: Reference, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds`: it is open at least so long, however much is asked."""
        self._reference, self._seconds, self._clock = reference, seconds, clock
        self._random = np.random.default_rng()
        self._kept = {
            name: np.empty((SIZE, *values.shape[1:]), values.dtype) for name, values in reference.parts.items()
        }
        self.answers, self._opened = 0, clock()

    def add(self, outputs: Mapping[str, NDArray[Any]]) -> Verdict | None:
        """Take a model's outputs, a row an answer; the verdict where they close the window, and a new one is open.

        Raises:
            DriftError: they are not of the reference's shape.
        """
        rows = rows_of(outputs)
        places = np.arange(self.answers, self.answers + rows)
        if self.answers + rows > SIZE:
            late = places >= SIZE
            places[late] = self._random.integers(0, places[late] + 1)
        kept = places < SIZE
        if kept.any():
            taken = self._reference.numbered({name: values[kept] for name, values in outputs.items()})
            for name, values in taken.items():
                self._kept[name][places[kept]] = values
        self.answers += rows
        if self.answers < SIZE or self._clock() - self._opened < self._seconds:
            return None
        verdict = Verdict(p_values(self._reference, self._kept), self.answers)
        self.answers, self._opened = 0, self._clock()
        return verdict
