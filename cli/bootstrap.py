"""Creates the virtual environment of the `lab` command from uv.lock. Run by ./lab; uses only the standard library.

The lock file pins uv too: its wheel is downloaded, verified against the locked SHA-256 and cached, so neither pip nor
venv must be installed. A copy of uv.lock in .venv, written last, marks the environment as complete; an environment
without it is created again. Concurrent starts wait for the first one.
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
    """Path of the pinned uv, from the cache or downloaded; if that fails, of uv on PATH."""
    package = next(p for p in tomllib.loads(LOCK.read_text())["package"] if p["name"] == "uv")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-cluster"
    uv = cache / f"uv-{package['version']}"
    if uv.exists():
        return uv
    system = "macosx" if sys.platform == "darwin" else "musllinux"  # the musl build is static: it runs on any Linux
    pattern = re.compile(rf"{system}_\d+_\d+_{platform.machine()}\.whl$")
    wheel = next((w for w in package["wheels"] if pattern.search(w["url"])), None)
    if wheel is None:
        raise fail(
            f"uv is not available for {sys.platform} on {platform.machine()}", "use Linux or macOS, x86-64 or arm64"
        )
    say(f"downloading uv {package['version']} ({wheel['size'] / 1e6:.0f} MB)")
    try:
        with urllib.request.urlopen(wheel["url"], timeout=60) as response:  # noqa: S310 - the URL is in the lock file
            content = response.read()
    except (urllib.error.URLError, TimeoutError) as error:
        if on_path := shutil.which("uv"):
            say(f"{wheel['url']} cannot be reached; using {on_path}")
            return Path(on_path)
        raise fail(f"cannot download {wheel['url']}: {error}", "check the network, or put uv on PATH") from None
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != wheel["hash"]:
        raise fail(f"{wheel['url']} does not have the checksum in uv.lock", "check whether a proxy changes files")
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
    """Create or update .venv from uv.lock.

    Raises:
        SystemExit: uv cannot be downloaded, or fails; the message has been printed.
    """
    start = time.monotonic()
    python = VENV / "bin" / "python"
    if not VENV.exists():
        say("first start: creating .venv from uv.lock (once, under a minute)")
    elif not os.access(VENV, os.W_OK):
        raise fail(f"{VENV} belongs to another user", "use your own clone, or run lab as its owner")
    elif not runs(python):
        say(".venv is broken: creating it again")
        shutil.rmtree(VENV)
    elif STAMP.exists():
        say("uv.lock has changed: updating .venv")
        STAMP.unlink()
    else:
        say(".venv is incomplete: creating it again")
        shutil.rmtree(VENV)  # files may be incomplete after a killed start
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
        say("interrupted; the next start continues")
        raise SystemExit(130) from None
    if status != 0:
        raise fail("the virtual environment could not be created", "see uv's message above, then run the command again")
    unfinished = STAMP.with_suffix(".tmp")
    shutil.copyfile(LOCK, unfinished)
    unfinished.rename(STAMP)
    say(f"ready after {time.monotonic() - start:.0f} s")


def main() -> None:
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another start that is creating .venv")
        fcntl.flock(directory, fcntl.LOCK_EX)
    if not (runs(VENV / "bin" / "python") and STAMP.exists() and STAMP.read_bytes() == LOCK.read_bytes()):
        sync()


if __name__ == "__main__":
    main()
