"""Loads models of any flavor: scikit-learn, ONNX, or another one of MLflow's."""

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

# Rows of inputs to outputs by name. ValueError: the rows are not valid for the model.
Predictor = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
LABEL, PROBABILITIES = "label", "probabilities"


@dataclass(frozen=True)
class Loaded:
    """A model and the schema of its input."""

    schema: Schema
    predict: Predictor
    folder: Path
    """Its files."""


def load(uri: str) -> Loaded:
    """Load the model at an MLflow URI.

    Raises:
        mlflow.exceptions.MlflowException: the registry has no such model, or does not answer.
        ValueError: the ranges recorded with it are not valid.
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
        except MlflowException as error:  # pyfunc checks rows against the signature
            raise InputError(str(error)) from error

    return Loaded(Schema.of(recorded), predict, Path(path))


def _onnx(folder: Path, recorded: Model) -> Loaded:
    path = folder / recorded.flavors["onnx"]["data"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one request at a time; other servers share the cores
    session = onnxruntime.InferenceSession(str(path), options)
    [tensor] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    shape = tuple(size if isinstance(size, int) else -1 for size in tensor.shape[1:])
    schema = replace(Schema.of(recorded, tensor.name), dtype=np.dtype(np.float32), shape=shape)

    def predict(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {tensor.name: rows}), strict=True))

    return Loaded(schema, predict, folder)


def _sklearn(path: str) -> Predictor:
    model = mlflow.sklearn.load_model(path)
    if not hasattr(model, "predict_proba"):
        return lambda rows: {LABEL: model.predict(rows)}

    def predict(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        probabilities = model.predict_proba(rows)
        return {LABEL: model.classes_[probabilities.argmax(axis=1)], PROBABILITIES: probabilities}

    return predict
