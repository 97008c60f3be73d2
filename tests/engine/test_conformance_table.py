"""The committed conformance table names exactly the tests that exist."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.engine.harness import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

TABLE = REPOSITORY / "docs/reference/conformance.md"


def rows(path: Path) -> set[str]:
    """The rows without their results."""
    lines = path.read_text().splitlines()
    return {line.rsplit("|", 2)[0] for line in lines if line.startswith("|")}


def test_the_committed_table_is_in_step_with_the_tests(tmp_path: Path) -> None:
    fresh = tmp_path / "conformance.md"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "tests/engine"]
    subprocess.run([*command, "--conformance-table", str(fresh)], cwd=REPOSITORY, check=True, capture_output=True)
    assert rows(TABLE) == rows(fresh), "run: pytest tests/engine --conformance-table docs/reference/conformance.md"


def test_every_row_of_the_committed_table_passed() -> None:
    results = [line.split("|")[-2].strip() for line in TABLE.read_text().splitlines() if line.startswith("|")]
    assert set(results[2:]) == {"passed"}
