"""The first start on a fresh clone. The slowest tests of this folder: each fills a virtual environment.

Packages come from uv's cache where they are in it; only uv itself, 20 MB, is fetched anew each time.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.harness import ROOT

PATIENCE_SECONDS = 300


class Clone:
    """The repository's tracked files, in a folder of their own, without a virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, tracked.split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.root / name)
        cache = os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv"
        self.env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "UV_CACHE_DIR": str(cache)}
        self.env.pop("VIRTUAL_ENV", None)

    def start(self, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "lab", "--help"],
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, status: int = 0, **env: str) -> str:
        """Start `lab --help`; what it says on standard error."""
        return self.end(self.start(**env), status)

    @staticmethod
    def end(process: subprocess.Popen[str], status: int = 0) -> str:
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == status, stderr
        assert ("Usage: lab" in stdout) is (status == 0)
        assert "Traceback" not in stderr
        return stderr


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_a_fresh_clone_gets_its_environment_once(clone: Clone) -> None:
    output = clone.run()
    for stage in ("first start", "downloading uv", "installing the locked packages", "ready after"):
        assert stage in output
    assert clone.run() == ""

    with (clone.root / "uv.lock").open("a") as lock:
        lock.write("\n")
    assert "uv.lock has changed: updating .venv" in clone.run()
    assert clone.run() == ""

    (clone.root / ".venv" / "bin" / "python").unlink()
    assert ".venv is broken: creating it again" in clone.run()


def test_a_start_that_was_killed_is_repaired_by_two_at_once(clone: Clone) -> None:
    process = clone.start()
    assert process.stderr is not None
    while "installing" not in process.stderr.readline():
        assert process.poll() is None
    packages = clone.root / ".venv" / "lib"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(packages.glob("*/site-packages/*.dist-info")):
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    output = [Clone.end(each) for each in [clone.start(), clone.start()]]
    assert sum("waiting for another start" in each for each in output) == 1
    assert sum("ready after" in each for each in output) == 1
    assert clone.run() == ""


def test_a_missing_network_is_reported_with_a_remedy(clone: Clone) -> None:
    folders = os.pathsep.join(
        folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "uv").exists()
    )
    output = clone.run(status=1, https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9", PATH=folders)
    assert "error: cannot download https://" in output
    assert "remedy: check the network" in output


def test_a_uv_that_is_not_the_locked_one_is_refused(clone: Clone) -> None:
    lock = clone.root / "uv.lock"
    before, package = lock.read_text().split('name = "uv"\n')
    lock.write_text(before + 'name = "uv"\n' + package.replace("sha256:", "sha256:0", 30))
    assert "does not have the checksum in uv.lock" in clone.run(status=1)
    assert not list((clone.root.parent / "cache").glob("ml-cluster/uv-*"))


def test_a_machine_without_python_is_refused(clone: Clone, tmp_path: Path) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for tool in ("sh", "dirname", "readlink", "cmp"):
        (binaries / tool).symlink_to(str(shutil.which(tool)))
    output = clone.run(status=1, PATH=str(binaries), HOME=str(tmp_path))
    assert "lab needs Python 3.11 or newer" in output
