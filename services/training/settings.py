"""A model's settings, `model.yaml`, and what the program is told by environment variables."""

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
"""A pod of the longest stage adds 28 characters; Kubernetes and DNS take 63, and people read it."""
RESERVED = {
    # Host names of the platform, and of what it may have one day.
    "admin", "alerts", "api", "artifacts", "code", "datasets", "forge", "gateway", "landing", "logging",
    "metadata-store", "mlflow", "monitoring", "notebook", "overview", "pipelines", "platform", "promotion", "serving",
    "tracking", "training", "www",
    # What stands beside models in their namespaces, in the tree and in the images.
    "model", "models", "rollout", "stack", "trainer",
    # Packages that a model's own module would hide.
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


def name_faults(name: str) -> list[str]:
    """Why a model cannot have a name; nothing where it can."""
    faults = []
    if not NAME.fullmatch(name):
        faults.append("is not lower case letters, digits and inner hyphens, a letter first (it is part of a host name)")
    if len(name) > LONGEST_NAME:
        faults.append(f"has {len(name)} characters, more than {LONGEST_NAME}")
    if name in RESERVED:
        faults.append("is a name of the platform's own")
    elif module_name(name) in sys.stdlib_module_names or keyword.iskeyword(module_name(name)):
        faults.append("is a name of Python's own")
    faults += [f"ends in {end}, as the host name of a stage does" for end in STAGE_ENDINGS if name.endswith(end)]
    return faults


class Data(BaseModel):
    """The dataset: a table with a header, of which one column is what the model is to tell."""

    model_config = STRICT
    label: str
    """The column that the model is to tell."""
    aside: list[str] = []
    """Columns that are no features, such as one that only the gate's slices need."""
    test: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows that training does not see, always the same ones for a version of the data."""
    stratify: bool = True
    """Whether both parts have the same share of each label; not for numbers."""


class Inputs(BaseModel):
    """What the model server takes: the name of its input, and the range of its values."""

    model_config = STRICT
    name: str = Field(default="features", pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    minimum: float | None = None
    maximum: float | None = None


def _at_least(mebibytes: int) -> Any:
    """Memory that is not less: the libraries alone take so much, and Kubernetes is asked for it."""

    def check(value: str) -> str:
        if int(value[:-2]) * (1024 if value.endswith("Gi") else 1) < mebibytes:
            raise ValueError(f"{value} is less than {mebibytes}Mi, which the libraries take")
        return value

    return AfterValidator(check)


TrainingMemory = Annotated[Memory, _at_least(384)]
ServingMemory = Annotated[Memory, _at_least(256)]


class Resources(BaseModel):
    """What a pod that trains asks for, and the most memory that it may use."""

    model_config = STRICT
    cpu: Cores = "250m"
    memory: TrainingMemory = "1Gi"


class Serving(BaseModel):
    """The same, of a model server."""

    model_config = STRICT
    cpu: Cores = "100m"
    memory: ServingMemory = "512Mi"


class Variant(BaseModel):
    """Another way to train the model; the module is told its name."""

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
    """What the model tells; the overview shows it."""
    data: Data
    inputs: Inputs = Inputs()
    gate: dict[str, Any]
    """As services/promotion/README.md has it; the promotion service judges by it."""
    training: Resources = Resources()
    serving: Serving = Serving()
    variants: dict[Annotated[str, Field(pattern="^[a-z]([a-z0-9-]{0,20}[a-z0-9])?$")], Variant] = {}

    def resources(self, variant: str | None) -> Resources:
        """What a pod that trains a variant asks for."""
        own = self.variants[variant] if variant else Variant()
        return Resources(cpu=own.cpu or self.training.cpu, memory=own.memory or self.training.memory)


def read(folder: Path) -> Model:
    """The settings of the model in a folder.

    Raises:
        TrainingError: they are not valid; the text has all faults.
    """
    file = folder / FILE
    try:
        model = Model.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrainingError(f"{folder.name} has no {FILE}: {error.strerror}", SETTINGS) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{folder.name}/{FILE} is not YAML: {' '.join(str(error).split())}", SETTINGS) from None
    except ValidationError as error:
        told = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
        faults = "; ".join(f"{place}: {message}" if place else message for place, message in told)
        raise TrainingError(f"{folder.name}/{FILE}: {faults}", SETTINGS) from None
    if model.name != folder.name:
        raise TrainingError(f"{folder.name}/{FILE}: name: the folder is {folder.name}, not {model.name}", SETTINGS)
    return model


def _environment(name: str, default: str = "") -> str:
    return os.environ.get(name) or default


@dataclass(frozen=True)
class Told:
    """Where things are, and what is written beside a model of where it came from."""

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
