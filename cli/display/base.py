"""Base class of all displays: a lock, and `end`, which is called once."""

from __future__ import annotations

import abc
import re
import threading
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


STEP_EVENTS = ("resourcePreEvent", "resOutputsEvent", "resOpFailedEvent")
DEFAULT_PROVIDER = re.compile(r"[:$]pulumi:providers:[^:]+::default[^:]*$")


class Result(Protocol):
    """The part of an update's result that displays use."""

    @property
    def changes(self) -> dict[str, int]:
        """Number of resources by operation."""

    @property
    def duration_seconds(self) -> float:
        """Duration of the update."""


def is_internal(event: Mapping[str, Any]) -> bool:
    """Whether a step is internal to the engine: default providers, bookkeeping of a replacement."""
    for name in STEP_EVENTS:
        if (payload := event.get(name)) is not None:
            metadata = payload["metadata"]
            return metadata["op"] == "remove-pending-replace" or DEFAULT_PROVIDER.search(metadata["urn"]) is not None
    return False


class Display(abc.ABC):
    """Shows an update's engine events to people or programs. May be called from any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._closed = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one engine event (`apitype.EngineEvent` as JSON)."""
        with self.lock:
            if not self._closed and not is_internal(event):
                self.handle(event)

    def close(self, result: Result | None = None) -> None:
        """Show the remaining output and release the terminal. Later calls do nothing."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
        self.end(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abc.abstractmethod
    def handle(self, event: dict[str, Any]) -> None:
        """Show one event. The caller holds the lock."""

    @abc.abstractmethod
    def end(self, result: Result | None) -> None:
        """Show the remaining output. Called once."""
