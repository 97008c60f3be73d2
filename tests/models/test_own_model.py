"""A model of one's own, as `lab model new` makes it and as people write it, on the real MLflow, PostgreSQL and S3, from
code to an answer of the model server: `pytest -m slow_images tests/models/test_own_model.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cli import scaffold
from cli.model_code import pack
from tests.images.decided import add_gate
from tests.models.example import Done, infer, send, serve, trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.images.services import Stack

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(1800)]
REFUSED, BAD_DATA, UNAVAILABLE, FAULTY, SETTINGS = 3, 65, 69, 70, 78
NAME = "wines"
TRAIN = "    return RandomForestClassifier(n_estimators=100, random_state=seed).fit(features, labels)"
Edit = dict[str, str]


@pytest.fixture(scope="module")
def gates(stack: Stack) -> Stack:
    """The stack, whose promotion service has the gate of the model too."""
    gate = yaml.safe_load(scaffold.new_model(NAME)["model.yaml"])["gate"]
    add_gate(stack.runtime, NAME, yaml.safe_dump(gate))
    return stack


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a new model, with texts of its files replaced."""

    def make(edits: Edit | None = None, **more: str) -> Path:
        folder = tmp_path / NAME
        folder.mkdir()
        scaffold.write(folder, {**scaffold.new_model(NAME), **more})
        for old, new in (edits or {}).items():
            changed = [path for path in folder.iterdir() if old in path.read_text()]
            assert changed, old
            for path in changed:
                path.write_text(path.read_text().replace(old, new))
        return folder

    return make


def run(stack: Stack, folder: Path, *arguments: str, **more: Any) -> Done:
    done = trainer(stack, folder, "run", *arguments, **more)
    assert done.result, done.output
    return done


def answer_of(stack: Stack, version: str, rows: list[list[float]]) -> dict[str, Any]:
    """The outputs of a model server for some rows, by name."""
    server, url = serve(stack, {"MODEL_VERSION": version}, NAME)
    try:
        data = [value for row in rows for value in row]
        tensor = {"name": "features", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": data}
        answer = infer(url, {"inputs": [tensor]}, NAME)
        assert answer["model_version"] == version
        return {one["name"]: one["data"] for one in answer["outputs"]}
    finally:
        server.stop()


def test_a_forest_as_it_is_scaffolded_is_trained_registered_and_served(
    gates: Stack, model: Callable[..., Path]
) -> None:
    folder = model()
    done = run(gates, folder, "--promote", "production")
    assert done.status == 0, done.output
    assert done.result["test_accuracy"] >= 0.9
    rows = json.loads((folder / "sample.json").read_text())
    outputs = answer_of(gates, done.result["version"], rows)
    assert outputs["label"] == [0]
    assert sum(outputs["probabilities"]) == pytest.approx(1)
    # Once more, compared with what is served by now.
    again = run(gates, folder, "--seed", "1")
    assert (again.status, again.result["version"]) == (0, str(int(done.result["version"]) + 1))


KINDS = {
    "trees with gradients": {
        "import RandomForestClassifier": "import HistGradientBoostingClassifier",
        "-> RandomForestClassifier": "-> object",
        TRAIN: "    return HistGradientBoostingClassifier(max_iter=30, random_state=seed).fit(features, labels)",
    },
    "a pipeline": {
        "import RandomForestClassifier": "import RandomForestClassifier\nfrom sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import StandardScaler",
        "-> RandomForestClassifier": "-> object",
        TRAIN: "    return make_pipeline(StandardScaler(), RandomForestClassifier(20)).fit(features, labels)",
    },
    "a class of one's own": {
        "import numpy as np": "import mlflow\nimport numpy as np",
        "-> RandomForestClassifier": "-> object",
        "def evaluate": "class Nearest(mlflow.pyfunc.PythonModel):\n    def __init__(self, features, labels):\n"
        "        self.features, self.labels = features, labels\n\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        scale = self.features.std(axis=0)\n"
        "        apart = ((model_input[:, None] - self.features) / scale) ** 2\n"
        "        return self.labels[apart.sum(axis=2).argmin(axis=1)]\n\n\ndef evaluate",
        TRAIN: "    return Nearest(features, labels)",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_other_kinds_are_served_too(gates: Stack, model: Callable[..., Path], kind: str) -> None:
    folder = model(KINDS[kind])
    done = run(gates, folder)
    assert done.status == 0, done.output
    outputs = answer_of(gates, done.result["version"], json.loads((folder / "sample.json").read_text()))
    assert next(iter(outputs.values())) == [0]


def test_data_is_read_from_the_object_store(gates: Stack, model: Callable[..., Path]) -> None:
    """As docs/how-to/own-model.md says: by pandas, with what the Job's environment has. Other columns than
    production's version knows are told as that.
    """
    lines = ["one,two,grower", *(f"{row},{row % 7},{'north' if row > 50 else 'south'}" for row in range(200))]
    gates.objects.client().put_object(Bucket="datasets", Key="raw/wines.csv", Body="\n".join(lines).encode())
    former = 'load_wine(as_frame=True).frame.rename(columns={"target": "grower"})'
    folder = model({former: 'pd.read_csv("s3://datasets/raw/wines.csv")'})
    served = trainer(gates, folder, "promote", "--to", "production").result["version"]
    refused = run(gates, folder)
    assert refused.status == BAD_DATA
    assert f"production's version {served} cannot predict the test rows" in refused.result["error"]
    assert "`lab withdraw wines --stage production`" in refused.result["error"]
    assert trainer(gates, folder, "withdraw", "--to", "production", "--version", served).status == 0
    done = run(gates, folder)
    assert done.status == 0, done.output
    assert answer_of(gates, done.result["version"], [[80.0, 3.0], [10.0, 3.0]])["label"] == ["north", "south"]


FAULTS: dict[str, tuple[Edit, int, str]] = {
    "train raises": (
        {TRAIN: "    return 1 / 0"}, FAULTY, "wines/wines.py, line 21, in train: ZeroDivisionError: division by zero"
    ),
    "no Python": ({TRAIN: "    return ("}, FAULTY, "wines/wines.py, line 21, in its import: SyntaxError"),
    "a package that is not there": (
        {"import numpy as np": "import tensorflow\nimport numpy as np"}, FAULTY,
        "in its import: ModuleNotFoundError: No module named 'tensorflow'",
    ),
    "no model": ({TRAIN: "    return 'a model'"}, FAULTY, "`train` of wines returns str, which is none of the kinds"),
    "a class that the server does not have": (
        {
            "import numpy as np": "import numpy as np\nfrom sklearn.base import BaseEstimator",
            "def evaluate": "class Mine(BaseEstimator):\n    def predict(self, rows):\n        return rows[:, 0] > 0\n"
            "\n\ndef evaluate",
            "-> RandomForestClassifier": "-> object",
            TRAIN: "    return Mine()",
        },
        FAULTY, "contains wines.Mine, which the model server does not have",
    ),
    "a score in place of rows": (
        {"return predict(features) == labels": "return (predict(features) == labels).mean()"}, FAULTY,
        "`evaluate` of wines returns float64 of the shape (), not true or false for each",
    ),
    "no such column": (
        {"label: grower": "label: taste"}, 65, "the dataset of wines is not valid: there is no column taste"
    ),
    "settings that are none": ({"test: 0.3": "test: 3"}, SETTINGS, "wines/model.yaml: data.test: "),
    "a model that guesses": (
        {TRAIN: "    return RandomForestClassifier(10).fit(features, np.random.default_rng(0).permutation(labels))"},
        REFUSED, "the gate refuses run ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_model_is_told_as_one_of_the_model(gates: Stack, model: Callable[..., Path], fault: str) -> None:
    """Not as one of the tracking server; and with a status that is not tried again."""
    edits, status, told = FAULTS[fault]
    done = run(gates, model(edits))
    assert told in done.result["error"], done.output
    assert "tracking server" not in done.result["error"]
    assert done.status == status
    assert "version" not in done.result


def test_code_that_was_changed_on_the_store_does_not_run(gates: Stack, model: Callable[..., Path]) -> None:
    folder = model()
    digest, other = send(gates, folder), pack(folder).content.replace(b"random_state=seed", b"random_state=1111")
    gates.objects.client().put_object(Bucket="code", Key=f"{'0' * 64}.tar", Body=other)
    done = run(gates, folder, environment={"MODEL_CODE": "0" * 64})
    assert f"the archive stored as {'0' * 64} has the SHA-256" in done.result["error"]
    assert done.status == FAULTY
    missing = run(gates, folder, environment={"MODEL_CODE": "1" * 64})
    assert f"s3://code/{'1' * 64}.tar, is not available" in missing.result["error"]
    assert (missing.status, len(digest)) == (UNAVAILABLE, 64)
