"""Builds engine events, and shows them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from cli.display import make_display

if TYPE_CHECKING:
    from collections.abc import Iterable

Event = dict[str, Any]
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SERVER = "openstack:compute/instance:Instance"


def urn(name: str, kind: str = SERVER) -> str:
    return f"urn:pulumi:dev::lab::{kind}::{name}"


STACK = urn("lab-dev", "pulumi:pulumi:Stack")


def state(name: str, kind: str = SERVER, **fields: Any) -> Event:
    top = kind.startswith("pulumi:pulumi")
    return {
        "type": kind, "urn": urn(name, kind), "custom": not top, "id": "", "parent": "" if top else STACK,
        "inputs": {}, "outputs": {}, "provider": "",
    } | fields  # fmt: skip


def metadata(op: str, name: str, kind: str = SERVER, **fields: Any) -> Event:
    new = None if op in ("delete", "delete-replaced") else state(name, kind)
    old = None if op == "create" else state(name, kind)
    base = {"op": op, "urn": urn(name, kind), "type": kind, "old": old, "new": new}
    return {"metadata": base | {"detailedDiff": None, "logical": True, "provider": ""} | fields}


def begin(op: str, name: str, kind: str = SERVER, **fields: Any) -> Event:
    return {"resourcePreEvent": metadata(op, name, kind, **fields)}


def end(op: str, name: str, kind: str = SERVER, **fields: Any) -> Event:
    return {"resOutputsEvent": metadata(op, name, kind, **fields)}


def fail(op: str, name: str, kind: str = SERVER) -> Event:
    return {"resOpFailedEvent": metadata(op, name, kind) | {"status": 2, "steps": 1}}


def say(message: str, *, severity: str = "error", about: str = "", **fields: Any) -> Event:
    return {
        "diagnosticEvent": {
            "urn": urn(about) if about else "", "prefix": f"<{{%fg 1%}}>{severity}: <{{%reset%}}>",
            "message": f"{message}\n", "color": "raw", "severity": severity,
        } | fields
    }  # fmt: skip


def begin_stack(op: str = "same") -> Event:
    return begin(op, "lab-dev", "pulumi:pulumi:Stack")


def end_stack(op: str = "same", **fields: Any) -> Event:
    return end(op, "lab-dev", "pulumi:pulumi:Stack", **fields)


def finish(changes: dict[str, int], *, preview: bool = False, seconds: int = 3) -> list[Event]:
    summary = {
        "maybeCorrupt": False, "durationSeconds": seconds, "resourceChanges": changes, "PolicyPacks": {},
        "isPreview": preview, "result": "succeeded",
    }  # fmt: skip
    return [{"summaryEvent": summary}, {"cancelEvent": {}}]


def change(name: str, old: Event, new: Event, *, op: str = "update", **fields: Any) -> Event:
    """A step that changes properties from `old` to `new`."""
    before, after = state(name, inputs=old, outputs=old, id=f"id-{name}"), state(name, inputs=new)
    return begin(op, name, old=before, new=after, **fields)


def show(events: Iterable[Event], **flags: Any) -> tuple[str, str]:
    """What an update prints on standard output and standard error where neither is a terminal."""
    out, errors = io.StringIO(), io.StringIO()
    defaults: dict[str, Any] = {
        "json": False, "interactive": None, "diff": False, "color": "never", "show_sames": False, "stack": "dev",
        "project": "lab", "dry_run": False,
    }  # fmt: skip
    kind = flags.pop("kind", "update")
    with make_display(kind, **(defaults | flags), out=out, errors=errors) as display:
        for event in events:
            display(event)
    return out.getvalue(), errors.getvalue()


class Gone(io.StringIO):
    """Output that fails once it holds `room` characters, as a closed pipe or a full disk does."""

    def __init__(self, error: OSError, room: int) -> None:
        super().__init__()
        self._error, self._room = error, room

    def write(self, text: str) -> int:
        if self.tell() >= self._room:
            raise self._error
        return super().write(text)
