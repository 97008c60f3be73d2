"""Applications of the GitOps controller: how they are, and waiting until they are as in Git."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli.errors import LabError
from cli.text import table
from cli.workloads import wait

if TYPE_CHECKING:
    from cli.workloads import Object, Platform
    from providers.kubernetes.client import Cluster

API, NAMESPACE = "argoproj.io/v1alpha1", "gitops"
REFRESH = "argocd.argoproj.io/refresh"
APPLIED_SECONDS = 1800
"""Time until a platform that is new is as in Git: each wave pulls its images first."""
ERROR_SECONDS = 180
"""How long an error of rendering or comparing may stay: the forge or the controller may just be starting."""
REMEDY = "`lab status` shows it; `lab logs gitops` has what the controller says"
SHOWN = 5
REVISION_LENGTH = 12


@dataclass(frozen=True)
class Application:
    """How an application of the controller is."""

    name: str
    revision: str
    sync: str
    health: str
    errors: list[str] = field(default_factory=list)
    """Why it cannot be rendered, compared or applied."""
    waiting: list[str] = field(default_factory=list)
    """Objects that are not healthy, or not as in Git, and why."""
    warnings: list[str] = field(default_factory=list)
    """What of Git is not applied, though all else is."""
    is_current: bool = True
    """Whether the controller has seen the application as it is now."""

    @classmethod
    def of(cls, one: Object) -> Application:
        """What an object of the controller says."""
        status = one.get("status") or {}
        sync, spec = status.get("sync") or {}, one["spec"]
        operation = status.get("operationState") or {}
        conditions = status.get("conditions") or ()
        errors = [told["message"] for told in conditions if told["type"].endswith("Error")]
        results = (operation.get("syncResult") or {}).get("resources") or ()
        if operation.get("phase") in {"Failed", "Error"} or operation.get("retryCount"):
            failed = [_told(each, each.get("message")) for each in results if each.get("status") == "SyncFailed"]
            errors += failed or ([operation["message"]] if operation.get("message") else [])
        waiting = []
        for each in status.get("resources") or ():
            health = each.get("health") or {}
            if health.get("status", "Healthy") != "Healthy":
                waiting.append(_told(each, f"{health['status']}: {health.get('message') or 'no reason given'}"))
            elif each.get("status") == "OutOfSync":
                waiting.append(_told(each, "not as in Git"))
        compared = sync.get("comparedTo") or {}
        return cls(
            name=one["metadata"]["name"],
            revision=str(sync.get("revision") or ""),
            sync=str(sync.get("status") or "Unknown"),
            health=str((status.get("health") or {}).get("status") or "Unknown"),
            errors=list(dict.fromkeys(errors)),
            waiting=waiting,
            warnings=[told["message"] for told in conditions if told["type"].endswith("Warning")],
            is_current=compared.get("source") == spec.get("source")
            and REFRESH not in (one["metadata"].get("annotations") or {}),
        )

    @property
    def is_done(self) -> bool:
        """Whether all of it is as in Git, and healthy."""
        return self.is_current and (self.sync, self.health) == ("Synced", "Healthy")

    @property
    def reasons(self) -> list[str]:
        """What keeps it from that, the first few; and what of Git is left out."""
        told = self.warnings if self.is_done else [*self.errors, *self.waiting, *self.warnings]
        return told[:SHOWN] + ([f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else [])


def applications(cluster: Cluster) -> list[Application]:
    """All applications, by name; none without a controller."""
    from providers.kubernetes.client import UnknownKindError

    try:
        found = cluster.items(API, "Application", NAMESPACE)
    except UnknownKindError:
        return []
    return sorted(map(Application.of, found), key=lambda one: one.name)


def describe(found: list[Application]) -> str:
    """A table of applications, with the reasons of those that are not as they should be."""
    rows = [(one.name, one.revision[:REVISION_LENGTH] or "none", one.sync, one.health) for one in found]
    lines = [table(("APPLICATION", "REVISION", "SYNC", "HEALTH"), rows, prefix="    ")]
    lines += [f"    {one.name}: {reason}" for one in found for reason in one.reasons]
    return "\n".join(lines)


def wait_until_applied(platform: Platform) -> None:
    """Have the controller look into Git now, and wait until all applications are as in it, and healthy.

    Raises:
        LabError: one does not become so; names it, and says why.
    """
    cluster = platform.cluster
    for one in applications(cluster):
        _refresh(cluster, one.name)
    found: list[Application] = []
    failing: dict[str, float] = {}

    def done() -> bool:
        found[:] = applications(cluster)
        now = time.monotonic()
        for one in found:
            since = failing.setdefault(one.name, now)
            if not one.errors:
                failing[one.name] = now
            elif now - since > ERROR_SECONDS:
                raise LabError(f"application {one.name} is not applied: {'; '.join(one.errors[:SHOWN])}", remedy=REMEDY)
        return bool(found) and all(one.is_done for one in found)

    wait(done, APPLIED_SECONDS, lambda: _progress(found))
    for one in found:
        print(f"Application {one.name}: {one.sync.lower()} to {one.revision[:REVISION_LENGTH]}, {one.health.lower()}.")
        for warning in one.warnings:
            print(f"  Warning: {warning}")


def _progress(found: list[Application]) -> str:
    waited_for = [one for one in found if not one.is_done]
    if not waited_for:
        return "waiting for the GitOps controller"
    told = (f"application {one.name} ({one.sync}, {one.health}): {'; '.join(one.reasons)}" for one in waited_for)
    return "; ".join(text.rstrip(": ") for text in told)


def _refresh(cluster: Cluster, name: str) -> None:
    """Ask for a look into Git; the controller takes the annotation away when it has looked."""
    from providers.kubernetes.objects import Identity

    path = cluster.path(Identity(API, "Application", NAMESPACE, name))
    change: dict[str, Any] = {"metadata": {"annotations": {REFRESH: "normal"}}}
    cluster.request("refreshing", "PATCH", path, change, content_type="application/merge-patch+json")


def _told(one: Object, text: object) -> str:
    where = f"{one['namespace']}/" if one.get("namespace") else ""
    return f"{one.get('kind', '')} {where}{one.get('name', '')}: {text}"
