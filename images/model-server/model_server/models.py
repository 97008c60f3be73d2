"""Models as the server asks them, whatever made them: scikit-learn, ONNX, or any other flavor of MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from numpy.typing import NDArray

from model_server.inputs import InputError, Schema

# Outputs by name, for rows of inputs. ValueError: the model does not take such rows.
Predictor = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
LABEL, PROBABILITIES = "label", "probabilities"


@dataclass(frozen=True)
class Loaded:
    """A model, and what it takes."""

    schema: Schema
    predict: Predictor
    folder: Path
    """Its files."""


def load(uri: str) -> Loaded:
    """Load the model at an MLflow URI.

    Raises:
        mlflow.exceptions.MlflowException: the registry has no such model, or does not answer.
        ValueError: the ranges that are recorded with it are none.
    """
    path = mlflow.artifacts.download_artifacts(uri)
    recorded = Model.load(path)
    if "onnx" in recorded.flavors:
        return _onnx(Path(path), recorded)
    if "sklearn" in recorded.flavors:
        return Loaded(Schema.of(recorded), _sklearn(path), Path(path))
    model = mlflow.pyfunc.load_model(path)

    def predict(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        try:
            return {"predict": np.asarray(model.predict(rows))}
        except MlflowException as error:  # it holds them against the signature itself
            raise InputError(str(error)) from error

    return Loaded(Schema.of(recorded), predict, Path(path))


def _onnx(folder: Path, recorded: Model) -> Loaded:
    path = folder / recorded.flavors["onnx"]["data"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one request at a time, beside other servers on the same cores
    session = onnxruntime.InferenceSession(str(path), options)
    [taken] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    shape = tuple(size if isinstance(size, int) else -1 for size in taken.shape[1:])
    schema = replace(Schema.of(recorded, taken.name), dtype=np.dtype(np.float32), shape=shape)

    def predict(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {taken.name: rows}), strict=True))

    return Loaded(schema, predict, folder)


def _sklearn(path: str) -> Predictor:
    model = mlflow.sklearn.load_model(path)
    if not hasattr(model, "predict_proba"):
        return lambda rows: {LABEL: model.predict(rows)}

    def predict(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        probabilities = model.predict_proba(rows)
        return {LABEL: model.classes_[probabilities.argmax(axis=1)], PROBABILITIES: probabilities}

    return predict
