"""The Debian tree that devcloud's services run in. Nothing is installed on the machine itself, nothing in /etc changes.

OpenStack Zed is Debian 12's release; the tree is Debian 12 whatever the machine runs. Blazar is not in Debian: it comes
from PyPI with its own libraries, as it talks to the other services over HTTP only. Nova's scheduler filter for it is
plain Python without dependencies.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from devcloud.processes import execute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devcloud.layout import Layout

SUITE = "bookworm"
BLAZAR_LOCK = Path(__file__).with_name("blazar.txt")
BLAZAR_NOVA = "blazar-nova==10.0.0"
PACKAGES = [
    "mariadb-server",
    "rabbitmq-server",
    "memcached",
    "uwsgi-core",
    "uwsgi-plugin-python3",
    "python3-pymysql",
    "python3-memcache",
    "keystone",
    "glance-api",
    "placement-api",
    "nova-api",
    "nova-conductor",
    "nova-scheduler",
    "nova-compute",
    "neutron-server",
    "neutron-linuxbridge-agent",
    "neutron-dhcp-agent",
    "neutron-l3-agent",
    "neutron-metadata-agent",
    "cinder-api",
    "cinder-scheduler",
    "cinder-volume",
    "libvirt-daemon",
    "libvirt-daemon-driver-lxc",
    "libvirt-clients",
    "libvirt-daemon-system",
    "qemu-utils",
    "bridge-utils",
    "ebtables",
    "ipset",
    "iptables",
    "conntrack",
    "iproute2",
    "dnsmasq-base",
    "dnsmasq-utils",
    "dmidecode",
    "genisoimage",  # a config drive
    "sudo",
    "e2fsprogs",
]
SLIM = (
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"',
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)

# One process compiles all Python modules at the end: one process per package takes longer.
BYTECODE = (
    '--essential-hook=chroot "$1" dpkg-divert --quiet --local --rename --add /usr/bin/py3compile',
    '--essential-hook=ln -s true "$1/usr/bin/py3compile"',
    '--customize-hook=rm "$1/usr/bin/py3compile"',
    '--customize-hook=chroot "$1" dpkg-divert --quiet --local --rename --remove /usr/bin/py3compile',
    '--customize-hook=chroot "$1" python3 -m compileall -q -j 0 /usr/lib/python3/dist-packages',
)


def fingerprint() -> str:
    """Changes when the tree must be created again."""
    pins = [line for line in BLAZAR_LOCK.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = " ".join([SUITE, *PACKAGES, BLAZAR_NOVA, *pins])
    return hashlib.sha256(text.encode()).hexdigest()


def is_ready(layout: Layout) -> bool:
    """Whether the tree exists and is up to date."""
    stamp = layout.root / "etc/devcloud-tree"
    return stamp.exists() and stamp.read_text() == fingerprint()


def make(layout: Layout, say: Callable[[str], None]) -> None:
    """Create the tree, and pass progress to `say`. An unfinished tree of an interrupted run is deleted.

    Raises:
        DevcloudError: a tool is missing, or a package source cannot be reached.
    """
    new, python = layout.state / "root.new", layout.state / "python.new"
    for folder in (new, python):
        shutil.rmtree(folder, ignore_errors=True)
    with ThreadPoolExecutor(max_workers=1) as pool:
        installed = pool.submit(install_python, python, layout.log / "pip.log")
        say(f"Debian packages, some 200 MB: {layout.log}/mmdebstrap-{new.name}.log")
        debootstrap(layout, new, PACKAGES)
        installed.result()
    for folder in python.iterdir():
        folder.rename(new / "opt" / folder.name)
    python.rmdir()
    (new / "opt/devcloud").mkdir()
    (new / "etc/devcloud-tree").write_text(fingerprint())
    shutil.rmtree(layout.root, ignore_errors=True)
    new.rename(layout.root)


def debootstrap(
    layout: Layout,
    target: Path,
    packages: Sequence[str],
    *options: str,
    suite: str = SUITE,
    sources: Sequence[str] = (),
) -> None:
    """Create a Debian tree with `packages` in `target`, from the settings' mirror or from `sources`.

    Raises:
        DevcloudError: mmdebstrap failed.
    """
    origin = sources or ([layout.settings.mirror] if layout.settings.mirror else [])
    # In its own namespaces, so that no mount and no process remains: the tree may be deleted later.
    command = [
        "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--",
        "mmdebstrap", "--variant=minbase", "--format=directory", *SLIM, *BYTECODE,
        "--include=" + ",".join(packages), *options, suite, str(target), *origin,
    ]  # fmt: skip
    execute(command, layout.log / f"mmdebstrap-{target.name}.log", "the Debian packages could not be installed")


def install_python(folder: Path, log: Path) -> None:
    """Blazar in a virtual environment of its own, and its scheduler filter on its own.

    Raises:
        DevcloudError: the Python packages could not be installed.
    """
    environment = folder / "blazar"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to("/usr/bin/python3")
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n")
    site = environment / "lib/python3.11/site-packages"
    pip_install(site, log, "--require-hashes", "--requirement", str(BLAZAR_LOCK))
    shutil.copy(site / "bin/blazar-db-manage", environment / "bin")
    pip_install(folder / "blazar-nova", log, "--no-deps", BLAZAR_NOVA)


def pip_install(target: Path, log: Path, *what: str) -> None:
    """Install for Debian 12's Python, whatever Python runs this."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else "uv"
    command = [
        uv, "pip", "install", "--quiet", "--python", sys.executable, "--python-version", "3.11",
        "--python-platform", f"{platform.machine()}-manylinux_2_36", "--target", str(target), *what,
    ]  # fmt: skip
    execute(command, log, "Blazar could not be installed")
