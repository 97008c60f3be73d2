"""Errors that a user can act on, each with an exit code."""

from __future__ import annotations

# From sysexits.h, where it has one.
REFUSED, SETTINGS, BAD_DATA, UNAVAILABLE, BAD_CODE = 3, 78, 65, 69, 70
"""The gate refused; the settings, the dataset, a service or the model's code failed."""


class TrainingError(Exception):
    """An error that a user can act on; `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
