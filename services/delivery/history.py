"""Events of a stack's history: its updates, as `pulumi stack history --json` and the state backend have them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.delivery.events import UP_ENDED, UP_STARTED, Event, moment, of_stack, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD, DIRTY = "git.head", "git.dirty"
"""Of an update's environment, as the Pulumi CLI writes it: the commit, and `true` with changes besides."""
SAME = {"same", "read", "read-discard", "refresh"}


def events(stack: str, updates: Iterable[dict[str, Any]]) -> Iterator[Event]:
    """The ups of a history; previews, refreshes and destroys deploy nothing."""
    for update in updates:
        if update.get("kind") != "update":
            continue
        started, ended = (_moment(update[name]) for name in ("startTime", "endTime"))
        environment = update.get("environment") or {}
        changes = update.get("resourceChanges") or {}
        made_of = {"head": environment.get(HEAD), "dirty": environment.get(DIRTY) == "true"}
        key = written(started)
        yield Event(UP_STARTED, of_stack(stack), key, started, made_of)
        changed = sum(count for operation, count in changes.items() if operation not in SAME)
        ending = {"succeeded": update.get("result") == "succeeded", "changed": changed, "started": key, **made_of}
        yield Event(UP_ENDED, of_stack(stack), key, ended, ending)


def _moment(value: float | str) -> datetime:
    """Files have seconds, `pulumi stack history --json` a text."""
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return moment(value)
