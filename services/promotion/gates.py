"""Gates: what a model must be like to be registered, as data, a file `gate.yaml` for each model."""

from __future__ import annotations

import json
import ssl
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.promotion.errors import InvalidError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "gate.yaml"
LABEL = "ml-cluster.dev/gate"
"""Of a ConfigMap with a gate; its value is the model's name."""
DECIDER, GIT = "ml-cluster.dev/decider", "git"
"""Of the ConfigMap that says that stages are set in Git; the file of that name in a folder of gates."""
SECONDS_TO_ANSWER = 10
Share = Annotated[float, Field(ge=0, le=1)]
STRICT = ConfigDict(extra="forbid", frozen=True)


class Score(BaseModel):
    """The share of the test rows that the model must be right about."""

    model_config = STRICT
    minimum: Share
    name: str = Field(default="accuracy", pattern="^[a-z][a-z0-9_]{0,40}$")
    """What the share is called in figures and refusals."""
    rows: int = Field(default=100, ge=1)
    """Fewer test rows are refused."""


class Slice(BaseModel):
    """The same, of each group of rows that a column makes."""

    model_config = STRICT
    minimum: Share
    rows: int = Field(default=5, ge=1)
    """Groups of fewer rows say nothing, and are refused."""


class Production(BaseModel):
    """How much worse than production it may be, on the same rows."""

    model_config = STRICT
    margin: Share
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class Fairness(BaseModel):
    """How far apart the shares of a column's groups may be."""

    model_config = STRICT
    gap: Share


class Gate(BaseModel):
    """A model's gate."""

    model_config = STRICT
    score: Score
    slices: dict[str, Slice] = {}
    fairness: dict[str, Fairness] = {}
    production: Production | None = None
    budgets: dict[str, Annotated[float, Field(gt=0)]] = {}
    """The most that a measured figure may be, such as `latency_ms` and `size_bytes`."""


def parsed(text: str, where: str) -> Gate:
    """A gate from YAML.

    Raises:
        InvalidError: it is none; all its faults.
    """
    try:
        return Gate.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InvalidError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise InvalidError(f"{where}: {faults(error)}") from None


def faults(error: ValidationError) -> str:
    """All faults of a document, each with its place."""
    found = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)


class Gates(Protocol):
    """Where gates are."""

    def of(self, model: str) -> Gate:
        """A model's gate.

        Raises:
            RefusedError: it has none.
            InvalidError: it is none.
            UnavailableError: there is no telling.
        """

    def models(self) -> set[str]:
        """The models that have one.

        Raises:
            UnavailableError: there is no telling.
        """

    def in_git(self) -> bool:
        """Whether stages are set in Git, not by whoever asks.

        Raises:
            UnavailableError: there is no telling.
        """


def _none(model: str) -> RefusedError:
    return RefusedError(f"{model} has no gate", f"k8s/models/{model}/{FILE} is to say what it must be like")


@dataclass(frozen=True)
class Folder:
    """Gates in a folder: MODEL/gate.yaml."""

    path: Path

    def of(self, model: str) -> Gate:
        """A model's gate."""
        file = self.path / model / FILE
        if not file.is_file():
            raise _none(model)
        return parsed(file.read_text(), str(file))

    def models(self) -> set[str]:
        """The models that have one."""
        return {file.parent.name for file in self.path.glob(f"*/{FILE}")}

    def in_git(self) -> bool:
        """Whether stages are set in Git."""
        file = self.path / DECIDER.rpartition("/")[2]
        return file.is_file() and file.read_text().strip() == GIT


@dataclass(frozen=True)
class Cluster:
    """Gates in ConfigMaps of a namespace that only the platform's own may change."""

    address: str
    account: Path
    """Folder of the service account: `token`, `ca.crt`, `namespace`."""

    def of(self, model: str) -> Gate:
        """A model's gate."""
        found = self._found(f"{LABEL}={model}")
        if not found:
            raise _none(model)
        if len(found) > 1:
            names = ", ".join(one["metadata"]["name"] for one in found)
            raise RefusedError(f"{model} has more than one gate: ConfigMaps {names}", "delete all but one")
        where = f"{FILE} of ConfigMap {found[0]['metadata']['name']}"
        return parsed(found[0].get("data", {}).get(FILE, ""), where)

    def models(self) -> set[str]:
        """The models that have one."""
        return {one["metadata"]["labels"][LABEL] for one in self._found(LABEL)}

    def in_git(self) -> bool:
        """Whether stages are set in Git."""
        return bool(self._found(f"{DECIDER}={GIT}"))

    def _found(self, selector: str) -> list[Any]:
        namespace = (self.account / "namespace").read_text().strip()
        query = urllib.parse.urlencode({"labelSelector": selector})
        request = urllib.request.Request(f"{self.address}/api/v1/namespaces/{namespace}/configmaps?{query}")  # noqa: S310
        request.add_header("Authorization", f"Bearer {(self.account / 'token').read_text().strip()}")
        context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER, context=context) as answer:  # noqa: S310
                items: list[Any] = json.load(answer)["items"]
        except (OSError, ValueError) as error:
            raise UnavailableError(f"the Kubernetes API does not say what gates there are: {error}") from error
        return items
