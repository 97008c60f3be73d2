"""What pytest's JUnit reports say: which tests failed, and where the time went."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cli.text import table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# How much of a failure is repeated: later stages print thousands of lines after it.
LINES_OF_A_FAILURE = 12
SLOWEST = 10


@dataclass(frozen=True)
class Case:
    """One test that ran."""

    name: str
    """Dotted, its file's folders first: `tests.cli.test_stacks.test_init`."""
    seconds: float
    """With what its fixtures took."""
    problems: tuple[str, ...]
    """What it said when it failed, and when its fixtures did."""

    @property
    def room(self) -> str:
        """The folder below tests/ that it is of."""
        parts = self.name.split(".")
        return parts[1] if parts[0] == "tests" and len(parts) > 3 else parts[0]


def read(report: Path) -> list[Case]:
    """The tests of pytest's JUnit `report`; none without a report."""
    if not report.exists():
        return []
    return [
        Case(
            f"{case.get('classname', '')}.{case.get('name', '')}".strip("."),
            float(case.get("time", "0")),
            tuple(
                (problem.text or problem.get("message") or "").strip()
                for kind in ("failure", "error")
                for problem in case.findall(kind)
            ),
        )
        for case in ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest wrote it just now
    ]


def failures(cases: Sequence[Case]) -> list[str]:
    """The tests that failed, each with the end of what it said."""
    return [
        "\n    ".join([f"  {case.name}", *problem.splitlines()[-LINES_OF_A_FAILURE:]])
        for case in cases
        for problem in case.problems
    ]


def times(cases: Sequence[Case]) -> str:
    """Two tables: each room's tests and seconds, and the slowest tests. Workers run at once: their seconds add up."""
    rooms: defaultdict[str, list[float]] = defaultdict(list)
    for case in cases:
        rooms[case.room].append(case.seconds)
    by_room = sorted(rooms.items(), key=lambda room: -sum(room[1]))
    slowest = sorted(cases, key=lambda case: -case.seconds)[:SLOWEST]
    return "\n\n".join(
        (
            table(("ROOM", "TESTS", "TIME"), [(room, str(len(all_)), f"{sum(all_):.1f} s") for room, all_ in by_room]),
            table(("SLOWEST TESTS", "TIME"), [(case.name, f"{case.seconds:.1f} s") for case in slowest]),
        )
    )
