"""The service: features of orders that are placed now, as the request that the model server takes."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.features import columns, orders
from services.features.store import PLACED, Store
from services.features.tables import UTC_TIME

if TYPE_CHECKING:
    from fastapi import Request

    from services.features.settings import Told

INPUT = "features"
"""The name of the model's input: `inputs.name` of its model.yaml."""
MOST_ORDERS = 1000
REQUESTS = Counter("features_requests", "Requests for features of orders.", ["status"])
log = logging.getLogger("features")
Key = Field(ge=0, le=2**63 - 1)


class Order(BaseModel):
    """What is known of an order when it is placed."""

    model_config = ConfigDict(extra="forbid")
    restaurant: int = Key
    courier: int = Key
    distance_km: float = Field(gt=0, le=100)
    items: int = Field(ge=1, le=1000)
    placed_at: AwareDatetime | None = None
    """Now, unless it says otherwise; its features are those of now in any case."""


class Asked(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="forbid")
    orders: list[Order] = Field(min_length=1, max_length=MOST_ORDERS)


class Served:
    """The online store, for one request at a time: Feast has one connection."""

    def __init__(self, told: Told) -> None:
        self._told, self._lock = told, threading.Lock()
        self._store: Store | None = None

    def columns(self, placed: pd.DataFrame) -> pd.DataFrame:
        """The model's columns for orders that are placed now. Feast does not connect anew: that is done here, once."""
        with self._lock:
            for last in (False, True):
                try:
                    self._store = self._store or Store(self._told)
                    return columns.of(self._store.online(placed, datetime.now(UTC)))
                except Exception:  # Feast raises what its drivers raise
                    self._store = None
                    if last:
                        raise
        raise AssertionError


def application(told: Told) -> FastAPI:
    """The API; README.md has it."""
    app, served = FastAPI(title="features", docs_url=None, redoc_url=None, openapi_url=None), Served(told)

    def refuse(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        REQUESTS.labels("400").inc()
        return JSONResponse({"error": "; ".join(faults)}, 400)

    def request(asked: Asked) -> JSONResponse:
        now = datetime.now(UTC)
        placed = pd.DataFrame([one.model_dump() for one in asked.orders])
        placed[PLACED] = pd.to_datetime([one.placed_at or now for one in asked.orders], utc=True).astype(UTC_TIME)
        answer = _answer(served, placed)
        REQUESTS.labels(str(answer.status_code)).inc()
        return answer

    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    def ready() -> JSONResponse:
        return _answer(served, orders.every_pair(datetime.now(UTC)).head(1))

    def alive() -> dict[str, str]:
        return {}

    app.add_exception_handler(RequestValidationError, refuse)
    app.add_api_route("/v1/delivery-times", request, methods=["POST"])
    for path, answers in (("/readyz", ready), ("/healthz", alive), ("/metrics", metrics)):
        app.add_api_route(path, answers)
    return app


def _answer(served: Served, placed: pd.DataFrame) -> JSONResponse:
    """What the model server takes, by the Open Inference Protocol."""
    try:
        found = served.columns(placed)
    except Exception as error:  # as above
        log.warning("%s: %s", type(error).__name__, error)
        text = f"no features can be had: {type(error).__name__}; is PostgreSQL there, and was `update` ever run?"
        return JSONResponse({"error": text}, 503)
    tensor: dict[str, Any] = {
        "name": INPUT, "shape": list(found.shape), "datatype": "FP64", "data": found.to_numpy().ravel().tolist()
    }  # fmt: skip
    return JSONResponse({"inputs": [tensor]})
