"""Files with update plans, which `lab preview --save-plan` writes and `lab up --plan` reads."""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from cli.errors import ExitCode, LabError

if TYPE_CHECKING:
    from pathlib import Path

    from engine.plan import Plan
    from engine.secrets import SecretsManager

Record = dict[str, Any]


def write(path: Path, record: Record) -> None:
    """Write a plan atomically, readable only by its owner: secrets are encrypted in it, the rest is not.

    Raises:
        LabError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(record, file, indent=4, ensure_ascii=False)
            file.write("\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LabError(f"--save-plan: could not write {path}: {error.strerror}") from None


def read(path: Path) -> Record:
    """The content of a plan's file.

    Raises:
        LabError: it cannot be read, or is not a JSON object.
    """
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise LabError(f"--plan: could not read {path}: {error.strerror}", code=ExitCode.CONFIGURATION) from None
    except ValueError:
        record = None
    if not isinstance(record, dict) or "resourcePlans" not in record:
        raise LabError(
            f"--plan: {path} is not an update plan",
            remedy="use a file from `lab preview --save-plan`",
            code=ExitCode.CONFIGURATION,
        )
    return record


def decode(record: Record, manager: SecretsManager) -> Plan:
    """The plan in a record, its secrets decrypted.

    Raises:
        EngineError: it was made with another stack's secrets.
    """
    from engine.plan import Plan
    from engine.state import Codec

    return Plan.decode(record, Codec(manager))


def encode(plan: Plan, manager: SecretsManager) -> Record:
    """The record of a plan, its secrets encrypted."""
    from engine.state import Codec

    return plan.encode(Codec(manager))
