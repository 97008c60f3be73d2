"""Update plans, kept beside the state for a later run: the deployment after a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.backend.bucket import Bucket


class Plans:
    """Plans by stack and name; the caller encrypts their secrets. No lock is needed."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def save(self, project: str, stack: str, name: str, data: bytes) -> None:
        """Save a plan; replaces one of the same name."""
        self._bucket.write(_key(project, stack, name), data)

    def load(self, project: str, stack: str, name: str) -> bytes | None:
        """The plan; None where there is none."""
        return self._bucket.read(_key(project, stack, name))

    def delete(self, project: str, stack: str, name: str) -> None:
        """Delete the plan, if it exists."""
        self._bucket.delete(_key(project, stack, name))

    def delete_all(self, project: str, stack: str) -> None:
        """Delete all plans of a stack."""
        for entry in list(self._bucket.list(f".pulumi/plans/{project}/{stack}/")):
            self._bucket.delete(entry.key)


def _key(project: str, stack: str, name: str) -> str:
    return f".pulumi/plans/{project}/{stack}/{name}.json"
