"""One call of the engine: its deadline, its progress, and its errors."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from protocol.paths import Path
    from providers.values import Properties

T = TypeVar("T")
Severity = Literal["debug", "info", "warning", "error"]

PROGRESS_SECONDS = 10.0
CLOCK_SKEW = timedelta(minutes=1)
"""The largest difference of clocks between this machine and the cloud."""
UNRECOVERABLE = "__lost"
"""Output of a recovered resource that has to be replaced: the name of the property that can no longer be read."""


class ProviderError(Exception):
    """A failure to show as it is. ``remedy`` says what the user can do.

    ``uncertain_for``: seconds for which the request may still take effect; 0 where it may have taken effect already;
    None where it certainly had none.
    """

    def __init__(self, message: str, *, remedy: str | None = None, uncertain_for: float | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.uncertain_for = uncertain_for

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.remedy}" if self.remedy else message


class CancelledError(ProviderError):
    """The engine asked the provider to stop waiting."""


class DeadlineError(ProviderError):
    """The deadline of a create, update or delete passed."""


class NotYetError(Exception):
    """Raised by a poll when the cloud refuses for now, and a later attempt may succeed."""

    def __init__(self, reason: ProviderError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that each operation may take unless ``custom_timeouts`` says otherwise."""

    create: float = 600
    update: float = 600
    delete: float = 600


@dataclass
class Operation:
    """One call of the engine: the resource, the deadline, and where to report progress."""

    urn: str
    name: str
    timeout: float
    cancelled: threading.Event
    report: Callable[[Severity, str, str, bool], None]
    defaults: frozenset[str] = frozenset()
    began: datetime | None = None
    others: AbstractSet[str] = frozenset()
    """Known ids of the resource's type: an interrupted create has made none of these."""
    ignored: tuple[Path, ...] = ()
    """``ignoreChanges``: properties that an update leaves as they are in the cloud."""
    id: str | None = None
    known: Properties = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @staticmethod
    def current() -> Operation | None:
        """The operation that this thread carries out."""
        return _current.get()

    def enter(self) -> None:
        """Make this the operation that the thread carries out."""
        _current.set(self)

    @staticmethod
    def leave() -> None:
        """End the thread's operation."""
        _current.set(None)

    def created(self, id_: str, **known: Any) -> None:
        """Record that the object exists, even if the operation fails later.

        ``known`` are properties that no later read returns, such as a generated private key.
        """
        self.id = id_
        self.known |= known

    def forget(self) -> None:
        """Record that the object is deleted again: the failed create left nothing behind."""
        self.id = None
        self.known.clear()

    def may_have_made(self, created: str | None) -> bool:
        """Whether the interrupted create can have made an object with this creation time.

        Yes where either time is not known.
        """
        if not created or self.began is None:
            return True
        made = datetime.fromisoformat(created)
        made = made if made.tzinfo else made.replace(tzinfo=UTC)
        return self.began - CLOCK_SKEW <= made <= self.began + timedelta(seconds=self.timeout) + CLOCK_SKEW

    def log(self, severity: Severity, message: str) -> None:
        """Show a message, under this resource."""
        self.report(severity, message, self.urn, False)

    def status(self, message: str) -> None:
        """Show what the operation is doing, beside the resource, until the next status."""
        self.report("info", message, self.urn, True)

    def remaining(self) -> float:
        """Seconds to the deadline, never negative."""
        return max(0.0, self.started + self.timeout - time.monotonic())

    @property
    def ended(self) -> bool:
        """Whether it was cancelled, or its deadline has passed."""
        return self.cancelled.is_set() or not self.remaining()

    def check(self, what: str) -> None:
        """Raise when cancelled or past the deadline, naming what was waited for."""
        if self.cancelled.is_set():
            raise CancelledError(f"cancelled while waiting for {what}")
        if not self.remaining():
            raise DeadlineError(
                f"gave up after {self.timeout:.0f} s waiting for {what}",
                remedy="Raise it with custom_timeouts if the cloud is only slow.",
            )

    def pause(self, seconds: float, what: str) -> None:
        """Sleep, unless cancelled or past the deadline."""
        self.check(what)
        self.cancelled.wait(min(seconds, self.remaining()))
        self.check(what)

    def wait(self, what: str, poll: Callable[[], T | None], *, min_delay: float = 0.3, max_delay: float = 5.0) -> T:
        """Call ``poll`` with growing pauses (``min_delay`` to ``max_delay`` seconds) until it returns something.

        Raises DeadlineError, CancelledError, and whatever ``poll`` raises, except NotYetError: that goes on waiting,
        and at the deadline its reason is raised.
        """
        delay, reported = min_delay, time.monotonic()
        reason: ProviderError | None = None
        while True:
            news = False
            try:
                if (result := poll()) is not None:
                    return result
            except NotYetError as error:
                news, reason = reason is None, error.reason
            if news or time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                because = f": {reason.args[0]}" if reason else ""
                self.status(f"waiting for {what} ({reported - self.started:.0f} s){because}")
            try:
                self.pause(delay, what)
            except DeadlineError:
                if reason:
                    raise reason from None
                raise
            delay = min(delay * 1.5, max_delay)


_current: ContextVar[Operation | None] = ContextVar("current operation", default=None)
