"""Errors that a user can act on, each with the status that the program exits with."""

from __future__ import annotations

# Those of sysexits.h where it has one.
REFUSED, SETTINGS, BAD_DATA, UNAVAILABLE, FAULTY = 3, 78, 65, 69, 70
"""By the gate; settings; the dataset; what the program asks does not answer; the model's own code."""


class TrainingError(Exception):
    """Something a user can act on; `code` is the exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
