"""Makes the virtual environment of the `lab` command from uv.lock. Run by ./lab, with the standard library alone.

The lock file pins uv too: its wheel is fetched, checked against the locked SHA-256 and kept in the user's cache, so
neither pip nor venv has to be installed. A copy of uv.lock in .venv, written last, says that the environment is
complete; one without it is taken for half-made and is made anew. Concurrent starts wait for the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "uv.lock"
VENV = ROOT / ".venv"
STAMP = VENV / ".uv.lock"
HEARTBEAT_SECONDS = 5


def say(message: str) -> None:
    print(f"lab: {message}", file=sys.stderr, flush=True)


def fail(message: str, remedy: str) -> SystemExit:
    print(f"error: {message}\n  remedy: {remedy}", file=sys.stderr)
    return SystemExit(1)


def find_uv() -> Path:
    """The uv that the lock file pins: from the cache, or fetched; the one on PATH where it cannot be fetched."""
    package = next(p for p in tomllib.loads(LOCK.read_text())["package"] if p["name"] == "uv")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-cluster"
    uv = cache / f"uv-{package['version']}"
    if uv.exists():
        return uv
    system = "macosx" if sys.platform == "darwin" else "musllinux"  # the musl build is static: it runs on any Linux
    pattern = re.compile(rf"{system}_\d+_\d+_{platform.machine()}\.whl$")
    wheel = next((w for w in package["wheels"] if pattern.search(w["url"])), None)
    if wheel is None:
        raise fail(f"there is no uv for {sys.platform} on {platform.machine()}", "use Linux or macOS, x86-64 or arm64")
    say(f"fetching uv {package['version']} ({wheel['size'] / 1e6:.0f} MB)")
    try:
        with urllib.request.urlopen(wheel["url"], timeout=60) as response:  # noqa: S310 - the URL is in the lock file
            content = response.read()
    except (urllib.error.URLError, TimeoutError) as error:
        if on_path := shutil.which("uv"):
            say(f"{wheel['url']} cannot be reached; using {on_path}")
            return Path(on_path)
        raise fail(f"cannot fetch {wheel['url']}: {error}", "check the network, or put uv on PATH") from None
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != wheel["hash"]:
        raise fail(
            f"{wheel['url']} is not the file that uv.lock pins", "check the network for a proxy that alters files"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive, tempfile.NamedTemporaryFile(dir=cache, delete=False) as file:
        file.write(archive.read(next(name for name in archive.namelist() if name.endswith("/scripts/uv"))))
    Path(file.name).chmod(0o755)
    return Path(file.name).rename(uv)


def runs(python: Path) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def sync() -> None:
    """Make .venv what uv.lock says.

    Raises:
        SystemExit: with a message, where uv cannot be had or fails.
    """
    start = time.monotonic()
    python = VENV / "bin" / "python"
    if not VENV.exists():
        say("first start: making .venv from uv.lock (once, under a minute)")
    elif not os.access(VENV, os.W_OK):
        raise fail(
            f"{VENV} is another user's, and cannot be used", "use a checkout of your own, or run lab as its owner"
        )
    elif not runs(python):
        say(".venv is broken: making it anew")
        shutil.rmtree(VENV)
    elif STAMP.exists():
        say("uv.lock has changed: updating .venv")
        STAMP.unlink()
    else:
        say(".venv is unfinished: making it anew")
        shutil.rmtree(VENV)  # a repair would read files that the killed start may have left half-written
    base = python if VENV.exists() else Path(getattr(sys, "_base_executable", sys.executable))
    uv = find_uv()
    say("installing the locked packages")
    environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    environment |= {"UV_PROJECT_ENVIRONMENT": str(VENV), "UV_PYTHON_DOWNLOADS": "never"}
    process = subprocess.Popen(
        [uv, "sync", "--frozen", "--quiet", "--project", ROOT, "--python", base], env=environment
    )
    try:
        while True:
            try:
                status = process.wait(HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"installing the locked packages: {time.monotonic() - start:.0f} s")
    except KeyboardInterrupt:
        process.wait()
        say("interrupted; the next start goes on from here")
        raise SystemExit(130) from None
    if status != 0:
        raise fail("the virtual environment could not be made", "see uv's message above, then run the command again")
    unfinished = STAMP.with_suffix(".tmp")
    shutil.copyfile(LOCK, unfinished)
    unfinished.rename(STAMP)
    say(f"ready after {time.monotonic() - start:.0f} s")


def main() -> None:
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another start that is making .venv")
        fcntl.flock(directory, fcntl.LOCK_EX)
    if not (runs(VENV / "bin" / "python") and STAMP.exists() and STAMP.read_bytes() == LOCK.read_bytes()):
        sync()


if __name__ == "__main__":
    main()
