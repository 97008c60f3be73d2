"""Layers that images share: Debian packages, Python packages, files; every Python file compiled."""

from __future__ import annotations

import filecmp
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uv import find_uv_bin

from bundle import debian
from bundle.images import overlay
from bundle.manifest import ROOT, files_of, requirements_of
from bundle.processes import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bundle.manifest import Manifest
    from bundle.processes import Tools

PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = "2_36"  # bookworm's
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
NO_USE_IN_PACKAGES = ("**/tests", "**/*.a", "**/*.pyi", "**/include")


@dataclass
class Tree:
    """What a layer has, and what it stands on."""

    root: Path
    base: Tree | None = None
    packages: dict[str, str] = field(default_factory=dict)
    wheels: dict[str, str] = field(default_factory=dict)

    @property
    def stack(self) -> list[Tree]:
        """It and all below it, the lowest first."""
        return [*(self.base.stack if self.base else []), self]


def tools_of() -> dict[str, str]:
    """What makes a layer: equal tools give equal bytes."""
    return {"uv": answer(find_uv_bin(), "--version").split()[1]}


def unpack(
    name: str, base: Tree | None, manifest: Manifest, *, root: Path, tools: Tools, say: Callable[[str], None]
) -> Tree:
    """Make the tree of the layer `name` in the new folder `root`.

    Raises:
        BundleError: its packages cannot be had, or are not the pinned ones.
    """
    layer, requirements, files = manifest.layers[name], requirements_of(name), files_of(name)
    root.parent.mkdir(parents=True, exist_ok=True)
    tree = Tree(root, base)
    if layer.packages:
        say(f"Debian packages: {', '.join(layer.packages)}")
        tree.packages = debian.extract(layer.packages, manifest.debian.suite, root, tools)
        for below in tree.stack[:-1]:
            _subtract(below.root, root)
    modules = root / f"usr/local/lib/python{manifest.debian.python}/dist-packages"
    modules.mkdir(parents=True)
    if requirements.exists():
        say("Python packages")
        _install(requirements, modules, manifest, tools)
        tree.wheels = dict(PINNED.findall(requirements.read_text()))
    for folder in layer.code:
        code = modules / folder.rpartition("/")[2]
        code.mkdir()
        overlay(ROOT / folder, code)
    if files.is_dir():
        overlay(files, root)
    _remove(root, layer.without)
    say("compiling Python")
    _compile(tree, manifest, tools)
    return tree


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


def _compile(tree: Tree, manifest: Manifest, tools: Tools) -> None:
    """Compile Python files by the tree's own Python, as nothing can write in a running image."""
    version = f"python{manifest.debian.python}"
    if not (pythons := _find(tree, f"usr/bin/{version}")):
        return
    [python] = pythons
    folders = [
        folder
        for path in (f"usr/lib/{version}", "usr/lib/python3/dist-packages", f"usr/local/lib/{version}/dist-packages")
        if (folder := tree.root / path).is_dir()
    ]
    # One file after the other, in the order of their names and with one seed: so are they the same each time.
    tools.run(
        _find(tree, "lib64/ld-linux-*", "lib/ld-linux-*")[0], "--library-path",
        ":".join(map(str, _find(tree, "lib/*-linux-gnu", "usr/lib/*-linux-gnu"))), python, "-S", "-m", "compileall",
        "-q", "-j1", "-s", tree.root, "-p", "/", "--invalidation-mode=unchecked-hash", *folders,
        environment={"PYTHONHOME": str(python.parents[1]), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def _find(tree: Tree, *patterns: str) -> list[Path]:
    """Paths in a tree and in those below it."""
    return [path for one in tree.stack for pattern in patterns for path in sorted(one.root.glob(pattern))]


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
