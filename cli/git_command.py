"""Git as a program: run in a folder, with settings that no file and no command line has."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from cli.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def git(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run git in a folder.

    Raises:
        LabError: it is not installed.
    """
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], env={**os.environ, **(environment or {})},
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise LabError("git is not on PATH", remedy="install it, then run the command again") from None


def configured(settings: Mapping[str, str]) -> dict[str, str]:
    """Variables that give git these settings; it asks nobody for what they lack."""
    variables = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_TERMINAL_PROMPT": "0"}
    for index, (key, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return variables
