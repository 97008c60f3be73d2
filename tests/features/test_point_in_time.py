"""Feast on the real PostgreSQL and on Parquet, case by case: what is trained with and what is served at a moment, by
definition, by Feast alone, and by the service's store. `pytest -m slow_images tests/features` prints the table.

A row of features counts from its time on, for two hours; of two the newer one, of two with one time the one that was
written last. A request gets the row that counts, and every request gets an answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.features.conftest import Features

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(1200)]
NOW = "2026-11-01T07:30:00+00:00"
HOUR = 3600
LASTS = 2 * HOUR
Row = tuple[int, int, int]
"""Seconds from now at which it counts, at which it was written; value."""
NONE = None
LUCK = ("any of them", "all right")
"""Training reads any of the rows, serving the right one."""


@dataclass(frozen=True)
class Case:
    """Rows of a key, and the value that is trained with and served; `alone`: what Feast answers, where it differs."""

    rows: list[Row]
    expected: int | None
    alone: tuple[Any, Any] | None = None
    keys: int = 1
    """How many keys have such rows."""
    requests: int = 1
    """How many requests there are of each at the same moment."""
    refused: str = ""
    """Why the store does not take the rows."""


def same(value: int | None, times: int = 1) -> tuple[list[int | None], list[int | None]]:
    """One value, trained with and served."""
    return [value] * times, [value] * times


CASES = {
    "an hour old": Case([(-HOUR, -HOUR, 1)], 1),
    "from now on": Case([(0, 0, 1)], 1),
    "from the next second on": Case([(1, 1, 1)], NONE, alone=([], [NONE])),
    "exactly as old as it may be": Case([(-LASTS, -LASTS, 1)], 1),
    "a second older": Case([(-LASTS - 1, -LASTS - 1, 1)], NONE, alone=([], [1])),
    "the newer of two": Case([(-60, -60, 2), (-HOUR, -HOUR, 1)], 2),
    "one that counts, one from the next second on": Case([(-60, -60, 1), (1, 1, 2)], 1),
    "one time, written later, later in the file": Case([(-60, -120, 1), (-60, -90, 2)], 2, alone=LUCK),
    "one time, written later, first in the file": Case([(-60, -90, 2), (-60, -120, 1)], 2, alone=LUCK),
    "one time, for 100 keys": Case([(-60, -120, 1), (-60, -90, 3), (-60, -100, 2)], 3, keys=100, alone=LUCK),
    "written an hour after it counts": Case(
        [(-HOUR - 60, -60, 2), (-HOUR - 120, -HOUR - 120, 1)], 1, alone=([2], [2]), refused="written after"
    ),
    "two requests at one moment": Case([(-60, -60, 1)], 1, requests=2, alone=([1], [1, 1])),
    "no row at all": Case([], NONE),
}  # fmt: skip


# A minute and more after a new row began to count, and before; half past one comes twice to Chicago on that night.
ZONES = {
    ("2026-11-01T07:30:00+00:00", "UTC"): 2, ("2026-11-01T07:30:00+00:00", "Asia/Kolkata"): 2,
    ("2026-11-01T07:30:00+00:00", "America/Chicago"): 2, ("2026-11-01T06:30:00+00:00", "America/Chicago"): 1,
    ("2026-11-01T06:30:00+00:00", "Asia/Kolkata"): 1, ("2026-11-01T07:28:59+00:00", "America/Chicago"): 1,
    ("2026-11-01T07:30:00+00:00", "naive"): "placed_at has no time zone",
}  # fmt: skip
ZONED = "the newer of two"


@pytest.fixture(scope="module")
def told(features: Features, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Feast alone and the store answer."""
    file = tmp_path_factory.mktemp("cases") / "cases.json"
    cases = {
        name: {"rows": one.rows, "keys": one.keys, "requests": one.requests}
        for name, one in CASES.items()
    }  # fmt: skip
    key = 1000 * [*CASES].index(ZONED)
    zones = [(key, moment, zone) for moment, zone in ZONES]
    file.write_text(json.dumps({"now": NOW, "lasts": LASTS, "cases": cases, "zones": zones}))
    return run(features, "cases.py", file)


@pytest.fixture(scope="module")
def answers(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of Feast alone and of the store, by case."""
    found: dict[str, dict[str, Any]] = told["cases"]
    return found


def run(features: Features, program: str, file: Path) -> dict[str, Any]:
    """What a program beside this file prints, in the image."""
    from tests.images.services import ROOT  # noqa: PLC0415

    file.chmod(0o644)
    mounted = {ROOT / "tests/features" / program: f"/opt/{program}", file: "/opt/given.json"}
    status, output = features.run(
        entrypoint=["/usr/bin/python3", f"/opt/{program}", "/opt/given.json"], read_only=mounted
    )
    assert status == 0, output
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def text(answer: Any) -> str:
    """Values that are trained with, and served, in short."""
    if isinstance(answer, str):
        return "refused"
    return ", ".join("/".join(sorted({str(one) for one in part})) or "gone" for part in answer)


def test_the_table(answers: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n\n{'case':<46}{'definition':<12}{'Feast alone':<26}{'ours':<14}(trained with, served)")
        for name, case in CASES.items():
            found = answers[name]
            print(f"{name:<46}{case.expected!s:<12}{text(found['alone']):<26}{text(found['ours']):<14}")
    assert len(answers) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_training_and_serving_read_what_the_definition_says(answers: dict[str, dict[str, Any]], name: str) -> None:
    case, ours = CASES[name], answers[name]["ours"]
    if case.refused:
        assert case.refused in ours
    else:
        assert tuple(ours) == same(case.expected, case.keys * case.requests)


@pytest.mark.parametrize("name", CASES)
def test_what_feast_alone_answers_is_as_recorded(answers: dict[str, dict[str, Any]], name: str) -> None:
    """Where this fails, Feast has changed: services/features/README.md, Feast, has what is done about each."""
    case, (trained, served) = CASES[name], answers[name]["alone"]
    if case.alone == LUCK:
        assert (len(trained), served) == (case.keys, [case.expected] * case.keys)
        assert {*trained} <= {value for _, _, value in case.rows}
        assert case.keys == 1 or {*trained} != {case.expected}
    else:
        assert (trained, served) == (case.alone or same(case.expected, case.keys * case.requests))


def test_a_moment_is_the_same_by_the_clocks_of_every_zone(
    told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    zones = told["zones"]
    with capsys.disabled():
        print(f"\n\n{'moment':<28}{'told in the zone':<18}{'definition':<12}{'Feast alone':<13}ours")
        for number, ((moment, zone), expected) in enumerate(ZONES.items()):
            shown = ["refused" if isinstance(one, str) else one for one in (expected, zones["ours"][number])]
            print(f"{moment:<28}{zone:<18}{shown[0]!s:<12}{zones['alone'][number]!s:<13}{shown[1]}")
    assert zones["ours"] == [*ZONES.values()]
    # Feast takes a moment without a zone for UTC.
    assert zones["alone"] == [2 if isinstance(one, str) else one for one in ZONES.values()]
