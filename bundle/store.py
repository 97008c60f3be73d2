"""A bundle on disk.

bundle.json                          what is in it: `Inventory`
sbom.cdx.json                        CycloneDX bill of materials
bin/<family>/<version>/<program>
images/<name>_<version>.tar          OCI archive, named localhost/<name>:<version> inside
manifests/<name>_<version>.yaml      Kubernetes objects, as their publisher has them
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field, ValidationError

from bundle.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bundle.manifest import Manifest

INVENTORY = "bundle.json"
SBOM = "sbom.cdx.json"
WORK = ".work"
REMEDY = "lab bundle build"


class Artifact(BaseModel):
    """One file of a bundle."""

    name: str
    family: str
    version: str
    kind: Literal["program", "image", "manifest"]
    path: str = Field(description="Relative to the bundle.")
    sha256: str
    size: int = Field(description="Bytes.")
    key: str = Field(description="Digest of what it is made of, as the manifest says.")
    source: str = Field(description="Where it came from: `built`, its publisher's address, or module@version.")
    tools: dict[str, str] = Field(default_factory=dict, description="What made it, with versions.")
    programs: list[str] = Field(default_factory=list, description="Paths of the bundle's programs in an image.")
    packages: dict[str, str] = Field(default_factory=dict, description="Debian packages in an image, with versions.")
    wheels: dict[str, str] = Field(default_factory=dict, description="Python packages in an image, with versions.")
    tags: list[str] = Field(default_factory=list, description="Of an image: what it is tagged with.")
    digest: str | None = Field(default=None, description="Of an image: what a registry knows it by.")

    @property
    def origin(self) -> tuple[object, ...]:
        """Equal origins give equal bytes."""
        return self.path, self.key, self.source, self.tools, self.packages


class Inventory(BaseModel):
    """bundle.json."""

    architecture: str
    artifacts: list[Artifact] = Field(default_factory=list)
    sbom_sha256: str = ""

    def find(self, path: str) -> Artifact | None:
        """The artifact at `path`."""
        return next((artifact for artifact in self.artifacts if artifact.path == path), None)

    def image_key(self, manifest: Manifest, family: str, image: str) -> str:
        """The key of an image of the family's programs as they are here."""
        paths = manifest.program_paths(family)
        programs = {one.name: one.sha256 for one in self.artifacts if one.path in paths}
        return manifest.image_key(family, image, programs)

    def lacks(self, manifest: Manifest, families: Iterable[str]) -> list[str]:
        """Paths of what is not here, or is made of other sources than `manifest` names."""
        missing = []
        for name in families:
            wanted = dict.fromkeys(manifest.program_paths(name), manifest.key(name))
            outdated = [path for path, key in wanted.items() if (has := self.find(path)) is None or has.key != key]
            missing += outdated
            for image in manifest.families[name].images:
                path = manifest.image_path(name, image)
                has = self.find(path)
                if outdated or has is None or has.key != self.image_key(manifest, name, image):
                    missing.append(path)
            for one in manifest.families[name].manifests:
                path = manifest.manifests_path(name, one)
                if (has := self.find(path)) is None or has.key != manifest.manifests_key(name, one):
                    missing.append(path)
        return missing

    def put(self, new: list[Artifact]) -> None:
        """Add artifacts; those with the same path give way."""
        paths = {artifact.path for artifact in new}
        kept = [artifact for artifact in self.artifacts if artifact.path not in paths]
        self.artifacts = sorted(kept + new, key=lambda artifact: artifact.path)


class Store:
    """A bundle's directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser()

    @property
    def work(self) -> Path:
        """Where what is not finished yet is; on the same file system as what is."""
        return self.root / WORK

    def inventory(self) -> Inventory:
        """What the bundle says it holds.

        Raises:
            BundleError: there is no bundle, or its inventory is broken.
        """
        path = self.root / INVENTORY
        try:
            return Inventory.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise BundleError(f"there is no bundle in {self.root}", remedy=REMEDY) from None
        except (OSError, ValidationError) as error:
            raise BundleError(f"{path} cannot be read: {error}", remedy=f"remove it; {REMEDY}") from error

    def write(self, inventory: Inventory) -> None:
        """Replace the inventory."""
        write_whole(self.root / INVENTORY, inventory.model_dump_json(indent=1, exclude_defaults=True) + "\n")

    def holds(self, artifact: Artifact) -> bool:
        """Whether an artifact's file is there, and what the inventory says."""
        path = self.root / artifact.path
        return path.is_file() and path.stat().st_size == artifact.size and sha256(path) == artifact.sha256

    def faults(self) -> list[str]:
        """What is wrong with the files: missing, changed, or not in the inventory."""
        inventory = self.inventory()
        expected = {artifact.path: artifact.sha256 for artifact in inventory.artifacts} | {SBOM: inventory.sbom_sha256}
        present = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}
        faults = []
        for path, digest in expected.items():
            if path not in present:
                faults.append(f"{path}: missing")
            elif (found := sha256(self.root / path)) != digest:
                faults.append(f"{path}: its SHA-256 is {found}, not {digest}")
        return faults + [f"{path}: not in {INVENTORY}" for path in sorted(present - {INVENTORY, *expected})]


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or an interruption, sees the old one or the new one."""
    new = path.with_name(path.name + ".new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def link(source: Path, target: Path) -> None:
    """Put a file at `target`, as a hard link where that is possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def emptied(folder: Path) -> Path:
    """`folder`, there and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other process is at work on `folder`, and keep others off it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
