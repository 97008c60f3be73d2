"""The five figures of a period, computed from events; docs/how-to/delivery-figures.md has the definitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from services.delivery.events import COMMIT, Event
from services.delivery.infrastructure import infrastructure
from services.delivery.models import models

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from services.delivery.deployment import Deployment

WEEK_SECONDS, DAY_SECONDS = 7 * 86400, 86400


@dataclass
class Figures:
    """The figures of one subject: a stack's infrastructure, or a model. Rates are 0 to 1; None if nothing counts."""

    subject: str
    deployments: int
    per_week: float
    days_between: float | None
    """Median, between one deployment and the next."""
    changes: int
    lead_seconds: float | None
    """Median of the changes."""
    failed: int
    fail_rate: float | None
    recovered: int
    recovery_seconds: float | None
    """Median of the failed deployments that have recovered."""
    rework: int
    rework_rate: float | None
    of: list[Deployment] = field(default_factory=list)
    """The deployments that were counted."""

    @classmethod
    def count(cls, subject: str, found: list[Deployment], since: datetime, until: datetime) -> Figures:
        """Count the deployments that ended in a period, its end excluded."""
        counted = sorted((one for one in found if since <= one.at < until), key=lambda one: one.at)
        leads = [seconds for one in counted for seconds in one.lead_seconds]
        between = [(later.at - earlier.at).total_seconds() / DAY_SECONDS for earlier, later in pairwise(counted)]
        failed = [one for one in counted if one.failed]
        recoveries = [one.recovery_seconds for one in failed if one.recovery_seconds is not None]
        rework = sum(one.rework for one in counted)
        return cls(
            subject=subject,
            deployments=len(counted),
            per_week=len(counted) / ((until - since).total_seconds() / WEEK_SECONDS),
            days_between=median(between) if between else None,
            changes=len(leads),
            lead_seconds=median(leads) if leads else None,
            failed=len(failed),
            fail_rate=len(failed) / len(counted) if counted else None,
            recovered=len(recoveries),
            recovery_seconds=median(recoveries) if recoveries else None,
            rework=rework,
            rework_rate=rework / len(counted) if counted else None,
            of=counted,
        )

    def as_json(self) -> dict[str, Any]:
        """The figures by DORA's names."""
        return {
            "subject": self.subject,
            "deploymentFrequency": {
                "deployments": self.deployments, "perWeek": self.per_week, "medianDaysBetween": self.days_between
            },
            "changeLeadTime": {"changes": self.changes, "medianSeconds": self.lead_seconds},
            "changeFailRate": {"failed": self.failed, "rate": self.fail_rate},
            "failedDeploymentRecoveryTime": {"recovered": self.recovered, "medianSeconds": self.recovery_seconds},
            "deploymentReworkRate": {"unplanned": self.rework, "rate": self.rework_rate},
            "deployments": [one.as_json() for one in self.of],
        }  # fmt: skip


def figures(events: Iterable[Event], since: datetime, until: datetime) -> tuple[list[Figures], list[str]]:
    """The figures of every subject, and messages about missing data; events in any order, also those before `since`."""
    known = sorted({event.name: event for event in events}.values(), key=lambda event: (event.at, event.name))
    commits = {event.key: event for event in known if event.kind == COMMIT}
    found, missing = [], []
    for counted in (infrastructure, models):
        for subject, deployments, gaps in counted(known, commits):
            inside = [gap for at, gap in gaps if since <= at < until]
            missing += [f"{subject}: {gap}" for gap in dict.fromkeys(inside)]
            found.append(Figures.count(subject, deployments, since, until))
    return found, missing
