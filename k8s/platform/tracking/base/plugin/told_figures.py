"""MLflow's server with passwords, whose figures the user `monitor` may read too (a plugin of MLflow: mlflow.app).

MLflow shows `/metrics` to administrators alone: it knows no permission for it.
"""

from __future__ import annotations

from typing import Any

from mlflow.server import app, auth

READER = "monitor"


def create_app(flask: Any = app) -> Any:
    """MLflow's own app `basic-auth`, with that permission."""
    auth.BEFORE_REQUEST_VALIDATORS["/metrics", "GET"] = lambda: auth.authenticate_request().username == READER
    return auth.create_app(flask)
