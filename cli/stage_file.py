"""models/MODEL/stages.yaml: which version each stage of a model serves, where stages are set in Git."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cli.errors import ExitCode, LabError
from cli.model_code import STAGES as FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "models"
HEADER = """\
# Which version each stage of {model} serves, and the canary's share of production's requests in percent.
# `lab promote {model} --pull-request` writes this file; comments are not kept. docs/how-to/promote.md
"""
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class Served(BaseModel):
    """What a stage serves."""

    model_config = STRICT
    version: int = Field(ge=1, le=2**31 - 1)


class Canary(Served):
    """What the canary serves, and its share of production's requests in percent."""

    share: int = Field(default=0, ge=0, le=100)


class Stages(BaseModel):
    """The stages of a model; one that is left out serves nothing."""

    model_config = STRICT
    staging: Served | None = None
    canary: Canary | None = None
    production: Served | None = None

    @property
    def versions(self) -> dict[str, int]:
        """The version of each stage that serves."""
        stages = {"staging": self.staging, "canary": self.canary, "production": self.production}
        return {stage: served.version for stage, served in stages.items() if served}

    @property
    def share(self) -> int:
        """The canary's share of production's requests, in percent."""
        return self.canary.share if self.canary else 0

    def changed(self, stage: str, version: int, share: int = 0) -> Stages:
        """With another version of a stage. A promotion to production ends the canary's share."""
        if stage == "canary":
            return self.model_copy(update={"canary": Canary(version=version, share=share)})
        made = self.model_copy(update={stage: Served(version=version)})
        if stage == "production" and made.canary:
            return made.model_copy(update={"canary": Canary(version=made.canary.version)})
        return made

    def text(self, model: str) -> str:
        """The file."""
        lines = []
        for stage, version in self.versions.items():
            share = f", share: {self.share}" if stage == "canary" else ""
            lines.append(f"{stage}: {{version: {version}{share}}}\n")
        return HEADER.format(model=model) + ("".join(lines) or "{}\n")


def path_of(model: str) -> str:
    """Path of a model's file in the repository."""
    return f"{FOLDER}/{model}/{FILE}"


def model_of(path: str) -> str | None:
    """The model whose file is at a path in the repository; None where it is another file."""
    match PurePosixPath(path).parts:
        case (folder, model, file) if (folder, file) == (FOLDER, FILE):
            return model
    return None


def parse(text: str, where: str) -> Stages:
    """The stages that a file names.

    Raises:
        LabError: it is not valid; the text has all its faults.
    """
    import yaml

    from services.promotion.gates import faults

    remedy = "docs/how-to/promote.md has all that can stand there"
    try:
        content = yaml.safe_load(text)
        return Stages.model_validate({} if content is None else content)
    except yaml.YAMLError as error:
        reason = f"is not YAML: {' '.join(str(error).split())}"
    except ValidationError as error:
        reason = f"is not valid: {faults(error)}"
    raise LabError(f"{where} {reason}", remedy=remedy, code=ExitCode.CONFIGURATION)


def of_models(files: Mapping[str, str]) -> dict[str, Stages]:
    """The stages of each model that has a file, of files by their paths in the repository.

    Raises:
        LabError: one of them is not valid.
    """
    return {model: parse(text, path) for path, text in sorted(files.items()) if (model := model_of(path))}
