"""What happened, and when: a row of the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

COMMIT, CODE = "commit", "model.code"
UP_STARTED, UP_ENDED = "up.started", "up.ended"
TRAINED, REGISTERED = "model.trained", "model.registered"
PROMOTED, ROLLED_BACK, WITHDRAWN = "model.promoted", "model.rolled_back", "model.withdrawn"
ANSWERS = "model.answers"
OPENED, CLOSED = "incident.opened", "incident.closed"
INFRASTRUCTURE = "infrastructure"
"""Begins the subject of a stack's events; a model's begin with `model`."""


@dataclass(frozen=True)
class Event:
    """Something that happened once.

    Kind, subject and key name it: whoever reads it again, of whatever source, gets the same three.
    """

    kind: str
    subject: str
    """`infrastructure/STACK`, `model/NAME`, or empty: of the repository."""
    key: str
    at: datetime
    """With a time zone."""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> tuple[str, str, str]:
        """What it is told from others by."""
        return self.kind, self.subject, self.key


def of_stack(name: str) -> str:
    """The subject of a stack's events."""
    return f"{INFRASTRUCTURE}/{name}"


def of_model(name: str) -> str:
    """The subject of a model's events."""
    return f"model/{name}"


def moment(seconds: float) -> datetime:
    """A time since 1970, in seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def written(at: datetime) -> str:
    """A time as keys have it: UTC, to the second, `2026-11-02T10:04:00Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
