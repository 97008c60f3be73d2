"""Runs in the trainer's image, which has numpy: verdicts about the example's own model, as JSON (`test_drift.py`).

Its model is trained on half of the images, so that 899 are left of which no two windows or references of a run share a
row. What is done to images is what was looked at when the detectors were chosen: docs/explanation/monitoring.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from digits import BRIGHTEST, DIGIT, data
from digits import train as train_digits
from scipy import ndimage, stats
from sklearn.model_selection import train_test_split

from services.drift.answers import DriftError
from services.drift.reference import Reference
from services.drift.verdicts import ALPHA, p_values
from services.drift.windows import SIZE, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

QUIET, CHANGED, ROWS = 200, 40, 360
Outputs = dict[str, "NDArray[Any]"]


class Model:
    """The example's, trained on half of its images; and the rest of them."""

    def __init__(self) -> None:
        rows = data()
        pixels, digits = rows.drop(columns=DIGIT).to_numpy(dtype=np.float64), rows[DIGIT].to_numpy()
        train, self.pixels, labels, _ = train_test_split(
            pixels, digits, train_size=len(digits) // 2, stratify=digits, random_state=0
        )
        self._model = train_digits(train, labels, 0, None)

    def ask(self, pixels: NDArray[np.float64]) -> Outputs:
        """As the model server does."""
        likely = self._model.predict_proba(pixels)
        return {"label": likely.argmax(axis=1), "probabilities": likely}


def rotated(pixels: NDArray[np.float64], _: np.random.Generator) -> NDArray[np.float64]:
    """By five degrees."""
    turned = [ndimage.rotate(one.reshape(8, 8), 5, reshape=False, order=1).ravel() for one in pixels]
    return np.clip(turned, 0, BRIGHTEST)


def noisy(deviation: float) -> Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]:
    """With noise of a standard deviation."""
    return lambda pixels, random: np.clip(pixels + random.normal(0, deviation, pixels.shape), 0, BRIGHTEST)


def judged(
    model: Model, runs: int, change: Callable[..., NDArray[np.float64]] | None, part: Callable[..., Outputs]
) -> dict[str, float]:
    """Shares of runs in which tests, and `any`, find drift; each with rows of its own for reference and window."""
    random, found = np.random.default_rng(0), []
    for _ in range(runs):
        rows = random.permutation(len(model.pixels))
        known, asked = model.pixels[rows[:ROWS]], model.pixels[rows[ROWS : ROWS + SIZE]]
        reference = Reference.of(part(model.ask(known)))
        outputs = part(model.ask(change(asked, random) if change else asked))
        found.append(p_values(reference, reference.encode(outputs)))
    shares = {test: float(np.mean([one[test] < ALPHA for one in found])) for test in found[0]}
    return {**shares, "any": float(np.mean([min(one.values()) < ALPHA for one in found]))}


def in_a_row(model: Model, runs: int) -> float:
    """The share of quiet runs in which two windows, one after the other, are taken for drift."""
    random, both = np.random.default_rng(1), 0
    for _ in range(runs):
        rows = random.permutation(len(model.pixels))
        reference = Reference.of(model.ask(model.pixels[rows[:250]]))
        window = Window(reference, 0)
        verdicts = [window.add(model.ask(model.pixels[rows[at : at + SIZE]])) for at in (250, 250 + SIZE)]
        both += all(one is not None and one.drifted for one in verdicts)
    return both / runs


def against_scipy(model: Model) -> dict[str, float]:
    """The farthest that p of a test is from scipy's own, of fifty windows."""
    random, apart = np.random.default_rng(2), {"class": 0.0, "confidence": 0.0}
    for _ in range(50):
        rows = random.permutation(len(model.pixels))
        ours, theirs = (model.ask(model.pixels[part]) for part in (rows[:ROWS], rows[ROWS : ROWS + SIZE]))
        reference = Reference.of(ours)
        found = p_values(reference, reference.encode(theirs))
        counts = [np.bincount(one["label"], minlength=10) for one in (ours, theirs)]
        expected = {
            "class": stats.chi2_contingency(counts, correction=False).pvalue,
            "confidence": stats.ks_2samp(*(one["probabilities"].max(axis=1) for one in (ours, theirs))).pvalue,
        }
        for test, p in expected.items():
            apart[test] = max(apart[test], abs(min(1.0, 3 * p) - found[test]))
    return apart


def windows(model: Model) -> dict[str, Any]:
    """Of a window: when it closes, what is in it, how much of a processor that takes."""
    reference = Reference.of(model.ask(model.pixels[:ROWS]))
    now = [0.0]
    window = Window(reference, 300, lambda: now[0])
    row = model.ask(model.pixels[ROWS : ROWS + 1])
    took, early = [], 0
    for _ in range(2000):
        began = time.thread_time()
        early += window.add(row) is not None
        took.append(time.thread_time() - began)
    # A second half that is rotated, far more of it than is kept: the sample has to be of all.
    mixed = Window(reference, 300, lambda: now[0])
    mixed.add(model.ask(model.pixels))
    for _ in range(20):
        mixed.add(model.ask(rotated(model.pixels, np.random.default_rng(0))))
    now[0] = 301.0
    began = time.thread_time()
    verdict, late = window.add(row), mixed.add(row)
    assert verdict is not None
    assert late is not None
    return {
        "early": early, "answers": verdict.answers, "mixed": late.drifted, "after": window.answers,
        "us_an_answer": 1e6 * float(np.median(took)), "ms_a_verdict": 1e3 * (time.thread_time() - began) / 2,
    }  # fmt: skip


def refused(outputs: Outputs) -> str:
    """Why there is no reference of outputs."""
    try:
        Reference.of(outputs)
    except DriftError as error:
        return str(error)
    return ""


def kept(model: Model) -> dict[str, Any]:
    """Of a reference: that it is the same when it is read, its size, and what is none."""
    outputs = model.ask(model.pixels[:ROWS])
    with tempfile.TemporaryDirectory() as folder:
        before = Reference.of(outputs)
        path = before.write(Path(folder))
        after, size = Reference.read(Path(folder)), path.stat().st_size
        faults = {}
        for name, content in {"cut": path.read_bytes()[:400], "text": b"no archive"}.items():
            path.write_bytes(content)
            try:
                Reference.read(Path(folder))
            except DriftError as error:
                faults[name] = str(error)
        np.savez(path, classes=np.array([], dtype=str), value=np.zeros(ROWS))
        try:
            Reference.read(Path(folder))
        except DriftError as error:
            faults["shape"] = str(error)
        path.unlink()
        try:
            Reference.read(Path(folder))
        except DriftError as error:
            faults["none"] = str(error)
    same = all((before.parts[name] == values).all() for name, values in after.parts.items())
    few = {name: values[:99] for name, values in outputs.items()}
    words = np.array([f"an answer in words, the {number}th" for number in range(ROWS)], dtype=object)
    return {
        "same": same and after.classes == before.classes, "bytes": size, "faults": faults,
        "few": refused(few), "text": refused({"predict": words}),
        "other": refused({"predict": np.zeros((ROWS, 2), bool)}), "number": refused({"predict": np.array(1.0)}),
    }  # fmt: skip


def unseen() -> dict[str, float]:
    """Of a classifier without probabilities: a class that the reference has not, where the others are as before."""
    random = np.random.default_rng(3)
    known = {"label": random.choice(["cat", "dog"], ROWS)}
    reference = Reference.of(known)
    quiet, new = random.choice(["cat", "dog"], SIZE), random.choice(["cat", "dog"], SIZE)
    new[:30] = "cow"
    return {
        "quiet": p_values(reference, reference.encode({"label": quiet}))["class"],
        "new": p_values(reference, reference.encode({"label": new}))["class"],
        "one": p_values(one := Reference.of({"label": np.full(ROWS, 7)}), one.encode({"label": np.full(SIZE, 7)}))[
            "class"
        ],
    }


def main() -> None:
    """All of it."""
    model = Model()

    def whole(outputs: Outputs) -> Outputs:
        return outputs

    def label(outputs: Outputs) -> Outputs:
        return {"label": outputs["label"]}

    def number(outputs: Outputs) -> Outputs:  # as a regression has it
        return {"predict": outputs["probabilities"] @ np.arange(10.0)}

    table = {
        "quiet": judged(model, QUIET, None, whole),
        "rotated": judged(model, CHANGED, rotated, whole),
        "noise 4": judged(model, CHANGED, noisy(4), whole),
        "noise 1": judged(model, CHANGED, noisy(1), whole),
        "dim": judged(model, CHANGED, lambda pixels, _: 0.9 * pixels, whole),
        "number, quiet": judged(model, QUIET, None, number),
        "number, noise 4": judged(model, CHANGED, noisy(4), number),
        "label, quiet": judged(model, QUIET, None, label),
        "label, noise 4": judged(model, CHANGED, noisy(4), label),
    }
    json.dump(
        {
            "table": table, "in a row": in_a_row(model, QUIET), "against scipy": against_scipy(model),
            "windows": windows(model), "kept": kept(model), "unseen": unseen(),
        },
        sys.stdout,
    )  # fmt: skip


if __name__ == "__main__":
    main()
