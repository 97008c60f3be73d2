"""The delivery figures of the last 30 days, from the events that `lab dora` and `lab incident` saved."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from services.delivery.events import Event
from services.delivery.figures import figures
from state_exporter.exposition import Sample
from state_exporter.sources import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pg8000.dbapi

    from services.delivery.figures import Figures
    from state_exporter.database import Database

WINDOW = timedelta(days=30)
SECONDS_BETWEEN = 60.0
READABLE = """
SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = 'delivery' AND relname = 'events'
AND has_schema_privilege(relnamespace, 'usage') AND has_table_privilege(pg_class.oid, 'select')
"""
EVENTS = "SELECT kind, subject, key, at, data FROM delivery.events"


class Delivery:
    """Computes the figures once a minute: they change with new events, and as old ones leave the window."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._samples: list[Sample] = []
        self._computed = -SECONDS_BETWEEN

    def samples(self) -> Iterator[Sample]:
        """The figures; none without events.

        Raises:
            SourceError: the database does not answer.
        """
        if time.monotonic() - self._computed >= SECONDS_BETWEEN:
            self._samples = list(self._compute())
            self._computed = time.monotonic()
        yield from self._samples

    def _compute(self) -> Iterator[Sample]:
        with self._database.connected() as connection:
            events = list(_events(connection.cursor()))
        if not events:
            return
        yield Sample("ml_cluster_delivery_last_event_seconds", max(event.at for event in events).timestamp())
        now = datetime.now(UTC)
        try:
            found, _ = figures(events, now - WINDOW, now)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"an event is not of this version: {type(error).__name__} {error}") from error
        for one in found:
            yield from _of(one)


def _events(cursor: pg8000.dbapi.Cursor) -> Iterator[Event]:
    cursor.execute(READABLE)
    if cursor.fetchone()[0]:
        cursor.execute(EVENTS)
        for row in cursor.fetchall():
            yield Event(*row)


def _of(one: Figures) -> Iterator[Sample]:
    labels = {"subject": one.subject}
    values: dict[str, float | None] = {
        "deployments": one.deployments, "changes": one.changes, "failed": one.failed, "rework": one.rework,
        "per_week": one.per_week, "lead_seconds": one.lead_seconds, "fail_ratio": one.fail_rate,
        "recovery_seconds": one.recovery_seconds, "rework_ratio": one.rework_rate,
    }  # fmt: skip
    for name, value in values.items():
        if value is not None:
            yield Sample(f"ml_cluster_delivery_{name}", value, labels)
