"""Applications of the GitOps controller: their status, and waiting until they are in sync with Git."""

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
"""Time until a new platform is in sync with Git: each wave pulls its images first."""
ERROR_SECONDS = 180
"""How long an error of rendering or comparing may last: the forge or the controller may be starting."""
REMEDY = "`lab status` shows it; `lab logs gitops` shows the controller's log"
SHOWN = 5
REVISION_LENGTH = 12


@dataclass(frozen=True)
class Application:
    """The status of an application."""

    name: str
    revision: str
    sync: str
    health: str
    errors: list[str] = field(default_factory=list)
    """Errors of rendering, comparing or applying."""
    waiting: list[str] = field(default_factory=list)
    """Objects that are not healthy or not in sync, with the reasons."""
    warnings: list[str] = field(default_factory=list)
    """Objects in Git that are not applied, although the others are."""
    is_current: bool = True
    """Whether the controller has observed the current specification."""

    @classmethod
    def of(cls, one: Object) -> Application:
        """Read the status of an Application object."""
        status = one.get("status") or {}
        sync, spec = status.get("sync") or {}, one["spec"]
        operation = status.get("operationState") or {}
        conditions = status.get("conditions") or ()
        errors = [each["message"] for each in conditions if each["type"].endswith("Error")]
        results = (operation.get("syncResult") or {}).get("resources") or ()
        if operation.get("phase") in {"Failed", "Error"} or operation.get("retryCount"):
            failed = [_reason(each, each.get("message")) for each in results if each.get("status") == "SyncFailed"]
            errors += failed or ([operation["message"]] if operation.get("message") else [])
        waiting = []
        for each in status.get("resources") or ():
            health = each.get("health") or {}
            if health.get("status", "Healthy") != "Healthy":
                waiting.append(_reason(each, f"{health['status']}: {health.get('message') or 'no reason given'}"))
            elif each.get("status") == "OutOfSync":
                waiting.append(_reason(each, "out of sync with Git"))
        compared = sync.get("comparedTo") or {}
        return cls(
            name=one["metadata"]["name"],
            revision=str(sync.get("revision") or ""),
            sync=str(sync.get("status") or "Unknown"),
            health=str((status.get("health") or {}).get("status") or "Unknown"),
            errors=list(dict.fromkeys(errors)),
            waiting=waiting,
            warnings=[each["message"] for each in conditions if each["type"].endswith("Warning")],
            is_current=compared.get("source") == spec.get("source")
            and REFRESH not in (one["metadata"].get("annotations") or {}),
        )

    @property
    def is_done(self) -> bool:
        """Whether it is in sync and healthy."""
        return self.is_current and (self.sync, self.health) == ("Synced", "Healthy")

    @property
    def reasons(self) -> list[str]:
        """The first few reasons why it is not, and the warnings."""
        reasons = self.warnings if self.is_done else [*self.errors, *self.waiting, *self.warnings]
        return reasons[:SHOWN] + ([f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else [])


def applications(cluster: Cluster) -> list[Application]:
    """All applications by name; empty without a controller."""
    from providers.kubernetes.client import UnknownKindError

    try:
        found = cluster.items(API, "Application", NAMESPACE)
    except UnknownKindError:
        return []
    return sorted(map(Application.of, found), key=lambda one: one.name)


def describe(found: list[Application]) -> str:
    """A table of applications, with the reasons of those that are not in sync or healthy."""
    rows = [(one.name, one.revision[:REVISION_LENGTH] or "none", one.sync, one.health) for one in found]
    lines = [table(("APPLICATION", "REVISION", "SYNC", "HEALTH"), rows, prefix="    ")]
    lines += [f"    {one.name}: {reason}" for one in found for reason in one.reasons]
    return "\n".join(lines)


def wait_until_applied(platform: Platform) -> None:
    """Request a refresh from Git, and wait until all applications are in sync and healthy.

    Raises:
        LabError: an application does not become so; the message has its name and the reasons.
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
    unfinished = [one for one in found if not one.is_done]
    if not unfinished:
        return "waiting for the GitOps controller"
    reasons = (f"application {one.name} ({one.sync}, {one.health}): {'; '.join(one.reasons)}" for one in unfinished)
    return "; ".join(text.rstrip(": ") for text in reasons)


def _refresh(cluster: Cluster, name: str) -> None:
    """Request a refresh with an annotation, which the controller removes when it is done."""
    from providers.kubernetes.objects import Identity

    path = cluster.path(Identity(API, "Application", NAMESPACE, name))
    change: dict[str, Any] = {"metadata": {"annotations": {REFRESH: "normal"}}}
    cluster.request("refreshing", "PATCH", path, change, content_type="application/merge-patch+json")


def _reason(one: Object, text: object) -> str:
    where = f"{one['namespace']}/" if one.get("namespace") else ""
    return f"{one.get('kind', '')} {where}{one.get('name', '')}: {text}"
