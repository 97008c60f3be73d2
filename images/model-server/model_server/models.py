"""Models as the server asks them, whatever made them: scikit-learn, ONNX, or any other flavor of MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
from mlflow.models import Model
from numpy.typing import NDArray

# Outputs by name, for rows of inputs. ValueError: the model does not take such rows.
Predictor = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
LABEL, PROBABILITIES = "label", "probabilities"


def load(uri: str) -> Predictor:
    """Load the model at an MLflow URI.

    Raises:
        mlflow.exceptions.MlflowException: the registry has no such model, or does not answer.
    """
    path = mlflow.artifacts.download_artifacts(uri)
    flavors = Model.load(path).flavors
    if "onnx" in flavors:
        return _onnx(Path(path, flavors["onnx"]["data"]))
    if "sklearn" in flavors:
        return _sklearn(path)
    model = mlflow.pyfunc.load_model(path)
    return lambda rows: {"predict": np.asarray(model.predict(rows))}


def _onnx(path: Path) -> Predictor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one request at a time, beside other servers on the same cores
    session = onnxruntime.InferenceSession(str(path), options)
    [taken] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def predict(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if list(rows.shape[1:]) != taken.shape[1:]:
            raise ValueError(f"rows have the shape {list(rows.shape[1:])}; the model takes {taken.shape[1:]}")
        return dict(zip(names, session.run(names, {taken.name: rows.astype(np.float32)}), strict=True))

    return predict


def _sklearn(path: str) -> Predictor:
    model = mlflow.sklearn.load_model(path)
    if not hasattr(model, "predict_proba"):
        return lambda rows: {LABEL: model.predict(rows)}

    def predict(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        probabilities = model.predict_proba(rows)
        return {LABEL: model.classes_[probabilities.argmax(axis=1)], PROBABILITIES: probabilities}

    return predict
