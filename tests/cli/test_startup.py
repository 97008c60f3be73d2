"""How long `lab` takes to begin: in the processor's time, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import sys

from tests.cli.harness import ROOT

ROUNDS = 7
LIMIT = 20
"""Times what an interpreter takes for nothing, which is 0.015 s where `lab` takes 0.3."""
QUIET = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def seconds(*arguments: str) -> float:
    """Processor time of an interpreter with these arguments."""
    child = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=QUIET)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def test_help_is_there_at_once() -> None:
    """In turns, so that both see the same machine; the best of each is what no other load has slowed."""
    command = str(ROOT / "cli" / "__main__.py")
    rounds = [(seconds("-c", "pass"), seconds(command, "--help")) for _ in range(ROUNDS)]
    nothing, lab = (min(times) for times in zip(*rounds, strict=True))
    assert lab < LIMIT * nothing, f"{lab:.3f} s, beside {nothing:.3f} s for nothing"
