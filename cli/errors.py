"""Exit codes, and error messages for users.

The codes are the Pulumi CLI's (pkg/cmd/pulumi/cmd/exit_codes.go).
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from enum import IntEnum

from engine.errors import EngineError


class ExitCode(IntEnum):
    """Exit statuses of the process."""

    OK = 0
    ERROR = 1
    CONFIGURATION = 2
    STACK_NOT_FOUND = 6
    NO_CHANGES = 7
    CANCELLED = 8
    DESTRUCTIVE = 10


class LabError(EngineError):
    """An error of the command, with its exit code."""

    def __init__(self, message: str, *, remedy: str | None = None, code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


def exit_code(error: EngineError) -> ExitCode:
    """The exit code of the Pulumi CLI for `error`."""
    if isinstance(error, LabError):
        return error.code
    return ExitCode.STACK_NOT_FOUND if type(error).__name__ == "StackNotFoundError" else ExitCode.ERROR


def report(error: EngineError) -> None:
    """Print `error` and its remedy to standard error."""
    print(f"error: {error}", file=sys.stderr)
    if error.remedy:
        print(f"  remedy: {error.remedy}", file=sys.stderr)


def report_unexpected(error: BaseException) -> None:
    """Report an unexpected exception; write the traceback to a file (mode 0600), and name that file."""
    descriptor, path = tempfile.mkstemp(prefix="lab-error-", suffix=".log")
    with os.fdopen(descriptor, "w") as file:
        file.write("".join(traceback.format_exception(error)))
    print(f"error: unexpected {type(error).__name__}: {error}", file=sys.stderr)
    print(f"  remedy: this is a defect of lab; report it with {path}", file=sys.stderr)
