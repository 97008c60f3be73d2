"""From what a stage serves to what Git says of it: one step, or none. Nothing is asked or changed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROMOTED, ROLLED_BACK, TAKEN_DOWN = "promoted", "rolled back", "withdrawn"
Said = dict[str, Any]
"""What Git said of a stage when it was done last: `version`, and whether a rollback has gone `ahead` of it since."""


@dataclass(frozen=True)
class Step:
    """What is done to a stage, and how it is then."""

    did: str | None
    """None: it stays as it is."""
    version: int | None
    former: list[int]
    kept: bool = False
    """Whether it stays because a rollback went ahead of Git, which still names the version rolled back from."""


def step(version: int | None, former: Sequence[int], said: Said | None, wanted: int | None) -> Step:
    """The step for a stage that serves a version, and served others before, the oldest first.

    What it served before, it returns to: a revert in Git is a rollback here.
    """
    as_it_is = list(former)
    if wanted == version:
        return Step(None, version, as_it_is)
    if said and said["ahead"] and said["version"] == wanted:
        return Step(None, version, as_it_is, kept=True)
    before = [*former, *([version] if version is not None else [])]
    if wanted is None:
        return Step(TAKEN_DOWN, None, before)
    if wanted in former:
        last = len(former) - 1 - list(reversed(former)).index(wanted)
        return Step(ROLLED_BACK, wanted, list(former[:last]))
    return Step(PROMOTED, wanted, before)


def gone_ahead(said: Mapping[str, Said], stage: str, version: int | None) -> dict[str, Said]:
    """What Git said, once a stage was rolled back from a version before Git says so.

    Where Git has said nothing of the stage yet, there is nothing that could bring the version back.
    """
    known = said.get(stage)
    if known is None or known["ahead"]:
        return dict(said)
    return {**said, stage: {"version": version, "ahead": True}}
