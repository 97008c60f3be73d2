"""Runs and models in MLflow, logged with their lineage; what the promotion service decides about them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np

from services.drift.answers import DriftError
from services.drift.reference import FILE as REFERENCE
from services.drift.reference import Reference
from services.promotion.client import Promotion, PromotionError
from services.training import flavors
from services.training.errors import BAD_DATA, FAULTY, REFUSED, UNAVAILABLE, TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from services.training.datasets import Table
    from services.training.flavors import Ask, Outputs
    from services.training.module import Code
    from services.training.settings import Told

GATE, PASSED, REFUSAL, DATA_VERSION = "gate", "passed", "refused", "data_version"
ASKED = 50
"""How many rows one by one tell how long one takes."""


@dataclass(frozen=True)
class Trained:
    """How a model was trained, for its lineage."""

    variant: str
    seed: int
    workers: int


def log(told: Told, code: Code, data: Table, model: Any, trained: Trained) -> str:
    """Write a trained model down as a run; gives the run's id.

    Raises:
        TrainingError: MLflow does not take the model.
    """
    lineage = {
        DATA_VERSION: data.version, "code_version": told.code_version, "code_archive": f"sha256:{told.archive}",
        "code_commit": told.commit, "code_dirty": told.dirty, "image_digest": told.image_digest,
        "variant": trained.variant, "seed": str(trained.seed), "workers": str(trained.workers),
    }  # fmt: skip
    mlflow.set_experiment(code.settings.name)
    with mlflow.start_run(run_name=trained.variant, tags=lineage) as run:
        features = data.features
        mlflow.log_params(
            {"variant": trained.variant, "seed": trained.seed, "workers": trained.workers, "rows": len(features)}
        )
        flavors.log(code, model, features)
        return str(run.info.run_id)


def evaluate(code: Code, run: str, test: Table) -> dict[str, float]:
    """Test the model of a run, as it is kept; write the metrics and the gate's verdict down with the run.

    Raises:
        TrainingError: the gate refuses it, or it was trained on another version of the data.
    """
    client, decides, name = mlflow.MlflowClient(), _promotion(), code.settings.name
    trained_on = client.get_run(run).data.tags.get(DATA_VERSION)
    if trained_on != test.version:
        raise TrainingError(f"run {run} was trained on dataset {trained_on}, not on {test.version}", BAD_DATA)
    path, rows = mlflow.artifacts.download_artifacts(f"runs:/{run}/model"), f"{test.version}.{len(test.rows)}"
    features = test.features
    ask = flavors.remembering(flavors.asking(path), features)
    right, columns = _right(code, ask, features, test), _columns(code, test)
    evidence: dict[str, Any] = {
        "run": run, "test": rows, "right": _bits(right), "columns": columns,
        "figures": {"latency_ms": _latency_ms(ask, features), "size_bytes": float(_size(Path(path)))},
    }  # fmt: skip
    asked = _asked(decides, "GET", f"models/{name}/gate", test=rows)
    metrics = _metrics(asked["gate"]["score"]["name"], right, columns)
    for metric, value in metrics.items():
        client.log_metric(run, metric, value)
    _keep_reference(client, run, Path(path), ask(features))
    served = asked["baseline"]
    if served and not served["known"]:
        evidence["baseline"] = _baseline(code, served["version"], test)
    verdict = _asked(decides, "POST", f"models/{name}/verdicts", evidence)
    client.set_tag(run, GATE, PASSED if verdict["passed"] else REFUSAL)
    if not verdict["passed"]:
        reasons = "; ".join(verdict["reasons"])
        client.set_tag(run, f"{GATE}.reasons", reasons)
        raise TrainingError(f"the gate refuses run {run}: {reasons}", REFUSED)
    return metrics


def _baseline(code: Code, version: str, test: Table) -> dict[str, Any]:
    """What production's version is right about.

    Raises:
        TrainingError: it cannot be asked about these rows.
    """
    name = code.settings.name
    path = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}")
    try:
        return {"version": int(version), "right": _bits(_right(code, flavors.asking(path), test.features, test))}
    except TrainingError as error:
        raise TrainingError(
            f"production's version {version} cannot be asked about the test rows, and so not be compared with: {error}."
            f" If the columns have changed: `lab withdraw {name} --stage production`, then train again",
            BAD_DATA,
        ) from error


def _keep_reference(client: mlflow.MlflowClient, run: str, path: Path, answers: Outputs) -> None:
    """Put the answers to test rows beside the model: its server tells drift by them. None of few rows, or of text."""
    if (path / REFERENCE).exists():
        return  # files that a gate has passed stay as they are
    (model,) = client.get_run(run).outputs.model_outputs
    try:
        reference = Reference.of(answers)
    except DriftError as error:
        print(f"drift of this model will not be told: {error}", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        client.log_model_artifact(model.model_id, str(reference.write(Path(folder))))


def _right(code: Code, ask: Ask, features: NDArray[Any], test: Table) -> NDArray[np.bool_]:
    """Whether a model is right about each row, as the module judges it.

    Raises:
        TrainingError: `evaluate` does not say so.
    """
    found = np.asarray(code.call("evaluate", flavors.predicting(ask), features, test.labels))
    if found.shape != (len(test.rows),) or found.dtype != np.bool_:
        raise TrainingError(
            f"`evaluate` of {code.settings.name} gives {found.dtype} of the shape {found.shape}, not true or false for"
            f" each of {len(test.rows)} rows",
            FAULTY,
        )
    return found


def _columns(code: Code, test: Table) -> dict[str, list[str]]:
    """The group of each row, for every column that the gate tells groups apart by."""
    gate = code.settings.gate
    wanted = {**gate.get("slices", {}), **gate.get("fairness", {})}
    if missing := [column for column in wanted if column not in test.rows.columns]:
        raise TrainingError(
            f"the gate has slices of {', '.join(missing)}, of which the dataset has no column", BAD_DATA
        )
    return {column: [str(value) for value in test.rows[column]] for column in wanted}


def _metrics(score: str, right: NDArray[np.bool_], columns: dict[str, list[str]]) -> dict[str, float]:
    found = {f"test_{score}": float(right.mean())}
    for column, groups in columns.items():
        of_rows = np.asarray(groups)
        found |= {f"test_{score}_{column}_{one}": float(right[of_rows == one].mean()) for one in sorted({*groups})}
    return found


def _bits(right: NDArray[np.bool_]) -> str:
    return "".join("1" if one else "0" for one in right)


def _latency_ms(ask: Ask, features: NDArray[Any]) -> float:
    """How long one row takes, the median of some, without the way to a server."""
    took = []
    for row in features[:ASKED]:
        began = time.perf_counter()
        ask(row[np.newaxis])
        took.append(time.perf_counter() - began)
    return 1000 * float(np.median(took))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def register(model: str, run: str) -> str:
    """Have the model of a run registered; its version, the same one when asked again.

    Raises:
        TrainingError: it has not passed the gate.
    """
    return str(_asked(_promotion(), "POST", f"models/{model}/versions", {"run": run})["version"])


def promote(model: str, stage: str, number: str | None = None, incident: str | None = None) -> str:
    """Have a stage serve a version, the newest by default; `incident`: what it mends, where it was not planned.

    Raises:
        TrainingError: there is no such version, or it may not be served.
    """
    return str(_decided(model, stage, "promote", version=number, incident=incident)["version"])


def rollback(model: str, stage: str, incident: str | None = None) -> tuple[str, list[str]]:
    """Have a stage serve what it served before its last promotion; also the versions passed over: they were deleted.

    Raises:
        TrainingError: it has not served anything before that is still there.
    """
    answer = _decided(model, stage, "rollback", incident=incident)
    return str(answer["version"]), answer["passed_over"]


def withdraw(model: str, stage: str, number: str) -> None:
    """Take a stage down that serves a version: it serves nothing until something is promoted or rolled back.

    Raises:
        TrainingError: the stage is to serve another version by now.
    """
    _decided(model, stage, "withdraw", version=number)


def _decided(
    model: str, stage: str, verb: str, *, version: str | None = None, incident: str | None = None
) -> dict[str, Any]:
    if version is not None and not version.isdecimal():
        raise TrainingError(f"{model} has no version {version}", REFUSED)
    body = {**({"version": int(version)} if version else {}), **({"incident": incident} if incident else {})}
    return _asked(_promotion(), "POST", f"models/{model}/stages/{stage}/{verb}", body)


def _promotion() -> Promotion:
    """The promotion service, with MLflow's login.

    Raises:
        TrainingError: its address is not set.
    """
    if not (address := os.environ.get("PROMOTION_URL")):
        raise TrainingError("PROMOTION_URL, the address of the promotion service, is not set", UNAVAILABLE)
    login = (os.environ.get(f"MLFLOW_TRACKING_{word}", "") for word in ("USERNAME", "PASSWORD"))
    return Promotion(address, *login)


def _asked(
    promotion: Promotion, method: str, path: str, body: dict[str, Any] | None = None, **query: str
) -> dict[str, Any]:
    try:
        return promotion.ask(method, path, body, **query)
    except PromotionError as error:
        raise TrainingError(str(error), REFUSED if error.refused else UNAVAILABLE) from None
