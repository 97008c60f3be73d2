"""The contents of a bundle: `manifest.yaml`."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bundle.errors import BundleError
from bundle.files import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent
MANIFEST = HERE / "manifest.yaml"
# Node.js and pnpm, pinned, which make pages.
NODE = HERE / "node"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Increase this when equal inputs give different bytes after a change of the code.
RECIPE = 1
# Fields that images without layers do not have.
OF_LAYERS = ("layer", "environment", "stop_signal")
# Fields of texts: no program is made of them.
TEXTS = ("manifests", "units")
TextKind = Literal["manifest", "unit"]
SUM = r"^h1:[A-Za-z0-9+/]{43}=$"
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


GoVersion = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]


class Go(Model):
    """The Go toolchains, pinned for reproducible builds: one for all programs, and others that a family names."""

    version: GoVersion
    sha256: dict[str, str] = Field(description="Of the module zip of golang.org/toolchain, by platform.")
    others: dict[GoVersion, dict[str, str]] = Field(default_factory=dict, description="The same, by version.")

    @property
    def all(self) -> dict[str, dict[str, str]]:
        """SHA-256 by version and platform."""
        return {self.version: self.sha256, **self.others}


class Debian(Model):
    """The Debian release whose packages are in images."""

    suite: Name
    python: Annotated[str, Field(pattern=r"^3\.\d+$", description="The version that it has.")]


class Release(Model):
    """URLs of a publisher's programs and their checksum.

    `{version}`, `{number}` (without the v), `{arch}` and `{program}` are filled in. Without `{program}` the address is
    that of a tar archive with all of them.
    """

    url: str
    checksum: str = Field(description="Address of a digest, or of lines of digest and file name.")


class Layer(Model):
    """A layer that images share: Debian packages, then Python packages, then files.

    The folder images/<name> may have `requirements.txt`, wheels with their hashes, and `files`, copied over all else.
    """

    base: Name | None = Field(default=None, description="The layer below.")
    packages: tuple[Name, ...] = Field(default=(), description="Debian packages.")
    code: tuple[str, ...] = Field(default=(), description="Folders of this repository that are Python packages.")
    without: tuple[str, ...] = Field(default=(), description="Paths that nothing needs; patterns.")


class Image(Model):
    """An OCI image: programs of its family on a stack of layers, on Debian packages or on nothing."""

    layer: Name | None = Field(default=None, description="The uppermost layer.")
    environment: dict[str, str] = Field(default_factory=dict)
    stop_signal: str | None = Field(default=None, description="Ends it, instead of SIGTERM.")
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
        if self.layer and (self.packages or self.overlay):
            raise ValueError("layer: it has packages and files by its layers")
        if (self.environment or self.stop_signal) and not self.layer:
            raise ValueError("environment, stop_signal: only an image of layers has them")
        return self


class Files(Model):
    """Texts as their publisher has them: files of a Go module of the family's version, one after the other."""

    module: str = Field(description="Path of the module.")
    sum: Annotated[str, Field(pattern=SUM, description="Of its zip, as in a go.sum.")]
    files: Annotated[tuple[str, ...], Field(min_length=1, description="Paths in the module, in the order they are in.")]


class Pages(Model):
    """Web pages that a program has in it, made by a program of its npm packages, which its pnpm-lock.yaml pins."""

    run: Annotated[tuple[str, ...], Field(min_length=1, description="Path of the program, and its arguments.")]
    environment: dict[str, str] = Field(default_factory=dict)
    licenses: str = Field(description="Where it writes which packages are in them, and under which licenses.")


class Source(Model):
    """A Go module that is built from a copy, by which go.mod replaces it: ./source. Paths are of the copy.

    A module whose go.mod has another name than its proxy can be built in no other way.
    """

    module: str = Field(description="Path of the module, whose version is the family's.")
    sum: Annotated[str, Field(pattern=SUM, description="Of its zip, as in a go.sum.")]
    without: tuple[str, ...] = Field(default=(), description="Files that cannot be built.")
    pages: Pages | None = None
    generate: tuple[tuple[str, ...], ...] = Field(default=(), description="Go files to run first, with arguments.")


class Family(Model):
    """What has one version: programs built from one Go module, the images made of them, manifests, systemd units."""

    version: Annotated[str, Field(pattern=r"^v\d+\.\d+\.\d+$")]
    group: Name = Field(
        default="cluster", description="What it is part of: `cluster`, `platform`, or a capability of it by its folder."
    )
    optional: bool = Field(default=False, description="Only had when asked for by name, or by a profile.")
    module: Name | None = Field(default=None, description="Folder of go.mod and go.sum below bundle/go.")
    go: GoVersion | None = Field(default=None, description="Its version of Go, where go.mod needs a newer one.")
    source: Source | None = Field(default=None, description="What go.mod replaces a module by.")
    tags: tuple[str, ...] = ()
    stamps: dict[str, str] = Field(default_factory=dict, description="Variables set at link time: the version stamps.")
    cgo: bool = Field(default=False, description="Has C in it: built with gcc, linked statically.")
    programs: dict[Name, str] = Field(default_factory=dict, description="Package of each program.")
    tests: dict[Name, str] = Field(default_factory=dict, description="Package of each test program.")
    images: dict[Name, Image] = Field(default_factory=dict)
    manifests: dict[Name, Files] = Field(default_factory=dict, description="Of Kubernetes objects.")
    units: dict[Name, Files] = Field(default_factory=dict, description="Of systemd, and files that add to one.")
    release: Release | None = None

    @property
    def folder(self) -> Path:
        """Where go.mod is."""
        return HERE / "go" / (self.module or "")

    @property
    def all_programs(self) -> list[str]:
        """Names of its programs."""
        return [*self.programs, *self.tests]

    @property
    def texts(self) -> Iterator[tuple[TextKind, str, Files]]:
        """Kind, name and source of each of its manifests and units."""
        yield from (("manifest", name, files) for name, files in self.manifests.items())
        yield from (("unit", name, files) for name, files in self.units.items())

    def words(self, architecture: str) -> dict[str, str]:
        """What stamps and addresses can name."""
        number = self.version.removeprefix("v")
        major, minor, _ = number.split(".")
        return {"version": self.version, "number": number, "major": major, "minor": minor, "arch": architecture}

    @model_validator(mode="after")
    def _names_meet(self) -> Family:
        errors = []
        if self.all_programs and not (self.module and (self.folder / "go.mod").exists()):
            errors.append(f"module: there is no go/{self.module}/go.mod")
        for name, image in self.images.items():
            missing = sorted(set(image.programs) - set(self.all_programs))
            errors += [f"images.{name}.programs: the family has no {program}" for program in missing]
        if errors:
            raise ValueError("; ".join(errors))
        return self


class Manifest(Model):
    """The whole of it."""

    go: Go
    debian: Debian
    layers: dict[Name, Layer] = Field(default_factory=dict)
    families: dict[Name, Family]

    @model_validator(mode="after")
    def _layers_meet(self) -> Manifest:
        known: set[str] = set()
        errors = []
        for name, layer in self.layers.items():
            if layer.base and layer.base not in known:
                errors.append(f"layers.{name}.base: there is no layer {layer.base} before it")
            errors += [f"layers.{name}.code: there is no {path}" for path in layer.code if not (ROOT / path).is_dir()]
            known.add(name)
        for family in self.families.values():
            for name, image in family.images.items():
                if image.layer and image.layer not in known:
                    errors.append(f"images.{name}.layer: there is no layer {image.layer}")
        for name, family in self.families.items():
            if family.go and family.go not in self.go.all:
                errors.append(f"families.{name}.go: go.others does not pin {family.go}")
        if errors:
            raise ValueError("; ".join(errors))
        return self

    def stack(self, layer: str | None) -> list[str]:
        """Names of a layer and of all below it, the lowest first."""
        return [*self.stack(self.layers[layer].base), layer] if layer else []

    def go_of(self, family: Family) -> str:
        """The version of Go that builds a family."""
        return family.go or self.go.version

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

    def text_path(self, family: str, kind: TextKind, name: str) -> str:
        """Where a manifest or a unit is in a bundle."""
        version = self.families[family].version
        return f"manifests/{name}_{version}.yaml" if kind == "manifest" else f"units/{version}/{name}"

    def paths(self, families: Iterable[str]) -> set[str]:
        """Where all artifacts of `families` are in a bundle."""
        found = set()
        for name in families:
            family = self.families[name]
            found |= {*self.program_paths(name), *(self.image_path(name, image) for image in family.images)}
            found |= {self.text_path(name, kind, one) for kind, one, _files in family.texts}
        return found

    def key(self, name: str) -> str:
        """Changes when a family's programs must be had anew: the digest of what they are made of."""
        family = self.families[name]
        sources = {path.name: path.read_text() for path in sorted(family.folder.glob("*")) if family.module}
        without = {"go", "group", "images", "optional", "release", *TEXTS, *(() if family.source else ("source",))}
        made_of = [family.model_dump(mode="json", exclude=without), sources]
        if family.source and family.source.pages:
            made_of.append({path.name: path.read_text() for path in sorted(NODE.iterdir())})
        return digest([RECIPE, self.go_of(family), self.architecture, *made_of])

    def text_key(self, family: str, name: str, files: Files) -> str:
        """Changes when a manifest or a unit must be had anew: the digest of where it is from."""
        return digest([RECIPE, name, self.families[family].version, files.model_dump(mode="json")])

    def image_key(self, name: str, image: str, programs: dict[str, str]) -> str:
        """Changes when an image must be made anew: the digest of its description and its programs' digests."""
        family = self.families[name]
        described = family.images[image]
        overlay = {
            str(path.relative_to(described.folder)): str(path.readlink()) if path.is_symlink() else path.read_text()
            for path in described.folder.rglob("*")
            if described.overlay and not path.is_dir()
        }
        about = described.model_dump(mode="json", exclude={one for one in OF_LAYERS if not getattr(described, one)})
        made_of: list[object] = [about, overlay, {name: programs[name] for name in described.programs}]
        made_of += [self.layer_key(layer) for layer in self.stack(described.layer)]
        return digest([RECIPE, image, family.version, self.architecture, self.debian.suite, *made_of])

    def layer_key(self, name: str) -> str:
        """Changes when a layer must be made anew, but for what is below it: the digest of what it is made of."""
        layer = self.layers[name]
        folders = [files_of(name), *(ROOT / path for path in layer.code)]
        paths = [requirements_of(name), *(path for folder in folders for path in sorted(folder.rglob("*")))]
        files = {
            str(path.relative_to(ROOT)): str(path.readlink()) if path.is_symlink() else sha256(path)
            for path in paths
            if path.is_symlink() or (path.is_file() and "__pycache__" not in path.parts)
        }
        return digest([layer.model_dump(mode="json"), files])


def requirements_of(layer: str) -> Path:
    """Where a layer's Python packages are named, if it has any."""
    return ROOT / "images" / layer / "requirements.txt"


def files_of(layer: str) -> Path:
    """Where a layer's own files are, if it has any."""
    return ROOT / "images" / layer / "files"


def digest(value: object) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def load(path: Path = MANIFEST) -> Manifest:
    """Read and check the manifest.

    Raises:
        BundleError: it cannot be read, or is not valid; lists all errors.
    """
    try:
        return Manifest.model_validate(YAML(typ="safe").load(path))
    except (OSError, YAMLError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        errors = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise BundleError(f"{path} is not valid:\n" + "\n".join(errors)) from error
