"""What the program is told by environment variables; `README.md` has them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _environment(name: str, default: str = "") -> str:
    return os.environ.get(name) or default


@dataclass(frozen=True)
class Told:
    """Where things are."""

    database: str = field(default_factory=lambda: _environment("DATABASE", "metadata-store:5432/features"))
    """Host, port and name of the database of registry and online store."""
    user: str = field(default_factory=lambda: _environment("DATABASE_USER", "features"))
    password: str = field(default_factory=lambda: _environment("DATABASE_PASSWORD"), repr=False)
    data_url: str = field(default_factory=lambda: _environment("DATA_URL", "s3://datasets/features"))
    """Where the offline store and the training rows are kept."""
    folder: Path = field(default_factory=lambda: Path(_environment("FOLDER", "/tmp/features")))  # noqa: S108
    """Where the offline store is while it is worked on."""
    port: int = field(default_factory=lambda: int(_environment("PORT", "8080")))
