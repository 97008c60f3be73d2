"""Metrics of drift, which `services/drift` detects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kserve.logging import logger
from prometheus_client import Counter, Gauge

from services.drift.answers import DriftError
from services.drift.reference import Reference
from services.drift.windows import Window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

OF = ("model", "version", "alias")
REFERENCE = Gauge("ml_drift_reference_rows", "Held-out answers to compare with; 0 if drift is not detected.", OF)
OPEN = Gauge("ml_drift_window_answers", "Answers in the open window.", OF)
P_VALUE = Gauge("ml_drift_p_value", "p-value of a test, corrected for the number of tests.", [*OF, "test"])
DETECTED = Gauge("ml_drift_detected", "Windows in a row, up to the last one, that differ from the reference.", OF)
TESTED = Counter("ml_drift_windows", "Windows that were tested.", OF)


class Watch:
    """Watches a model's answers. Its errors do not stop the model."""

    def __init__(self, labels: tuple[str, str, str], folder: Path, seconds: float) -> None:
        """`labels`: name, version and alias of the model; `folder`: its files; `seconds`: a window's least time."""
        self._labels = labels
        self._window: Window | None = None
        self._rows, self._open = REFERENCE.labels(*labels), OPEN.labels(*labels)
        try:
            reference = Reference.read(folder)
        except DriftError as error:
            logger.warning("drift of version %s of %s is not detected: %s", labels[1], labels[0], error)
            return
        self._window = Window(reference, seconds)
        self._rows.set(reference.rows)

    def add(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Add a model's answers."""
        if self._window is None:
            return
        try:
            verdict = self._window.add(outputs)
        except Exception:
            logger.exception("drift is no longer detected")
            self._window = None
            self._rows.set(0)
            DETECTED.clear()
            P_VALUE.clear()
            return
        self._open.set(self._window.answers)
        if verdict is None:
            return
        for test, value in verdict.p_values.items():
            P_VALUE.labels(*self._labels, test).set(value)
        TESTED.labels(*self._labels).inc()
        detected = DETECTED.labels(*self._labels)
        if not verdict.drifted:
            detected.set(0)
            return
        detected.inc()
        found = ", ".join(f"{test} {value:.2g}" for test, value in verdict.p_values.items())
        logger.warning("%d answers differ from those of the evaluation: p of %s", verdict.answers, found)
