"""A deployment as the figures count it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.delivery.events import OPENED, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from services.delivery.events import Event


@dataclass
class Deployment:
    """Something new in production, or the attempt."""

    what: str
    """A commit's name, or a version."""
    at: datetime
    """When it had ended: answered, was there, or had failed."""
    lead_seconds: list[float] = field(default_factory=list)
    """Of each change that it brought: how old it was."""
    rework: bool = False
    failed: str = ""
    """Why it counts as failed; empty where it does not."""
    since: datetime | None = None
    """When the failure began, where that was later than its end."""
    recovered: datetime | None = None

    @property
    def recovery_seconds(self) -> float | None:
        """How long the failure took; None while it goes on."""
        if self.recovered is None:
            return None
        return max(0.0, (self.recovered - (self.since or self.at)).total_seconds())

    def fail(self, why: str, incident: Incident | None = None) -> None:
        """Count it as failed, from when its incident was opened, if that is known; the first reason stays."""
        self.failed = self.failed or why
        if incident and self.at < incident.opened and (self.recovered is None or incident.opened < self.recovered):
            self.since = self.since or incident.opened

    def recover(self, at: datetime) -> None:
        """Production is well again; it stays so."""
        if self.failed and self.recovered is None:
            self.recovered = at

    def as_json(self) -> dict[str, Any]:
        """For people who want to see what was counted."""
        return {
            "what": self.what,
            "at": written(self.at),
            "leadSeconds": self.lead_seconds,
            "unplanned": self.rework,
            "failed": self.failed or None,
            "recoverySeconds": self.recovery_seconds,
        }


@dataclass(frozen=True)
class Incident:
    """Something that went wrong in production, as somebody has noted it."""

    name: str
    opened: datetime


def incidents(events: Iterable[Event]) -> dict[str, Incident]:
    """By name; events in the order of their time."""
    return {event.key: Incident(event.key, event.at) for event in events if event.kind == OPENED}


def mended(deployments: Sequence[Deployment], name: str, incident: Incident | None, at: datetime | None) -> None:
    """A fix of an incident came: the last deployment before that had failed, by default the last of all."""
    before = [one for one in deployments if incident is None or one.at <= incident.opened]
    if before:
        before[-1].fail(f"incident {name}", incident)
        if at is not None:
            before[-1].recover(at)
