"""The figures as series, for the dashboard: what the exporter of state makes of the events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
from state_exporter.database import Database
from state_exporter.delivery import Delivery
from state_exporter.exposition import render
from state_exporter.sources import SourceError

from services.delivery.store import Store
from tests.services.delivery.month import UNTIL, Month
from tests.services.delivery.test_month import everything, incidents
from tests.services.exposed import Series, read, value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3600.0


@pytest.fixture
def role(address: str) -> Iterator[Database]:
    """PostgreSQL as the platform's monitoring sees it."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("create role monitor login")
        connection.execute("grant pg_monitor to monitor")
        where = urlsplit(address)
        assert where.hostname
        assert where.port
        yield Database(where.hostname, where.port, "postgres", "monitor", "")
        connection.execute("drop owned by monitor")
        connection.execute("drop role monitor")


def shown(role: Database) -> Series:
    return read(render(Delivery(role).samples()))


def test_the_month_is_shown_as_the_page_has_it(tmp_path: Path, address: str, role: Database) -> None:
    """As if it had just ended."""
    later = datetime.now(UTC) - datetime.fromisoformat(UNTIL).replace(tzinfo=UTC) - timedelta(hours=1)
    with Store(address) as store:
        store.add(replace(event, at=event.at + later) for event in [*incidents(), *everything(Month(tmp_path))])
    found = shown(role)
    wanted = {
        "infrastructure of dev": {
            "deployments": 7, "lead_seconds": 12 * HOUR, "fail_ratio": 3 / 7, "recovery_seconds": 2 * HOUR,
            "rework_ratio": 1 / 7, "per_week": 7 / (30 / 7),
        },
        "model digits": {
            "deployments": 5, "lead_seconds": 5.5 * HOUR, "fail_ratio": 0.6, "recovery_seconds": 125 * 60,
            "rework_ratio": 0.2, "per_week": 5 / (30 / 7),
        },
    }  # fmt: skip
    for subject, figures in wanted.items():
        for name, number in figures.items():
            assert value(found, f"ml_cluster_delivery_{name}", subject=subject) == pytest.approx(number, rel=0.01), name


def test_it_sees_events_and_no_other_rows(address: str, role: Database) -> None:
    with Store(address), psycopg.connect(address, autocommit=True) as connection:
        connection.execute("create table users (name text)")
        try:
            with role.connected() as asked:
                cursor = asked.cursor()
                cursor.execute("select count(*) from delivery.events")
                with pytest.raises(SourceError, match="permission denied"), role.connected() as again:
                    again.cursor().execute("delete from delivery.events")
                with pytest.raises(SourceError, match="permission denied"), role.connected() as again:
                    again.cursor().execute("select * from users")
        finally:
            connection.execute("drop table users")


def test_without_events_there_are_no_figures(address: str, role: Database) -> None:
    """And that is no fault: not where nobody asked for any, nor where a store is older than its dashboard."""
    assert list(Delivery(role).samples()) == []
    with Store(address):
        assert list(Delivery(role).samples()) == []
    with psycopg.connect(address) as connection:
        connection.execute("revoke all on schema delivery from monitor")
    assert list(Delivery(role).samples()) == []
