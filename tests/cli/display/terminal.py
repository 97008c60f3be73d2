"""A terminal of a given size, whose screen can be read."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0


class Terminal:
    """Runs the display on a pseudo-terminal and feeds it events."""

    def __init__(self, *, rows: int = 24, columns: int = 100, env: dict[str, str] | None = None, **flags: Any) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        inherited = {
            key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR", "COLUMNS", "LINES")
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.display.feed", json.dumps(flags)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=slave,
            stderr=subprocess.DEVNULL,
            env=inherited | {"TERM": "xterm-256color"} | (env or {}),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def send(self, *events: dict[str, Any]) -> None:
        """Have events shown."""
        self.type("".join(json.dumps(event) + "\n" for event in events))

    def type(self, text: str) -> None:
        """Write to the program's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """What is on the screen, and what has scrolled off."""
        history = ["".join(cell.data for _, cell in sorted(line.items())).rstrip() for line in self.screen.history.top]
        return "\n".join([*history, *self.lines])

    def wait_for(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not seen(self.lines):
            assert self._read(deadline - time.monotonic()), "the program ended, and the screen shows:\n" + self.text
            assert time.monotonic() < deadline, "the screen shows:\n" + self.text
        return self.lines

    def finish(self) -> int:
        """End the program's input, read the rest, and return its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, patience: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(patience, 0))
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux answers EIO once the other side is closed
            return False
        self.written += data
        self._stream.feed(data)
        return bool(data)
