"""What the displays for people share: the fold, a console, the closing report, and the details of a preview."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.display.base import Display, Result
from cli.display.diff import DiffRenderer
from cli.display.report import report

if TYPE_CHECKING:
    from rich.console import Console

    from cli.display.model import Model


class ProgressDisplay(Display):
    """Shows rows while the update runs, and the report when it is done."""

    def __init__(self, model: Model, console: Console) -> None:
        super().__init__()
        self.model, self.console = model, console
        self._steps: list[dict[str, Any]] = []

    def handle(self, event: dict[str, Any]) -> None:
        """Take in one event; of a preview, keep the steps for `details`."""
        if self.model.options.dry_run and ("resourcePreEvent" in event or "resOutputsEvent" in event):
            self._steps.append(event)
        self.show(event)

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

    def details(self) -> str:
        """The full property diffs of a preview, as `details` at the CLI's prompt."""
        renderer = DiffRenderer(self.model.options, unchanged=False)
        with self.console.capture() as capture:
            for event in self._steps:
                self.print(*renderer.render(event))
        return capture.get().strip("\n")

    def print(self, *lines: Text) -> None:
        """Write lines, all at once."""
        if lines:
            self.console.print(Text("\n").join(lines))

    @abc.abstractmethod
    def show(self, event: dict[str, Any]) -> None:
        """Fold one event, and show what it changed."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Show the rows a last time."""
