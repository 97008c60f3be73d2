"""Summarizes a preview for its approval: changes, losses, new access, and cloud resources."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cli.data_loss import DATA_TYPES
from cli.display.base import is_internal
from cli.display.model import Step
from cli.display.values import diff_objects
from infra.naming import lease_part
from terminal.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cli.display.model import State

SERVER = "openstack:compute/instance:Instance"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
SERVICE = "kubernetes:core/v1:Service"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
LEASE = "pulumi-python:dynamic/blazar:Lease"
LEASE_END = "pulumi-python:dynamic/blazar:LeaseEnd"
LOSSES = {
    SERVER: ("server", "the data on its disk is lost"),
    LEASE: ("lease", "Blazar deletes its servers"),
    **DATA_TYPES,
    "kubernetes:core/v1:Namespace": ("namespace", "all its objects are deleted"),
    "kubernetes:core/v1:PersistentVolume": ("persistent volume", "its data may be lost"),
    "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition": ("kind", "all objects of this kind are deleted"),
}
"""Types whose deletion causes a loss that a later `up` does not restore: name of the type, and the loss."""
EVERYONE = {"0.0.0.0/0", "::/0"}
UNCHANGED = {"same", "read", "refresh"}
_REPLACES = {"replace", "create-replacement", "delete-replaced", "import-replacement", "discard-replaced"}
_DELETES = {"delete", "discard", "delete-replaced", "discard-replaced"}


@dataclass
class Change:
    """The change of one resource: `create`, `update`, `replace`, `delete`, `same`, ..."""

    planned: list[Step] = field(default_factory=list)
    refreshed: Step | None = None
    """The step of a refresh; planned steps take precedence."""

    @property
    def steps(self) -> list[Step]:
        """The steps, in order."""
        return self.planned or ([self.refreshed] if self.refreshed else [])

    @property
    def op(self) -> str:
        """The operation; the steps of a replacement count as one."""
        ops = [step.op for step in self.steps]
        if "replace" in ops or "create-replacement" in ops or "import-replacement" in ops:
            return "replace"
        # Alone, it completes an earlier replacement.
        return "delete" if ops[-1] == "delete-replaced" else ops[-1]

    @property
    def step(self) -> Step:
        """The step with the most details: of a replacement, the one with the differences."""
        return next((step for step in self.steps if step.op == "replace"), self.steps[-1])

    @property
    def old(self) -> State | None:
        """The resource before the change."""
        return next((step.old for step in self.steps if step.old is not None), None)

    @property
    def new(self) -> State | None:
        """The resource after the change."""
        return next((step.new for step in reversed(self.steps) if step.new is not None), None)

    @property
    def name(self) -> str:
        """The resource's logical name."""
        return self.steps[0].urn.name

    @property
    def properties(self) -> list[str]:
        """The changed properties, each with `+`, `-` or `~`, and a note if they replace the resource."""
        marks = {"add": "+", "delete": "-", "update": "~"}
        changed = self.step.changed
        if not changed and not self.planned and self.old is not None and self.new is not None:
            # A refresh event has no diff of outputs.
            changed = diff_objects(self.old.outputs, self.new.outputs) or {}
        return [
            marks[diff.kind] + key + (" (replaces it)" if diff.replaces else "")
            for key, diff in sorted(changed.items())
            if diff.kind in marks
        ]


@dataclass(frozen=True)
class LeaseCost:
    """Nodes and hours of a lease, before and after; None if the hours are unknown."""

    name: str
    nodes: tuple[int, int]
    hours: tuple[float | None, float | None]

    @property
    def node_hours(self) -> tuple[float | None, float | None]:
        """Nodes times hours."""
        now, then = (
            None if hours is None else count * hours for count, hours in zip(self.nodes, self.hours, strict=True)
        )
        return now, then


class Review:
    """Summary of a preview's events; `kind` is that of the operation."""

    def __init__(self, events: Iterable[Mapping[str, Any]], kind: str) -> None:
        self.kind = kind
        self.failed = True
        self.errors: list[str] = []
        self.warnings: list[str] = []
        resources: defaultdict[str, Change] = defaultdict(Change)
        for event in events:
            if is_internal(event):
                continue
            if (payload := event.get("resourcePreEvent")) is not None:
                step = Step(payload["metadata"])
                change = resources[step.urn.text]
                if step.op == "refresh":
                    change.refreshed = step
                else:
                    change.planned.append(step)
            elif (payload := event.get("resOutputsEvent")) is not None:
                step = Step(payload["metadata"])
                if step.urn.text in resources and not resources[step.urn.text].planned:
                    resources[step.urn.text].refreshed = step
            elif (payload := event.get("diagnosticEvent")) is not None:
                messages = {"error": self.errors, "warning": self.warnings}.get(payload.get("severity", ""))
                if messages is not None:
                    name = payload.get("urn", "").rpartition("::")[2]
                    messages.append((f"{name}: " if name else "") + plain(payload.get("message", "")).strip())
            elif (payload := event.get("summaryEvent")) is not None:
                self.failed = payload.get("result", "succeeded") != "succeeded"
        self.resources = resources
        self.failed = self.failed or bool(self.errors)

    @property
    def changes(self) -> list[Change]:
        """The changed resources, deletions first."""
        order = ["delete", "discard", "replace", "update", "import", "create"]
        listed = [
            change for change in self.resources.values() if change.op not in UNCHANGED and not change.step.urn.is_stack
        ]
        return sorted(listed, key=lambda change: (order.index(change.op) if change.op in order else 3, change.name))

    @property
    def counts(self) -> Counter[str]:
        """Number of resources by operation."""
        return Counter(change.op for change in self.changes)

    @property
    def unchanged(self) -> int:
        """Number of unchanged resources."""
        return sum(c.op in UNCHANGED and not c.step.urn.is_stack for c in self.resources.values())

    @property
    def destructive(self) -> list[str]:
        """Sentences about what would be lost. A refresh loses nothing: missing resources were lost before."""
        if self.kind == "refresh":
            return []
        return [
            f"{change.op}s {LOSSES[change.step.type][0]} `{change.name}`: {LOSSES[change.step.type][1]}"
            for change in self.changes
            if change.op in {"delete", "replace"}
            and change.step.type in LOSSES
            and not any(step.retains for step in change.steps)
        ]

    @property
    def openings(self) -> list[str]:
        """Sentences about what would be opened to more addresses."""
        return [text for change in self.changes if (text := _opening(change))]

    @property
    def shortened(self) -> list[str]:
        """Sentences about leases that would end sooner."""
        return [
            f"lease `{cost.name}` ends {now - then:g} hours sooner, with all its servers"
            for cost in self.leases
            for now, then in [cost.hours]
            if now is not None and then is not None and then < now and cost.nodes[1]
        ]

    @property
    def nodes(self) -> dict[str, tuple[int, int]]:
        """Number of servers of each flavor, before and after."""
        reserved = {change.name: change for change in self.resources.values() if change.step.type == LEASE}
        counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for change in self.resources.values():
            if change.step.type != SERVER:
                continue
            group = reserved.get(lease_part(change.name.rpartition("-")[0]))
            for count, state, lease in zip(counts, _ends(change), _ends(group), strict=True):
                if state is not None:
                    count[_flavor(state, lease)] += 1
        now, then = counts
        return {flavor: (now[flavor], then[flavor]) for flavor in sorted({*now, *then})}

    @property
    def leases(self) -> list[LeaseCost]:
        """Nodes and hours of each lease."""
        by_name: defaultdict[str, tuple[list[int], list[float | None]]] = defaultdict(lambda: ([0, 0], [0, 0]))
        for change in self.resources.values():
            if change.step.type not in {LEASE, LEASE_END}:
                continue
            for index, state in enumerate(_ends(change)):
                if state is None:
                    continue
                nodes, hours = by_name[str(state.inputs.get("name"))]
                if change.step.type == LEASE:
                    amount = state.inputs.get("amount")
                    nodes[index] = int(amount) if isinstance(amount, int | float) else 0
                else:
                    hours[index] = _hours(state)
        return [
            LeaseCost(name, (nodes[0], nodes[1]), (hours[0], hours[1]))
            for name, (nodes, hours) in sorted(by_name.items())
        ]


def _ends(change: Change | None) -> tuple[State | None, State | None]:
    """A resource before and after the change; None if it does not exist."""
    if change is None:
        return None, None
    return (None if change.op == "create" else change.old), (None if change.op in _DELETES else change.new)


def _flavor(server: State, lease: State | None) -> str:
    """The server's flavor; for a reserved server, the reserved flavor."""
    flavor = server.inputs.get("flavorName")
    known = isinstance(flavor, str) and not flavor.startswith("reservation:")
    if not known and lease is not None and isinstance(lease.inputs.get("flavor"), str):
        flavor = lease.inputs["flavor"]
    return flavor if isinstance(flavor, str) else "unknown"


def _hours(end: State) -> float | None:
    hours = end.inputs.get("hours")
    if isinstance(hours, int | float):
        return float(hours)
    try:
        start, stop = (datetime.fromisoformat(str(end.inputs[key])) for key in ("start_date", "end_date"))
    except (KeyError, ValueError):
        return None
    return round((stop.replace(tzinfo=None) - start.replace(tzinfo=None)).total_seconds() / 3600, 1)


def _opening(change: Change) -> str:
    old, new, type_ = change.old, change.new, change.step.type
    if type_ == POLICY and change.op == "delete":
        return f"network policy `{change.name}` is deleted: it no longer protects its pods"
    if new is None or change.op == "delete":
        return ""
    if type_ == RULE:
        wide = new.inputs.get("remoteIpPrefix") in EVERYONE and new.inputs.get("direction") == "ingress"
        same = old is not None and all(
            old.inputs.get(key) == new.inputs.get(key)
            for key in ("remoteIpPrefix", "protocol", "portRangeMin", "portRangeMax")
        )
        if wide and not same:
            low, high = new.inputs.get("portRangeMin"), new.inputs.get("portRangeMax")
            ports = "every port" if low is None else f"port {low}" if low == high else f"ports {low} to {high}"
            return (
                f"security group rule `{change.name}` allows everyone to reach {ports} ({new.inputs['remoteIpPrefix']})"
            )
    if type_ == SERVICE:
        before, after = (_service_type(state) for state in (old, new))
        if after in {"LoadBalancer", "NodePort"} and before != after:
            return f"service `{change.name}` becomes reachable from outside the cluster ({after})"
    return ""


def _service_type(state: State | None) -> object:
    spec = state.inputs.get("spec") if state is not None else None
    return spec.get("type") if isinstance(spec, dict) else None
