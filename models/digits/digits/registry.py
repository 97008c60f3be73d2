"""Runs and models in MLflow, logged with their lineage; what the promotion service decides about them."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import onnx
import onnxruntime
import sklearn
import skops
from mlflow.models import infer_signature

from digits.data import BRIGHTEST, CLASSES
from digits.settings import BAD_DATA, REFUSED, UNAVAILABLE, DigitsError
from services.drift.answers import LABEL, PROBABILITIES
from services.drift.reference import FILE as REFERENCE
from services.drift.reference import Reference
from services.promotion.client import Promotion, PromotionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from digits.data import Dataset
    from digits.settings import Settings

GATE, PASSED, REFUSAL = "gate", "passed", "refused"
LINEAGE = ("data_version", "code_version", "image_digest", "variant", "seed", "workers")
ASKED = 50
"""How many images one by one tell how long one takes."""
# Recorded beside the signature, which has no ranges: the model server refuses what is outside them.
TAKEN = {"inputs": {"pixels": {"minimum": 0, "maximum": BRIGHTEST}}}


def log(settings: Settings, data: Dataset, model: Any, *, variant: str, seed: int, workers: int) -> str:
    """Write a trained model down as a run; gives the run's id."""
    lineage = (data.version, settings.code_version, settings.image_digest, variant, str(seed), str(workers))
    example = data.pixels[:3]
    mlflow.set_experiment(settings.model)
    with mlflow.start_run(run_name=variant, tags=dict(zip(LINEAGE, lineage, strict=True))) as run:
        mlflow.log_params({"variant": variant, "seed": seed, "workers": workers, "rows": len(data.labels)})
        if isinstance(model, bytes):
            example = example.astype(np.float32)
            mlflow.onnx.log_model(
                onnx.load_from_string(model), name="model", save_as_external_data=False, input_example=example,
                metadata=TAKEN, signature=infer_signature(example, _asking_onnx(model)(example)),
                pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
            )  # fmt: skip
        else:
            mlflow.sklearn.log_model(
                model, name="model", input_example=example, signature=infer_signature(example, model.predict(example)),
                metadata=TAKEN,
                pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
            )  # fmt: skip
        return str(run.info.run_id)


def evaluate(settings: Settings, run: str, test: Dataset) -> dict[str, float]:
    """Test the model of a run, as it is kept; write the metrics and the gate's verdict down with the run.

    Raises:
        DigitsError: the gate refuses it, or it was trained on another version of the data.
    """
    client, decides = mlflow.MlflowClient(), _promotion()
    trained_on = client.get_run(run).data.tags.get("data_version")
    if trained_on != test.version:
        raise DigitsError(f"run {run} was trained on dataset {trained_on}, not on {test.version}", BAD_DATA)
    path, rows = mlflow.artifacts.download_artifacts(f"runs:/{run}/model"), f"{test.version}.{len(test.labels)}"
    answers = _asking(path)(test.pixels)
    right = answers[LABEL] == test.labels
    metrics = {"test_accuracy": float(right.mean())}
    metrics |= {f"test_recall_{digit}": float(right[test.labels == digit].mean()) for digit in range(CLASSES)}
    for name, value in metrics.items():
        client.log_metric(run, name, value)
    evidence: dict[str, Any] = {
        "run": run, "test": rows, "right": _bits(right), "columns": {"digit": [str(label) for label in test.labels]},
        "figures": {"latency_ms": _latency_ms(path, test.pixels), "size_bytes": float(_size(Path(path)))},
    }  # fmt: skip
    if not Path(path, REFERENCE).exists():  # files that a gate has passed stay as they are
        _keep_reference(client, run, answers)
    served = _asked(decides, "GET", f"models/{settings.model}/gate", test=rows)["baseline"]
    if served and not served["known"]:
        before = predictions(f"models:/{settings.model}/{served['version']}", test.pixels)
        evidence["baseline"] = {"version": int(served["version"]), "right": _bits(before == test.labels)}
    verdict = _asked(decides, "POST", f"models/{settings.model}/verdicts", evidence)
    client.set_tag(run, GATE, PASSED if verdict["passed"] else REFUSAL)
    if not verdict["passed"]:
        reasons = "; ".join(verdict["reasons"])
        client.set_tag(run, f"{GATE}.reasons", reasons)
        raise DigitsError(f"the gate refuses run {run}: {reasons}", REFUSED)
    return metrics


def _keep_reference(client: mlflow.MlflowClient, run: str, answers: Mapping[str, NDArray[Any]]) -> None:
    """Put the answers to test rows beside the model: its server tells drift by them."""
    (model,) = client.get_run(run).outputs.model_outputs
    with tempfile.TemporaryDirectory() as folder:
        client.log_model_artifact(model.model_id, str(Reference.of(answers).write(Path(folder))))


def _bits(right: NDArray[np.bool_]) -> str:
    return "".join("1" if one else "0" for one in right)


def _latency_ms(path: str, pixels: NDArray[np.float64]) -> float:
    """How long one image takes, the median of some, without the way to a server."""
    ask, took = _asking(path), []
    for row in pixels[:ASKED]:
        began = time.perf_counter()
        ask(row[np.newaxis])
        took.append(time.perf_counter() - began)
    return 1000 * float(np.median(took))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def predictions(uri: str, pixels: NDArray[np.float64]) -> NDArray[np.int64]:
    """What the model at an MLflow URI takes images for."""
    labels: NDArray[np.int64] = _asking(mlflow.artifacts.download_artifacts(uri))(pixels)[LABEL]
    return labels


def _asking(path: str) -> Callable[[NDArray[np.float64]], dict[str, NDArray[Any]]]:
    """What answers as the model server does, of the model in a folder: `label` and `probabilities`, a row an image."""
    flavors = mlflow.models.Model.load(path).flavors
    if "onnx" in flavors:
        return _asking_onnx(Path(path, flavors["onnx"]["data"]).read_bytes())
    model = mlflow.sklearn.load_model(path)

    def likeliest(pixels: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        # As the model server has it, so that a tie is the same digit here and there.
        probabilities = model.predict_proba(pixels)
        return {LABEL: model.classes_[probabilities.argmax(axis=1)], PROBABILITIES: probabilities}

    return likeliest


def _asking_onnx(model: bytes) -> Callable[[NDArray[np.float64]], dict[str, NDArray[Any]]]:
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(names, {"pixels": pixels.astype(np.float32)}), strict=True))


def register(settings: Settings, run: str) -> str:
    """Have the model of a run registered; its version, the same one when asked again.

    Raises:
        DigitsError: it has not passed the gate.
    """
    return str(_asked(_promotion(), "POST", f"models/{settings.model}/versions", {"run": run})["version"])


def promote(settings: Settings, stage: str, number: str | None = None, incident: str | None = None) -> str:
    """Have a stage serve a version, the newest by default; `incident`: what it mends, where it was not planned.

    Raises:
        DigitsError: there is no such version, or it may not be served.
    """
    return str(_decided(settings, stage, "promote", version=number, incident=incident)["version"])


def rollback(settings: Settings, stage: str, incident: str | None = None) -> tuple[str, list[str]]:
    """Have a stage serve what it served before its last promotion; also the versions passed over: they were deleted.

    Raises:
        DigitsError: it has not served anything before that is still there.
    """
    answer = _decided(settings, stage, "rollback", incident=incident)
    return str(answer["version"]), answer["passed_over"]


def withdraw(settings: Settings, stage: str, number: str) -> None:
    """Take a stage down that serves a version: it serves nothing until something is promoted or rolled back.

    Raises:
        DigitsError: the stage is to serve another version by now.
    """
    _decided(settings, stage, "withdraw", version=number)


def _decided(
    settings: Settings, stage: str, verb: str, *, version: str | None = None, incident: str | None = None
) -> dict[str, Any]:
    if version is not None and not version.isdecimal():
        raise DigitsError(f"{settings.model} has no version {version}", REFUSED)
    body = {**({"version": int(version)} if version else {}), **({"incident": incident} if incident else {})}
    return _asked(_promotion(), "POST", f"models/{settings.model}/stages/{stage}/{verb}", body)


def _promotion() -> Promotion:
    """The promotion service, with MLflow's login.

    Raises:
        DigitsError: its address is not set.
    """
    if not (address := os.environ.get("PROMOTION_URL")):
        raise DigitsError("PROMOTION_URL, the address of the promotion service, is not set", UNAVAILABLE)
    login = (os.environ.get(f"MLFLOW_TRACKING_{word}", "") for word in ("USERNAME", "PASSWORD"))
    return Promotion(address, *login)


def _asked(
    promotion: Promotion, method: str, path: str, body: dict[str, Any] | None = None, **query: str
) -> dict[str, Any]:
    try:
        return promotion.ask(method, path, body, **query)
    except PromotionError as error:
        raise DigitsError(str(error), REFUSED if error.refused else UNAVAILABLE) from None
