"""Debian packages: those in images, and those that making a bundle takes on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from bundle.errors import BundleError
from bundle.files import exclusive
from bundle.processes import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bundle.processes import Tools

# What shows that a package is installed: a program on PATH, or a file.
NEEDS = {
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "libseccomp-dev": "/usr/include/seccomp.h",
    "libc6-dev": "/usr/include/stdio.h",
}
APT = Path("/var/lib/apt")
NO_USE_IN_IMAGES = (
    "dev", "etc/apt", "usr/share/bug", "usr/share/doc", "usr/share/lintian", "usr/share/locale", "usr/share/man",
    "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log",
)  # fmt: skip


def missing(packages: Iterable[str]) -> list[str]:
    """Which of `packages` this machine lacks."""
    return [name for name in packages if not (shutil.which(NEEDS[name]) or Path("/", NEEDS[name]).exists())]


def provide(packages: Sequence[str], tools: Tools, say: Callable[[str], None]) -> None:
    """Install what this machine lacks, as root on Debian or Ubuntu.

    Raises:
        BundleError: it cannot be installed; all packages are named.
    """
    if not (lacking := missing(packages)):
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *lacking]
    if os.geteuid() or not shutil.which("apt-get"):
        raise BundleError(f"this machine lacks {', '.join(lacking)}", remedy=f"as root: {' '.join(install)}")
    say(" ".join(install))
    with exclusive(APT):
        if missing(packages):
            for command in (["apt-get", "update"], install):
                tools.run(*command, "-o", "DPkg::Lock::Timeout=300", environment={"DEBIAN_FRONTEND": "noninteractive"})


def extract(packages: Iterable[str], suite: str, root: Path, tools: Tools) -> dict[str, str]:
    """Unpack Debian packages and what they depend on to the new folder `root`; none of their scripts run.

    Returns:
        The version of each package.

    Raises:
        BundleError: they cannot be had.
    """
    tools.run(
        "mmdebstrap", "--quiet", "--variant=extract", "--skip=cleanup/apt", f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"', suite, root,
    )  # fmt: skip
    controls = {}
    for archive in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        name, version, _ = archive.name.split("_")
        controls[name, unquote(version)] = answer("dpkg-deb", "--field", str(archive))
    for path in NO_USE_IN_IMAGES:
        shutil.rmtree(root / path, ignore_errors=True)
    # Where scanners look for the packages of an image that has no dpkg.
    folder = root / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    for (name, _), control in controls.items():
        (folder / name).write_text(f"{control}\n")
    return dict(controls.keys())
