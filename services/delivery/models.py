"""Deployments of models: versions that were promoted to production and answered there."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from services.delivery.deployment import Deployment, Incident, incidents, resolve_incident
from services.delivery.events import ANSWERS, CODE, PROMOTED, REGISTERED, ROLLED_BACK, TRAINED, WITHDRAWN, Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from services.delivery.infrastructure import Commits, Gap

PRODUCTION = "production"
MOVES = (PROMOTED, ROLLED_BACK, WITHDRAWN)


def models(events: list[Event], commits: Commits) -> Iterator[tuple[str, list[Deployment], list[Gap]]]:
    """Each model, its deployments and gaps in its data; `events` are in order of time."""
    known = incidents(events)
    subjects = {event.subject for event in events if event.kind in {*MOVES, REGISTERED}}
    for subject in sorted(subjects):
        model = _Model([event for event in events if event.subject in {subject, ""}], commits, known)
        model.replay()
        yield subject.replace("/", " ", 1), model.deployments, model.gaps


class _Model:
    """Replays the moves of a model's stage production into deployments."""

    def __init__(self, events: list[Event], commits: Commits, known: dict[str, Incident]) -> None:
        self._commits, self._incidents = commits, known
        self._moves = [event for event in events if event.kind in MOVES and event.data["stage"] == PRODUCTION]
        self._answers = [event for event in events if event.kind == ANSWERS and event.data["stage"] == PRODUCTION]
        self._runs = {event.key: event for event in events if event.kind == TRAINED}
        self._code = {event.key: event.data["commit"] for event in events if event.kind == CODE}
        self._versions: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.kind == REGISTERED:
                self._versions[event.data["version"]].append(event)
        self.deployments: list[Deployment] = []
        self.gaps: list[Gap] = []
        self._deployment_of: dict[str, Deployment] = {}
        self._deployed_commits: set[str] = set()
        """Commits whose code was in production."""

    def replay(self) -> None:
        """Replay all moves."""
        current: str | None = None
        for index, move in enumerate(self._moves):
            version, until = move.data["version"], self._next(index)
            if move.kind == WITHDRAWN:
                current = None
                continue
            if version == current:
                continue
            answered = self._answered(version, move.at, until)
            if move.kind == ROLLED_BACK or self._is_older(move, current):
                self._roll_back(current, move, answered)
            else:
                self._promote(move, answered, until)
            current = version

    def _is_older(self, move: Event, current: str | None) -> bool:
        """Whether a promoted version was in production before the current one: then the promotion is a rollback."""
        version, former = move.data["version"], self._deployment_of.get(move.data["version"])
        if former is None or current is None or int(version) > int(current):
            return False
        # The versions of a model that was deleted and registered again start at 1.
        return not any(former.at < one.at <= move.at for one in self._versions[version])

    def _next(self, index: int) -> datetime | None:
        """When production moved next."""
        return self._moves[index + 1].at if index + 1 < len(self._moves) else None

    def _answered(self, version: str, since: datetime, until: datetime | None) -> datetime | None:
        """When a version started to answer; None if it never did."""
        if not self._answers or self._answers[0].at > (until or self._answers[0].at):
            # Nothing was recorded then: assume that the version answered when it was promoted.
            self.gaps.append(
                (since, "it is not recorded when some versions started to answer; the time of promotion is used")
            )
            return since
        times = [one.at for one in self._answers if one.data["version"] == version and one.at >= since]
        return next((at for at in times if until is None or at < until), None)

    def _roll_back(self, current: str | None, move: Event, answered: datetime | None) -> None:
        """Count a rollback, or a promotion of an older version: not a deployment, but the failure of one."""
        bad = self._deployment_of.get(current or "")
        if bad is None:
            return  # the stage was down
        name = move.data.get("incident")
        bad.fail("it was rolled back", self._incidents.get(name) if name else None)
        self._recover_all(answered)

    def _promote(self, move: Event, answered: datetime | None, until: datetime | None) -> None:
        version = move.data["version"]
        registered = [one for one in self._versions[version] if one.at <= move.at]
        incident = move.data.get("incident")
        started = self._started(registered[-1], move.at) if registered else None
        if started is None:
            self.gaps.append((move.at, "some versions are not in the registry; they have no lead time"))
        else:
            named = self._commits[started[1]].data["incidents"] if started[1] in self._commits else []
            incident = incident or next(iter(named), None)
        if incident:
            resolve_incident(self.deployments, incident, self._incidents.get(incident), answered)
        deployment = Deployment(f"version {version}", answered or move.at, rework=bool(incident))
        if answered is None and until is not None:
            deployment.fail("it never answered")
        elif answered is None:
            return  # the rollout is in progress
        else:
            if started is not None:
                self._deployed_commits.add(started[1])
                deployment.lead_seconds.append((answered - started[0]).total_seconds())
            self._recover_all(answered, only="it never answered")
        self._deployment_of[version] = deployment
        self.deployments.append(deployment)

    def _started(self, registered: Event, at: datetime) -> tuple[datetime, str] | None:
        """When the change started, and its commit: that of the code if it is new in production, else at training."""
        commit = self._code.get(registered.data.get("code") or "", "")
        if commit in self._commits and commit not in self._deployed_commits:
            return self._commits[commit].at, commit
        if not commit:
            self.gaps.append((at, "some versions have no known commit; their lead time starts at training"))
        run = self._runs.get(registered.data.get("run") or "")
        return (run.at if run else registered.at), ""

    def _recover_all(self, at: datetime | None, only: str = "") -> None:
        for one in self.deployments:
            if at is not None and (not only or one.failed == only):
                one.recover(at)
