"""`lab` with a devcloud that is up in no time: what is asked before and after is as it is with a real one.

Its clouds.yaml, too, lies in DEVCLOUD_STATE once it was up.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cli import default_cloud
from cli.app import main
from devcloud import bringup

if TYPE_CHECKING:
    from devcloud.layout import Settings


class Devcloud:
    """Takes a moment to come up."""

    def __init__(self, state: Path, _settings: Settings) -> None:
        self.layout = SimpleNamespace(state=state, clouds_yaml=state / "clouds.yaml")

    def check_machine(self) -> None:
        """Any machine will do."""

    def up(self, out: TextIO) -> None:
        """Be up."""
        self.layout.state.mkdir(exist_ok=True)
        self.layout.clouds_yaml.write_text("clouds: {devcloud: {}}\n")
        print("devcloud is up", file=out)


if __name__ == "__main__":
    bringup.Devcloud = Devcloud  # type: ignore[misc, assignment]
    default_cloud.is_up = (default_cloud.state_folder() / "clouds.yaml").exists
    main()
