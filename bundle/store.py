"""A bundle on disk.

    bundle.json                          what is in it: `Inventory`
    sbom.cdx.json                        CycloneDX bill of materials
    bin/<family>/<version>/<program>
    images/<name>_<version>.tar          OCI archive, named localhost/<name>:<version> inside
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from bundle.errors import BundleError

INVENTORY = "bundle.json"
SBOM = "sbom.cdx.json"


class Artifact(BaseModel):
    """One file of a bundle."""

    name: str
    version: str
    kind: Literal["program", "image"]
    path: str = Field(description="Relative to the bundle.")
    sha256: str
    size: int = Field(description="Bytes.")
    source: str = Field(description="Where it came from: built, a bundle, or a publisher's address.")
    key: str = Field(description="Digest of what it was made from.")


class Inventory(BaseModel):
    """bundle.json."""

    architecture: str
    artifacts: list[Artifact] = Field(default_factory=list)


class Store:
    """A bundle's directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def inventory(self) -> Inventory:
        """What the bundle says it holds.

        Raises:
            BundleError: there is no bundle, or its inventory is broken.
        """
        path = self.root / INVENTORY
        try:
            return Inventory.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise BundleError(f"there is no bundle in {self.root}", remedy="lab bundle build") from None
        except (OSError, ValidationError) as error:
            raise BundleError(f"{path} cannot be read: {error}", remedy="lab bundle build") from error

    def write(self, inventory: Inventory) -> None:
        """Replace the inventory."""
        inventory.artifacts.sort(key=lambda artifact: artifact.path)
        write_whole(self.root / INVENTORY, inventory.model_dump_json(indent=1) + "\n")

    def faults(self) -> list[str]:
        """What is wrong with the files: missing, changed, or not in the inventory."""
        inventory = self.inventory()
        faults = []
        for artifact in inventory.artifacts:
            path = self.root / artifact.path
            if not path.is_file():
                faults.append(f"{artifact.path}: missing")
            elif (found := sha256(path)) != artifact.sha256:
                faults.append(f"{artifact.path}: its SHA-256 is {found}, not {artifact.sha256}")
        known = {INVENTORY, SBOM, *(artifact.path for artifact in inventory.artifacts)}
        present = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        return faults + [f"{path}: not in {INVENTORY}" for path in sorted(present - known)]


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or an interruption, sees the old one or the new one."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


def copy(source: Path, target: Path) -> None:
    """Copy a file, by a hard link where that is possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(target.name + ".new")
    new.unlink(missing_ok=True)
    try:
        os.link(source, new)
    except OSError:
        shutil.copy2(source, new)
    new.replace(target)
