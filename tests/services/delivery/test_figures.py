"""What counts as what, one rule at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from services.delivery.events import (
    ANSWERS,
    COMMIT,
    PROMOTED,
    REGISTERED,
    ROLLED_BACK,
    UP_ENDED,
    WITHDRAWN,
    Event,
    model_subject,
    stack_subject,
)
from services.delivery.figures import figures

if TYPE_CHECKING:
    from services.delivery.deployment import Deployment

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = 3600.0


def hours(count: float) -> datetime:
    return START + timedelta(hours=count)


def commit(sha: str, at: float, *parents: str, **more: Any) -> Event:
    return Event(
        COMMIT,
        "",
        sha,
        hours(at),
        {"parents": list(parents), "touches": ["infra"], "incidents": [], "reverts": [], **more},
    )


def up(at: float, head: str | None, **more: Any) -> Event:
    data = {"succeeded": True, "changed": 1, "head": head, "dirty": False, **more}
    return Event(UP_ENDED, stack_subject("dev"), str(at), hours(at), data)


def model(kind: str, at: float, version: str) -> Event:
    return Event(kind, model_subject("digits"), f"{kind}{at}", hours(at), {"stage": "production", "version": version})


def registered(at: float, version: str) -> Event:
    return Event(
        REGISTERED, model_subject("digits"), f"{version}@{at}", hours(at), {"version": version, "run": "", "code": ""}
    )


def counted(*events: Event) -> tuple[list[Deployment], list[str]]:
    """Deployments of the only subject, and what is missing."""
    (found,), missing = figures(events, START, START + timedelta(days=28))
    return found.of, missing


def test_an_older_commit_takes_back_all_that_came_since() -> None:
    commits = commit("a", 0), commit("b", 1, "a"), commit("c", 2, "b")
    (first, *bad), missing = counted(*commits, up(3, "a"), up(4, "b"), up(5, "c"), up(7, "a"))
    assert missing == []
    assert not first.failed
    assert [(one.what, one.failed, one.recovery_seconds) for one in bad] == [
        ("b", "it was rolled back", 3 * HOUR), ("c", "it was rolled back", 2 * HOUR)
    ]  # fmt: skip


def test_what_was_rolled_back_and_comes_again_is_a_deployment_and_no_new_change() -> None:
    commits = commit("a", 0), commit("b", 1, "a")
    found, _ = counted(*commits, up(2, "a"), up(3, "b"), up(4, "a"), up(5, "b"))
    assert [(one.what, one.lead_seconds) for one in found] == [("a", [2 * HOUR]), ("b", [2 * HOUR]), ("b", [])]


def test_settings_that_change_under_the_same_commit_are_a_deployment_without_a_change() -> None:
    found, _ = counted(commit("a", 0), up(1, "a"), up(2, "a"))
    assert [one.lead_seconds for one in found] == [[HOUR], []]


def test_a_failure_that_nothing_ends_goes_on() -> None:
    (one,), _ = counted(commit("a", 0), up(1, "a", succeeded=False))
    assert (one.failed, one.recovery_seconds, one.lead_seconds) == ("the up failed", None, [])


def test_an_up_of_an_unknown_commit_counts_and_is_told() -> None:
    found, missing = counted(commit("a", 0), up(1, "elsewhere"), up(2, None))
    assert [one.lead_seconds for one in found] == [[], []]
    assert len(missing) == 2


def test_what_is_told_missing_is_of_the_time_asked_for() -> None:
    _, missing = figures([up(1, None)], hours(2), hours(3))
    assert missing == []


def test_a_revert_among_other_commits_is_rework_and_ends_the_failure() -> None:
    commits = commit("a", 0), commit("b", 1, "a"), commit("c", 2, "b", reverts=["b"]), commit("d", 3, "c")
    found, _ = counted(*commits, up(1, "a"), up(2, "b"), up(5, "d"))
    assert [(one.what, one.rework, one.recovery_seconds) for one in found] == [
        ("a", False, None), ("b", False, 3 * HOUR), ("d", True, None)
    ]  # fmt: skip


def test_without_notes_of_the_cluster_promotion_stands_for_the_answer_and_that_is_told() -> None:
    found, missing = counted(
        registered(0, "1"), model(PROMOTED, 1, "1"), model(PROMOTED, 2, "2"), model(ROLLED_BACK, 4, "1")
    )
    assert [(one.what, one.recovery_seconds) for one in found] == [("version 1", None), ("version 2", 2 * HOUR)]
    assert any("it is not recorded when some versions started to answer" in one for one in missing)
    assert any("some versions are not in the registry" in one for one in missing)


def test_an_older_version_promoted_by_hand_takes_the_newer_one_back() -> None:
    found, _ = counted(model(PROMOTED, 1, "1"), model(PROMOTED, 2, "2"), model(PROMOTED, 3, "1"))
    assert [one.failed for one in found] == ["", "it was rolled back"]


def test_a_model_that_was_deleted_and_made_again_begins_anew() -> None:
    first = registered(0, "1"), model(PROMOTED, 1, "1"), model(PROMOTED, 2, "2")
    found, _ = counted(*first, registered(3, "1"), model(PROMOTED, 4, "1"))
    assert [(one.what, one.failed) for one in found] == [("version 1", ""), ("version 2", ""), ("version 1", "")]


def test_taking_a_stage_down_and_bringing_it_back_is_no_failure_and_no_deployment() -> None:
    found, _ = counted(model(PROMOTED, 1, "1"), model(WITHDRAWN, 2, "1"), model(ROLLED_BACK, 3, "1"))
    assert [(one.what, one.failed) for one in found] == [("version 1", "")]


def test_what_is_being_rolled_out_is_not_counted_yet() -> None:
    found, _ = counted(model(PROMOTED, 1, "1"), model(ANSWERS, 1.1, "1"), model(PROMOTED, 2, "2"))
    assert [one.what for one in found] == ["version 1"]
