"""A copy of `lab bundle` with a small manifest of its own, run as users run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bundle.debian import provide
from bundle.manifest import MANIFEST, load
from bundle.processes import Tools
from bundle.store import Inventory, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
ROOMS = (
    "ansible", "bundle", "cli", "devcloud", "engine", "images", "infra", "k8s", "kubeyaml", "models", "protocol",
    "providers", "services", "terminal",
)  # fmt: skip
PROGRAMS = {"bundle", "cli", "devcloud", "engine", "infra", "kubeyaml", "protocol", "providers", "terminal"}
CACHE = Path("~/.cache/ml-cluster").expanduser()
HELLO = """
families:
  hello:
    version: v1.2.3
    module: hello
    stamps: {main.version: "{version}"}
    programs: {hello: .}
    images:
      hello: {programs: [hello], user: 1000, tags: [latest]}
"""

CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: {address}}}
"""


@dataclass
class Copy:
    """The code at a path of its own, and a bundle that it fills."""

    tree: Path
    bundle: Path

    @property
    def architecture(self) -> str:
        return load().architecture

    @property
    def store(self) -> Store:
        return Store(self.bundle)

    @property
    def inventory(self) -> Inventory:
        return self.store.inventory()

    def manifest(self, families: str) -> None:
        """Have other families, on the real manifest's toolchain."""
        pins = re.split("^(?:layers|families):", MANIFEST.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
        (self.tree / "bundle/manifest.yaml").write_text(pins + families)

    def command(self, verb: str, *arguments: str | Path) -> list[str]:
        return [
            sys.executable, "-c", "from cli.app import main; main()", "bundle", verb, "--bundle", str(self.bundle),
            *map(str, arguments),
        ]  # fmt: skip

    def run(
        self, verb: str, *arguments: str | Path, env: Mapping[str, str] | None = None, umask: int = 0o022
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(verb, *arguments), cwd=self.tree, env={**os.environ, **(env or {})},
            check=False, capture_output=True, text=True, umask=umask,
        )  # fmt: skip

    def build(self, *arguments: str | Path, env: Mapping[str, str] | None = None, umask: int = 0o022) -> str:
        """Build, which must succeed."""
        done = self.run("build", *arguments, env=env, umask=umask)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def copy_code(folder: Path) -> Copy:
    tree = folder / "code"
    for room in ROOMS:
        # With what is compiled, where it is part of no image: else every test would compile it.
        ignored = None if room in PROGRAMS else shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, tree / room, symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "tests/bundle/hello", tree / "bundle/go/hello")
    (tree / "bundle/manifest.lock").unlink(missing_ok=True)
    copy = Copy(tree, folder / "bundle")
    copy.manifest(HELLO)
    return copy


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    provide(["buildah", "mmdebstrap", "skopeo"], Tools(), print)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return copy_code(tmp_path)


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Built once: tests take copies, as a bundle is the same wherever it is."""
    copy = copy_code(tmp_path_factory.mktemp("template"))
    copy.build()
    return copy


@pytest.fixture
def cold(tmp_path: Path, _template: Copy) -> Path:
    """A cache with the toolchain and modules, where nothing was compiled."""
    cache = tmp_path / "cold"
    (cache / "go").mkdir(parents=True)
    for path in (CACHE / "go").iterdir():
        if path.name != "build":
            (cache / "go" / path.name).symlink_to(path)
    return cache


@pytest.fixture
def built(tmp_path: Path, _template: Copy) -> Copy:
    made = Copy(tmp_path / "code", tmp_path / "bundle")
    shutil.copytree(_template.tree, made.tree, symlinks=True)
    shutil.copytree(_template.bundle, made.bundle, symlinks=True)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Its address. It is compiled the first time: a minute."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = copy_code(tmp_path / "registry")
    (code.tree / "bundle/manifest.yaml").write_text(MANIFEST.read_text())
    code.build("--only", "registry", "--no-releases")
    config = tmp_path / "registry.yml"
    config.write_text(CONFIG.format(folder=tmp_path / "storage", address=f"127.0.0.1:{port}"))
    server = subprocess.Popen(
        [code.bundle / load().program_path("registry", "registry"), "serve", config],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
    yield f"127.0.0.1:{port}"
    server.kill()
    server.wait()


def make_key(path: Path, algorithm: str = "ed25519") -> Path:
    """A key that signs images, as the documentation says."""
    command: list[str | Path] = ["openssl", "genpkey", "-quiet", "-algorithm", algorithm, "-out", path]
    subprocess.run(command, check=True)
    return path


def public_key(key: Path) -> str:
    """Its public half, as openssl prints it."""
    command: list[str | Path] = ["openssl", "pkey", "-in", key, "-pubout"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return "".join(lines[1:-1])


def unpack(image: Path, root: Path) -> None:
    """The tree of an image with one layer."""
    with tempfile.TemporaryDirectory() as scratch:
        name, _, version = image.stem.rpartition("_")
        reference = f"oci-archive:{image}:localhost/{name}:{version}"
        subprocess.run(["skopeo", "copy", "--quiet", "--dest-decompress", reference, f"dir:{scratch}/it"], check=True)
        [layer] = json.loads(Path(scratch, "it/manifest.json").read_text())["layers"]
        root.mkdir()
        file = f"{scratch}/it/{layer['digest'].removeprefix('sha256:')}"
        subprocess.run(["tar", "--extract", "--file", file, "--directory", root], check=True)
