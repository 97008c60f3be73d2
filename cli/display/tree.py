"""Progress on a terminal: the tree of resources, redrawn in place."""

from __future__ import annotations

import atexit
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from cli.display.human import ProgressDisplay
from cli.display.report import banner, configuration
from cli.display.rows import Cells, cells
from terminal.text import Ticker, clean, duration, plural, tagged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from cli.display.model import Model, Row

FRAMES_PER_SECOND = 10
NOTICES = 4
SYSTEM_MESSAGES = 3
DOTS = ("", ".", "..", "...")
DOTS_WIDTH = 3


class TreeDisplay(ProgressDisplay):
    """Draws at most ten frames a second, and one a second while nothing happens.

    The cost of a frame depends on the screen, not on the number of resources: if the tree does not fit, only rows that
    failed, are in progress or ended last are drawn. The whole tree is printed at the end.
    """

    def __init__(self, model: Model, console: Console) -> None:
        super().__init__(model, console)
        self.print(banner(model.options), Text())
        self.frames = 0
        self._drawn: tuple[int, int] | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        atexit.register(self.close)
        self._live.start()
        self._ticker = Ticker(1 / FRAMES_PER_SECOND, self.draw)

    def handle(self, event: dict[str, Any]) -> None:
        """Apply an event; the next frame shows it."""
        self.model.apply(event)
        if "preludeEvent" in event and self.model.options.show_config and self.model.config:
            self.print(*configuration(self.model.config), Text())

    def finish(self) -> None:
        """Remove the last frame and print the final tree."""
        atexit.unregister(self.close)
        self._ticker.stop()
        try:
            self._live.update(Text(), refresh=False)
        finally:
            self._live.stop()
        self.model.finish()
        rows = self.model.tree()
        if rows:
            self.print(*self._table(rows, self.console.width), Text())
        if self.model.system:
            self.print(*(tagged(message.rstrip("\n")) for message in self.model.system), Text())

    def draw(self) -> None:
        """Draw a frame if anything has changed."""
        with self.lock:
            now = (self.model.revision, int(self.model.clock() - self.model.started))
            if now != self._drawn:
                self._drawn = now
                self.frames += 1
                self._live.update(Group(*self._frame()), refresh=True)

    def _frame(self) -> list[Text]:
        width, height = self.console.size
        footer = self._footer(width, max(height // 3, 2))
        room = max(height - len(footer) - 2, 1)
        if self.model.stack is None:
            return footer
        rows = self.model.tree() if self.model.shown <= room else [("", row) for row in self._busiest(room)]
        return [*self._table(rows, width), *footer]

    def _busiest(self, room: int) -> list[Row]:
        """The rows to draw if not all fit: failed, in progress, ended last; in order of arrival."""
        failed = islice(reversed(self.model.failed.values()), max(room // 3, 1))
        candidates = chain(failed, self.model.active.values(), reversed(self.model.recent))
        chosen: dict[str, Row] = {}
        while len(chosen) < room and (row := next(candidates, None)) is not None:
            chosen[row.urn.text] = row
        return sorted(chosen.values(), key=lambda row: row.order)

    def _footer(self, width: int, room: int) -> list[Text]:
        model = self.model
        lines: list[Text] = []
        for row, diagnostic in list(model.notices)[-NOTICES:]:
            style = "red" if diagnostic.severity == "error" else "yellow"
            text = Text(f"  {clean(row.urn.name)}: ", style)
            lines.append(text.append_text(tagged(diagnostic.text.split("\n", 1)[0])))
        lines += [tagged("  " + message.split("\n", 1)[0]) for message in model.system[-SYSTEM_MESSAGES:]]
        lines += [Text(_download(payload)) for payload in list(model.downloads.values())[:SYSTEM_MESSAGES]]
        lines = [Text(), *lines[-(room - 1) :]] if lines and room > 2 else []
        return [_clamp(line, width) for line in [*lines, self._totals()]]

    def _totals(self) -> Text:
        model = self.model
        done = model.completed - len(model.sames)
        parts = [plural(done, "resource") + " done"]
        if model.active:
            parts.append(f"{len(model.active)} in progress")
        if model.sames:
            parts.append(f"{len(model.sames)} unchanged")
        text = Text("    ").append(", ".join(parts), "bright_black")
        if model.failed:
            text.append(f", {len(model.failed)} failed", "red")
        return text.append(f"  {duration(model.clock() - model.started)}", "bright_black")

    def _table(self, rows: Sequence[tuple[str, Row]], width: int) -> list[Text]:
        """The header and rows in columns, each line cut to the terminal's width."""
        model = self.model
        body = [(branch, row, self._cells(row)) for branch, row in rows]
        header = Cells(*map(Text, ("", "Type", "Name", "Plan" if model.options.dry_run else "Status", "Info")))
        types = max(len(branch) + one.type.cell_len for branch, _, one in [("", None, header), *body])
        names = max(one.name.cell_len for one in [header, *(one for _, _, one in body)])
        statuses = max(one.status.cell_len for one in [header, *(one for _, _, one in body)])
        has_info = any(one.info for _, _, one in body)
        lines = []
        for branch, row, one in [("", None, header), *body]:
            line = Text(" ").append_text(one.op).append(" " * (4 - one.op.cell_len)).append(branch)
            for cell, room in ((one.type, types - len(branch)), (one.name, names), (one.status, statuses)):
                if row is None:
                    cell.stylize("underline bright_blue")
                line.append_text(cell).append(" " * (room - cell.cell_len + 2))
            if has_info:
                line.append_text(Text(one.info.plain, "underline bright_blue") if row is None else one.info)
            line.rstrip()
            lines.append(_clamp(line, width))
        return lines

    def _cells(self, row: Row) -> Cells:
        """The cells of a row; moving dots show that it is in progress."""
        result = cells(self.model, row, live=True)
        if not self.model.is_done(row) and (row.op != "same" or row.urn.is_stack):
            beat = DOTS[int(self.model.clock() - self.model.started) % len(DOTS)]
            result.status.append(beat.ljust(DOTS_WIDTH), result.status.style)
        return result


def _clamp(line: Text, width: int) -> Text:
    line.truncate(max(width - 1, 1), overflow="ellipsis")
    return line


def _download(payload: Mapping[str, Any]) -> str:
    total, done = payload.get("total") or 0, payload.get("received") or 0
    return f"  {clean(payload.get('message', ''))}" + (f" {100 * done // total}%" if total else "")
