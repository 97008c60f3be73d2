"""The page of what was measured of monitoring: each test writes its own section of it."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from infra.manifests import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

HEAD = """\
# Monitoring, measured

`lab test --monitoring` writes this page, section by section: programs of the bundle, with the manifests' own options,
as processes of one machine, beside a real API server. What each alert means: [the how-to](../how-to/monitoring.md).
"""
SECTIONS = ("Alerts", "Secrets", "A day", "Logs")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines) + "\n"


def measured() -> str:
    """When, on what, of which commit: a line under a heading."""
    told = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with open("/proc/loadavg") as file:  # noqa: PTH123
        load = file.read().split()[1]
    return f"{datetime.now(UTC):%Y-%m-%d}, commit {told}, 2 or more cores at a load of {load}."


def rows(path: Path, section: str) -> dict[str, tuple[str, ...]]:
    """The rows of a section's tables, by their first cells: what was measured before, and is not measured again."""
    text = path.read_text() if path.exists() else ""
    (found,) = re.findall(rf"^## {section}\n([\s\S]*?)(?=^## |\Z)", text, re.MULTILINE) or [""]
    cells = [tuple(line.strip("| ").split(" | ")) for line in found.splitlines() if line.startswith("| ")]
    return {row[0]: row for row in cells}


def write(path: Path, section: str, text: str) -> None:
    """Put a section in the place of what it said before; the others stay."""
    assert section in SECTIONS
    old = path.read_text() if path.exists() else ""
    found = dict(re.findall(r"^## (.+)\n([\s\S]*?)(?=^## |\Z)", old, re.MULTILINE))
    found[section] = f"\n{measured()}\n\n{text.strip()}\n"
    body = "\n".join(f"## {name}\n\n{found[name].strip()}\n" for name in SECTIONS if name in found)
    path.write_text(f"{HEAD}\n{body}")
