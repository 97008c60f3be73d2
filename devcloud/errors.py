"""Errors that a user of devcloud can act on."""

from __future__ import annotations


class DevcloudError(Exception):
    """A failure with a sentence for the user and, where there is one, what to do next."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
