"""What a stack's program is made of, as its history tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.delivery.git import GitError, Repository
from services.delivery.history import DIRTY, HEAD

if TYPE_CHECKING:
    from pathlib import Path


def made_of(project: Path) -> dict[str, str]:
    """The commit of a project's folder, under the Pulumi CLI's names; nothing where there is none."""
    try:
        head, dirty = Repository(project).head()
    except GitError:
        return {}
    return {HEAD: head, DIRTY: str(dirty).lower()}
