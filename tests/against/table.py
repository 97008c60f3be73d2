"""The table of what a commit gets wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.against.points import Case

HEADER = ("point", "fault", "cases", "wrong there", "right here", "seen there, for one")
LONGEST = 90
TEMPORARY = re.compile(r"\S*/against-\w+/")


@dataclass(frozen=True)
class Row:
    """A fault, and its cases on the older commit and here. None where the cases could not be tried."""

    number: str
    fault: str
    there: Sequence[Case] | None
    here: Sequence[Case] | None

    @property
    def wrong_there(self) -> list[Case]:
        return [case for case in self.there or () if case.wrong]

    @property
    def wrong_here(self) -> list[Case]:
        return [case for case in self.here or () if case.wrong]

    @property
    def shows_it(self) -> bool:
        """Whether the older commit gets some case wrong, and this one none, of the same cases."""
        if self.there is None or self.here is None:
            return False
        same = [case.name for case in self.there] == [case.name for case in self.here]
        return same and bool(self.wrong_there) and not self.wrong_here

    @property
    def cells(self) -> tuple[str, ...]:
        def right(cases: Sequence[Case] | None, count: int) -> str:
            return "-" if cases is None else str(count)

        seen = self.wrong_there[0] if self.wrong_there else None
        return (
            self.number,
            self.fault,
            str(len(self.here or self.there or ())),
            right(self.there, len(self.wrong_there)),
            right(self.here, len(self.here or ()) - len(self.wrong_here)),
            shortened(f"{seen.name}: {seen.wrong}") if seen else "",
        )


def shortened(text: str) -> str:
    """A cell of Markdown's tables, without folders that are another one in each run."""
    line = TEMPORARY.sub("", text).replace("|", "\\|")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def markdown(rows: Sequence[Row]) -> str:
    """A row for each fault."""
    lines = [HEADER, tuple("---" for _ in HEADER), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrong(rows: Sequence[Row], *, here: bool) -> str:
    """Each case that came out wrong, on the older commit or here, with what was seen."""
    return "\n".join(
        f"{row.number} {case.name}: {case.wrong}"
        for row in rows
        for case in (row.wrong_here if here else row.wrong_there)
    )
