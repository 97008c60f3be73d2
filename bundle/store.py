"""A bundle on disk.

bundle.json                          the inventory: `Inventory`
sbom.cdx.json                        CycloneDX bill of materials
bin/<family>/<version>/<program>
images/<name>_<version>.tar          OCI archive, named localhost/<name>:<version> inside
manifests/<name>_<version>.yaml      third-party Kubernetes manifests, unchanged
units/<version>/<name>               third-party systemd units, unchanged
signatures/<image>_<version>.tar     OCI archive of an image's signature and bill of materials
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field, ValidationError

from bundle.errors import BundleError
from bundle.files import sha256, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bundle.manifest import Manifest

INVENTORY = "bundle.json"
SBOM = "sbom.cdx.json"
WORK = ".work"
REMEDY = "lab bundle build"
PLACES = ("bin/*/*/*", "images/*", "manifests/*", "units/*/*", "signatures/*")
Kind = Literal["program", "image", "manifest", "unit", "signature"]


class Artifact(BaseModel):
    """One file of a bundle."""

    name: str
    family: str
    version: str
    kind: Kind
    path: str = Field(description="Relative to the bundle.")
    sha256: str
    size: int = Field(description="Bytes.")
    key: str = Field(description="Digest of its inputs in the manifest.")
    source: str = Field(description="Its source: `built`, `signed`, its publisher's URL, or module@version.")
    tools: dict[str, str] = Field(default_factory=dict, description="Build tools, with versions.")
    programs: list[str] = Field(default_factory=list, description="Paths of the bundle's programs in an image.")
    packages: dict[str, str] = Field(default_factory=dict, description="Debian packages in an image, with versions.")
    wheels: dict[str, str] = Field(default_factory=dict, description="Python packages in an image, with versions.")
    libraries: list[str] = Field(default_factory=list, description="npm packages in a program, as name@version.")
    tags: list[str] = Field(default_factory=list, description="Tags of an image or a signature.")
    digest: str | None = Field(default=None, description="Digest of an image or a signature in a registry.")

    @property
    def is_locked(self) -> bool:
        """Whether the lock keeps it: equal inputs give equal bytes."""
        return self.source == "built" or self.kind in ("manifest", "unit")

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
        """The key of an image with the family's programs in this bundle."""
        paths = manifest.program_paths(family)
        programs = {one.name: one.sha256 for one in self.artifacts if one.path in paths}
        return manifest.image_key(family, image, programs)

    def lacks(self, manifest: Manifest, families: Iterable[str]) -> list[str]:
        """Paths of artifacts that are missing, or were made from other inputs than those in `manifest`."""
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
            for kind, one, files in manifest.families[name].texts:
                path = manifest.text_path(name, kind, one)
                if (has := self.find(path)) is None or has.key != manifest.text_key(name, one, files):
                    missing.append(path)
        return missing

    def put(self, new: list[Artifact]) -> None:
        """Add artifacts, and replace those with the same path."""
        paths = {artifact.path for artifact in new}
        kept = [artifact for artifact in self.artifacts if artifact.path not in paths]
        self.artifacts = sorted(kept + new, key=lambda artifact: artifact.path)


class Store:
    """A bundle's directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser()

    @property
    def work(self) -> Path:
        """Folder for incomplete artifacts, on the same file system."""
        return self.root / WORK

    def inventory(self) -> Inventory:
        """Read the inventory.

        Raises:
            BundleError: there is no bundle, or its inventory is damaged.
        """
        path = self.root / INVENTORY
        try:
            return Inventory.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise BundleError(f"there is no bundle in {self.root}", remedy=f"run {REMEDY}") from None
        except (OSError, ValidationError) as error:
            raise BundleError(f"{path} cannot be read: {error}", remedy=f"delete it, then run {REMEDY}") from error

    def write(self, inventory: Inventory) -> None:
        """Replace the inventory."""
        write_atomically(self.root / INVENTORY, inventory.model_dump_json(indent=1, exclude_defaults=True) + "\n")

    def holds(self, artifact: Artifact) -> bool:
        """Whether an artifact's file exists, with size and checksum of the inventory."""
        path = self.root / artifact.path
        return path.is_file() and path.stat().st_size == artifact.size and sha256(path) == artifact.sha256

    def problems(self) -> list[str]:
        """Problems with the files: missing, changed, or not in the inventory."""
        inventory = self.inventory()
        expected = {artifact.path: artifact.sha256 for artifact in inventory.artifacts} | {SBOM: inventory.sbom_sha256}
        present = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}
        problems = []
        for path, digest in expected.items():
            if path not in present:
                problems.append(f"{path}: missing")
            elif (actual := sha256(self.root / path)) != digest:
                problems.append(f"{path}: its SHA-256 is {actual}, not {digest}")
        return problems + [f"{path}: not in {INVENTORY}" for path in sorted(present - {INVENTORY, *expected})]
