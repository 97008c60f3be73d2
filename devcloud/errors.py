"""Errors that a user of devcloud can act on."""

from __future__ import annotations


class DevcloudError(Exception):
    """An error with a message for the user and, if there is one, a remedy."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
