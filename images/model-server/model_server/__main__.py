"""`python -m model_server`: loads a model, then serves it until it is stopped. images/README.md lists the settings."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import InvalidInput, ModelNotFound, UnsupportedProtocol
from kserve.logging import configure_logging, logger
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from kserve.utils.numpy_codec import from_np_dtype
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prometheus_client import Gauge
from uvicorn.importer import import_from_string

from model_server import refusals
from model_server.drift import Watch
from model_server.inputs import InputError
from model_server.models import load

if TYPE_CHECKING:
    from types import FrameType

    from numpy.typing import NDArray

    from model_server.models import Loaded

APPLICATION = "kserve.model_server:app"
# How long a stopping server still answers, for gateways that are late to notice.
SECONDS_TO_DRAIN = "10"
SECONDS_TO_FINISH = 30
WINDOW_SECONDS = "300"
MAX_BYTES = str(16 << 20)
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED")
"""The registry's error codes for a deleted version or model."""


class RegisteredModel(Model):  # type: ignore[misc]
    """A version of a registered model."""

    def __init__(self, name: str, version: str, loaded: Loaded, watch: Watch) -> None:
        super().__init__(name)
        self.version = version
        self.ready = True
        self._loaded, self._watch = loaded, watch

    def get_input_types(self) -> list[dict[str, Any]]:
        """The input's name, datatype and shape, for the model's metadata."""
        return self._loaded.schema.metadata

    def predict(self, payload: Any, headers: Any = None) -> Any:  # noqa: ARG002
        """Answer a request: V2's, or V1's `{"instances": [...]}`."""
        try:
            return self._infer(payload) if isinstance(payload, InferRequest) else self._predict(payload)
        except InputError as error:
            raise InvalidInput(f"version {self.version} of {self.name}: {error}") from error

    def _predict(self, payload: Any) -> dict[str, Any]:
        if not isinstance(payload, dict):
            raise InputError("the request is not a JSON object with `instances`")
        outputs = self._outputs(self._loaded.schema.instances(payload.get("instances")))
        return {"predictions": next(iter(outputs.values())).tolist(), "model_version": self.version}

    def _infer(self, request: InferRequest) -> InferResponse:
        if len(request.inputs) != 1:
            raise InputError(f"the model takes one input with a row for each case, not {len(request.inputs)}")
        (given,) = request.inputs
        outputs = self._outputs(self._loaded.schema.tensor(given.name, given.datatype, given.shape, given.data))
        wanted = [output.name for output in request.request_outputs or []] or list(outputs)
        if unknown := [name for name in wanted if name not in outputs]:
            raise InputError(f"the model has no output {', '.join(unknown)}; it has {', '.join(outputs)}")
        tensors = [
            InferOutput(name, list(values.shape), from_np_dtype(values.dtype), values.ravel().tolist())
            for name in wanted
            if (values := outputs[name]) is not None
        ]
        return InferResponse(request.id or str(uuid4()), self.name, tensors, model_version=self.version)

    def _outputs(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        try:
            outputs = self._loaded.predict(rows)
        except ValueError as error:
            raise InputError(str(error)) from error
        for name, values in outputs.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise InputError(f"the model's {name} of these rows is not a finite number")
        self._watch.add(outputs)
        return outputs


class Readiness(DataPlane):  # type: ignore[misc]
    """KServe's endpoints, with readiness that ends before the server does."""

    draining = False

    async def ready(self) -> bool:
        """Whether gateways are to send requests."""
        return not self.draining

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Decode a request; any error is a 400, not a 500."""
        try:
            return super().decode(*args, **kwargs)
        except (InvalidInput, UnsupportedProtocol):
            raise
        except Exception as error:
            raise InvalidInput(f"the request cannot be read: {type(error).__name__}: {error}") from error


class FixedRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """KServe's model repository without its endpoints, by which anyone could unload the model."""

    async def load(self, model_name: str) -> None:
        """Refuse."""
        raise ModelNotFound(model_name)

    async def unload(self, model_name: str) -> None:
        """Refuse."""
        raise ModelNotFound(model_name)


class Server(uvicorn.Server):  # type: ignore[misc]
    """Stops in two steps: it answers but is not ready, then it exits."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness, seconds_to_drain: float) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._end = threading.Timer(seconds_to_drain, self._stop)
        self._end.daemon = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain; a second signal stops the server at once."""
        if self._readiness.draining:
            super().handle_exit(sig, frame)
        else:
            self._readiness.draining = True
            logger.info("draining")
            self._end.start()

    def _stop(self) -> None:
        self.should_exit = True


def load_version(name: str, version: str, source: str) -> Loaded:
    """Load a version from the registry or, if it was deleted there, from its files at `source`.

    Raises:
        mlflow.exceptions.MlflowException: neither has it, or the registry does not answer.
        ValueError: the ranges recorded with it are not valid.
    """
    try:
        return load(f"models:/{name}/{version}")
    except MlflowException as error:
        if not source or error.error_code not in MISSING:
            raise
        logger.warning("the registry has no version %s of %s any more; loading %s", version, name, source)
        return load(source)


def main() -> None:
    """Entry point; settings are environment variables."""
    configure_logging()
    for name in ("kserve.trace", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    name, alias = os.environ["MODEL_NAME"], os.environ.get("MODEL_ALIAS") or "production"
    try:
        version = os.environ.get("MODEL_VERSION") or MlflowClient().get_model_version_by_alias(name, alias).version
        loaded = load_version(name, str(version), os.environ.get("MODEL_SOURCE", ""))
    except (MlflowException, ValueError) as error:
        sys.exit(f"error: {name}@{alias} cannot be loaded from {os.environ.get('MLFLOW_TRACKING_URI')}: {error}")
    seconds = float(os.environ.get("DRIFT_WINDOW_SECONDS") or WINDOW_SECONDS)
    watch = Watch((name, str(version), alias), loaded.folder, seconds)
    models = ModelRepository()
    models.update(RegisteredModel(name, str(version), loaded, watch))
    Gauge("model_info", "The model that is served.", ["name", "version"]).labels(name, version).set(1)
    readiness = Readiness(model_registry=models)
    rest = RESTServer(
        APPLICATION, readiness, FixedRepository(models), int(os.environ.get("PORT", "8080")),
        grace_period=SECONDS_TO_FINISH,
    )  # fmt: skip
    rest.create_application()
    refusals.add_to(import_from_string(APPLICATION), int(os.environ.get("MAX_REQUEST_BYTES") or MAX_BYTES))
    logger.info("serving version %s of %s", version, name)
    Server(rest.config, readiness, float(os.environ.get("DRAIN_SECONDS", SECONDS_TO_DRAIN))).run()


if __name__ == "__main__":
    main()
