"""What ends a command, with the exit status that it ends with."""

from __future__ import annotations

BAD_DATA, UNAVAILABLE = 65, 69


class FeaturesError(Exception):
    """A text for people."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
