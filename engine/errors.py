"""Errors that a user of the engine can act on."""

from __future__ import annotations


class EngineError(Exception):
    """A failure with a sentence for the user and, where there is one, a remedy.

    The command line prints ``str(error)`` and ``remedy``; it never prints a traceback for it.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
