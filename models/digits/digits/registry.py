"""Runs and models in MLflow: logged with their lineage, judged at the gate, registered, promoted, rolled back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import onnx
import onnxruntime
import sklearn
import skops
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from digits.data import BRIGHTEST, CLASSES
from digits.settings import BAD_DATA, REFUSED, DigitsError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from numpy.typing import NDArray

    from digits.data import Dataset
    from digits.settings import Settings

ACCURACY, RECALL = 0.95, 0.85  # of all test images, and of those of each digit
GATE, PASSED, REFUSAL = "gate", "passed", "refused"
LINEAGE = ("data_version", "code_version", "image_digest", "variant", "seed", "workers")
MISSING = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
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
                metadata=TAKEN, signature=infer_signature(example, _ask_onnx(model, example)),
                pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
            )  # fmt: skip
        else:
            mlflow.sklearn.log_model(
                model, name="model", input_example=example, signature=infer_signature(example, model.predict(example)),
                metadata=TAKEN,
                pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
            )  # fmt: skip
        return str(run.info.run_id)


def evaluate(run: str, test: Dataset) -> dict[str, float]:
    """Test the model of a run, as it is kept; write the metrics and the gate's verdict down with the run.

    Raises:
        DigitsError: the gate refuses it, or it was trained on another version of the data.
    """
    client = mlflow.MlflowClient()
    trained_on = client.get_run(run).data.tags.get("data_version")
    if trained_on != test.version:
        raise DigitsError(f"run {run} was trained on dataset {trained_on}, not on {test.version}", BAD_DATA)
    right = predictions(f"runs:/{run}/model", test.pixels) == test.labels
    metrics = {"test_accuracy": float(right.mean())}
    metrics |= {f"test_recall_{digit}": float(right[test.labels == digit].mean()) for digit in range(CLASSES)}
    faults = [f"accuracy {metrics['test_accuracy']:.4f}, below {ACCURACY}"] if right.mean() < ACCURACY else []
    faults += [
        f"{name.removeprefix('test_').replace('_', ' of ')} {value:.4f}, below {RECALL}"
        for name, value in metrics.items()
        if value < RECALL and name != "test_accuracy"
    ]
    for name, value in metrics.items():
        client.log_metric(run, name, value)
    client.set_tag(run, GATE, REFUSAL if faults else PASSED)
    if faults:
        client.set_tag(run, f"{GATE}.reasons", "; ".join(faults))
        raise DigitsError(f"the gate refuses run {run}: {'; '.join(faults)}", REFUSED)
    return metrics


def predictions(uri: str, pixels: NDArray[np.float64]) -> NDArray[np.int64]:
    """What the model at an MLflow URI takes images for."""
    path = mlflow.artifacts.download_artifacts(uri)
    flavors = mlflow.models.Model.load(path).flavors
    if "onnx" in flavors:
        return _ask_onnx(Path(path, flavors["onnx"]["data"]).read_bytes(), pixels)["label"]
    model = mlflow.sklearn.load_model(path)
    # As the model server has it, so that a tie is the same digit here and there.
    labels: NDArray[np.int64] = model.classes_[model.predict_proba(pixels).argmax(axis=1)]
    return labels


def _ask_onnx(model: bytes, pixels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels.astype(np.float32)}), strict=True))


def register(settings: Settings, run: str) -> ModelVersion:
    """Make the model of a run a version of the registered model, with its lineage; the same one when asked again.

    Raises:
        DigitsError: it has not passed the gate.
    """
    client = mlflow.MlflowClient()
    found = client.get_run(run)
    if found.data.tags.get(GATE) != PASSED:
        raise DigitsError(
            f"run {run} has not passed the gate: {found.data.tags.get(f'{GATE}.reasons', 'it was not evaluated')}",
            REFUSED,
        )
    for version in client.search_model_versions(f"name = '{settings.model}' and run_id = '{run}'"):
        return version
    tags = {name: found.data.tags[name] for name in (*LINEAGE, GATE)}
    tags["test_accuracy"] = f"{found.data.metrics['test_accuracy']:.6f}"
    return mlflow.register_model(f"runs:/{run}/model", settings.model, tags=tags)


def promote(settings: Settings, stage: str, number: str | None = None, incident: str | None = None) -> ModelVersion:
    """Have a stage serve a version, the newest by default; the stage remembers what it served before.

    `incident`: what it mends, where it was not planned.

    Raises:
        DigitsError: there is no such version, or it has not passed the gate.
    """
    client = mlflow.MlflowClient()
    if number is None:
        versions = client.search_model_versions(f"name = '{settings.model}'")
        number = str(max((int(version.version) for version in versions), default=0))
    version = _version(client, settings, number)
    if version.tags.get(GATE) != PASSED:
        raise DigitsError(f"version {number} of {settings.model} has not passed the gate", REFUSED)
    former, current = _history(client, settings, stage)
    if current != number:
        # Before the alias: what is interrupted here is remembered once too often, and rollback knows that.
        _remember(client, settings, stage, [*former, *([current] if current else [])])
        _serve(client, settings, stage, number)
        _note(client, settings, stage, "promoted", number=number, incident=incident)
    return version


def rollback(settings: Settings, stage: str, incident: str | None = None) -> tuple[ModelVersion, list[str]]:
    """Have a stage serve what it served before its last promotion; also the versions passed over: they were deleted.

    Raises:
        DigitsError: it has not served anything before that is still there.
    """
    client = mlflow.MlflowClient()
    former, current = _history(client, settings, stage)
    there = {str(version.version) for version in client.search_model_versions(f"name = '{settings.model}'")}
    passed_over = []
    while former and former[-1] not in there:
        passed_over.append(former.pop())
    if not former:
        before = f" before version {current}" if current else ""
        said = f" that is still there; deleted since: {', '.join(passed_over)}" if passed_over else ""
        raise DigitsError(f"{stage} of {settings.model} has served nothing{before}{said}", REFUSED)
    version = _version(client, settings, former[-1])
    _serve(client, settings, stage, former[-1])
    _remember(client, settings, stage, former[:-1])
    _note(client, settings, stage, "rolled back", number=former[-1], incident=incident)
    return version, passed_over


def withdraw(settings: Settings, stage: str, number: str) -> None:
    """Take a stage down that serves a version: it serves nothing until something is promoted or rolled back.

    Raises:
        DigitsError: there is no such model, or the stage is to serve another version by now.
    """
    client = mlflow.MlflowClient()
    former, current = _history(client, settings, stage)
    if current not in {None, number}:
        raise DigitsError(f"{stage} of {settings.model} serves version {current}, not {number}", REFUSED)
    # Before the alias: without this mark, what loses its alias goes on serving.
    client.set_registered_model_tag(settings.model, _mark(stage), number)
    if current is not None:
        _remember(client, settings, stage, [*former, current])
        client.delete_registered_model_alias(settings.model, stage)
        _note(client, settings, stage, "withdrawn", number=number, incident=None)


def _note(
    client: mlflow.MlflowClient, settings: Settings, stage: str, did: str, *, number: str, incident: str | None
) -> None:
    """Have the registry tell later what was done to a stage, and when: `lab dora` counts that."""
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"did": did, "version": number, **({"incident": incident} if incident else {})}
    client.set_registered_model_tag(settings.model, f"moved.{stage}.{at}", json.dumps(told))


def _mark(stage: str) -> str:
    """The tag of the registered model that says which version of a stage was taken down."""
    return f"withdrawn.{stage}"


def _serve(client: mlflow.MlflowClient, settings: Settings, stage: str, number: str) -> None:
    client.set_registered_model_alias(settings.model, stage, number)
    if _mark(stage) in client.get_registered_model(settings.model).tags:
        client.delete_registered_model_tag(settings.model, _mark(stage))


def _version(client: mlflow.MlflowClient, settings: Settings, number: str) -> ModelVersion:
    try:
        return client.get_model_version(settings.model, number)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        raise DigitsError(f"{settings.model} has no version {number}", REFUSED) from error


def _history(client: mlflow.MlflowClient, settings: Settings, stage: str) -> tuple[list[str], str | None]:
    """What a stage served before, the oldest first, and what it serves."""
    try:
        model = client.get_registered_model(settings.model)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        raise DigitsError(f"there is no registered model {settings.model} yet", REFUSED) from error
    current = model.aliases.get(stage)
    former = [number for number in model.tags.get(f"former.{stage}", "").split(",") if number]
    while former and former[-1] == str(current):
        former.pop()
    return former, None if current is None else str(current)


def _remember(client: mlflow.MlflowClient, settings: Settings, stage: str, former: list[str]) -> None:
    client.set_registered_model_tag(settings.model, f"former.{stage}", ",".join(former))
