"""The stack that is selected for a project, where the Pulumi CLI keeps it, so that both agree.

The file is `$PULUMI_HOME/workspaces/<project>-<sha1 of the path of Pulumi.yaml>-workspace.json`; it maps a backend's
URL to the selected stack, and older CLIs wrote one name for all backends (pkg/workspace/{workspace,settings}.go).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TypedDict

from cli.errors import LabError


class Settings(TypedDict, total=False):
    """The content of the file."""

    stack: str
    stacks: dict[str, str]


def pulumi_home() -> Path:
    """The Pulumi CLI's own folder."""
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def settings_path(project: str, project_file: Path) -> Path:
    """The settings file of the project described by `project_file`."""
    digest = hashlib.sha1(str(project_file).encode(), usedforsecurity=False).hexdigest()
    return pulumi_home() / "workspaces" / f"{project}-{digest}-workspace.json"


def _read(path: Path) -> Settings:
    try:
        settings: Settings = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LabError(
            f"{path} is not valid JSON: {error}", remedy="delete the file; `lab stack select` writes it"
        ) from None
    return settings


def selected_stack(path: Path, backend_url: str) -> str | None:
    """The name of the stack selected for the backend, as `<stack>` or `organization/<project>/<stack>`."""
    settings = _read(path)
    return settings.get("stacks", {}).get(backend_url) or settings.get("stack") or None


def select_stack(path: Path, backend_url: str, name: str | None) -> None:
    """Select `name` (`organization/<project>/<stack>`) for the backend; None unselects."""
    settings = _read(path)
    stacks = settings.setdefault("stacks", {})
    if name:
        stacks[backend_url] = name
    else:
        stacks.pop(backend_url, None)
        settings.pop("stack", None)
    if not stacks and "stack" not in settings:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(settings, file, indent=4)
    Path(file.name).rename(path)
