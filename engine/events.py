"""Engine events, in the exact JSON form of the Pulumi CLI (``apitype.EngineEvent`` in pulumi/pulumi).

Secrets are replaced by ``[secret]`` before an event is emitted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from protocol.values import is_secret

from .values import contains, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .diff import PropertyDiff
    from .state import State

Event = dict[str, Any]


@dataclass
class Step:
    """One operation on one resource."""

    op: str
    old: State | None
    new: State | None
    keys: list[str] = field(default_factory=list)
    """Properties whose change replaces the resource."""
    diffs: list[str] = field(default_factory=list)
    """Properties that changed."""
    detailed: dict[str, PropertyDiff] | None = None
    pending_delete: bool = False
    """The replacement is created first; the old resource is deleted later."""
    pending_replacement: bool = False
    """A delete that comes before the replacement is created."""
    skipped_create: bool = False
    """Not created because it is not targeted."""

    @property
    def state(self) -> State:
        """The new state, or the old one of a delete."""
        state = self.new if self.new is not None else self.old
        if state is None:
            raise AssertionError
        return state

    @property
    def urn(self) -> str:
        """The URN of the step's resource."""
        return self.state.urn

    @property
    def logical(self) -> bool:
        """Whether users see the step in counts: the two halves of a replacement are not counted."""
        return self.op not in {"create-replacement", "delete-replaced", "import-replacement", "read-replacement"}

    @property
    def hidden(self) -> bool:
        """Whether the step is internal, such as one of a default provider."""
        return self.op == "remove-pending-replace" or (
            self.state.is_provider and self.urn.rsplit("::", 1)[-1].startswith("default")
        )


class Emitter:
    """Numbers and emits events; safe to use from several threads."""

    def __init__(self, sink: Callable[[Event], None]) -> None:
        self._sink = sink
        self._sequence = 0
        self._lock = threading.Lock()
        self.errors: list[str] = []

    def emit(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Emit one event."""
        with self._lock:
            self._sequence += 1
            self._sink({"sequence": self._sequence, "timestamp": int(time.time()), kind: payload})

    def diagnostic(
        self, severity: str, message: str, urn: str = "", *, stream: int = 0, ephemeral: bool = False
    ) -> None:
        """A message: ``info``, ``info#err``, ``warning``, ``error`` or ``debug``."""
        if severity == "error":
            self.errors.append(message)
        payload: dict[str, Any] = {"urn": urn} if urn else {}
        if severity in {"warning", "error"}:
            payload["prefix"] = f"{severity}: "
        payload |= {"message": message + "\n", "color": "never", "severity": severity}
        if stream:
            payload["streamID"] = stream
        if ephemeral:
            payload["ephemeral"] = True
        self.emit("diagnosticEvent", payload)

    def before(self, step: Step, *, planning: bool) -> None:
        """A step begins."""
        if not step.hidden:
            self.emit("resourcePreEvent", _with_planning({"metadata": _metadata(step, step.op)}, planning))

    def outputs(self, step: Step, op: str, *, planning: bool) -> None:
        """A step succeeded, or a component registered its outputs."""
        if not step.hidden:
            self.emit("resOutputsEvent", _with_planning({"metadata": _metadata(step, op)}, planning))

    def failed(self, step: Step, *, status: int, steps: int) -> None:
        """A step failed. ``status`` is Pulumi's resource.Status: 1 partial failure, 2 unknown."""
        if not step.hidden:
            self.emit("resOpFailedEvent", {"metadata": _metadata(step, step.op), "status": status, "steps": steps})


def _with_planning(payload: Event, planning: bool) -> Event:
    return {**payload, "planning": True} if planning else payload


def _metadata(step: Step, op: str) -> Event:
    state = step.state
    payload: Event = {
        "op": op,
        "urn": state.urn,
        "type": state.type,
        "old": _state(step.old),
        "new": _state(step.new),
    }
    if step.keys:
        payload["keys"] = step.keys
    if step.diffs:
        payload["diffs"] = step.diffs
    payload["detailedDiff"] = (
        None
        if step.detailed is None
        else {path: {"diffKind": diff.kind, "inputDiff": diff.input_diff} for path, diff in step.detailed.items()}
    )
    if step.logical:
        payload["logical"] = True
    payload["provider"] = state.provider
    return payload


def _state(state: State | None) -> Event | None:
    if state is None:
        return None
    flags = {
        "custom": state.custom,
        "delete": state.delete,
        "protect": state.protect,
        "taint": state.taint,
        "external": state.external,
        "retainOnDelete": state.retain_on_delete,
    }
    payload: Event = {"type": state.type, "urn": state.urn}
    payload |= {name: True for name, raised in flags.items() if raised}
    payload |= {
        "id": state.id,
        "parent": state.parent,
        "inputs": _shown(state.inputs),
        "outputs": _shown(state.outputs),
        "provider": state.provider,
    }
    if state.init_errors:
        payload["initErrors"] = state.init_errors
    return payload


def _shown(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    hidden = {key for key in properties if key.startswith("__")}
    if not hidden and not any(contains(value, is_secret) for value in properties.values()):
        return properties
    return {key: redact(value) for key, value in properties.items() if key not in hidden}


def mask(text: str, secrets: Iterable[str]) -> str:
    """Replace every occurrence of a secret in a message of a program or a provider."""
    for plaintext in secrets:
        text = text.replace(plaintext, "[secret]")
    return text
