"""Progress as plain lines, for pipes, logs and CI: one line at the start of a step and one at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.display.human import ProgressDisplay
from cli.display.report import banner, configuration
from cli.display.rows import cells
from terminal.text import Ticker, duration, plural, tagged

if TYPE_CHECKING:
    from rich.console import Console

    from cli.display.model import Model, Row

HEARTBEAT_SECONDS = 20.0


class PlainDisplay(ProgressDisplay):
    """Prints each row when it changes, and after 20 seconds without output the operations in progress."""

    def __init__(self, model: Model, console: Console) -> None:
        super().__init__(model, console)
        self._printed_at = model.clock()
        self.print(banner(model.options))
        self._downloads: set[str] = set()
        self._ticker = Ticker(1.0, self.beat)

    def handle(self, event: dict[str, Any]) -> None:
        """Print what `event` changed."""
        row = self.model.apply(event)
        if "preludeEvent" in event:
            if self.model.options.show_config and self.model.config:
                self.print(*configuration(self.model.config))
            self.print(Text())
        elif "stdoutEvent" in event:
            self.print(tagged(self.model.system[-1].rstrip("\n")))
        elif (payload := event.get("progressEvent")) is not None:
            self._print_download(payload)
        elif row is not None:
            self._print_row(row)

    def finish(self) -> None:
        """Print the rows that had not ended."""
        self._ticker.stop()
        for row in self.model.finish():
            self._print_row(row)

    def _print_row(self, row: Row) -> None:
        if row.wanted:
            line = Text(" ").join([Text(), *cells(self.model, row, live=False)])
            line.rstrip()
            self.print(line)

    def _print_download(self, payload: dict[str, Any]) -> None:
        if payload.get("done"):
            self.print(Text(f"{payload['message']}: done"))
        elif payload["id"] not in self._downloads:
            self._downloads.add(payload["id"])
            self.print(Text(f"{payload['message']}: starting"))

    def print(self, *lines: Text) -> None:
        """Write lines, and postpone the next heartbeat."""
        super().print(*lines)
        self._printed_at = self.model.clock()

    def beat(self) -> None:
        """Print the operations in progress, if nothing was printed for some time."""
        with self.lock:
            silence = self.model.clock() - self._printed_at
            if silence < HEARTBEAT_SECONDS or not self.model.active:
                return
            oldest = min(self.model.active.values(), key=lambda row: row.started or 0.0)
            what = f"{oldest.urn.display_type} {oldest.urn.name} ({duration(self.model.elapsed(oldest) or 0)})"
            self.print(Text(f"@ {plural(len(self.model.active), 'resource')} in progress, the longest: {what}"))
