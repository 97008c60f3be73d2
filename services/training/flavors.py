"""Models of any kind: how each is written to a run, and asked as the model server asks it."""

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
from services.training.errors import FAULTY, UNAVAILABLE, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from services.training.module import Code

    Outputs = dict[str, NDArray[Any]]
    Ask = Callable[[NDArray[Any]], Outputs]
    Predict = Callable[[NDArray[Any]], NDArray[Any]]

EXAMPLE_ROWS = 3
# Whose types are taken to be what they say: skops knows few of the compiled ones, not even a tree.
TRUSTED = ("sklearn", "numpy", "scipy")


def log(code: Code, model: Any, features: NDArray[Any]) -> None:
    """Write a model to the run that is open.

    scikit-learn's, ONNX' (also as bytes) and MLflow's own `PythonModel` are known; the module's `log` writes any other.

    Raises:
        TrainingError: it is none of these, or MLflow does not take it.
    """
    example, inputs = features[:EXAMPLE_ROWS], code.settings.inputs
    metadata: dict[str, Any] = {"inputs": {}}
    if inputs.minimum is not None and inputs.maximum is not None:
        # Recorded beside the signature, which has no ranges: the model server refuses what is outside them.
        metadata["inputs"][inputs.name] = {"minimum": inputs.minimum, "maximum": inputs.maximum}
    common: dict[str, Any] = {"name": "model", "metadata": metadata}
    try:
        if code.has("log"):
            code.call("log", model, example, **common)
        elif isinstance(model, mlflow.pyfunc.PythonModel):
            # Its class is the module's: it comes along.
            files = [str(path) for path in sorted(code.folder.glob("*.py"))]
            with _by_value(code):
                mlflow.pyfunc.log_model(
                    python_model=model, code_paths=files, input_example=example, pip_requirements=_pinned("numpy"),
                    **common,
                )  # fmt: skip
        elif _is_onnx(model):
            _log_onnx(model, example.astype(np.float32), common)
        elif hasattr(model, "get_params") and hasattr(model, "predict"):
            import skops.io  # noqa: PLC0415 - takes its time

            unknown = skops.io.get_untrusted_types(data=skops.io.dumps(model))
            mlflow.sklearn.log_model(
                model, input_example=example, signature=infer_signature(example, model.predict(example)),
                skops_trusted_types=_trusted(code, unknown), pip_requirements=_pinned("scikit-learn", "skops"),
                **common,
            )  # fmt: skip
        else:
            raise TrainingError(
                f"`train` of {code.settings.name} gives {type(model).__name__}, which is of no kind that the model"
                " server has: scikit-learn's, ONNX, or a PythonModel of MLflow's; a function `log` may write it"
                " otherwise",
                FAULTY,
            )
    except MlflowException as error:
        raise told(error, f"the model of {code.settings.name} cannot be logged") from error


@contextmanager
def _by_value(code: Code) -> Iterator[None]:
    """Has what is pickled hold the module's classes themselves: by name, a later module's would be found instead."""
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


def told(error: MlflowException, what: str) -> TrainingError:
    """An error of MLflow's: what its server says, or what it makes of a model without asking anybody."""
    text = " ".join(str(error).split())
    if isinstance(error, RestException) or "API request to" in text:
        return TrainingError(f"the tracking server says: {text}", UNAVAILABLE)
    return TrainingError(f"{what}: {text}", FAULTY)


def _trusted(code: Code, unknown: list[str]) -> list[str]:
    """What skops is told to trust, of the types in a model that it does not know.

    Raises:
        TrainingError: some are of nobody's library, so that no model server has them.
    """
    if foreign := [one for one in unknown if one.partition(".")[0] not in TRUSTED]:
        raise TrainingError(
            f"the model of {code.settings.name} has {', '.join(foreign)} in it, which the model server does not have:"
            " it takes scikit-learn's own classes and functions; a PythonModel of MLflow's brings its class along",
            FAULTY,
        )
    return list(unknown)


def _is_onnx(model: Any) -> bool:
    return isinstance(model, bytes) or type(model).__module__.partition(".")[0] == "onnx"


def _log_onnx(model: Any, example: NDArray[Any], common: dict[str, Any]) -> None:
    import onnx  # noqa: PLC0415

    content = model if isinstance(model, bytes) else model.SerializeToString()
    mlflow.onnx.log_model(
        onnx.load_from_string(content), save_as_external_data=False, input_example=example,
        signature=infer_signature(example, _asking_onnx(content)(example)),
        pip_requirements=_pinned("onnx", "onnxruntime"), **common,
    )  # fmt: skip


def _pinned(*packages: str) -> list[str]:
    return [f"{name}=={version(name)}" for name in packages]


def asking(path: str) -> Ask:
    """What answers as the model server does, of the model in a folder: its outputs by name.

    Raises:
        TrainingError: the model cannot be loaded.
    """
    try:
        return _asking(path)
    except Exception as error:
        # Whatever a library, or the class in a pickle, makes of it.
        text = " ".join(str(error).split()) or "no reason given"
        raise TrainingError(f"the model cannot be loaded: {type(error).__name__}: {text[:1000]}", FAULTY) from error


def remembering(ask: Ask, rows: NDArray[Any]) -> Ask:
    """What asks a model about `rows` once, and about other rows as often as it is asked to."""
    answered = cache(lambda: ask(rows))
    return lambda asked: answered() if asked is rows else ask(asked)


def _asking(path: str) -> Ask:
    flavors = mlflow.models.Model.load(path).flavors
    if "onnx" in flavors:
        return _asking_onnx(Path(path, flavors["onnx"]["data"]).read_bytes())
    if "sklearn" not in flavors:
        loaded = mlflow.pyfunc.load_model(path)
        return lambda rows: {"predict": np.asarray(loaded.predict(rows))}
    model = mlflow.sklearn.load_model(path)
    if not hasattr(model, "predict_proba"):
        return lambda rows: {LABEL: np.asarray(model.predict(rows))}

    def likeliest(rows: NDArray[Any]) -> Outputs:
        # As the model server has it, so that a tie is the same label here and there.
        probabilities = model.predict_proba(rows)
        return {LABEL: model.classes_[probabilities.argmax(axis=1)], PROBABILITIES: probabilities}

    return likeliest


def _asking_onnx(content: bytes) -> Ask:
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(content)
    taken, names = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    return lambda rows: dict(zip(names, session.run(names, {taken: rows.astype(np.float32)}), strict=True))


def predicting(ask: Ask) -> Predict:
    """What gives a model's labels alone; of a model that names none, its first output."""

    def labels(rows: NDArray[Any]) -> NDArray[Any]:
        outputs = ask(rows)
        return outputs.get(LABEL, next(iter(outputs.values())))

    return labels
