"""manifest.lock: the digests of everything that was built from the manifest, by processor architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import RootModel

from bundle.errors import BundleError
from bundle.files import write_atomically
from bundle.manifest import HERE
from bundle.store import Artifact, Inventory

if TYPE_CHECKING:
    from pathlib import Path

LOCK = HERE / "manifest.lock"


class Locked(RootModel[dict[str, list[Artifact]]]):
    """The file: artifacts by architecture."""


class Lock:
    """What artifacts must be. A file made otherwise than the locked one, say with another compiler, may differ."""

    def __init__(self, architecture: str, path: Path = LOCK) -> None:
        self._path, self._architecture = path, architecture
        self._all = Locked.model_validate_json(path.read_text()).root if path.exists() else {}
        self._known = {artifact.path: artifact for artifact in self._all.get(architecture, [])}

    def check(self, artifact: Artifact) -> str:
        """Compare an artifact with the lock.

        Returns:
            Why it may be another one than the locked one; nothing where it is that one.

        Raises:
            BundleError: it must be the locked one, and is not.
        """
        locked = self._known.get(artifact.path)
        if locked and locked.sha256 == artifact.sha256:
            return ""
        if locked is None or locked.key != artifact.key:
            return "not in manifest.lock"
        if locked.origin != artifact.origin:
            return f"not the one in manifest.lock: {_difference(artifact, locked)}"
        raise BundleError(
            f"{artifact.path} has SHA-256 {artifact.sha256}; manifest.lock has {locked.sha256} for the same sources",
            remedy="build again; if it still differs, its sources or its compiler have been changed",
        )

    def outdated(self, artifacts: list[Artifact]) -> list[Artifact]:
        """Those that were built from other inputs than the locked ones, or are not locked."""
        return [
            one
            for one in artifacts
            if one.is_locked and ((locked := self._known.get(one.path)) is None or locked.key != one.key)
        ]

    def before(self, artifact: Artifact) -> Artifact | None:
        """The locked artifact that another one takes the place of, of whatever version."""
        named = [one for one in self._known.values() if (one.kind, one.name) == (artifact.kind, artifact.name)]
        return self._known.get(artifact.path) or (named[-1] if named else None)

    def record(self, artifacts: list[Artifact], wanted: set[str]) -> None:
        """Make these the locked ones; of the others of their architecture, those at `wanted` paths stay."""
        kept = [artifact for path, artifact in self._known.items() if path in wanted]
        locked = Inventory(architecture=self._architecture, artifacts=kept)
        locked.put(artifacts)
        self._all[self._architecture] = locked.artifacts
        write_atomically(self._path, Locked(self._all).model_dump_json(indent=1, exclude_defaults=True) + "\n")


def digests(path: Path = LOCK) -> list[str]:
    """Digests of all images in the lock, of any architecture."""
    locked = Locked.model_validate_json(path.read_text()).root if path.exists() else {}
    return [one.digest for artifacts in locked.values() for one in artifacts if one.digest]


def _difference(artifact: Artifact, locked: Artifact) -> str:
    if artifact.source != locked.source:
        return f"from {artifact.source}"
    mine, theirs = ({**one.tools, **one.packages} for one in (artifact, locked))
    names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    return ", ".join(f"{name} {mine.get(name, 'none')}, not {theirs.get(name, 'none')}" for name in names)
