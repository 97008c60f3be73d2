"""Builds programs from Go modules, reproducibly: a pinned toolchain, no paths, no build ids, no C where possible."""

from __future__ import annotations

import os
import re
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.errors import BundleError
from bundle.files import emptied, exclusive
from bundle.modules import REACH, address, download
from bundle.processes import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bundle.manifest import Family, Go
    from bundle.processes import Tools

BUILD_INFO = b"\xff Go buildinf:"
"""What marks a program that Go made."""
# Linking the Kubernetes API server takes 2.7 GB (measured): so many compile or link steps at most run at once.
GIB_PER_JOB = 3
# Short-lived compilers need not collect garbage: a tenth less time. Links take more, and do near the limit.
COLLECTION = {"GOGC": "off", "GOMEMLIMIT": "2GiB"}
SECONDS_BETWEEN_REPORTS = 10


class Toolchain:
    """The versions of Go that the manifest names, kept below `cache`; Go's own caches are beside them."""

    def __init__(self, go: Go, architecture: str, cache: Path, tools: Tools) -> None:
        self._go = go
        self._platform = f"linux-{architecture}"
        self._cache = cache
        self._tools = tools

    def ensure(self, version: str | None = None) -> None:
        """Fetch a toolchain unless it is there. It comes as a module, from the proxy that GOPROXY names.

        Raises:
            BundleError: it cannot be fetched, or is not the pinned one.
        """
        with exclusive(self._cache):
            if not self._root(version).exists():
                self._fetch(version or self._go.version)

    def _root(self, version: str | None) -> Path:
        return self._cache / f"go{version or self._go.version}"

    def _fetch(self, version: str) -> None:
        if (expected := self._go.all[version].get(self._platform)) is None:
            raise BundleError(f"manifest.yaml pins no Go toolchain {version} for {self._platform}")
        name = f"v0.0.1-go{version}.{self._platform}"
        url = address("golang.org/toolchain", name)
        new = emptied(self._cache / "toolchain.new")
        archive = new / "archive.zip"
        try:
            found = download(url, archive)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"the Go toolchain could not be fetched from {url}: {error}",
                remedy=REACH,
            ) from error
        if found != expected:
            raise BundleError(f"the Go toolchain from {url} has SHA-256 {found}, but manifest.yaml has {expected}")
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(new)
        tree = new / f"golang.org/toolchain@{name}"
        for folder in (tree / "bin", tree / "pkg/tool"):
            for path in folder.rglob("*"):
                path.chmod(0o755)
        tree.rename(self._root(version))
        emptied(new).rmdir()

    def generate(self, family: Family, folder: Path, say: Callable[[str], None]) -> None:
        """Run the Go files that a family's source in `folder` is completed by.

        Raises:
            BundleError: one failed.
        """
        source = folder / "source"
        for file, *arguments in family.source.generate if family.source else ():
            say(f"{file} {' '.join(arguments)}")
            paths = [source / path for path in arguments]
            # Flags of the build: what both need is compiled once.
            self._run(family, folder, lambda _line: None, "run", "-trimpath", "-mod=readonly", source / file, *paths)

    def build(self, family: Family, folder: Path, target: Path, say: Callable[[str], None]) -> None:
        """Build a family's programs, whose go.mod is in `folder`, into the folder `target`; `say` hears how far it is.

        Raises:
            BundleError: a module cannot be had, is not the pinned one, or does not build.
        """
        flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", f"-p={jobs()}", f"-tags={','.join(family.tags)}"]
        flags += [f"-ldflags={linker_flags(family)}", "-v"]
        compiled = 0
        reported = time.monotonic()

        def count(line: str) -> None:
            nonlocal compiled, reported
            if not line.startswith("go: "):
                compiled += 1
                if time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
                    reported = time.monotonic()
                    say(f"the compiler, {compiled} packages so far")

        if family.programs:
            self._run(family, folder, count, "build", *flags, "-o", f"{target}/", *family.programs.values())
        for program, package in family.programs.items():
            (target / default_name(package, family)).rename(target / program)
        for program, package in family.tests.items():
            self._run(family, folder, count, "test", "-c", *flags, "-o", target / program, package)

    def modules(self, programs: Sequence[Path]) -> dict[Path, list[tuple[str, str]]]:
        """The Go modules in each program, with versions, as `go version -m` prints them; none for other programs.

        Raises:
            BundleError: the toolchain is not available.
        """
        found: dict[Path, list[tuple[str, str]]] = {program: [] for program in programs}
        programs = [program for program in programs if BUILD_INFO in program.read_bytes()]
        if not programs:
            return found
        self.ensure()
        modules: list[tuple[str, str]] = []

        def read(line: str) -> None:
            nonlocal modules
            match line.rstrip("\n").split("\t"):
                case [title] if name := title.rpartition(": ")[0]:
                    modules = found[Path(name)]
                case ["", "dep" | "mod", name, version, *_] if version != "(devel)":
                    modules.append((name, version))
                case ["", "=>", name, version, *_] if version != "(devel)":
                    modules[-1] = (name, version)

        self._tools.run(
            self._root(None) / "bin/go", "version", "-m", *programs, environment={"GOTOOLCHAIN": "local"}, on_line=read
        )
        return found

    def _run(self, family: Family, folder: Path, on_line: Callable[[str], None], *words: str | Path) -> None:
        root = self._root(family.go)
        environment = {
            "GOROOT": str(root),
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(self._cache / "build"),
            "GOMODCACHE": str(self._cache / "mod"),
            "GOFLAGS": "-modcacherw",
            "GOENV": "off",
            "GOWORK": "off",
            "CGO_ENABLED": "1" if family.cgo else "0",
            **COLLECTION,
        }
        self._tools.run(root / "bin/go", *words, cwd=folder, environment=environment, on_line=on_line)


def tools_of(family: Family, go: Go) -> dict[str, str]:
    """What makes a family's programs: equal tools give equal bytes."""
    tools = {"go": family.go or go.version}
    if family.cgo:
        tools["gcc"] = answer("gcc", "-dumpfullversion")
        tools["libseccomp"] = answer("pkg-config", "--modversion", "libseccomp")
    return tools


def default_name(package: str, family: Family) -> str:
    """What `go build` names a package's program: its last element that is not a major version."""
    if package == ".":
        return str(family.module)
    elements = package.split("/")
    return elements[-2] if re.fullmatch(r"v\d+", elements[-1]) else elements[-1]


def linker_flags(family: Family) -> str:
    """The version stamps; no debug information, no build id: equal inputs give equal bytes."""
    words = family.words("")
    stamps = [f"-X {variable}={value.format(**words)}" for variable, value in family.stamps.items()]
    return " ".join(["-s", "-w", "-buildid=", *(["-extldflags=-static"] if family.cgo else []), *stamps])


def jobs() -> int:
    """How many compile or link steps may run at once, by this machine's processors and free memory."""
    available = next(
        int(line.split()[1]) / 2**20
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    return max(1, min(os.cpu_count() or 1, int(available // GIB_PER_JOB)))
