"""Builds programs from Go modules, reproducibly: a pinned toolchain, no paths, no build ids, no C where possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.errors import BundleError
from bundle.store import sha256

if TYPE_CHECKING:
    from bundle.manifest import Family, Manifest

PROXY = "https://proxy.golang.org"
# Linking the Kubernetes API server takes 2.7 GB (measured); so many links at most run at once.
GIB_PER_JOB = 3


class Toolchain:
    """The Go that the manifest names, kept below `cache`; Go's own caches are beside it."""

    def __init__(self, manifest: Manifest, cache: Path) -> None:
        self._go = manifest.go
        self._platform = f"linux-{manifest.architecture}"
        self._cache = cache
        self._root = cache / f"go{self._go.version}"

    def ensure(self) -> None:
        """Fetch the toolchain unless it is there. It comes as a module, from the proxy that GOPROXY names.

        Raises:
            BundleError: it cannot be fetched, or is not the pinned one.
        """
        if (self._root / "bin/go").exists():
            return
        expected = self._go.sha256.get(self._platform)
        if expected is None:
            raise BundleError(f"manifest.yaml pins no Go toolchain for {self._platform}")
        self._cache.mkdir(parents=True, exist_ok=True)
        name = f"v0.0.1-go{self._go.version}.{self._platform}"
        proxy = os.environ.get("GOPROXY", PROXY).replace("|", ",").split(",")[0]
        url = f"{proxy.rstrip('/')}/golang.org/toolchain/@v/{name}.zip"
        archive = self._cache / f"{name}.zip"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer, archive.open("wb") as file:  # noqa: S310
                shutil.copyfileobj(answer, file)
        except (OSError, ValueError) as error:
            raise BundleError(f"the Go toolchain could not be fetched from {url}: {error}") from error
        if (found := sha256(archive)) != expected:
            archive.unlink()
            raise BundleError(f"the Go toolchain from {url} has SHA-256 {found}; manifest.yaml pins {expected}")
        new = self._root.with_name(self._root.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(new)
        tree = new / "golang.org" / f"toolchain@{name}"
        for folder in (tree / "bin", tree / "pkg/tool"):
            for path in folder.rglob("*"):
                path.chmod(0o755)
        tree.rename(self._root)
        shutil.rmtree(new)
        archive.unlink()

    def download(self, family: Family) -> None:
        """Fetch a family's modules, checked against its go.sum.

        Raises:
            BundleError: a module cannot be had, or is not the pinned one.
        """
        self._run(["mod", "download"], family, self._cache)

    def build(self, family: Family, target: Path) -> None:
        """Build a family's programs into the new folder `target`.

        Raises:
            BundleError: a build failed.
        """
        new = target.with_name(target.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", f"-p={jobs()}", f"-tags={','.join(family.tags)}"]
        flags += [f"-ldflags={family.linker_flags}"]
        for program, package in family.programs.items():
            self._run(["build", *flags, "-o", str(new / program), package], family, self._cache)
        new.rename(target)

    def modules(self, program: Path) -> list[tuple[str, str]]:
        """The modules in a program, with versions, as the program itself tells."""
        done = subprocess.run(
            [self._root / "bin/go", "version", "-m", program], check=True, capture_output=True, text=True
        )
        rows = [line.strip().split("\t") for line in done.stdout.splitlines()[1:]]
        found: list[tuple[str, str]] = []
        for kind, *row in rows:
            if kind in {"dep", "mod"} and row[1] != "(devel)":
                found.append((row[0], row[1]))
            elif kind == "=>":
                found[-1] = (row[0], row[1])
        return found

    def _run(self, words: list[str], family: Family, cache: Path) -> None:
        environment = {
            **os.environ,
            "GOROOT": str(self._root),
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(cache / "build"),
            "GOMODCACHE": str(cache / "mod"),
            "GOFLAGS": "",
            "GOENV": "off",
            "GOWORK": "off",
            "CGO_ENABLED": "1" if family.cgo else "0",
        }
        done = subprocess.run(
            [self._root / "bin/go", *words],
            check=False, capture_output=True, text=True, cwd=family.folder, env=environment,
        )  # fmt: skip
        if done.returncode:
            said = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise BundleError(f"go {words[0]} {family.module} failed:\n{said}")


def jobs() -> int:
    """How many compile or link steps may run at once, by this machine's processors and free memory."""
    available = next(
        int(line.split()[1]) / 2**20
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    return max(1, min(os.cpu_count() or 1, int(available // GIB_PER_JOB)))
