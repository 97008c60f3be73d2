"""Runs and models in MLflow with their lineage, and calls to the promotion service."""

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
from services.training.errors import BAD_CODE, BAD_DATA, REFUSED, UNAVAILABLE, TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from services.training.datasets import Table
    from services.training.flavors import Outputs, Predictor
    from services.training.module import Code
    from services.training.settings import JobSettings

GATE, PASSED, REFUSAL, DATA_VERSION = "gate", "passed", "refused", "data_version"
LATENCY_ROWS = 50
"""Rows that are predicted one by one to measure the latency."""


@dataclass(frozen=True)
class Trained:
    """How a model was trained, for its lineage."""

    variant: str
    seed: int
    workers: int


def log(job: JobSettings, code: Code, data: Table, model: Any, trained: Trained) -> str:
    """Log a trained model as a run; returns the run's id.

    Raises:
        TrainingError: MLflow cannot log the model.
    """
    lineage = {
        DATA_VERSION: data.version, "code_version": job.code_version, "code_archive": f"sha256:{job.archive}",
        "code_commit": job.commit, "code_dirty": job.dirty, "image_digest": job.image_digest,
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
    """Test the logged model of a run; record the metrics and the gate's verdict in the run.

    Raises:
        TrainingError: the gate refuses it, or it was trained on another version of the dataset.
    """
    client, promotion, name = mlflow.MlflowClient(), _promotion(), code.settings.name
    trained_on = client.get_run(run).data.tags.get(DATA_VERSION)
    if trained_on != test.version:
        raise TrainingError(f"run {run} was trained on dataset {trained_on}, not on {test.version}", BAD_DATA)
    path, rows = mlflow.artifacts.download_artifacts(f"runs:/{run}/model"), f"{test.version}.{len(test.rows)}"
    features = test.features
    predict = flavors.cached(flavors.load_predictor(path), features)
    correct, columns = _correct(code, predict, features, test), _columns(code, test)
    evidence: dict[str, Any] = {
        "run": run, "test": rows, "right": _bitmap(correct), "columns": columns,
        "figures": {"latency_ms": _latency_ms(predict, features), "size_bytes": float(_size(Path(path)))},
    }  # fmt: skip
    state = _request(promotion, "GET", f"models/{name}/gate", test=rows)
    metrics = _metrics(state["gate"]["score"]["name"], correct, columns)
    for metric, value in metrics.items():
        client.log_metric(run, metric, value)
    _log_reference(client, run, Path(path), predict(features))
    served = state["baseline"]
    if served and not served["known"]:
        evidence["baseline"] = _baseline(code, served["version"], test)
    verdict = _request(promotion, "POST", f"models/{name}/verdicts", evidence)
    client.set_tag(run, GATE, PASSED if verdict["passed"] else REFUSAL)
    if not verdict["passed"]:
        reasons = "; ".join(verdict["reasons"])
        client.set_tag(run, f"{GATE}.reasons", reasons)
        raise TrainingError(f"the gate refuses run {run}: {reasons}", REFUSED)
    return metrics


def _baseline(code: Code, version: str, test: Table) -> dict[str, Any]:
    """Which test rows production's version predicts correctly.

    Raises:
        TrainingError: it cannot predict these rows.
    """
    name = code.settings.name
    path = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}")
    try:
        return {
            "version": int(version),
            "right": _bitmap(_correct(code, flavors.load_predictor(path), test.features, test)),
        }
    except TrainingError as error:
        raise TrainingError(
            f"production's version {version} cannot predict the test rows, so there is no comparison: {error}."
            f" If the columns have changed: `lab withdraw {name} --stage production`, then train again",
            BAD_DATA,
        ) from error


def _log_reference(client: mlflow.MlflowClient, run: str, path: Path, outputs: Outputs) -> None:
    """Log the outputs for the test rows with the model: its server compares with them to detect drift."""
    if (path / REFERENCE).exists():
        return  # files that passed a gate do not change
    (model,) = client.get_run(run).outputs.model_outputs
    try:
        reference = Reference.of(outputs)
    except DriftError as error:
        print(f"drift of this model will not be detected: {error}", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        client.log_model_artifact(model.model_id, str(reference.write(Path(folder))))


def _correct(code: Code, predict: Predictor, features: NDArray[Any], test: Table) -> NDArray[np.bool_]:
    """Whether a model predicts each row correctly, (n,), as the module's `evaluate` returns it.

    Raises:
        TrainingError: `evaluate` returns something else.
    """
    found = np.asarray(code.call("evaluate", flavors.label_predictor(predict), features, test.labels))
    if found.shape != (len(test.rows),) or found.dtype != np.bool_:
        raise TrainingError(
            f"`evaluate` of {code.settings.name} returns {found.dtype} of the shape {found.shape}, not true or false"
            f" for each of {len(test.rows)} rows",
            BAD_CODE,
        )
    return found


def _columns(code: Code, test: Table) -> dict[str, list[str]]:
    """The group of each row, for every column that the gate has slices or fairness of."""
    gate = code.settings.gate
    wanted = {**gate.get("slices", {}), **gate.get("fairness", {})}
    if missing := [column for column in wanted if column not in test.rows.columns]:
        raise TrainingError(
            f"the gate has slices of {', '.join(missing)}, which are not columns of the dataset", BAD_DATA
        )
    return {column: [str(value) for value in test.rows[column]] for column in wanted}


def _metrics(score: str, correct: NDArray[np.bool_], columns: dict[str, list[str]]) -> dict[str, float]:
    found = {f"test_{score}": float(correct.mean())}
    for column, groups in columns.items():
        of_rows = np.asarray(groups)
        found |= {f"test_{score}_{column}_{one}": float(correct[of_rows == one].mean()) for one in sorted({*groups})}
    return found


def _bitmap(correct: NDArray[np.bool_]) -> str:
    return "".join("1" if one else "0" for one in correct)


def _latency_ms(predict: Predictor, features: NDArray[Any]) -> float:
    """The median time of one row, without the network."""
    durations = []
    for row in features[:LATENCY_ROWS]:
        started = time.perf_counter()
        predict(row[np.newaxis])
        durations.append(time.perf_counter() - started)
    return 1000 * float(np.median(durations))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def register(model: str, run: str) -> str:
    """Register the model of a run; returns its version, the same one if it is registered already.

    Raises:
        TrainingError: the run has not passed the gate.
    """
    return str(_request(_promotion(), "POST", f"models/{model}/versions", {"run": run})["version"])


def promote(model: str, stage: str, number: str | None = None, incident: str | None = None) -> str:
    """Promote a version, by default the newest, to a stage; `incident`: the one that it fixes.

    Raises:
        TrainingError: there is no such version, or it may not be served.
    """
    return str(_move_stage(model, stage, "promote", version=number, incident=incident)["version"])


def rollback(model: str, stage: str, incident: str | None = None) -> tuple[str, list[str]]:
    """Return a stage to the version before its last promotion; returns it and the deleted versions it skipped.

    Raises:
        TrainingError: no earlier version is left.
    """
    answer = _move_stage(model, stage, "rollback", incident=incident)
    return str(answer["version"]), answer["passed_over"]


def withdraw(model: str, stage: str, number: str) -> None:
    """Take down a stage that serves a version, until the next promotion or rollback.

    Raises:
        TrainingError: the stage serves another version now.
    """
    _move_stage(model, stage, "withdraw", version=number)


def _move_stage(
    model: str, stage: str, verb: str, *, version: str | None = None, incident: str | None = None
) -> dict[str, Any]:
    if version is not None and not version.isdecimal():
        raise TrainingError(f"{model} has no version {version}", REFUSED)
    body = {**({"version": int(version)} if version else {}), **({"incident": incident} if incident else {})}
    return _request(_promotion(), "POST", f"models/{model}/stages/{stage}/{verb}", body)


def _promotion() -> Promotion:
    """The promotion service, with MLflow's login.

    Raises:
        TrainingError: its address is not set.
    """
    if not (address := os.environ.get("PROMOTION_URL")):
        raise TrainingError("PROMOTION_URL, the address of the promotion service, is not set", UNAVAILABLE)
    login = (os.environ.get(f"MLFLOW_TRACKING_{word}", "") for word in ("USERNAME", "PASSWORD"))
    return Promotion(address, *login)


def _request(
    promotion: Promotion, method: str, path: str, body: dict[str, Any] | None = None, **query: str
) -> dict[str, Any]:
    try:
        return promotion.ask(method, path, body, **query)
    except PromotionError as error:
        raise TrainingError(str(error), REFUSED if error.refused else UNAVAILABLE) from None
