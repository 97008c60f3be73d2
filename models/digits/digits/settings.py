"""Settings, from environment variables; MLflow's and AWS' own variables are read by their libraries."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

# What the process exits with; those of sysexits.h where it has one.
REFUSED, BAD_DATA, UNAVAILABLE = 3, 65, 69


class DigitsError(Exception):
    """Something a user can act on; `code` is the exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def code_version() -> str:
    """Digest of this package's sources, where CODE_VERSION does not name the commit."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True)
class Settings:
    """Where things are, and what is written beside a model of where it came from."""

    data_url: str = field(default_factory=lambda: os.environ.get("DIGITS_DATA_URL") or "s3://datasets/digits")
    model: str = field(default_factory=lambda: os.environ.get("DIGITS_MODEL") or "digits")
    code_version: str = field(default_factory=lambda: os.environ.get("CODE_VERSION") or code_version())
    image_digest: str = field(default_factory=lambda: os.environ.get("IMAGE_DIGEST") or "none")
    result: str = field(default_factory=lambda: os.environ.get("DIGITS_RESULT") or "")
