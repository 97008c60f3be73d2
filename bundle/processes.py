"""Runs the tools that build a bundle. They end with the command; errors have the last lines of their output."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from typing import TYPE_CHECKING

from bundle.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

LINES_IN_ERROR = 5


class Tools:
    """Runs tools on several threads; `stop` kills them all.

    Their temporary files are in `scratch`; by default in the system's folder.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        self._environment = {"TMPDIR": str(scratch)} if scratch else {}
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run a tool; `on_line` is called with each line of its output.

        Raises:
            BundleError: it failed, or `stop` ended it.
        """
        output: deque[str] = deque(maxlen=LINES_IN_ERROR)
        with self._start(command, cwd, environment) as process:
            try:
                assert process.stdout
                for line in process.stdout:
                    output.append(line.rstrip())
                    if on_line:
                        on_line(line)
            finally:
                with self._lock:
                    self._running.remove(process)
        if process.returncode:
            raise BundleError("\n".join([f"{command[0]} failed with status {process.returncode}:", *output]))

    def stop(self) -> None:
        """Kill running tools; no new ones start."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _start(
        self, command: Sequence[str | Path], cwd: Path | None, environment: Mapping[str, str] | None
    ) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise BundleError("interrupted")
            process = subprocess.Popen(
                # Killed with the thread that waits for it, so that a killed build leaves no processes.
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                cwd=cwd, env={**os.environ, **self._environment, **(environment or {})},
            )  # fmt: skip
            self._running.add(process)
        return process


def answer(*command: str) -> str:
    """Output of a short command; empty if it fails."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
