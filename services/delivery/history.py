"""Events of a stack's history: updates as in `pulumi stack history --json` and the state backend."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.delivery.events import UP_ENDED, UP_STARTED, Event, format_time, from_epoch, stack_subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD, DIRTY = "git.head", "git.dirty"
"""Keys of an update's environment, as the Pulumi CLI writes it: the commit, and `true` for uncommitted changes."""
SAME = {"same", "read", "read-discard", "refresh"}


def events(stack: str, updates: Iterable[dict[str, Any]]) -> Iterator[Event]:
    """The ups in a history; previews, refreshes and destroys deploy nothing."""
    for update in updates:
        if update.get("kind") != "update":
            continue
        started, ended = (_time(update[name]) for name in ("startTime", "endTime"))
        environment = update.get("environment") or {}
        changes = update.get("resourceChanges") or {}
        origin = {"head": environment.get(HEAD), "dirty": environment.get(DIRTY) == "true"}
        key = format_time(started)
        yield Event(UP_STARTED, stack_subject(stack), key, started, origin)
        changed = sum(count for operation, count in changes.items() if operation not in SAME)
        result = {"succeeded": update.get("result") == "succeeded", "changed": changed, "started": key, **origin}
        yield Event(UP_ENDED, stack_subject(stack), key, ended, result)


def _time(value: float | str) -> datetime:
    """State files have seconds, `pulumi stack history --json` has ISO 8601."""
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return from_epoch(value)
