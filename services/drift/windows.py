"""A server's answers in consecutive windows; each is tested when it is full."""

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
"""The answers that are compared. With more, the tests would find ever smaller changes as load grows."""


@dataclass(frozen=True)
class Verdict:
    """The result of a window."""

    p_values: dict[str, float]
    answers: int
    """All answers of the window."""

    @property
    def drifted(self) -> bool:
        """Whether the answers differ from the reference."""
        return min(self.p_values.values()) < ALPHA


class Window:
    """A uniform sample of 300 of the answers since the window opened. Not thread-safe."""

    def __init__(self, reference: Reference, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds`: the least time that a window is open."""
        self._reference, self._seconds, self._clock = reference, seconds, clock
        self._random = np.random.default_rng()
        self._sample = {
            name: np.empty((SIZE, *values.shape[1:]), values.dtype) for name, values in reference.parts.items()
        }
        self.answers, self._opened = 0, clock()

    def add(self, outputs: Mapping[str, NDArray[Any]]) -> Verdict | None:
        """Add a model's outputs, one row per answer; returns the verdict if they close the window, and opens a new one.

        Raises:
            DriftError: they do not have the reference's shape.
        """
        rows = rows_of(outputs)
        places = np.arange(self.answers, self.answers + rows)
        if self.answers + rows > SIZE:
            late = places >= SIZE
            places[late] = self._random.integers(0, places[late] + 1)
        kept = places < SIZE
        if kept.any():
            encoded = self._reference.encode({name: values[kept] for name, values in outputs.items()})
            for name, values in encoded.items():
                self._sample[name][places[kept]] = values
        self.answers += rows
        if self.answers < SIZE or self._clock() - self._opened < self._seconds:
            return None
        verdict = Verdict(p_values(self._reference, self._sample), self.answers)
        self.answers, self._opened = 0, self._clock()
        return verdict
