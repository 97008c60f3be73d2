"""Runs the tools that make a bundle. None outlives the command; an error says what the tool said last."""

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
    """The tools under way, on several threads; `stop` ends them all.

    What they leave when they are killed is in `scratch`, by default where such things are.
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
        heard: Callable[[str], None] | None = None,
    ) -> None:
        """Run a tool to its end; `heard` gets each line it prints.

        Raises:
            BundleError: it failed, or `stop` ended it.
        """
        said: deque[str] = deque(maxlen=LINES_IN_ERROR)
        with self._start(command, cwd, environment) as process:
            try:
                assert process.stdout
                for line in process.stdout:
                    said.append(line.rstrip())
                    if heard:
                        heard(line)
            finally:
                with self._lock:
                    self._running.remove(process)
        if process.returncode:
            raise BundleError("\n".join([f"{command[0]} failed with status {process.returncode}:", *said]))

    def stop(self) -> None:
        """End what is under way; nothing more will start."""
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
                # Killed with the thread that waits for it, so that a killed build leaves nothing at work.
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                cwd=cwd, env={**os.environ, **self._environment, **(environment or {})},
            )  # fmt: skip
            self._running.add(process)
        return process


def answer(*command: str) -> str:
    """What a quick command prints; nothing where it fails."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
