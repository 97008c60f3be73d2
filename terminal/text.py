"""Text for terminals: Pulumi's colour tags, control characters, durations, and output that never ends the program."""

from __future__ import annotations

import os
import re
import threading
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

HEADLINE = "bold bright_magenta"
_TAG = re.compile(r"<\{%(.*?)%\}>")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """`text` without colour tags, terminal escapes or control characters other than newline and tab."""
    return clean(_TAG.sub("", text))


def clean(text: str) -> str:
    """`text` without terminal escapes and control characters: a resource's name must not move the cursor."""
    return _UNPRINTABLE.sub("", _ESCAPES.sub("", text)) if not text.isprintable() else text


def tagged(text: str) -> Text:
    """`text` with Pulumi's colour tags (`<{%fg 1%}>...<{%reset%}>`) turned into styles."""
    if "<{%" not in text:
        return Text(clean(text))
    result, styles = Text(), list[str]()
    for index, part in enumerate(_TAG.split(text)):
        if index % 2 == 0:
            result.append(clean(part), " ".join(styles) or None)
        elif part == "reset":
            styles.clear()
        elif part in ("bold", "underline"):
            styles.append(part)
        elif (colour := re.fullmatch(r"(fg|bg) (\d{1,2})", part)) is not None:
            styles.append(("on " if colour[1] == "bg" else "") + f"color({colour[2]})")
    return result


def plural(count: int, noun: str) -> str:
    """`3 errors`, `1 error`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Whole seconds as Go prints a duration: `9s`, `10m9s`, `1h0m3s`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class Output:
    """`out`, silent from the first write that fails: a closed pipe or a full disk must not end a deployment."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._broken = out, False

    def write(self, text: str) -> int:
        """Write `text`, if that is still possible."""
        self._attempt(lambda: self._out.write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered, if that is still possible."""
        self._attempt(self._out.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        if not self._broken:
            try:
                action()
            except OSError:
                self._broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)


def is_terminal(out: TextIO) -> bool:
    """Whether `out` is a terminal on which the cursor can be moved."""
    try:
        return out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:
        return False


def is_interactive(out: TextIO) -> bool:
    """Whether someone watches `out`: a capable terminal, and not a CI system's."""
    return is_terminal(out) and os.environ.get("CI", "").lower() in ("", "0", "false")


def uses_color(out: TextIO, color: str) -> bool:
    """Whether to colour `out`, given `--color` (`auto`, `always`, `never` or `raw`); `NO_COLOR` turns `auto` off."""
    if color == "auto":
        return is_terminal(out) and not os.environ.get("NO_COLOR")
    return color == "always"


def open_console(out: TextIO, *, color: str, interactive: bool) -> Console:
    """A console on `out` that prints text as it is: no markup, no highlighting, no wrapping of long lines."""
    if isinstance(out, TextIOWrapper) and not out.encoding.lower().startswith("utf"):
        out.reconfigure(errors="replace")
    colored = uses_color(out, color)
    return Console(
        file=cast("TextIO", Output(out)),
        force_terminal=interactive or colored,
        color_system="256" if colored else None,
        no_color=not colored,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
    )


class Ticker:
    """Calls `tick` every `interval` seconds on a thread of its own, until stopped."""

    def __init__(self, interval: float, tick: Callable[[], None]) -> None:
        self._interval, self._tick = interval, tick
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._tick()

    def stop(self) -> None:
        """End the thread; once this returns `tick` is not called again."""
        self._stopped.set()
        self._thread.join()
