"""Errors that a user of the engine can act on."""

from __future__ import annotations


class EngineError(Exception):
    """A failure with a message for the user and, where there is one, a remedy.

    The command line prints ``str(error)`` and ``remedy``; it never prints a traceback for it.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class UnknownOutcomeError(EngineError):
    """The outcome of an operation is unknown: a create may have made something, or may still do so."""


class PassphraseError(EngineError):
    """The passphrase is missing, unreadable or wrong, or the secrets are not under a passphrase at all."""


class ConfigError(EngineError):
    """A project or stack settings file is not valid; ``problems`` has every reason."""

    def __init__(self, problems: list[str], *, remedy: str | None = None) -> None:
        super().__init__("\n".join(problems), remedy=remedy)
        self.problems = problems


class StackNotFoundError(EngineError):
    """No stack of that name is in the backend."""


class StackExistsError(EngineError):
    """A stack of that name is in the backend already."""


class StackNotEmptyError(EngineError):
    """The stack still has resources."""
