"""A checkout of this repository, as those who use it see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tests.engine import harness
from tests.providers.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# One of the files named as a key has no end.
READ_SETTINGS = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
from datetime import datetime
from pathlib import Path
from infra.settings import SettingsError, load_settings

now, source, *configurations = json.load(sys.stdin)
for configuration in configurations:
    try:
        load_settings(configuration, Path(source), stack="wrong", now=datetime.fromisoformat(now))
    except SettingsError as error:
        print(json.dumps(str(error)))
    except Exception as error:
        print(json.dumps(f"unexpected {type(error).__name__}"))
    else:
        print("null")
"""


class Stack(harness.Stack):
    """A stack of the engine's tests, whose commands a checkout runs."""

    def __init__(self, folder: Path, root: Path, template: Path | None = None) -> None:
        self.root = root
        super().__init__(folder, template)

    def command(self, *arguments: str) -> list[str]:
        lab = [sys.executable, str(self.root / "cli/__main__.py")]
        return [*lab, "--cwd", str(self.folder), "--engine", "embedded", *arguments]


@dataclass
class Checkout:
    """The files at `root`, with a virtual environment; `scratch` is an empty folder."""

    root: Path
    scratch: Path
    stacks: int = 0

    @cached_property
    def _template(self) -> Path:
        folder = self.scratch / "template"
        stack = Stack(folder, self.root)
        stack.project_file()
        stack.program("")
        stack.init()
        return folder

    def stack(self) -> Stack:
        """A new, empty stack `dev`."""
        self.stacks += 1
        return Stack(self.scratch / f"stack-{self.stacks}", self.root, self._template)

    def plugin(self, name: str) -> Plugin:
        """The provider of that name, to be started and configured."""
        return Plugin({"PATH": os.environ["PATH"]}, self.root / f"providers/bin/pulumi-resource-{name}")

    def read_settings(self, configurations: Sequence[Mapping[str, Any]], source: Path, now: str) -> list[str | None]:
        """What the reader of settings says against each configuration; None where it takes it."""
        done = subprocess.run(
            [sys.executable, "-c", READ_SETTINGS],
            input=json.dumps([now, str(source), *configurations]),
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]
