"""Whether a model is asked what it was tested with: the tests of it, on the example's own model.

All seeds are fixed; `windows.py` makes the figures in the trainer's image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.models.example import digits

if TYPE_CHECKING:
    from tests.images.services import Stack

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PYTHON = ["/usr/bin/python3"]
LIMIT = 0.01
MOST_FALSE_ALARMS = 0.02
TESTS = {"class", "confidence", "layer"}


@pytest.fixture(scope="module")
def figures(stack: Stack) -> dict[str, Any]:
    """What `windows.py` finds, with this tree's code."""
    mounted = {
        ROOT / "services/drift": "/opt/tree/services/drift", ROOT / "models/digits/digits": "/opt/tree/digits",
        Path(__file__).with_name("windows.py"): "/opt/tree/windows.py",
    }  # fmt: skip
    environment = {"PYTHONPATH": "/opt/tree", "OPENBLAS_NUM_THREADS": "1"}
    done = digits(
        stack, "/opt/tree/windows.py", entrypoint=PYTHON, read_only=mounted, environment=environment
    )  # fmt: skip
    assert done.status == 0, done.output
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return found


def test_drift_is_found_and_quiet_windows_are_not_taken_for_it(
    figures: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    table = figures["table"]
    with capsys.disabled():
        print("\nshare of windows of 300 answers that differ, by test")
        for what, shares in table.items():
            print(f"  {what:16}" + "".join(f" {test} {share:.3f}" for test, share in shares.items()))
        print(f"  quiet, two in a row {figures['in a row']:.4f}")
    assert table["quiet"]["any"] <= MOST_FALSE_ALARMS
    assert table["rotated"]["any"] == table["noise 4"]["any"] == 1
    # Harmless noise is found less often: what is told is that answers differ, not by how much they are worse.
    assert table["noise 1"]["any"] < 1
    assert set(table["quiet"]) == {*TESTS, "any"}
    assert figures["in a row"] <= 0.005


def test_models_without_confidence_are_judged_by_their_answers_alone(figures: dict[str, Any]) -> None:
    table = figures["table"]
    assert set(table["number, quiet"]) == {"value", "any"}
    assert set(table["label, quiet"]) == {"class", "any"}
    for kind in ("number", "label"):
        assert table[f"{kind}, quiet"]["any"] <= 0.03
        assert table[f"{kind}, noise 4"]["any"] == 1
    unseen = figures["unseen"]
    assert unseen["new"] < LIMIT < unseen["quiet"]
    assert unseen["one"] == 1


def test_the_tests_are_scipys(figures: dict[str, Any]) -> None:
    assert figures["against scipy"]["class"] < 1e-9
    assert figures["against scipy"]["confidence"] < 0.02


def test_a_window_is_a_sample_of_all_its_answers_and_costs_little(
    figures: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    windows = figures["windows"]
    with capsys.disabled():
        print(f"\nan answer {windows['us_an_answer']:.0f} us, a verdict {windows['ms_a_verdict']:.1f} ms")
    assert windows["early"] == 0
    assert (windows["answers"], windows["after"]) == (2001, 0)
    assert windows["mixed"]
    assert windows["us_an_answer"] < 500
    assert windows["ms_a_verdict"] < 50


def test_a_reference_is_kept_as_it_is_or_said_to_be_none(figures: dict[str, Any]) -> None:
    kept = figures["kept"]
    assert kept["same"]
    assert kept["bytes"] < 100_000
    assert "cannot be read" in kept["faults"]["cut"]
    assert "cannot be read" in kept["faults"]["text"]
    assert "'value': (360,)" in kept["faults"]["shape"]
    assert kept["faults"]["none"] == "its evaluation has written no reference"
    assert "99 answers are too few" in kept["few"]
    assert "text" in kept["text"]
    assert "neither classes nor numbers" in kept["other"]
    assert "no rows" in kept["number"]
