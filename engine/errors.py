"""Errors that a user of the engine can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.backend.base import LockHolder


class EngineError(Exception):
    """A failure with a sentence for the user and, where there is one, a remedy.

    The command line prints ``str(error)`` and ``remedy``; it never prints a traceback for it.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class UnknownOutcomeError(EngineError):
    """Nobody knows what became of an operation: a create may have made something, or may do so yet."""


class PassphraseError(EngineError):
    """The passphrase is missing, unreadable or wrong, or the secrets are not under a passphrase at all."""


class ConfigError(EngineError):
    """Faults in a project or stack settings file; all of one file's faults are in one error."""

    def __init__(self, faults: list[str], *, remedy: str | None = None) -> None:
        super().__init__("\n".join(faults), remedy=remedy)
        self.faults = faults


class StackNotFoundError(EngineError):
    """No stack of that name is in the backend."""


class StackExistsError(EngineError):
    """A stack of that name is in the backend already."""


class StackNotEmptyError(EngineError):
    """The stack still has resources."""


class StateLockedError(EngineError):
    """Another process holds the stack's lock; ``holders`` says who."""

    def __init__(self, message: str, holders: list[LockHolder], *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.holders = holders
