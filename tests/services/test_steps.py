"""From what a stage serves to what Git says of it: the step."""

from __future__ import annotations

import pytest

from services.promotion.steps import Step, gone_ahead, step

AHEAD = {"version": 3, "ahead": True}


@pytest.mark.parametrize(
    ("version", "former", "said", "wanted", "made"),
    [
        (3, [1, 2], None, 3, Step(None, 3, [1, 2])),
        (None, [], None, 1, Step("promoted", 1, [])),
        (2, [1], {"version": 2, "ahead": False}, 3, Step("promoted", 3, [1, 2])),
        # A revert, of one commit or of two.
        (3, [1, 2], {"version": 3, "ahead": False}, 2, Step("rolled back", 2, [1])),
        (3, [1, 2], {"version": 3, "ahead": False}, 1, Step("rolled back", 1, [])),
        (4, [1, 2, 1], None, 1, Step("rolled back", 1, [1, 2])),
        (3, [1], {"version": 3, "ahead": False}, None, Step("withdrawn", None, [1, 3])),
        (None, [1, 3], None, None, Step(None, None, [1, 3])),
        # After a rollback that Git does not have yet: it keeps until Git says something else.
        (2, [1], AHEAD, 3, Step(None, 2, [1], kept=True)),
        (2, [1], AHEAD, 2, Step(None, 2, [1])),
        (2, [1], AHEAD, 4, Step("promoted", 4, [1, 2])),
        (2, [1], AHEAD, None, Step("withdrawn", None, [1, 2])),
        # Somebody has changed the setting to `service` and back: Git decides.
        (5, [3], {"version": 3, "ahead": False}, 3, Step("rolled back", 3, [])),
    ],
)
def test_the_step(
    version: int | None, former: list[int], said: dict[str, object] | None, wanted: int | None, made: Step
) -> None:
    assert step(version, former, said, wanted) == made


def test_git_stays_behind_by_what_the_first_of_several_rollbacks_left() -> None:
    said = {"production": {"version": 3, "ahead": False}, "staging": {"version": 5, "ahead": False}}
    once = gone_ahead(said, "production", 3)
    assert once == {**said, "production": AHEAD}
    assert gone_ahead(once, "production", 2) == once
    assert gone_ahead(said, "canary", 7) == said
