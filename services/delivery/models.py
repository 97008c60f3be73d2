"""Deployments of models: versions that were promoted to production, and answered there."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from services.delivery.deployment import Deployment, Incident, incidents, mended
from services.delivery.events import ANSWERS, CODE, PROMOTED, REGISTERED, ROLLED_BACK, TRAINED, WITHDRAWN, Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from services.delivery.infrastructure import Commits, Fault

PRODUCTION = "production"
MOVES = (PROMOTED, ROLLED_BACK, WITHDRAWN)


def models(events: list[Event], commits: Commits) -> Iterator[tuple[str, list[Deployment], list[Fault]]]:
    """Each model, its deployments, and what is not known of which time; events in the order of their time."""
    known = incidents(events)
    subjects = {event.subject for event in events if event.kind in {*MOVES, REGISTERED}}
    for subject in sorted(subjects):
        model = _Model([event for event in events if event.subject in {subject, ""}], commits, known)
        model.play()
        yield subject.replace("/", " ", 1), model.deployments, model.faults


class _Model:
    """What the moves of production, one after the other, come to."""

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
        self.faults: list[Fault] = []
        self._of_version: dict[str, Deployment] = {}
        self._served: set[str] = set()
        """Commits whose code production has had."""

    def play(self) -> None:
        """Go through all moves."""
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
                self._taken_back(current, move, answered)
            else:
                self._promoted(move, answered, until)
            current = version

    def _is_older(self, move: Event, current: str | None) -> bool:
        """Whether what is promoted was in production before what is there, which a promotion then takes back."""
        version, former = move.data["version"], self._of_version.get(move.data["version"])
        if former is None or current is None or int(version) > int(current):
            return False
        # A model that was deleted and registered again counts its versions from 1 again.
        return not any(former.at < one.at <= move.at for one in self._versions[version])

    def _next(self, index: int) -> datetime | None:
        """When production was moved again."""
        return self._moves[index + 1].at if index + 1 < len(self._moves) else None

    def _answered(self, version: str, since: datetime, until: datetime | None) -> datetime | None:
        """When a version began to answer; None where it never did."""
        if not self._answers or self._answers[0].at > (until or self._answers[0].at):
            # Before anybody noted that, or where nobody does: what is promoted is taken to answer at once.
            self.faults.append(
                (since, "nobody noted when versions began to answer; the time of promotion stands for it")
            )
            return since
        times = [one.at for one in self._answers if one.data["version"] == version and one.at >= since]
        return next((at for at in times if until is None or at < until), None)

    def _taken_back(self, current: str | None, move: Event, answered: datetime | None) -> None:
        """An older version was promoted again, by a rollback or by hand: no deployment, but the end of a bad one."""
        bad = self._of_version.get(current or "")
        if bad is None:
            return  # the stage had been taken down
        name = move.data.get("incident")
        bad.fail("it was rolled back", self._incidents.get(name) if name else None)
        self._recover_all(answered)

    def _promoted(self, move: Event, answered: datetime | None, until: datetime | None) -> None:
        version = move.data["version"]
        registered = [one for one in self._versions[version] if one.at <= move.at]
        incident = move.data.get("incident")
        began = self._began(registered[-1], move.at) if registered else None
        if began is None:
            self.faults.append((move.at, "not all versions are in the registry; theirs have no lead time"))
        else:
            named = self._commits[began[1]].data["incidents"] if began[1] in self._commits else []
            incident = incident or next(iter(named), None)
        if incident:
            mended(self.deployments, incident, self._incidents.get(incident), answered)
        deployment = Deployment(f"version {version}", answered or move.at, rework=bool(incident))
        if answered is None and until is not None:
            deployment.fail("it never answered")
        elif answered is None:
            return  # it is being rolled out
        else:
            if began is not None:
                self._served.add(began[1])
                deployment.lead_seconds.append((answered - began[0]).total_seconds())
            self._recover_all(answered, only="it never answered")
        self._of_version[version] = deployment
        self.deployments.append(deployment)

    def _began(self, registered: Event, at: datetime) -> tuple[datetime, str] | None:
        """When the change that a version is began, and its commit; of a commit that was there before, its training."""
        commit = self._code.get(registered.data.get("code") or "", "")
        if commit in self._commits and commit not in self._served:
            return self._commits[commit].at, commit
        if not commit:
            self.faults.append((at, "the commit of some versions is not known; their lead time begins with training"))
        run = self._runs.get(registered.data.get("run") or "")
        return (run.at if run else registered.at), ""

    def _recover_all(self, at: datetime | None, only: str = "") -> None:
        for one in self.deployments:
            if at is not None and (not only or one.failed == only):
                one.recover(at)
