"""What a bundle is to hold: `manifest.yaml`, and the digests of what was built from it: `manifest.lock`."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bundle.errors import BundleError

HERE = Path(__file__).parent
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Go(Model):
    """The Go toolchain that builds everything: reproducible builds need one and the same."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    sha256: dict[str, str] = Field(description="Of the module zip of golang.org/toolchain, by platform.")


class Release(Model):
    """Where a publisher keeps a program and its checksum; `{version}`, `{arch}` and `{program}` are filled in."""

    url: str
    checksum: str


class Family(Model):
    """Programs of one version, built from one Go module."""

    version: Annotated[str, Field(pattern=r"^v\d+\.\d+\.\d+$")]
    module: Name = Field(description="Folder of go.mod and go.sum below bundle/go.")
    tags: tuple[str, ...] = ()
    stamps: dict[str, str] = Field(default_factory=dict, description="Variables set at link time: the version stamps.")
    cgo: bool = Field(default=False, description="Has C in it: built with gcc, linked statically.")
    programs: dict[Name, str] = Field(min_length=1, description="Package of each program.")
    release: Release | None = None

    @property
    def folder(self) -> Path:
        """Where go.mod is."""
        return HERE / "go" / self.module

    @property
    def linker_flags(self) -> str:
        """The version stamps; no debug information, no build id: equal inputs give equal bytes."""
        number = self.version.removeprefix("v")
        major, minor, _ = number.split(".")
        values = {"version": self.version, "number": number, "major": major, "minor": minor}
        stamps = [f"-X {variable}={value.format(**values)}" for variable, value in self.stamps.items()]
        static = ["-extldflags=-static"] if self.cgo else []
        return " ".join(["-s", "-w", "-buildid=", *static, *stamps])


class Image(Model):
    """An OCI image: programs of a family, on Debian packages or on nothing."""

    family: Name
    programs: tuple[Name, ...] = Field(min_length=1, description="The first one is the entry point.")
    packages: tuple[Name, ...] = Field(default=(), description="Debian packages below the programs.")
    user: int = Field(default=0, ge=0, description="Numeric user that runs it.")


class Manifest(Model):
    """The whole of it."""

    go: Go
    families: dict[Name, Family]
    images: dict[Name, Image]

    @model_validator(mode="after")
    def _names_meet(self) -> Manifest:
        faults = [
            f"families.{name}.module: there is no {family.folder.name}/go.mod"
            for name, family in self.families.items()
            if not (family.folder / "go.mod").exists()
        ]
        for name, image in self.images.items():
            family = self.families.get(image.family)
            if family is None:
                faults.append(f"images.{name}.family: there is no family {image.family}")
                continue
            missing = set(image.programs) - set(family.programs)
            faults += [f"images.{name}.programs: {image.family} has no {program}" for program in sorted(missing)]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @cached_property
    def architecture(self) -> str:
        """Go's and OCI's name of this machine's processor."""
        return ARCHITECTURES.get(platform.machine(), platform.machine())

    def key(self, name: str) -> str:
        """Changes when a family's programs must be built anew: its inputs' digest."""
        family = self.families[name]
        sources = {path.name: path.read_text() for path in sorted(family.folder.iterdir())}
        spec = family.model_dump(exclude={"release"})
        return digest([self.go.version, self.architecture, spec, sources])

    def image_key(self, name: str) -> str:
        """Changes when an image must be made anew."""
        image = self.images[name]
        return digest([self.key(image.family), name, image.model_dump()])


def digest(value: object) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def load(path: Path = HERE / "manifest.yaml") -> Manifest:
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
