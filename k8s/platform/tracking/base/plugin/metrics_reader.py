"""MLflow's server with passwords, whose metrics the user `monitor` may read (a plugin of MLflow: mlflow.app).

MLflow itself shows `/metrics` only to administrators.
"""

from __future__ import annotations

from typing import Any

from mlflow.server import app, auth

READER = "monitor"


def create_app(flask: Any = app) -> Any:
    """MLflow's app `basic-auth` with that permission."""
    auth.BEFORE_REQUEST_VALIDATORS["/metrics", "GET"] = lambda: auth.authenticate_request().username == READER
    return auth.create_app(flask)
