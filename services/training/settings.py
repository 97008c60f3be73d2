"""A model's settings, `model.yaml`, and the job's settings, environment variables."""

from __future__ import annotations

import keyword
import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.training.errors import SETTINGS, TrainingError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "model.yaml"
NAME = re.compile("[a-z]([a-z0-9-]*[a-z0-9])?")
LONGEST_NAME = 40
"""The pod names of stages add up to 28 characters; Kubernetes and DNS allow 63."""
RESERVED = {
    # Host names of the platform, used or reserved for later.
    "admin", "alerts", "api", "artifacts", "code", "datasets", "forge", "gateway", "landing", "logging",
    "metadata-store", "mlflow", "monitoring", "notebook", "overview", "pipelines", "platform", "promotion", "serving",
    "tracking", "training", "www",
    # Names in the models' namespaces, in the tree and in the images.
    "model", "models", "rollout", "stack", "trainer",
    # Packages that a model's module would shadow.
    "boto3", "click", "dvc", "kserve", "numpy", "onnx", "onnxruntime", "pandas", "pydantic", "requests", "scipy",
    "services", "sklearn", "skops", "torch", "yaml",
}  # fmt: skip
STAGE_ENDINGS = ("-staging", "-canary", "-production")
STRICT = ConfigDict(extra="forbid", frozen=True)
Cores = Annotated[str, Field(pattern=r"^([1-9][0-9]*m|[1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9])$")]
Memory = Annotated[str, Field(pattern="^[1-9][0-9]*[MG]i$")]


def module_name(model: str) -> str:
    """The name of a model's Python module."""
    return model.replace("-", "_")


def name_errors(name: str) -> list[str]:
    """Why a name is not valid for a model; empty if it is."""
    errors = []
    if not NAME.fullmatch(name):
        errors.append("is not lower case letters, digits and inner hyphens, a letter first (it is part of a host name)")
    if len(name) > LONGEST_NAME:
        errors.append(f"has {len(name)} characters, more than {LONGEST_NAME}")
    if name in RESERVED:
        errors.append("is reserved by the platform")
    elif module_name(name) in sys.stdlib_module_names or keyword.iskeyword(module_name(name)):
        errors.append("is a Python module or keyword")
    errors += [f"ends in {end}, as the host name of a stage does" for end in STAGE_ENDINGS if name.endswith(end)]
    return errors


class Data(BaseModel):
    """The dataset: a table with a header and a label column."""

    model_config = STRICT
    label: str
    """The column that the model predicts."""
    aside: list[str] = []
    """Columns that are not features, such as one only for the gate's slices."""
    test: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows held out from training, always the same ones for a version of the dataset."""
    stratify: bool = True
    """Whether both parts have the same share of each label; not for numeric labels."""


class Inputs(BaseModel):
    """The model server's input: its name and the range of its values."""

    model_config = STRICT
    name: str = Field(default="features", pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    minimum: float | None = None
    maximum: float | None = None


def _at_least(mebibytes: int) -> Any:
    """Validate that memory is not below what the libraries alone use."""

    def check(value: str) -> str:
        if int(value[:-2]) * (1024 if value.endswith("Gi") else 1) < mebibytes:
            raise ValueError(f"{value} is less than {mebibytes}Mi, which the libraries use")
        return value

    return AfterValidator(check)


TrainingMemory = Annotated[Memory, _at_least(384)]
ServingMemory = Annotated[Memory, _at_least(256)]


class Resources(BaseModel):
    """Requests of a training pod, and its memory limit."""

    model_config = STRICT
    cpu: Cores = "250m"
    memory: TrainingMemory = "1Gi"


class Serving(BaseModel):
    """Requests of a model server, and its memory limit."""

    model_config = STRICT
    cpu: Cores = "100m"
    memory: ServingMemory = "512Mi"


class Variant(BaseModel):
    """Another way to train the model; `train` gets its name."""

    model_config = STRICT
    workers: int = Field(default=1, ge=1, le=16)
    """Pods that train together under torchrun."""
    cpu: Cores | None = None
    memory: TrainingMemory | None = None


class Model(BaseModel):
    """A model's settings."""

    model_config = STRICT
    name: str
    about: str = Field(default="", max_length=120)
    """What the model predicts; the overview shows it."""
    data: Data
    inputs: Inputs = Inputs()
    gate: dict[str, Any]
    """As in services/promotion/README.md; the promotion service applies it."""
    training: Resources = Resources()
    serving: Serving = Serving()
    variants: dict[Annotated[str, Field(pattern="^[a-z]([a-z0-9-]{0,20}[a-z0-9])?$")], Variant] = {}

    def resources(self, variant: str | None) -> Resources:
        """Requests of a pod that trains a variant."""
        own = self.variants[variant] if variant else Variant()
        return Resources(cpu=own.cpu or self.training.cpu, memory=own.memory or self.training.memory)


def read(folder: Path) -> Model:
    """The settings of the model in a folder.

    Raises:
        TrainingError: they are not valid; the message lists all errors.
    """
    file = folder / FILE
    try:
        model = Model.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrainingError(f"{folder.name} has no {FILE}: {error.strerror}", SETTINGS) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{folder.name}/{FILE} is not YAML: {' '.join(str(error).split())}", SETTINGS) from None
    except ValidationError as error:
        problems = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
        text = "; ".join(f"{place}: {message}" if place else message for place, message in problems)
        raise TrainingError(f"{folder.name}/{FILE}: {text}", SETTINGS) from None
    if model.name != folder.name:
        raise TrainingError(f"{folder.name}/{FILE}: name: the folder is {folder.name}, not {model.name}", SETTINGS)
    return model


def _environment(name: str, default: str = "") -> str:
    return os.environ.get(name) or default


@dataclass(frozen=True)
class JobSettings:
    """Settings of a training job, from environment variables: addresses, and the model's lineage."""

    model: str = field(default_factory=lambda: _environment("MODEL_NAME"))
    archive: str = field(default_factory=lambda: _environment("MODEL_CODE"))
    """SHA-256 of the archive with the model's code."""
    code_url: str = field(default_factory=lambda: _environment("CODE_URL", "s3://code"))
    data_url: str = field(default_factory=lambda: _environment("DATA_URL", "s3://datasets"))
    code_version: str = field(default_factory=lambda: _environment("CODE_VERSION", "none"))
    """The commit or, where the work tree differed from it, a digest of the model's Python files."""
    commit: str = field(default_factory=lambda: _environment("CODE_COMMIT", "none"))
    dirty: str = field(default_factory=lambda: _environment("CODE_DIRTY", "false"))
    image_digest: str = field(default_factory=lambda: _environment("IMAGE_DIGEST", "none"))
    result: str = field(default_factory=lambda: _environment("RESULT"))
