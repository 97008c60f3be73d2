"""A computer outside the cluster: it knows the services by name, trusts the stack's authority, runs real clients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uv import find_uv_bin

from bundle.debian import APT
from bundle.files import exclusive
from tests.e2e.harness import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.workloads import Platform

CLIENTS = Path(__file__).parent / "clients"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-cluster" / "clients"
HOSTS = ("", "tracking.", "artifacts.", "digits.", "digits-staging.")
# Debian's packages, and what shows that one is installed.
BROWSER = {
    "chromium": "/usr/bin/chromium",
    "libnss3-tools": "/usr/bin/certutil",
    "fonts-inter": "/usr/share/fonts/opentype/inter",
}
CHROMIUM = BROWSER["chromium"]


class Outside:
    """Runs programs as they are, in a mount namespace in which /etc/hosts has the platform's names."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.authority = folder / "ca.crt"
        self.authority.write_text(platform.authority)
        self._hosts = folder / "hosts"
        names = " ".join(f"{host}{platform.domain}" for host in HOSTS)
        self._hosts.write_text(f"127.0.0.1 localhost\n{platform.address} {names}\n")

    def run(
        self, *command: str | Path, text: str = "", environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command, which must succeed; nothing of this process' environment reaches it."""
        trust = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
        given = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": f"{CACHE}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **dict.fromkeys(trust, str(self.authority)),
            # They would tell their makers of each run.
            "DO_NOT_TRACK": "true",
            "DVC_NO_ANALYTICS": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **(environment or {}),
        }
        within = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(self._hosts)]
        done = subprocess.run(
            [*within, *command], input=text, env=given, cwd=folder or self.home, capture_output=True, text=True,
            check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout[-4000:], done.stderr[-8000:])
        return done

    def python(
        self, program: str, *arguments: str, text: str = "", environment: Mapping[str, str] | None = None
    ) -> str:
        """What a program of clients/ prints."""
        python = CACHE / "bin" / "python"
        return self.run(python, CLIENTS / program, *arguments, text=text, environment=environment).stdout


def provide_clients() -> None:
    """Make the virtual environment of the clients what their lock says; it is kept for the next run."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(
        [find_uv_bin(), "sync", "--frozen", "--quiet", "--project", CLIENTS, "--python", sys.executable],
        env={**environment, "UV_PROJECT_ENVIRONMENT": str(CACHE)}, check=True,
    )  # fmt: skip


def provide_browser() -> None:
    """Install Debian's Chromium, and what it takes to trust an authority."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with exclusive(APT):
        if lacking := [name for name, path in BROWSER.items() if not Path(path).exists()]:
            for command in (["update"], ["install", "--yes", "--no-install-recommends", *lacking]):
                options = ["-o", "DPkg::Lock::Timeout=300"]
                subprocess.run(["apt-get", "--quiet", *command, *options], env=environment, check=True)
