"""Every benchmark starts; one that needs no cloud and no platform runs to its end, in little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py") if not path.stem.startswith("test_"))
ALONE = {"engine": ("--sizes", "3", "--dynamic", "3")}
"""Benchmarks that need this machine alone, and arguments that make them short."""


def run(*arguments: str) -> str:
    """What `lab bench` prints; it must succeed."""
    command = [sys.executable, "-m", "cli", "bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_starts(name: str) -> None:
    assert f"lab bench {name}" in run(name, "--help")


@pytest.mark.parametrize("name", ALONE)
def test_it_runs(name: str) -> None:
    result = run(name, *ALONE[name])
    assert "3 dynamic" in result
    assert "peak, MiB" in result
