"""Layers that images share: Debian packages, Python packages, files; every Python file compiled."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uv import find_uv_bin

from bundle import debian, images
from bundle.files import emptied, exclusive, write_atomically
from bundle.images import overlay
from bundle.manifest import RECIPE, ROOT, digest, files_of, requirements_of
from bundle.processes import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bundle.manifest import Manifest
    from bundle.processes import Tools

PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = "2_36"  # bookworm's
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
NO_USE_IN_PACKAGES = ("**/tests", "**/*.a", "**/*.pyi", "**/include")


@dataclass
class Layer:
    """A layer that was made: its tree, and the OCI layout that has it as its one layer, in a folder."""

    folder: Path
    base: Layer | None = None
    packages: dict[str, str] = field(default_factory=dict)
    wheels: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The tree."""
        return self.folder / "context/root"

    @property
    def layout(self) -> Path:
        """The OCI layout."""
        return self.folder / "oci"

    @property
    def stack(self) -> list[Layer]:
        """It and all below it, the lowest first."""
        return [*(self.base.stack if self.base else []), self]


class Layers:
    """Makes layers, each once: they stay in a cache, as long as what they are made of stays the same."""

    def __init__(self, manifest: Manifest, cache: Path, tools: Tools) -> None:
        self._manifest, self._cache, self._tools = manifest, cache, tools
        self._made: dict[str, Layer] = {}
        self._lock = threading.Lock()

    def stack(self, name: str, say: Callable[[str], None], *, renew: bool) -> list[Layer]:
        """The layer `name` and all below it, the lowest first; `renew` makes those of Debian packages anew.

        Raises:
            BundleError: their packages cannot be had, or are not the pinned ones.
        """
        with self._lock, exclusive(self._cache):
            below = None
            for one in self._manifest.stack(name):
                if one not in self._made:
                    self._made[one] = self._find(one, below, say, renew=renew)
                below = self._made[one]
            assert below
            return below.stack

    def _find(self, name: str, base: Layer | None, say: Callable[[str], None], *, renew: bool) -> Layer:
        below = base.folder.name if base else ""
        folder = self._cache / f"{name}-{digest([RECIPE, self._manifest.layer_key(name), below])[:16]}"
        record = folder / "layer.json"
        if not record.exists() or (renew and self._manifest.layers[name].packages):
            for old in self._cache.glob(f"{name}-{'[0-9a-f]' * 16}"):
                shutil.rmtree(old)
            made = self._make(name, Layer(folder=folder, base=base), say)
            write_atomically(record, json.dumps({"packages": made.packages, "wheels": made.wheels}))
        return Layer(folder=folder, base=base, **json.loads(record.read_text()))

    def _make(self, name: str, new: Layer, say: Callable[[str], None]) -> Layer:
        manifest, layer = self._manifest, self._manifest.layers[name]
        root = new.root
        emptied(root.parent)
        if layer.packages:
            say(f"Debian packages: {', '.join(layer.packages)}")
            new.packages = debian.extract(layer.packages, manifest.debian.suite, root, self._tools)
            for below in new.stack[:-1]:
                _subtract(below.root, root)
        modules = root / f"usr/local/lib/python{manifest.debian.python}/dist-packages"
        modules.mkdir(parents=True)
        if (requirements := requirements_of(name)).exists():
            say("Python packages")
            _install(requirements, modules, manifest, self._tools)
            new.wheels = dict(PINNED.findall(requirements.read_text()))
        for folder in layer.code:
            code = modules / _imported_as(folder)
            code.mkdir(parents=True)
            overlay(ROOT / folder, code)
        if (files := files_of(name)).is_dir():
            overlay(files, root)
        _remove(root, layer.without)
        say("compiling Python")
        _compile(new, manifest, self._tools)
        say(f"buildah: layer {name}")
        images.layer(new.folder, self._tools)
        return new


def _imported_as(folder: str) -> Path:
    """Where a package lies among others: below those that it is a package of."""
    path = Path(folder)
    while (ROOT / path.parent / "__init__.py").exists():
        path = path.parent
    return Path(folder).relative_to(path.parent)


def tools_of() -> dict[str, str]:
    """What makes a layer: equal tools give equal bytes."""
    return {"uv": answer(find_uv_bin(), "--version").split()[1]}


def _install(requirements: Path, modules: Path, manifest: Manifest, tools: Tools) -> None:
    """Unpack wheels, their programs too; none of their code runs."""
    programs = modules.parents[2] / "bin"
    tools.run(
        find_uv_bin(), "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:",
        "--link-mode=copy", "--no-compile-bytecode", f"--python-version={manifest.debian.python}",
        f"--python-platform={platform(manifest)}", "--target", modules, "--requirement", requirements,
    )  # fmt: skip
    _remove(modules, NO_USE_IN_PACKAGES)
    for record in modules.glob("*.dist-info/RECORD"):
        # A program's checksum is that of its first line too, which names the Python of the machine that unpacked it.
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not line.startswith(("bin/", "../"))))
    for leftover in (modules / ".lock", modules / "CACHEDIR.TAG"):
        leftover.unlink(missing_ok=True)
    if (modules / "bin").is_dir():
        programs.mkdir(parents=True)
        for path in sorted((modules / "bin").iterdir()):
            content = path.read_bytes()
            if content.startswith(b"#!"):
                content = b"#!/usr/bin/python3\n" + content.partition(b"\n")[2]
            (programs / path.name).write_bytes(content)
            (programs / path.name).chmod(0o755)
        shutil.rmtree(modules / "bin")


def _remove(root: Path, patterns: Sequence[str]) -> None:
    for path in [path for pattern in patterns for path in root.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _subtract(below: Path, root: Path) -> None:
    """Drop from a tree what a tree below it has."""
    for path in root.rglob("*"):
        same = below / path.relative_to(root)
        if path.is_symlink():
            if same.is_symlink() and same.readlink() == path.readlink():
                path.unlink()
        elif path.is_file() and same.is_file() and filecmp.cmp(path, same, shallow=False):
            path.unlink()


def _compile(layer: Layer, manifest: Manifest, tools: Tools) -> None:
    """Compile Python files by their own Python, as nothing can write in a running image."""
    version = f"python{manifest.debian.python}"
    if not (pythons := _paths(layer, f"usr/bin/{version}")):
        return
    [python] = pythons
    folders = [
        folder
        for path in (f"usr/lib/{version}", "usr/lib/python3/dist-packages", f"usr/local/lib/{version}/dist-packages")
        if (folder := layer.root / path).is_dir()
    ]
    # One file after the other, in the order of their names and with one seed: so are they the same each time.
    tools.run(
        _paths(layer, "lib64/ld-linux-*", "lib/ld-linux-*")[0], "--library-path",
        ":".join(map(str, _paths(layer, "lib/*-linux-gnu", "usr/lib/*-linux-gnu"))), python, "-S", "-m", "compileall",
        "-q", "-j1", "-s", layer.root, "-p", "/", "--invalidation-mode=unchecked-hash", *folders,
        environment={"PYTHONHOME": str(python.parents[1]), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def _paths(layer: Layer, *patterns: str) -> list[Path]:
    """Paths in a layer's tree and in those below it."""
    return [path for one in layer.stack for pattern in patterns for path in sorted(one.root.glob(pattern))]


def resolve(manifest: Manifest, tools: Tools, say: Callable[[str], None]) -> None:
    """Write each layer's requirements.txt from its requirements.in, without what layers below it have.

    Versions that are there and still fit stay. The file `excludes.txt` names what the layer does without, though one
    of its packages asks for it.

    Raises:
        BundleError: the requirements contradict each other, or something has no wheel.
    """
    for name, layer in manifest.layers.items():
        wanted, excludes = requirements_of(name).with_suffix(".in"), requirements_of(name).with_name("excludes.txt")
        if not wanted.exists():
            continue
        say(f"layer {name}")
        below = [requirements_of(one) for one in manifest.stack(layer.base) if requirements_of(one).exists()]
        tools.run(
            find_uv_bin(), "pip", "compile", "--quiet", "--generate-hashes", "--only-binary=:all:", "--no-annotate",
            "--no-header", f"--python-version={manifest.debian.python}", f"--python-platform={platform(manifest)}",
            *(f"--constraints={path}" for path in below),
            *(f"--no-emit-package={one}" for path in below for one, _ in PINNED.findall(path.read_text())),
            *([f"--excludes={excludes}"] if excludes.exists() else []),
            "--output-file", requirements_of(name), wanted,
        )  # fmt: skip


def platform(manifest: Manifest) -> str:
    """uv's name of the platform that images are for."""
    return f"{PLATFORMS[manifest.architecture]}-manylinux_{GLIBC}"
