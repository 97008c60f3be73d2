"""The promotion service and what it decides about, as tests use them: by their APIs alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.images.services import PASSWORD

MODEL = "digits"
ROWS = 300
CALLERS = {name: f"{name}-password-of-tests" for name in ("trainer", "pipelines", "server", "monitor", "promotion")} | {
    "admin": PASSWORD
}


def asked(method: str, url: str, user: str, body: Any = None, password: str | None = None) -> tuple[int, Any]:
    """Status and JSON, or text, of an answer, whatever it is."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, method=method)
    if user:
        login = f"{user}:{CALLERS[user] if password is None else password}"
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    try:
        return status, json.loads(content)
    except ValueError:
        return status, content.decode(errors="replace")


@dataclass(frozen=True)
class World:
    """A registry and the service that decides about it."""

    tracking: str
    promotion: str

    def mlflow(
        self, method: str, path: str, user: str = "trainer", api: str = "api/2.0", **body: Any
    ) -> tuple[int, Any]:
        """Ask MLflow."""
        return asked(method, f"{self.tracking}/{api}/mlflow/{path}", user, None if method == "GET" else body)

    def decide(self, path: str, user: str = "trainer", **body: Any) -> tuple[int, Any]:
        """Ask the service to decide."""
        return asked("POST", f"{self.promotion}/v1/models/{MODEL}/{path}", user, body)

    def read(self, path: str, user: str = "server") -> Any:
        """What the service knows."""
        status, answer = asked("GET", f"{self.promotion}/v1/models/{MODEL}/{path}", user)
        assert status == 200, answer
        return answer

    def made(self, method: str, path: str, user: str = "trainer", **body: Any) -> Any:
        """What MLflow answers; it must not refuse."""
        status, answer = self.mlflow(method, path, user, **body)
        assert status == 200, answer
        return answer

    def run(self, **tags: str) -> str:
        """A trainer's run with a logged model; its id."""
        experiment = f"experiment-{uuid4()}"
        number = self.made("POST", "experiments/create", name=experiment)["experiment_id"]
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        run = self.made("POST", "runs/create", experiment_id=number, tags=listed)["run"]["info"]["run_id"]
        model = self.made("POST", "logged-models", experiment_id=number, name="model", source_run_id=run)
        identity = model["model"]["info"]["model_id"]
        self.made("PATCH", f"logged-models/{identity}", model_id=identity, status="LOGGED_MODEL_READY")
        self.made("POST", "runs/outputs", run_id=run, models=[{"model_id": identity, "step": 0}])
        return str(run)

    def evaluate(self, run: str, wrong: int = 0, **more: Any) -> Any:
        """The verdict about a run that is wrong about the first rows."""
        status, answer = self.decide("verdicts", run=run, **evidence(wrong, **more))
        assert status == 200, answer
        return answer

    def register(self, wrong: int = 0) -> str:
        """A version that is wrong about some rows, and passes; its number."""
        run = self.run(code_version="abc")
        assert self.evaluate(run, wrong)["passed"]
        status, answer = self.decide("versions", run=run)
        assert status == 200, answer
        return str(answer["version"])

    def promote(self, stage: str, version: str, user: str = "trainer") -> Any:
        """Promote a version."""
        status, answer = self.decide(f"stages/{stage}/promote", user, version=int(version))
        assert status == 200, answer
        return answer

    def aliases(self) -> dict[str, str]:
        """What MLflow says is served."""
        found = self.made("GET", f"registered-models/get?name={MODEL}", "server")["registered_model"]
        return {one["alias"]: str(one["version"]) for one in found.get("aliases", ())}


def evidence(wrong: int = 0, **more: Any) -> dict[str, Any]:
    """What was measured of a model that is wrong about the first rows."""
    return {
        "test": "rows-1", "right": "0" * wrong + "1" * (ROWS - wrong),
        "columns": {"digit": [str(row % 10) for row in range(ROWS)]},
        "figures": {"latency_ms": 2.0, "size_bytes": 1000.0}, **more,
    }  # fmt: skip
