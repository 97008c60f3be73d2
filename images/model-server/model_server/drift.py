"""Whether a model is asked what its evaluation asked it, as metrics; `services/drift` says how that is told."""

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
REFERENCE = Gauge("ml_drift_reference_rows", "Held-out answers to compare with; 0: none, there are no verdicts.", OF)
OPEN = Gauge("ml_drift_window_answers", "Answers in the window that is open.", OF)
P_VALUE = Gauge("ml_drift_p_value", "Of the last window, corrected for the number of tests.", [*OF, "test"])
DETECTED = Gauge("ml_drift_detected", "Windows in a row, up to the last one, that differ from the reference.", OF)
JUDGED = Counter("ml_drift_windows", "Windows that were judged.", OF)


class Watch:
    """Looks on while a model answers. Whatever it trips over, the model goes on answering."""

    def __init__(self, labels: tuple[str, str, str], folder: Path, seconds: float) -> None:
        """`labels`: name, version and alias of the model; `folder`: its files; `seconds`: a window's least duration."""
        self._labels = labels
        self._window: Window | None = None
        self._rows, self._open = REFERENCE.labels(*labels), OPEN.labels(*labels)
        try:
            reference = Reference.read(folder)
        except DriftError as error:
            logger.warning("no verdicts about drift of version %s of %s: %s", labels[1], labels[0], error)
            return
        self._window = Window(reference, seconds)
        self._rows.set(reference.rows)

    def note(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Take a model's answers."""
        if self._window is None:
            return
        try:
            verdict = self._window.add(outputs)
        except Exception:
            logger.exception("no verdicts about drift any more")
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
        JUDGED.labels(*self._labels).inc()
        detected = DETECTED.labels(*self._labels)
        if not verdict.drifted:
            detected.set(0)
            return
        detected.inc()
        found = ", ".join(f"{test} {value:.2g}" for test, value in verdict.p_values.items())
        logger.warning("%d answers are not distributed as those of the evaluation: p of %s", verdict.answers, found)
