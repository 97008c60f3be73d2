"""Progress of long work in stages: what is done, what it waits for, for how long.

    with Stages("Bringing up the cloud") as stages:
        with stages.stage("Install packages", waiting_for="apt") as stage:
            ...
            stage.wait_for("dpkg")

On a terminal the stages are redrawn in place; elsewhere each prints a line when it begins, when it waits for something
else, and when it ends. At the end a table lists all stages with their times.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Group
from rich.live import Live
from rich.text import Text

from terminal.text import HEADLINE, Ticker, clean, duration, is_interactive, open_console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEARTBEAT_SECONDS = 30.0
FRAMES_PER_SECOND = 4
MARKS = {"running": ("…", "yellow"), "done": ("✓", "green"), "failed": ("✗", "red")}


class Stage:
    """One stage. `waiting_for` names what it waits for now."""

    def __init__(self, stages: Stages, name: str, waiting_for: str) -> None:
        self._stages = stages
        self.name, self.waiting_for = clean(name), clean(waiting_for)
        self.state = "running"
        self._started = stages.clock()
        self._ended: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began, or that it took."""
        return (self._stages.clock() if self._ended is None else self._ended) - self._started

    def wait_for(self, what: str) -> None:
        """Say what the stage waits for from now on."""
        if (what := clean(what)) != self.waiting_for:
            self.waiting_for = what
            self._stages.announce(self)

    def end(self, state: str) -> None:
        """The stage is `done` or has `failed`."""
        self.state, self._ended = state, self._stages.clock()
        self._stages.announce(self)

    def line(self) -> Text:
        """The stage as one line."""
        mark, style = MARKS[self.state]
        text = Text.assemble((mark, style), f" {self.name}")
        if self.state == "running" and self.waiting_for:
            text.append(f": waiting for {self.waiting_for}", "bright_black")
        elif self.state == "failed":
            text.append(": failed", style)
        return text.append(f" ({_time(self.elapsed)})", "bright_black")


class Stages:
    """Reports stages on `out` (standard output by default). Stages may run at the same time, on several threads."""

    def __init__(
        self,
        title: str,
        *,
        out: TextIO | None = None,
        interactive: bool | None = None,
        color: str = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        out = out or sys.stdout
        self._title, self.clock = title, clock
        self._live_wanted = is_interactive(out) if interactive is None else interactive
        self._console = open_console(out, color=color, interactive=self._live_wanted)
        self._lock = threading.RLock()
        self.stages: list[Stage] = []
        self._started = self._announced = clock()
        self._ended: float | None = None
        self._live: Live | None = None
        self._ticker: Ticker | None = None

    def __enter__(self) -> Self:
        self._console.print(Text(self._title, HEADLINE))
        if self._live_wanted:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            atexit.register(self._live.stop)
            self._live.start()
            self._ticker = Ticker(1 / FRAMES_PER_SECOND, self.draw)
        else:
            self._ticker = Ticker(1.0, self.beat)
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended = self.clock()
        if self._ticker is not None:
            self._ticker.stop()
        if self._live is not None:
            atexit.unregister(self._live.stop)
            self._live.stop()
        self._console.print(Text("\n").join(self.table()))

    @property
    def elapsed(self) -> float:
        """Seconds since the first stage could begin, or that all took."""
        return (self.clock() if self._ended is None else self._ended) - self._started

    @contextmanager
    def stage(self, name: str, *, waiting_for: str = "") -> Iterator[Stage]:
        """Run a stage; an exception that leaves it marks it failed."""
        stage = Stage(self, name, waiting_for)
        with self._lock:
            self.stages.append(stage)
        self.announce(stage)
        try:
            yield stage
        except BaseException:
            stage.end("failed")
            raise
        stage.end("done")

    def announce(self, stage: Stage) -> None:
        """Print a stage that changed, where stages are not redrawn."""
        if self._live is None:
            with self._lock:
                self._announced = self.clock()
                self._console.print(Text("  ").append_text(stage.line()))

    def table(self) -> list[Text]:
        """All stages with the time each took, and the total."""
        width = max((len(stage.name) for stage in self.stages), default=0)
        width = max(width, len("Total"))
        lines = []
        for stage in self.stages:
            mark, style = MARKS[stage.state]
            lines.append(Text.assemble("  ", (mark, style), f" {stage.name:<{width}}  {_time(stage.elapsed):>8}"))
        return [*lines, Text(f"    {'Total':<{width}}  {_time(self.elapsed):>8}", "bold")]

    def draw(self) -> None:
        """Redraw the stages, where they are."""
        with self._lock:
            lines = [Text("  ").append_text(stage.line()) for stage in self.stages]
        shown = lines[-max(self._console.size.height - 2, 1) :]
        for line in shown:
            line.truncate(max(self._console.width - 1, 1), overflow="ellipsis")
        if self._live is not None:
            self._live.update(Group(*shown), refresh=True)

    def beat(self) -> None:
        """Print the stages under way, if nothing was printed for long."""
        with self._lock:
            if self.clock() - self._announced < HEARTBEAT_SECONDS:
                return
            for stage in self.stages:
                if stage.state == "running":
                    self.announce(stage)


def _time(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else duration(seconds)
