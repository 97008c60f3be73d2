"""Which night `lab backup` means, and what it says of each; tests/e2e/test_platform_backup.py has the verbs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cli.backup import Night, _as_json, _chosen, _read
from cli.errors import ExitCode, LabError

FIRST, SECOND, BEFORE = "20261127T031700Z", "20261128T031700Z", "before-restore-20261201T090000Z"
TOLD: dict[str, Any] = {
    # Bytes of rows, files, bytes of all, files missing.
    "cluster": {BEFORE: [30, 3, 300, 0], SECOND: [20, 2, 200, 1]},
    "second": {FIRST: [10, 1, 100, 0], SECOND: [20, 2, 190, 0]},
}


def nights() -> list[Night]:
    return list(_read(TOLD))


def test_nights_of_both_places_are_one_list_what_restores_left_at_its_end() -> None:
    assert [(night.name, night.where, night.missing) for night in nights()] == [
        (FIRST, ("second place",), 0),
        (SECOND, ("cluster", "second place"), 0),
        (BEFORE, ("cluster",), 0),
    ]
    assert [night.when for night in nights()] == [
        datetime(2026, 11, 27, 3, 17, tzinfo=UTC),
        datetime(2026, 11, 28, 3, 17, tzinfo=UTC),
        datetime(2026, 12, 1, 9, tzinfo=UTC),
    ]
    assert _as_json(nights()[0]) == {
        "night": FIRST,
        "made": "2026-11-27T03:17:00Z",
        "rowsBytes": 10,
        "files": 1,
        "bytes": 100,
        "filesMissing": 0,
        "where": ["second place"],
    }


def test_the_newest_night_is_meant_where_none_is_named_and_never_what_a_restore_left() -> None:
    assert _chosen(nights(), None, "").name == SECOND
    for name in (FIRST, BEFORE):
        assert _chosen(nights(), name, "").name == name


@pytest.mark.parametrize(
    ("found", "name", "said", "remedy"),
    [
        ([], None, "there is no backup yet", "`lab backup now` makes one"),
        ([], FIRST, "there is no backup yet", "`lab backup now` makes one"),
        (nights(), "2026", "there is no backup '2026'", f"choose one of: {FIRST}, {SECOND}, {BEFORE}"),
        (nights()[2:], None, "there is no backup, only copies that restores have made", f"choose one of: {BEFORE}"),
    ],
)
def test_a_night_that_is_not_there_is_refused_with_those_that_are(
    found: list[Night], name: str | None, said: str, remedy: str
) -> None:
    with pytest.raises(LabError) as refused:
        _chosen(found, name, "The second place (https://s3.example.org, bucket b) fails: AccessDenied")
    assert str(refused.value).startswith(said)
    assert "bucket b) fails: AccessDenied" in str(refused.value)  # it may be why
    assert refused.value.remedy == remedy
    assert refused.value.code == ExitCode.CONFIGURATION
