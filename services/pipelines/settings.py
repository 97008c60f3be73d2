"""A model's pipeline, `pipeline.yaml` in its folder, and what all models' pipelines on a cluster are made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.pipelines.errors import DecidedError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "pipeline.yaml"
USUAL = "default"
"""What a model that is trained as no variant is called."""
STRICT = ConfigDict(extra="forbid", frozen=True)
Share = Annotated[float, Field(ge=0, le=1)]
Goal = Literal["gate", "registry", "staging", "production"]
GOALS: tuple[Goal, ...] = ("gate", "registry", "staging", "production")
"""How far a pipeline goes, the nearest first. The way to production is by the canary."""


class Canary(BaseModel):
    """What a version must be like under a share of production's requests, to become production."""

    model_config = STRICT
    share: int = Field(default=10, ge=1, le=50)
    """Percent of production's requests."""
    minutes: float = Field(default=10, gt=0, le=1440)
    """How long it answers them at least."""
    requests: int = Field(default=100, ge=1)
    """Fewer say nothing: it waits for more, for up to `patience` minutes, and then goes back."""
    patience: float = Field(default=60, gt=0, le=2880)
    errors: Share = 0.01
    """How much larger its share of errors may be than production's."""
    slow_ms: Literal[10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000] = 250
    """An answer that takes longer is slow. One of the gateway's figures."""
    slow: Share = 0.05
    """How much larger its share of slow answers may be than production's."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _is_patient(self) -> Canary:
        if self.patience < self.minutes:
            raise ValueError(f"patience: {self.patience:g} minutes are less than the {self.minutes:g} that it takes")
        return self


class Pipeline(BaseModel):
    """How a model is trained again and again, and what for."""

    model_config = STRICT
    variants: Annotated[list[str], Field(min_length=1)] = [USUAL]
    """Trained side by side; the best that its gate passes goes on."""
    to: Goal = "staging"
    schedule: str | None = Field(default=None, pattern=r"^(\S+ ){4}\S+$")
    """Minute, hour, day, month, weekday; UTC."""
    triggers: list[Literal["data", "drift"]] = []
    """Starts it too: a new version of the data that somebody ingested; an alert that what the model is asked drifts."""
    seed: int = 0
    retries: int = Field(default=2, ge=0, le=10)
    """How often a step is tried again that could not be done."""
    canary: Canary = Canary()


class Takes(BaseModel):
    """What training one variant asks for."""

    model_config = STRICT
    cpu: str
    memory: str
    workers: int = 1


class Known(BaseModel):
    """A model of the platform, as its pipeline knows it."""

    model_config = STRICT
    name: str
    about: str = ""
    pipeline: Pipeline
    ingests: bool = True
    """Whether its module has a function `data`, which each run ingests; else the current version is taken."""
    takes: dict[str, Takes]
    """By variant, and of those that are no variant by `default`."""

    @model_validator(mode="after")
    def _has_its_variants(self) -> Known:
        if unknown := [one for one in self.pipeline.variants if one not in self.takes]:
            raise ValueError(f"variants: there is no {', '.join(unknown)}; there are: {', '.join(self.takes)}")
        return self


def read(folder: Path) -> Pipeline:
    """The pipeline of the model in a folder; the usual one where it says nothing.

    Raises:
        DecidedError: the file is not valid; the text has all faults.
    """
    file = folder / FILE
    if not file.is_file():
        return Pipeline()
    where = f"{folder.name}/{FILE}"
    try:
        return Pipeline.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DecidedError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise DecidedError(f"{where}: {faults(error)}") from None


def known(text: str) -> list[Known]:
    """All models, as `k8s/models/pipelines.json` has them.

    Raises:
        DecidedError: the text is not what `lab model sync` writes.
    """
    try:
        return [Known.model_validate(one) for one in json.loads(text)]
    except ValidationError as error:
        raise DecidedError(f"pipelines.json: {faults(error)}") from None
    except ValueError as error:
        raise DecidedError(f"pipelines.json is no JSON: {error}") from None


def faults(error: ValidationError) -> str:
    """All faults of a document, each with its place."""
    found = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)
