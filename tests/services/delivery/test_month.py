"""The scripted month: the figures are those that its page works out by hand, and a second import changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from services.delivery import deployments, history, registry
from services.delivery.events import CLOSED, OPENED, Event, model_subject, stack_subject
from services.delivery.figures import Figures, figures
from services.delivery.git import Repository
from services.delivery.store import Store, StoreError
from tests.services.delivery.month import MODEL, SINCE, STACK, UNTIL, Month, at

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600.0


@pytest.fixture
def month(tmp_path: Path) -> Month:
    return Month(tmp_path)


def everything(month: Month) -> list[Event]:
    """All events of the month but incidents, as `lab dora` reads them."""
    repository = Repository(month.folder)
    found = [
        *history.events(STACK, month.history()),
        *registry.events(month.ask),
        *deployments.events(month.deployments()),
        *repository.code(MODEL, month.codes.values()),
    ]
    return [*found, *repository.events(month.commits.values())]


def incidents() -> list[Event]:
    """What people told of it."""
    return [
        Event(OPENED, stack_subject(STACK), "network-down", at("12 17:00")),
        Event(CLOSED, stack_subject(STACK), "network-down", at("12 19:05")),
        Event(OPENED, model_subject(MODEL), "wrong-digits", at("18 06:00")),
    ]


def of(events: list[Event]) -> tuple[Figures, Figures, list[str]]:
    """The figures of infrastructure and of the model, and what they lack."""
    since, until = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (SINCE, UNTIL))
    (infrastructure, model), missing = figures(events, since, until)
    assert (infrastructure.subject, model.subject) == ("infrastructure of dev", "model digits")
    return infrastructure, model, missing


def test_the_month_has_the_figures_of_the_page(month: Month, address: str) -> None:
    with Store(address) as store:
        store.add([*incidents(), *everything(month)])
        infrastructure, model, missing = of(store.events())
    assert missing == []
    assert (infrastructure.deployments, infrastructure.per_week) == (7, 1.75)
    assert infrastructure.days_between == 87.75 / 24
    assert (infrastructure.changes, infrastructure.lead_seconds) == (7, 12 * HOUR)
    assert (infrastructure.failed, infrastructure.fail_rate) == (3, 3 / 7)
    assert (infrastructure.recovered, infrastructure.recovery_seconds) == (3, 2 * HOUR)
    assert (infrastructure.rework, infrastructure.rework_rate) == (1, 1 / 7)
    assert (model.deployments, model.per_week) == (5, 1.25)
    assert (model.changes, model.lead_seconds) == (4, 5.5 * HOUR)
    assert (model.failed, model.fail_rate) == (3, 3 / 5)
    assert (model.recovered, model.recovery_seconds) == (3, 125 * 60)
    assert (model.rework, model.rework_rate) == (1, 1 / 5)


def test_each_deployment_counts_as_the_page_says(month: Month) -> None:
    infrastructure, model, _ = of([*everything(month), *incidents()])
    names = {sha[:12]: name for name, sha in month.commits.items()}
    told = [(names[one.what], one.failed, one.recovery_seconds, one.rework) for one in infrastructure.of]
    assert told == [
        ("c2", "", None, False),
        ("c3", "the up failed", 0.5 * HOUR, False),
        ("c3", "", None, False),
        ("c4", "incident network-down", 2 * HOUR, False),
        ("c5", "", None, True),
        ("c6", "it was rolled back", 12 * HOUR, False),
        ("merge", "", None, False),
    ]
    leads = [sorted(seconds / HOUR for seconds in one.lead_seconds) for one in infrastructure.of]
    assert leads == [[20, 24], [], [2.5], [6], [1], [12], [24]]
    told = [(one.what, one.failed, one.recovery_seconds, one.rework) for one in model.of]
    assert told == [
        ("version 2", "", None, False),
        ("version 3", "it was rolled back", 125 * 60.0, False),
        ("version 4", "incident wrong-digits", 4 * HOUR, False),
        ("version 5", "", None, True),
        ("version 6", "it never answered", 16 * 60.0, False),
    ]
    assert [[seconds / HOUR for seconds in one.lead_seconds] for one in model.of] == [[48], [3], [8], [2], []]


def test_a_second_import_changes_nothing(month: Month, address: str) -> None:
    with Store(address) as store:
        new = store.add([*incidents(), *everything(month)])
        before = store.events()
        assert new == len(before) > 40
    with Store(address) as store:
        assert store.add([*everything(month), *incidents()]) == 0
        assert store.events() == before


def test_the_store_remembers_what_its_sources_forget(month: Month, address: str) -> None:
    with Store(address) as store:
        store.add([*incidents(), *everything(month)])
    with Store(address) as store:
        # The stack was removed with its history, the repository has been rewritten, the model deleted.
        assert store.add([]) == 0
        infrastructure, model, missing = of(store.events())
    assert (infrastructure.deployments, model.deployments, missing) == (7, 5, [])


def test_without_the_store_incidents_are_missing_and_nothing_else(month: Month) -> None:
    infrastructure, model, _ = of(everything(month))
    # The commit that mends names the incident: the last deployment before it had failed, from its end on.
    assert [one.recovery_seconds for one in infrastructure.of if one.failed] == [0.5 * HOUR, 3 * HOUR, 12 * HOUR]
    assert [one.recovery_seconds for one in model.of if one.failed] == [125 * 60, 16 * HOUR, 16 * 60]


def test_a_store_that_does_not_answer_is_told_in_words() -> None:
    with pytest.raises(StoreError, match="refused"):
        Store("postgresql://postgres@127.0.0.1:9/postgres")
