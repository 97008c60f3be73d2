"""Deployments of infrastructure: ups of a stack, and the commits that they brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.delivery.deployment import Deployment, Incident, incidents, mended
from services.delivery.events import INFRASTRUCTURE, UP_ENDED, Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

OTHERS = {"models", "docs", "tests", "findings"}
"""Folders that no up deploys. A commit that touches nothing else is no change of infrastructure."""
Commits = dict[str, Event]
Fault = tuple["datetime", str]


def infrastructure(events: list[Event], commits: Commits) -> Iterator[tuple[str, list[Deployment], list[Fault]]]:
    """Each stack, its deployments, and what is not known of which time; events in the order of their time."""
    known = incidents(events)
    subjects = {event.subject for event in events if event.kind == UP_ENDED}
    for subject in sorted(subjects):
        stack = _Stack(commits, known)
        for event in events:
            if event.kind == UP_ENDED and event.subject == subject:
                stack.ended(event)
        yield f"{INFRASTRUCTURE} of {subject.partition('/')[2]}", stack.deployments, stack.faults


class _Stack:
    """What its ups, one after the other, come to."""

    def __init__(self, commits: Commits, known: dict[str, Incident]) -> None:
        self._commits, self._incidents = commits, known
        self.deployments: list[Deployment] = []
        self.faults: list[Fault] = []
        self._head: str | None = None
        self._there: set[str] = set()
        """The commits that production has."""
        self._brought: dict[str, Deployment] = {}
        """The deployment that brought each commit first."""

    def ended(self, event: Event) -> None:
        """An up that has ended."""
        head = event.data.get("head")
        if event.data.get("dirty"):
            self.faults.append((event.at, "some ups had changes that are in no commit; these count for nothing"))
        if not event.data["succeeded"]:
            failed = Deployment(_short(head), event.at)
            failed.fail("the up failed")
            self.deployments.append(failed)
            return
        # Whatever failed before: what was to be there is there now.
        for deployment in self.deployments:
            if deployment.failed == "the up failed":
                deployment.recover(event.at)
        if not event.data["changed"]:
            return
        if head is None or head not in self._commits:
            why = "say of which commit they are" if head is None else "are of commits that this repository has"
            self.faults.append((event.at, f"not all ups {why}; theirs are no changes with a lead time"))
            self.deployments.append(Deployment(_short(head), event.at))
            return
        self._deployed(event, head)

    def _deployed(self, event: Event, head: str) -> None:
        has = self._ancestors(head)
        new = [self._commits[sha] for sha in has - self._there] if self._head else [self._commits[head]]
        # A merge is no change of its own.
        new = [one for one in new if len(one.data["parents"]) < 2 and not set(one.data["touches"]) <= OTHERS]
        former, self._head, before, self._there = self._head, head, self._there, has
        if former and not has - before and before - has:
            self._taken_back([sha for sha in before - has if sha in self._brought], event.at)
            return
        reverted = [self._full(sha) for commit in new for sha in commit.data["reverts"]]
        if new and all(commit.data["reverts"] for commit in new):
            self._taken_back([sha for sha in reverted if sha in self._brought], event.at)
            return
        named = [name for commit in new for name in commit.data["incidents"]]
        rework = bool(named or reverted)
        self._taken_back([sha for sha in reverted if sha in self._brought], event.at)
        for name in named:
            mended(self.deployments, name, self._incidents.get(name), event.at)
        deployment = Deployment(_short(head), event.at, rework=rework)
        for commit in new:
            if commit.key not in self._brought:
                self._brought[commit.key] = deployment
                deployment.lead_seconds.append((event.at - commit.at).total_seconds())
        self.deployments.append(deployment)

    def _taken_back(self, commits: list[str], at: datetime) -> None:
        """The deployments that brought these commits have failed; what was before them is there again."""
        for deployment in {id(one): one for one in map(self._brought.__getitem__, commits)}.values():
            deployment.fail("it was rolled back")
            deployment.recover(at)

    def _ancestors(self, head: str) -> set[str]:
        found, left = set[str](), [head]
        while left:
            sha = left.pop()
            if sha in found or sha not in self._commits:
                continue  # a shallow clone ends somewhere
            found.add(sha)
            left += self._commits[sha].data["parents"]
        return found

    def _full(self, sha: str) -> str:
        return next((known for known in self._brought if known.startswith(sha)), sha)


def _short(head: str | None) -> str:
    return head[:12] if head else "unknown commit"
