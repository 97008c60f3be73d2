"""Deployments of infrastructure: ups of a stack and the commits that they deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.delivery.deployment import Deployment, Incident, incidents, resolve_incident
from services.delivery.events import INFRASTRUCTURE, UP_ENDED, Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

OTHERS = {"models", "docs", "tests", "findings"}
"""Folders that no up deploys. A commit that touches nothing else does not change infrastructure."""
Commits = dict[str, Event]
Gap = tuple["datetime", str]
"""Missing data: when, and a message."""


def infrastructure(events: list[Event], commits: Commits) -> Iterator[tuple[str, list[Deployment], list[Gap]]]:
    """Each stack, its deployments and gaps in its data; `events` are in order of time."""
    known = incidents(events)
    subjects = {event.subject for event in events if event.kind == UP_ENDED}
    for subject in sorted(subjects):
        stack = _Stack(commits, known)
        for event in events:
            if event.kind == UP_ENDED and event.subject == subject:
                stack.add_up(event)
        yield f"{INFRASTRUCTURE} of {subject.partition('/')[2]}", stack.deployments, stack.gaps


class _Stack:
    """Replays a stack's ups into deployments."""

    def __init__(self, commits: Commits, known: dict[str, Incident]) -> None:
        self._commits, self._incidents = commits, known
        self.deployments: list[Deployment] = []
        self.gaps: list[Gap] = []
        self._head: str | None = None
        self._deployed_commits: set[str] = set()
        """The commits in production."""
        self._deployment_of: dict[str, Deployment] = {}
        """The deployment that first had each commit."""

    def add_up(self, event: Event) -> None:
        """Replay an up that ended."""
        head = event.data.get("head")
        if event.data.get("dirty"):
            self.gaps.append((event.at, "some ups had uncommitted changes, which are not counted"))
        if not event.data["succeeded"]:
            failed = Deployment(_short(head), event.at)
            failed.fail("the up failed")
            self.deployments.append(failed)
            return
        # A successful up ends the failures of earlier ones.
        for deployment in self.deployments:
            if deployment.failed == "the up failed":
                deployment.recover(event.at)
        if not event.data["changed"]:
            return
        if head is None or head not in self._commits:
            why = "have no commit" if head is None else "have commits that are not in this repository"
            self.gaps.append((event.at, f"some ups {why}; they have no lead time"))
            self.deployments.append(Deployment(_short(head), event.at))
            return
        self._deploy(event, head)

    def _deploy(self, event: Event, head: str) -> None:
        has = self._ancestors(head)
        new = [self._commits[sha] for sha in has - self._deployed_commits] if self._head else [self._commits[head]]
        # A merge is not a change of its own.
        new = [one for one in new if len(one.data["parents"]) < 2 and not set(one.data["touches"]) <= OTHERS]
        former, self._head, before, self._deployed_commits = self._head, head, self._deployed_commits, has
        if former and not has - before and before - has:
            self._roll_back([sha for sha in before - has if sha in self._deployment_of], event.at)
            return
        reverted = [self._full(sha) for commit in new for sha in commit.data["reverts"]]
        if new and all(commit.data["reverts"] for commit in new):
            self._roll_back([sha for sha in reverted if sha in self._deployment_of], event.at)
            return
        named = [name for commit in new for name in commit.data["incidents"]]
        rework = bool(named or reverted)
        self._roll_back([sha for sha in reverted if sha in self._deployment_of], event.at)
        for name in named:
            resolve_incident(self.deployments, name, self._incidents.get(name), event.at)
        deployment = Deployment(_short(head), event.at, rework=rework)
        for commit in new:
            if commit.key not in self._deployment_of:
                self._deployment_of[commit.key] = deployment
                deployment.lead_seconds.append((event.at - commit.at).total_seconds())
        self.deployments.append(deployment)

    def _roll_back(self, commits: list[str], at: datetime) -> None:
        """Mark the deployments of these commits as failed; the state before them is back."""
        for deployment in {id(one): one for one in map(self._deployment_of.__getitem__, commits)}.values():
            deployment.fail("it was rolled back")
            deployment.recover(at)

    def _ancestors(self, head: str) -> set[str]:
        found, left = set[str](), [head]
        while left:
            sha = left.pop()
            if sha in found or sha not in self._commits:
                continue  # a shallow clone lacks it
            found.add(sha)
            left += self._commits[sha].data["parents"]
        return found

    def _full(self, sha: str) -> str:
        return next((known for known in self._deployment_of if known.startswith(sha)), sha)


def _short(head: str | None) -> str:
    return head[:12] if head else "unknown commit"
