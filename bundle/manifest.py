"""What a bundle is to hold: `manifest.yaml`."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bundle.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
MANIFEST = HERE / "manifest.yaml"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# To be raised when equal inputs begin to give other bytes.
RECIPE = 1
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Go(Model):
    """The Go toolchain that builds everything: reproducible builds need one and the same."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    sha256: dict[str, str] = Field(description="Of the module zip of golang.org/toolchain, by platform.")


class Debian(Model):
    """The Debian release whose packages are in images."""

    suite: Name


class Release(Model):
    """Where a publisher keeps programs and their checksum.

    `{version}`, `{number}` (without the v), `{arch}` and `{program}` are filled in. Without `{program}` the address is
    that of a tar archive with all of them.
    """

    url: str
    checksum: str = Field(description="Address of a digest, or of lines of digest and file name.")


class Image(Model):
    """An OCI image: programs of its family, on Debian packages or on nothing."""

    programs: tuple[Name, ...] = ()
    packages: tuple[Name, ...] = Field(default=(), description="Debian packages below the programs.")
    overlay: Name | None = Field(default=None, description="Folder below bundle/overlays, copied over the packages.")
    entrypoint: tuple[str, ...] | None = Field(default=None, description="The first program by default.")
    arguments: tuple[str, ...] = ()
    user: int = Field(default=0, ge=0, description="Numeric user and group that run it.")
    tags: tuple[str, ...] = Field(default=(), description="What else than the version it is tagged with.")

    @property
    def command(self) -> list[str]:
        """Its entry point."""
        if self.entrypoint is not None:
            return list(self.entrypoint)
        return [f"/usr/local/bin/{program}" for program in self.programs[:1]]

    @property
    def folder(self) -> Path:
        """The overlay."""
        return HERE / "overlays" / (self.overlay or "")

    @model_validator(mode="after")
    def _is_whole(self) -> Image:
        if self.overlay and not self.folder.is_dir():
            raise ValueError(f"overlay: there is no overlays/{self.overlay}")
        if not (self.command or self.arguments):
            raise ValueError("it has neither programs nor an entry point nor arguments")
        return self


class Family(Model):
    """Programs of one version, built from one Go module, and the images made of them."""

    version: Annotated[str, Field(pattern=r"^v\d+\.\d+\.\d+$")]
    optional: bool = Field(default=False, description="Only had when asked for by name.")
    module: Name | None = Field(default=None, description="Folder of go.mod and go.sum below bundle/go.")
    tags: tuple[str, ...] = ()
    stamps: dict[str, str] = Field(default_factory=dict, description="Variables set at link time: the version stamps.")
    cgo: bool = Field(default=False, description="Has C in it: built with gcc, linked statically.")
    programs: dict[Name, str] = Field(default_factory=dict, description="Package of each program.")
    tests: dict[Name, str] = Field(default_factory=dict, description="Package of each test program.")
    images: dict[Name, Image] = Field(default_factory=dict)
    release: Release | None = None

    @property
    def folder(self) -> Path:
        """Where go.mod is."""
        return HERE / "go" / (self.module or "")

    @property
    def all_programs(self) -> list[str]:
        """Names of its programs."""
        return [*self.programs, *self.tests]

    def words(self, architecture: str) -> dict[str, str]:
        """What stamps and addresses can name."""
        number = self.version.removeprefix("v")
        major, minor, _ = number.split(".")
        return {"version": self.version, "number": number, "major": major, "minor": minor, "arch": architecture}

    @model_validator(mode="after")
    def _names_meet(self) -> Family:
        faults = []
        if self.all_programs and not (self.module and (self.folder / "go.mod").exists()):
            faults.append(f"module: there is no go/{self.module}/go.mod")
        for name, image in self.images.items():
            missing = sorted(set(image.programs) - set(self.all_programs))
            faults += [f"images.{name}.programs: the family has no {program}" for program in missing]
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Manifest(Model):
    """The whole of it."""

    go: Go
    debian: Debian
    families: dict[Name, Family]

    @cached_property
    def architecture(self) -> str:
        """Go's and OCI's name of this machine's processor."""
        return ARCHITECTURES.get(platform.machine(), platform.machine())

    def program_path(self, family: str, program: str) -> str:
        """Where a program is in a bundle."""
        return f"bin/{family}/{self.families[family].version}/{program}"

    def program_paths(self, family: str) -> list[str]:
        """Where a family's programs are in a bundle."""
        return [self.program_path(family, program) for program in self.families[family].all_programs]

    def image_path(self, family: str, image: str) -> str:
        """Where an image is in a bundle."""
        return f"images/{image}_{self.families[family].version}.tar"

    def paths(self, families: Iterable[str]) -> set[str]:
        """Where all artifacts of `families` are in a bundle."""
        programs = {path for name in families for path in self.program_paths(name)}
        return programs | {self.image_path(name, image) for name in families for image in self.families[name].images}

    def key(self, name: str) -> str:
        """Changes when a family's programs must be had anew: the digest of what they are made of."""
        family = self.families[name]
        sources = {path.name: path.read_text() for path in sorted(family.folder.glob("*")) if family.module}
        made_of = family.model_dump(mode="json", exclude={"images", "optional", "release"})
        return digest([RECIPE, self.go.version, self.architecture, made_of, sources])

    def image_key(self, name: str, image: str, programs: dict[str, str]) -> str:
        """Changes when an image must be made anew: the digest of its description and its programs' digests."""
        family = self.families[name]
        described = family.images[image]
        overlay = {
            str(path.relative_to(described.folder)): str(path.readlink()) if path.is_symlink() else path.read_text()
            for path in described.folder.rglob("*")
            if described.overlay and not path.is_dir()
        }
        made_of = [described.model_dump(mode="json"), overlay, {name: programs[name] for name in described.programs}]
        return digest([RECIPE, image, family.version, self.architecture, self.debian.suite, *made_of])


def digest(value: object) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def load(path: Path = MANIFEST) -> Manifest:
    """Read and check the manifest.

    Raises:
        BundleError: it cannot be read, or has faults; all of them are named.
    """
    try:
        return Manifest.model_validate(YAML(typ="safe").load(path))
    except (OSError, YAMLError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise BundleError(f"{path} has faults:\n" + "\n".join(faults)) from error
