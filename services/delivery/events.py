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
"""The prefix of the subject of a stack's events; that of a model's is `model`."""


@dataclass(frozen=True)
class Event:
    """Something that happened once.

    Kind, subject and key identify it, whenever and from whatever source it is read.
    """

    kind: str
    subject: str
    """`infrastructure/STACK`, `model/NAME`, or empty for the repository."""
    key: str
    at: datetime
    """With a time zone."""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> tuple[str, str, str]:
        """Its identity."""
        return self.kind, self.subject, self.key


def stack_subject(name: str) -> str:
    """The subject of a stack's events."""
    return f"{INFRASTRUCTURE}/{name}"


def model_subject(name: str) -> str:
    """The subject of a model's events."""
    return f"model/{name}"


def from_epoch(seconds: float) -> datetime:
    """A time from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def format_time(at: datetime) -> str:
    """A time as in keys: UTC, to the second, `2026-11-02T10:04:00Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
