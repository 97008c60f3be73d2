"""What MLflow's registry knows: the code of what is served, and runs that need not be done again."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from services.pipelines.errors import DecidedError, PipelineError
from services.pipelines.jobs import Code

SECONDS_TO_ANSWER = 60
ARCHIVE = "code_archive"


@dataclass(frozen=True)
class Registry:
    """An MLflow server, and who asks it.

    Raises:
        PipelineError: it does not answer, or refuses; of every method.
    """

    address: str
    username: str
    password: str

    def code(self, model: str, version: str) -> Code:
        """The code that a version was trained by.

        Raises:
            DecidedError: the version does not say.
        """
        found = self._ask("GET", "model-versions/get", name=model, version=version) or {}
        tags = {one["key"]: one["value"] for one in found.get("model_version", {}).get("tags", ())}
        if not tags.get(ARCHIVE, "").startswith("sha256:"):
            raise DecidedError(
                f"version {version} of {model} does not say what code trained it: `lab pipeline run {model}` sends code"
            )
        return Code(
            tags[ARCHIVE].removeprefix("sha256:"), tags.get("code_version", "none"), tags.get("code_commit", "none"),
            tags.get("code_dirty") == "true",
        )  # fmt: skip

    def trained(self, model: str, **tags: str) -> str | None:
        """The newest run of a model that ended well and has these tags."""
        experiment = self._ask("GET", "experiments/get-by-name", experiment_name=model)
        if experiment is None:
            return None
        wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        body = {
            "experiment_ids": [experiment["experiment"]["experiment_id"]],
            "filter": " and ".join([*wanted, "attributes.status = 'FINISHED'"]),
            "order_by": ["attributes.start_time DESC"], "max_results": 1,
        }  # fmt: skip
        runs = (self._ask("POST", "runs/search", body) or {}).get("runs", ())
        return str(runs[0]["info"]["run_id"]) if runs else None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any] | None:
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        request = urllib.request.Request(  # noqa: S310
            f"{self.address.rstrip('/')}/api/2.0/mlflow/{path}{asked}",
            json.dumps(body).encode() if body is not None else None, method=method,
        )  # fmt: skip
        login = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise PipelineError(f"MLflow answers {path}: {error.code} {error.read()[:300].decode()}") from None
        except (OSError, ValueError) as error:
            raise PipelineError(f"MLflow does not answer: {error}") from error
