"""The table says what each commit gets wrong, and a point that shows nothing is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.against import providers, settings
from tests.against.__main__ import LEFT_OUT, POINTS, tried
from tests.against.checkout import Checkout
from tests.against.points import Case, Point, Tried
from tests.against.table import Row, markdown, wrong

ROOT = Path(__file__).parents[2]
QUICK = (providers.manifests, providers.image_on_a_volume, settings.wrong_settings)


def two_cases(checkout: Checkout, tried: Tried) -> None:
    with tried.of("always right"):
        assert checkout.root
    with tried.of("right at the new one"):
        assert checkout.root.name == "new", f"it is {checkout.root.name} | and more\nand lines"


def broken(checkout: Checkout, tried: Tried) -> None:
    raise RuntimeError(f"nothing at {checkout.root} to try {tried}")


POINT = Point("1", "A fault", two_cases)


def row(there: str, here: str, point: Point = POINT) -> Row:
    return Row(point.number, point.fault, tried(point, Path(there)), tried(point, Path(here)))


def test_a_fault_that_is_mended() -> None:
    made = row("old", "new")
    assert made.shows_it
    assert made.cells == ("1", "A fault", "2", "1", "2", "right at the new one: it is old \\| and more")
    assert markdown([made]).splitlines()[2] == f"| {' | '.join(made.cells)} |"
    assert wrong([made], here=False) == "1 right at the new one: it is old | and more"
    assert wrong([made], here=True) == ""


@pytest.mark.parametrize(("there", "here"), [("new", "new"), ("old", "old"), ("new", "old")])
def test_a_point_that_does_not_show_a_mended_fault(there: str, here: str) -> None:
    assert not row(there, here).shows_it


def test_other_cases_are_no_comparison() -> None:
    assert not Row("1", "A fault", [Case("one", "wrong")], [Case("another")]).shows_it


def test_what_cannot_be_tried_is_reported_and_not_called_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    made = row("old", "new", Point("1", "A fault", broken))
    assert not made.shows_it
    assert made.cells[2:5] == ("0", "-", "-")
    assert "nothing at old to try" in capsys.readouterr().err


def test_every_numbered_point_is_tried_or_left_out_with_a_reason() -> None:
    assert {point.number for point in POINTS} | LEFT_OUT.keys() == {str(number) for number in range(1, 20)}


@pytest.mark.parametrize("tries", QUICK, ids=lambda tries: tries.__name__)
def test_all_is_right_here(tries: object, tmp_path: Path) -> None:
    (point,) = (point for point in POINTS if point.tries is tries)
    cases = point.on(Checkout(ROOT, tmp_path))
    assert len(cases) > 5
    assert not [case for case in cases if case.wrong]
