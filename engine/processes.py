"""Child processes that end with the engine."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def bind_to_parent() -> None:
    """Ask the kernel to end this process with its parent, and keep it out of the terminal's Ctrl-C."""
    os.setsid()
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def spawn(
    command: Sequence[str], *, cwd: Path | None, env: Mapping[str, str], stdin: bool = False
) -> asyncio.subprocess.Process:
    """Start a child with its output, and on request its input, as pipes; it ends with the engine, however that ends.

    The kernel ties the child to the *thread* that forks it: call this from the engine's own thread only.
    """
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=bind_to_parent,
        limit=2**24,
    )


async def stop(process: asyncio.subprocess.Process, grace_seconds: float = 5.0) -> None:
    """Stop a child: SIGTERM first, SIGKILL after ``grace_seconds``."""
    if process.returncode is not None:
        return
    # `process.terminate` would collect the status of a child that has just ended, and asyncio would miss it.
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), grace_seconds)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
