"""Models of any flavor: logged to a run, and loaded to predict as the model server does."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import mlflow
import numpy as np
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import infer_signature

from services.drift.answers import LABEL, PROBABILITIES
from services.training.errors import BAD_CODE, UNAVAILABLE, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from services.training.module import Code

    Outputs = dict[str, NDArray[Any]]
    Predictor = Callable[[NDArray[Any]], Outputs]
    LabelPredictor = Callable[[NDArray[Any]], NDArray[Any]]

EXAMPLE_ROWS = 3
# Packages whose types are trusted: skops knows few of the compiled ones, not even a tree.
TRUSTED = ("sklearn", "numpy", "scipy")


def log(code: Code, model: Any, features: NDArray[Any]) -> None:
    """Log a model to the active run.

    Takes scikit-learn models, ONNX (also as bytes) and MLflow's `PythonModel`; the module's `log` logs any other.

    Raises:
        TrainingError: it is none of these, or MLflow cannot log it.
    """
    example, inputs = features[:EXAMPLE_ROWS], code.settings.inputs
    metadata: dict[str, Any] = {"inputs": {}}
    if inputs.minimum is not None and inputs.maximum is not None:
        # A signature has no ranges; the model server refuses values outside these.
        metadata["inputs"][inputs.name] = {"minimum": inputs.minimum, "maximum": inputs.maximum}
    common: dict[str, Any] = {"name": "model", "metadata": metadata}
    try:
        if code.has("log"):
            code.call("log", model, example, **common)
        elif isinstance(model, mlflow.pyfunc.PythonModel):
            # Its class is the module's, so the module's files are logged too.
            files = [str(path) for path in sorted(code.folder.glob("*.py"))]
            with _by_value(code):
                mlflow.pyfunc.log_model(
                    python_model=model, code_paths=files, input_example=example, pip_requirements=_pinned("numpy"),
                    **common,
                )  # fmt: skip
        elif _is_onnx(model):
            _log_onnx(model, example.astype(np.float32), common)
        elif hasattr(model, "get_params") and hasattr(model, "predict"):
            import skops.io  # noqa: PLC0415 - slow to import

            unknown = skops.io.get_untrusted_types(data=skops.io.dumps(model))
            mlflow.sklearn.log_model(
                model, input_example=example, signature=infer_signature(example, model.predict(example)),
                skops_trusted_types=_trusted(code, unknown), pip_requirements=_pinned("scikit-learn", "skops"),
                **common,
            )  # fmt: skip
        else:
            raise TrainingError(
                f"`train` of {code.settings.name} returns {type(model).__name__}, which is none of the kinds that the"
                " model server loads: scikit-learn, ONNX, MLflow's PythonModel; a function `log` may log any other",
                BAD_CODE,
            )
    except MlflowException as error:
        raise training_error(error, f"the model of {code.settings.name} cannot be logged") from error


@contextmanager
def _by_value(code: Code) -> Iterator[None]:
    """Pickle the module's classes by value: by name, unpickling could find those of a later module."""
    own = [
        module
        for module in sys.modules.values()
        if (file := getattr(module, "__file__", None)) and Path(file).is_relative_to(code.folder)
    ]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def training_error(error: MlflowException, what: str) -> TrainingError:
    """A TrainingError for an error of the tracking server or, with `what` failed, of the MLflow library."""
    text = " ".join(str(error).split())
    if isinstance(error, RestException) or "API request to" in text:
        return TrainingError(f"tracking server error: {text}", UNAVAILABLE)
    return TrainingError(f"{what}: {text}", BAD_CODE)


def _trusted(code: Code, unknown: list[str]) -> list[str]:
    """The types unknown to skops that it is to trust.

    Raises:
        TrainingError: some are not from a library of the model server.
    """
    if foreign := [one for one in unknown if one.partition(".")[0] not in TRUSTED]:
        raise TrainingError(
            f"the model of {code.settings.name} contains {', '.join(foreign)}, which the model server does not have:"
            " use scikit-learn's own classes and functions, or MLflow's PythonModel, which is logged with its class",
            BAD_CODE,
        )
    return list(unknown)


def _is_onnx(model: Any) -> bool:
    return isinstance(model, bytes) or type(model).__module__.partition(".")[0] == "onnx"


def _log_onnx(model: Any, example: NDArray[Any], common: dict[str, Any]) -> None:
    import onnx  # noqa: PLC0415

    content = model if isinstance(model, bytes) else model.SerializeToString()
    mlflow.onnx.log_model(
        onnx.load_from_string(content), save_as_external_data=False, input_example=example,
        signature=infer_signature(example, _load_onnx_predictor(content)(example)),
        pip_requirements=_pinned("onnx", "onnxruntime"), **common,
    )  # fmt: skip


def _pinned(*packages: str) -> list[str]:
    return [f"{name}=={version(name)}" for name in packages]


def load_predictor(path: str) -> Predictor:
    """Load the model in a folder, to predict as the model server does: rows (n, k) to outputs by name.

    Raises:
        TrainingError: the model cannot be loaded.
    """
    try:
        return _load_predictor(path)
    except Exception as error:
        # A library, or a class in a pickle, may raise anything.
        text = " ".join(str(error).split()) or "no reason given"
        raise TrainingError(f"the model cannot be loaded: {type(error).__name__}: {text[:1000]}", BAD_CODE) from error


def cached(predict: Predictor, rows: NDArray[Any]) -> Predictor:
    """A predictor that computes the outputs for `rows`, this very array, only once."""
    outputs = cache(lambda: predict(rows))
    return lambda given: outputs() if given is rows else predict(given)


def _load_predictor(path: str) -> Predictor:
    flavors = mlflow.models.Model.load(path).flavors
    if "onnx" in flavors:
        return _load_onnx_predictor(Path(path, flavors["onnx"]["data"]).read_bytes())
    if "sklearn" not in flavors:
        loaded = mlflow.pyfunc.load_model(path)
        return lambda rows: {"predict": np.asarray(loaded.predict(rows))}
    model = mlflow.sklearn.load_model(path)
    if not hasattr(model, "predict_proba"):
        return lambda rows: {LABEL: np.asarray(model.predict(rows))}

    def predict(rows: NDArray[Any]) -> Outputs:
        # As in the model server, so that a tie gets the same label.
        probabilities = model.predict_proba(rows)
        return {LABEL: model.classes_[probabilities.argmax(axis=1)], PROBABILITIES: probabilities}

    return predict


def _load_onnx_predictor(content: bytes) -> Predictor:
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(content)
    input_name, names = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    return lambda rows: dict(zip(names, session.run(names, {input_name: rows.astype(np.float32)}), strict=True))


def label_predictor(predict: Predictor) -> LabelPredictor:
    """A predictor of the labels alone; without an output `label`, of the first output."""

    def labels(rows: NDArray[Any]) -> NDArray[Any]:
        outputs = predict(rows)
        return outputs.get(LABEL, next(iter(outputs.values())))

    return labels
