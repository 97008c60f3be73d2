"""`python -m model_server`: loads a model, then serves it until told to stop. images/README.md lists the settings."""

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
from kserve.errors import InvalidInput, ModelNotFound
from kserve.logging import configure_logging, logger
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from kserve.utils.numpy_codec import from_np_dtype
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prometheus_client import Gauge

from model_server.models import load

if TYPE_CHECKING:
    from types import FrameType

    from numpy.typing import NDArray

    from model_server.models import Predictor

APPLICATION = "kserve.model_server:app"
# How long a server that is told to stop goes on answering, as gateways still send it requests: those that noticed late.
SECONDS_TO_DRAIN = "10"
SECONDS_TO_FINISH = 30


class RegisteredModel(Model):  # type: ignore[misc]
    """A version of a registered model."""

    def __init__(self, name: str, version: str, predictor: Predictor) -> None:
        super().__init__(name)
        self.version = version
        self.ready = True
        self._predictor = predictor

    def predict(self, payload: Any, headers: Any = None) -> Any:  # noqa: ARG002
        """Answer a request: V2's, or V1's `{"instances": [...]}`."""
        if isinstance(payload, InferRequest):
            return self._infer(payload)
        try:
            rows = np.asarray(payload["instances"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("the request must have `instances`: rows of one length") from error
        outputs = self._ask(rows)
        return {"predictions": next(iter(outputs.values())).tolist(), "model_version": self.version}

    def _infer(self, request: InferRequest) -> InferResponse:
        if len(request.inputs) != 1:
            raise InvalidInput("the model takes one input, with a row for each case")
        outputs = self._ask(request.inputs[0].as_numpy())
        wanted = [output.name for output in request.request_outputs or []] or list(outputs)
        if unknown := [name for name in wanted if name not in outputs]:
            raise InvalidInput(f"the model has no output {', '.join(unknown)}; it has {', '.join(outputs)}")
        tensors = [
            InferOutput(name, list(values.shape), from_np_dtype(values.dtype), values.ravel().tolist())
            for name in wanted
            if (values := outputs[name]) is not None
        ]
        return InferResponse(request.id or str(uuid4()), self.name, tensors, model_version=self.version)

    def _ask(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        try:
            return self._predictor(rows)
        except ValueError as error:
            raise InvalidInput(str(error)) from error


class Readiness(DataPlane):  # type: ignore[misc]
    """KServe's endpoints, of a server that can be about to stop."""

    draining = False

    async def ready(self) -> bool:
        """Whether gateways are to send requests."""
        return not self.draining


class FixedRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """KServe's repository, whose endpoints would let anyone unload the model."""

    async def load(self, model_name: str) -> None:
        """Refuse."""
        raise ModelNotFound(model_name)

    async def unload(self, model_name: str) -> None:
        """Refuse."""
        raise ModelNotFound(model_name)


class Server(uvicorn.Server):  # type: ignore[misc]
    """Stops in two steps: it says that it is not ready any more while it goes on answering, then it ends."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness, seconds_to_drain: float) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._end = threading.Timer(seconds_to_drain, self._stop)
        self._end.daemon = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal ends it at once."""
        if self._readiness.draining:
            super().handle_exit(sig, frame)
        else:
            self._readiness.draining = True
            logger.info("draining")
            self._end.start()

    def _stop(self) -> None:
        self.should_exit = True


def main() -> None:
    """Entry point; settings are environment variables."""
    configure_logging()
    for name in ("kserve.trace", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    name, alias = os.environ["MODEL_NAME"], os.environ.get("MODEL_ALIAS") or "production"
    try:
        version = os.environ.get("MODEL_VERSION") or MlflowClient().get_model_version_by_alias(name, alias).version
        predictor = load(f"models:/{name}/{version}")
    except MlflowException as error:
        sys.exit(f"error: {name}@{alias} cannot be loaded from {os.environ.get('MLFLOW_TRACKING_URI')}: {error}")
    models = ModelRepository()
    models.update(RegisteredModel(name, str(version), predictor))
    Gauge("model_info", "The model that is served.", ["name", "version"]).labels(name, version).set(1)
    readiness = Readiness(model_registry=models)
    rest = RESTServer(
        APPLICATION, readiness, FixedRepository(models), int(os.environ.get("PORT", "8080")),
        grace_period=SECONDS_TO_FINISH,
    )  # fmt: skip
    rest.create_application()
    logger.info("serving version %s of %s", version, name)
    Server(rest.config, readiness, float(os.environ.get("DRAIN_SECONDS", SECONDS_TO_DRAIN))).run()


if __name__ == "__main__":
    main()
