"""Whether a model is asked what it was tested with: the tests on the example's own model, and its server's metrics.

The figures of the first part are of seeds that are fixed; `windows.py` makes them in the trainer's image.
"""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.images.registry import Registry
from tests.models.example import digits, infer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.containers import Container
    from tests.images.services import Stack

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PYTHON = ["/usr/bin/python3"]
LIMIT = 0.01
MOST_FALSE_ALARMS = 0.02
TESTS = {"class", "confidence", "layer"}
# Split as the example does.
IMAGES = """
import json
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
pixels, labels = load_digits(return_X_y=True)
_, test, _, _ = train_test_split(pixels, labels, test_size=0.2, stratify=labels, random_state=0)
noisy = test + np.random.default_rng(0).normal(0, 4, test.shape)
print(json.dumps({"quiet": test[:300].tolist(), "noisy": np.clip(noisy, 0, 16)[:300].tolist()}))
"""


@pytest.fixture(scope="module")
def figures(stack: Stack) -> dict[str, Any]:
    """What `windows.py` finds, with this tree's code."""
    mounted = {
        ROOT / "services/drift": "/opt/tree/services/drift", ROOT / "models/digits/digits.py": "/opt/tree/digits.py",
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
    assert kept["faults"]["none"] == "its evaluation wrote no reference"
    assert "99 answers are too few" in kept["few"]
    assert "text" in kept["text"]
    assert "neither classes nor numbers" in kept["other"]
    assert "no common number of rows" in kept["number"]


@pytest.fixture(scope="module")
def rows(stack: Stack) -> dict[str, list[list[float]]]:
    """Images that the example is tested with, and those with noise."""
    done = digits(stack, "-c", IMAGES, entrypoint=PYTHON)
    assert done.status == 0, done.output
    found: dict[str, list[list[float]]] = json.loads(done.output.splitlines()[-1])
    return found


@pytest.fixture(scope="module", params=["", "torch"])
def served(stack: Stack, request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Container, str]]:
    """Run and version of the example and of its variant that is served as ONNX, a server of it and its address."""
    made = digits(stack, "run", *(["--variant", request.param] if request.param else []))
    assert made.status == 0, made.output
    number = made.result["version"]
    server, url = serve(stack, {"MODEL_VERSION": number, "DRIFT_WINDOW_SECONDS": "0"})
    yield made.result["run"], number, server, url
    server.stop()


def ask(url: str, given: list[list[float]]) -> Any:
    """Ask about images."""
    data = [value for row in given for value in row]
    return infer(url, {"inputs": [{"name": "pixels", "shape": [len(given), 64], "datatype": "FP64", "data": data}]})


def told(url: str) -> dict[str, float]:
    """What a server says about drift, by metric, with its test if it has one."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(r"^ml_drift_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        test = re.search(r'test="(\w+)"', labels)
        found[f"{name} {test[1]}" if test else name] = float(value)
    return found


def test_a_server_tells_windows_that_differ_from_its_versions_reference(
    served: tuple[str, str, Container, str], rows: dict[str, list[list[float]]]
) -> None:
    _, number, server, url = served
    assert told(url) == {"reference_rows": 360, "window_answers": 0}
    ask(url, rows["quiet"][:299])
    assert told(url) == {"reference_rows": 360, "window_answers": 299}
    ask(url, rows["quiet"][299:])
    first = told(url)
    assert (first["detected"], first["window_answers"], first["windows_total"]) == (0, 0, 1)
    assert {name.partition(" ")[2] for name in first if name.startswith("p_value ")} == TESTS
    assert all(first[f"p_value {test}"] >= LIMIT for test in TESTS)
    for count in (1, 2):
        ask(url, rows["noisy"])
        assert told(url)["detected"] == count
    assert min(told(url)[f"p_value {test}"] for test in TESTS) < LIMIT
    assert "300 answers differ from those of the evaluation" in server.output
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        assert (
            f'ml_drift_detected{{alias="production",model="digits",version="{number}"}} 2.0' in answer.read().decode()
        )
    ask(url, rows["quiet"])
    assert told(url)["detected"] == 0
    assert told(url)["windows_total"] == 4


def test_a_run_that_the_gate_has_passed_can_be_evaluated_again(
    stack: Stack, served: tuple[str, str, Container, str]
) -> None:
    """Its reference stays: nobody may change files that a gate has passed."""
    again = digits(stack, "evaluate", "--run", served[0])
    assert again.status == 0, again.output


def test_a_model_without_a_reference_says_so_and_nothing_more(stack: Stack, rows: dict[str, list[list[float]]]) -> None:
    trained = digits(stack, "train").result["run"]  # and not evaluated
    registry = Registry(stack.tracking.environment)
    (model,) = registry.ask("GET", f"runs/get?run_id={trained}")["run"]["outputs"]["model_outputs"]
    registry.ask("POST", "registered-models/create", name="plain")
    source = f"models:/{model['model_id']}"
    registry.ask("POST", "model-versions/create", name="plain", source=source, model_id=model["model_id"])
    server, url = serve(stack, {"MODEL_NAME": "plain", "MODEL_VERSION": "1", "DRIFT_WINDOW_SECONDS": "0"})
    assert "drift of version 1 of plain is not detected: its evaluation wrote no reference" in server.output
    data = [value for row in rows["noisy"] for value in row]
    body = {"inputs": [{"name": "pixels", "shape": [300, 64], "datatype": "FP64", "data": data}]}
    request = urllib.request.Request(f"{url}/v2/models/plain/infer", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    for _ in range(2):
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
    assert told(url) == {"reference_rows": 0, "window_answers": 0}
    server.stop()
