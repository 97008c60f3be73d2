"""MLflow's registry, as its REST API has it, by the service's own credential."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import urllib3

from services.promotion.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS_TO_ANSWER = 15
PAGE = 200
MISSING, EXISTS = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
WITHDRAWN, FORMER, MOVED = "withdrawn", "former", "moved"
OWN = "mlflow."
"""What MLflow's own tags begin with."""


class MissingError(Exception):
    """The registry has no such thing."""


@dataclass(frozen=True)
class Run:
    """A run: what it made, and what it says of itself."""

    models: list[str]
    """Identifiers of its logged models."""
    tags: dict[str, str]


@dataclass(frozen=True)
class Registry:
    """A registry.

    Raises:
        UnavailableError: it does not answer; of every method.
    """

    address: str
    username: str
    password: Callable[[], str]
    _pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(maxsize=4, timeout=SECONDS_TO_ANSWER)
    )

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """What it answers.

        Raises:
            MissingError: it has no such thing.
            RefusedError: it refuses.
        """
        login = urllib3.make_headers(basic_auth=f"{self.username}:{self.password()}")
        sent: dict[str, Any] = (
            {"fields": {key: str(value) for key, value in body.items()}} if method == "GET"
            else {"body": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        )  # fmt: skip
        headers = {**login, **sent.pop("headers", {})}
        try:
            answer = self._pool.request(
                method, f"{self.address}/api/2.0/mlflow/{path}", headers=headers, retries=False, **sent
            )
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(
                f"the registry does not answer: {error}", "try again; see `lab logs tracking`"
            ) from error
        return _read(answer)

    def run(self, run: str) -> Run:
        """A run.

        Raises:
            RefusedError: there is none.
        """
        try:
            found = self.ask("GET", "runs/get", run_id=run)["run"]
        except MissingError:
            raise RefusedError(f"there is no run {run}") from None
        models = [one["model_id"] for one in found.get("outputs", {}).get("model_outputs", ())]
        return Run(models, _by_key(found.get("data", {}).get("tags", ())))

    def exists(self, model: str, version: int, run: str) -> bool:
        """Whether it has a version, of that run: of a model that was made anew, a number is another version's."""
        try:
            found = self.ask("GET", "model-versions/get", name=model, version=version)["model_version"]
        except MissingError:
            return False
        return str(found.get("run_id", "")) == run

    def register(self, model: str, run: str, model_id: str, tags: dict[str, str]) -> int:
        """Make a logged model a version; its number."""
        try:
            self.ask("POST", "registered-models/create", name=model)
        except RefusedError as refused:
            if EXISTS not in str(refused):
                raise
        sent = [{"key": key, "value": value} for key, value in tags.items()]
        made = self.ask(
            "POST", "model-versions/create",
            name=model, source=f"models:/{model_id}", run_id=run, model_id=model_id, tags=sent,
        )  # fmt: skip
        return int(made["model_version"]["version"])

    def serve(self, model: str, stage: str, version: int) -> None:
        """Have a stage's alias name a version."""
        self.ask("POST", "registered-models/alias", name=model, alias=stage, version=str(version))
        self.ask("DELETE", "registered-models/delete-tag", name=model, key=f"{WITHDRAWN}.{stage}")

    def withdraw(self, model: str, stage: str, version: int) -> None:
        """Delete a stage's alias on purpose: without the mark, what loses its alias goes on serving."""
        self.tag(model, f"{WITHDRAWN}.{stage}", str(version))
        self.ask("DELETE", "registered-models/alias", name=model, alias=stage)

    def tag(self, model: str, key: str, value: str) -> None:
        """Set a tag of a registered model."""
        self.ask("POST", "registered-models/set-tag", name=model, key=key, value=value)

    def models(self) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
        """All registered models: name, aliases, tags."""
        for one in self._all("registered-models/search", "registered_models"):
            # A search gives no aliases.
            found = self.ask("GET", "registered-models/get", name=one["name"])["registered_model"]
            aliases = {alias["alias"]: str(alias["version"]) for alias in found.get("aliases", ())}
            yield one["name"], aliases, _by_key(found.get("tags", ()))

    def versions(self, model: str) -> Iterator[tuple[int, str, str, dict[str, str]]]:
        """The versions of a model: number, run, logged model, tags."""
        quoted = model.replace("'", "''")
        for one in self._all("model-versions/search", "model_versions", filter=f"name = '{quoted}'"):
            yield int(one["version"]), one.get("run_id", ""), one.get("model_id", ""), _by_key(one.get("tags", ()))

    def _all(self, path: str, name: str, **query: str) -> Iterator[Any]:
        token = ""
        while True:
            answer = self.ask("GET", path, max_results=PAGE, page_token=token, **query)
            yield from answer.get(name, ())
            if not (token := answer.get("next_page_token", "")):
                return


def _by_key(tags: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in tags}


def _read(answer: urllib3.BaseHTTPResponse) -> Any:
    try:
        found = json.loads(answer.data or b"{}")
    except ValueError:
        found = None
    if answer.status == 200 and isinstance(found, dict):
        return found
    told = found if isinstance(found, dict) else {}
    code, message = told.get("error_code", ""), told.get("message", f"status {answer.status}")
    if code == MISSING or (code == "INVALID_PARAMETER_VALUE" and "not found" in message):
        raise MissingError(message)
    if answer.status in {400, 404, 409}:
        raise RefusedError(f"the registry says {code}: {message}")
    raise UnavailableError(f"the registry answers {answer.status}: {message}", "try again; see `lab logs tracking`")
