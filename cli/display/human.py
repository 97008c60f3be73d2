"""Base class of the displays for people: the model, a console, and the final report."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING

from rich.text import Text

from cli.display.base import Display, Result
from cli.display.report import report

if TYPE_CHECKING:
    from rich.console import Console

    from cli.display.model import Model


class ProgressDisplay(Display):
    """Shows rows while the update runs, and the report when it is done."""

    def __init__(self, model: Model, console: Console) -> None:
        super().__init__()
        self.model, self.console = model, console

    def end(self, result: Result | None) -> None:
        """Print the last rows and the report."""
        if self.model.summary is None and result is not None:
            self.model.summary = {
                "resourceChanges": result.changes,
                "durationSeconds": math.ceil(result.duration_seconds),
                "isPreview": self.model.options.dry_run,
            }
        self.finish()
        self.print(*report(self.model))

    def print(self, *lines: Text) -> None:
        """Write lines in one call."""
        if lines:
            self.console.print(Text("\n").join(lines))

    @abc.abstractmethod
    def finish(self) -> None:
        """Show the rows for the last time."""
