"""Identifies processes, waits for conditions, and runs commands that end with their caller."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devcloud.errors import DevcloudError

if TYPE_CHECKING:
    from collections.abc import Callable

# Killed when the waiting thread ends, so that an interrupted `up` leaves no process behind.
TIED = ("setpriv", "--pdeathsig", "KILL", "--")


def identity(pid: int) -> dict[str, object]:
    """A process's identity: differs from that of any other process with the same ID, also after a reboot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": pid, "started": started_at(pid), "boot": boot}


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def wait_for(condition: Callable[[], bool], seconds: float, failed: Callable[[], bool] | None = None) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: the condition did not hold within `seconds`.
        ChildProcessError: `failed` held first.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if failed and failed():
            raise ChildProcessError("ended early")
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s")
        time.sleep(0.05)


def execute(command: list[str], log: Path, failure: str) -> None:
    """Run a long command with its output in `log`.

    Raises:
        DevcloudError: it failed; the message ends with the last line it printed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(
            [*TIED, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise DevcloudError(f"{failure}: {lines[-1]}", remedy=f"see {log}; run the same command again to resume")
