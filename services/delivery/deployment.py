"""A deployment as the figures count it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.delivery.events import OPENED, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from services.delivery.events import Event


@dataclass
class Deployment:
    """A change that reached production, or failed to."""

    what: str
    """A commit, or a version."""
    at: datetime
    """When it ended: the up ended or failed, or the version answered."""
    lead_seconds: list[float] = field(default_factory=list)
    """The age of each change in it."""
    rework: bool = False
    failed: str = ""
    """Why it counts as failed; empty if it does not."""
    since: datetime | None = None
    """When the failure began, if that was after the deployment's end."""
    recovered: datetime | None = None

    @property
    def recovery_seconds(self) -> float | None:
        """How long the failure lasted; None while it lasts."""
        if self.recovered is None:
            return None
        return max(0.0, (self.recovered - (self.since or self.at)).total_seconds())

    def fail(self, why: str, incident: Incident | None = None) -> None:
        """Mark it as failed, since its incident was opened if that is known; the first reason stays."""
        self.failed = self.failed or why
        if incident and self.at < incident.opened and (self.recovered is None or incident.opened < self.recovered):
            self.since = self.since or incident.opened

    def recover(self, at: datetime) -> None:
        """Mark its failure as over; the first time stays."""
        if self.failed and self.recovered is None:
            self.recovered = at

    def as_json(self) -> dict[str, Any]:
        """As `lab dora --json` lists it."""
        return {
            "what": self.what,
            "at": format_time(self.at),
            "leadSeconds": self.lead_seconds,
            "unplanned": self.rework,
            "failed": self.failed or None,
            "recoverySeconds": self.recovery_seconds,
        }


@dataclass(frozen=True)
class Incident:
    """A reported problem in production."""

    name: str
    opened: datetime


def incidents(events: Iterable[Event]) -> dict[str, Incident]:
    """The opened incidents by name; `events` are in order of time."""
    return {event.key: Incident(event.key, event.at) for event in events if event.kind == OPENED}


def resolve_incident(
    deployments: Sequence[Deployment], name: str, incident: Incident | None, at: datetime | None
) -> None:
    """Count a fix of an incident: the last deployment before the incident, else the last of all, had failed."""
    before = [one for one in deployments if incident is None or one.at <= incident.opened]
    if before:
        before[-1].fail(f"incident {name}", incident)
        if at is not None:
            before[-1].recover(at)
