"""Events for programs (`--json`): a stream of them, or the digest of a preview (`pkg/backend/display/json.go`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

from cli.display.base import Display, Result
from cli.display.model import Options, Step, is_listed
from cli.display.values import MASK, mask_secrets
from protocol.signatures import OUTPUT_SIG, SECRET_SIG, SIG
from terminal.text import Output, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

NANOSECONDS = 1_000_000_000
STATE_FLAGS = ("delete", "protect", "taint", "external", "retainOnDelete")
STATE_FIELDS = ("id", "parent", "provider", "initErrors")


class JsonStream(Display):
    """Writes one event per line, without colour tags unless `color`."""

    def __init__(self, out: TextIO, *, color: bool) -> None:
        super().__init__()
        self._out, self._color = Output(out), color

    def handle(self, event: dict[str, Any]) -> None:
        """Write one event."""
        event = mask_secrets(event)
        for name in ("diagnosticEvent", "stdoutEvent", "policyEvent"):
            if (payload := event.get(name)) is not None and not self._color:
                for field in ("message", "prefix"):
                    if field in payload:
                        payload[field] = plain(payload[field])
                payload["color"] = "never"
        self._out.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._out.flush()

    def end(self, result: Result | None) -> None:
        """Do nothing: everything has been written."""


class PreviewDigest(Display):
    """Writes one JSON document at the end of the preview, so that the output is always complete."""

    def __init__(self, options: Options, out: TextIO) -> None:
        super().__init__()
        self._options, self._out = options, Output(out)
        self._config: dict[str, str] = {}
        self._steps: dict[str, list[dict[str, Any]]] = {}
        self._refreshed: set[str] = set()
        self._order: list[dict[str, Any]] = []
        self._diagnostics: list[dict[str, str]] = []
        self._summary: Mapping[str, Any] = {}

    def handle(self, event: dict[str, Any]) -> None:
        """Collect what the digest contains."""
        if (payload := event.get("resourcePreEvent")) is not None:
            self._begin(Step(payload["metadata"]))
        elif (payload := event.get("resOutputsEvent")) is not None:
            self._complete(Step(payload["metadata"]))
        elif (payload := event.get("diagnosticEvent")) is not None:
            if not payload.get("ephemeral") and payload.get("severity") != "debug":
                self._note(
                    payload.get("urn", ""),
                    payload.get("prefix", "") + payload.get("message", ""),
                    payload.get("severity", "info"),
                )
        elif (payload := event.get("policyEvent")) is not None:
            # The CLI's digest omits them, and with them the reason for a failure.
            policy = f"{payload['policyPackName']}@v{payload['policyPackVersion']} {payload['policyName']}"
            severity = "error" if payload["enforcementLevel"] == "mandatory" else "warning"
            self._note(payload.get("resourceUrn", ""), f"{policy}: {payload['message']}", severity)
        elif (payload := event.get("stdoutEvent")) is not None:
            self._note("", payload.get("message", ""), "info")
        elif (payload := event.get("preludeEvent")) is not None:
            self._config = payload.get("config") or {}
        elif (payload := event.get("summaryEvent")) is not None:
            self._summary = payload

    def end(self, result: Result | None) -> None:
        """Write the digest. The duration is in nanoseconds."""
        seconds = result.duration_seconds if result else self._summary.get("durationSeconds", 0)
        digest = {
            "config": self._config,
            "steps": self._order,
            "diagnostics": self._diagnostics,
            "duration": int(seconds * NANOSECONDS),
            "changeSummary": self._summary.get("resourceChanges") or (result.changes if result else {}),
            "maybeCorrupt": bool(self._summary.get("maybeCorrupt")),
        }
        filled = {key: value for key, value in digest.items() if value}
        self._out.write(json.dumps(filled, ensure_ascii=False, indent=4) + "\n")
        self._out.flush()

    def _note(self, urn: str, message: str, severity: str) -> None:
        diagnostic = {"urn": urn, "message": plain(message), "severity": severity}
        self._diagnostics.append({key: value for key, value in diagnostic.items() if value})

    def _begin(self, step: Step) -> None:
        if not is_listed(step, self._options):
            return
        if step.op == "refresh":
            self._refreshed.add(step.urn.text)
        digest = self._digest(step)
        self._order.append(digest)
        self._steps.setdefault(step.urn.text, []).append(digest)

    def _complete(self, step: Step) -> None:
        changed = step.op == "delete" or (step.op == "update" and step.has_provider_diff)
        if step.urn.text in self._refreshed and changed:
            for digest in self._steps[step.urn.text]:
                digest.clear()
                digest.update(self._digest(step))

    def _digest(self, step: Step) -> dict[str, Any]:
        detailed = step.wire.get("detailedDiff")
        digest: dict[str, Any] = {"op": step.op, "urn": step.urn.text}
        if step.provider:
            digest["provider"] = step.provider
        for name, state in (("oldState", step.old), ("newState", step.new)):
            if state is not None:
                digest[name] = self._state(state.wire, step)
        if step.changed_keys:
            digest["diffReasons"] = step.changed_keys
        if step.replace_keys:
            digest["replaceReasons"] = step.replace_keys
        digest["detailedDiff"] = detailed and {
            path: {"kind": entry["diffKind"], "inputDiff": bool(entry.get("inputDiff"))}
            for path, entry in sorted(detailed.items())
        }
        return digest

    def _state(self, wire: Mapping[str, Any], step: Step) -> dict[str, Any]:
        state: dict[str, Any] = {
            "urn": wire.get("urn", step.urn.text),
            "custom": bool(wire.get("custom")),
            "type": wire.get("type", step.urn.type),
        }
        state |= {key: True for key in STATE_FLAGS if wire.get(key)}
        state |= {key: wire[key] for key in STATE_FIELDS if wire.get(key)}
        if not (step.urn.is_stack and self._options.suppress_outputs):
            state |= {key: _flatten(wire[key]) for key in ("inputs", "outputs") if wire.get(key)}
        return state


def _flatten(wire: Any) -> Any:
    """A property value with secrets as the text `[secret]`."""
    match wire:
        case list():
            return [_flatten(item) for item in wire]
        case dict():
            signature = wire.get(SIG)
            if signature == SECRET_SIG or (signature == OUTPUT_SIG and wire.get("secret")):
                return MASK
            return {key: _flatten(item) for key, item in wire.items()}
    return wire
