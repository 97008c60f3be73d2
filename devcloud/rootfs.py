"""The Debian tree that devcloud's services run in. Nothing is installed on the machine itself, nothing in /etc changes.

OpenStack Zed is Debian 12's release; the tree is Debian 12 whatever the machine runs. Blazar is not in Debian: it comes
from PyPI with its own libraries, as it talks to the other services over HTTP only. Nova's scheduler filter for it is
plain Python without dependencies.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devcloud.errors import DevcloudError

if TYPE_CHECKING:
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
    "sudo",
    "e2fsprogs",
]
SLIM = (
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)


def fingerprint() -> str:
    """Changes when the tree must be made anew."""
    pins = [line for line in BLAZAR_LOCK.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = " ".join([SUITE, *PACKAGES, BLAZAR_NOVA, *pins])
    return hashlib.sha256(text.encode()).hexdigest()


def is_ready(layout: Layout) -> bool:
    """Whether the tree is there and up to date."""
    stamp = layout.root / "etc/devcloud-tree"
    return stamp.exists() and stamp.read_text() == fingerprint()


def make(layout: Layout) -> None:
    """Make the tree; one that an interruption left unfinished is thrown away.

    Raises:
        DevcloudError: a tool is missing, or a package source cannot be reached.
    """
    new = layout.state / "root.new"
    shutil.rmtree(new, ignore_errors=True)
    debootstrap(layout, new, PACKAGES)
    install_python(new)
    (new / "etc/devcloud-tree").write_text(fingerprint())
    (new / "opt/devcloud").mkdir()
    shutil.rmtree(layout.root, ignore_errors=True)
    new.rename(layout.root)


def debootstrap(layout: Layout, target: Path, packages: list[str], *options: str) -> None:
    """Make a Debian tree with `packages` in `target`.

    Raises:
        DevcloudError: mmdebstrap is missing or failed.
    """
    if not shutil.which("mmdebstrap"):
        raise DevcloudError(
            "devcloud makes its Debian tree with mmdebstrap, which is not installed",
            remedy="apt-get install mmdebstrap debian-archive-keyring",
        )
    mirror = [layout.settings.mirror] if layout.settings.mirror else []
    # In a mount namespace of its own, so that no mount outlives it: the tree may be deleted later.
    command = [
        "unshare", "--mount", "mmdebstrap", "--variant=minbase", "--format=directory", *SLIM,
        "--include=" + ",".join(packages), *options, SUITE, str(target), *mirror,
    ]  # fmt: skip
    execute(command, layout.log / f"mmdebstrap-{target.name}.log", "the Debian packages could not be installed")


def install_python(root: Path) -> None:
    """Blazar in a virtual environment of its own, and its scheduler filter on its own.

    Raises:
        DevcloudError: the Python packages could not be installed.
    """
    environment = root / "opt/blazar"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to("/usr/bin/python3")
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n")
    log = root.parent / "log/pip.log"
    site = environment / "lib/python3.11/site-packages"
    pip_install(site, log, "--require-hashes", "--requirement", str(BLAZAR_LOCK))
    shutil.copy(site / "bin/blazar-manager", environment / "bin/blazar-manager")
    shutil.copy(site / "bin/blazar-db-manage", environment / "bin/blazar-db-manage")
    pip_install(root / "opt/blazar-nova", log, "--no-deps", BLAZAR_NOVA)


def pip_install(target: Path, log: Path, *what: str) -> None:
    """Install for Debian 12's Python, whatever Python runs this."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else "uv"
    command = [
        uv, "pip", "install", "--quiet", "--python", sys.executable, "--python-version", "3.11",
        "--python-platform", f"{platform.machine()}-manylinux_2_36", "--target", str(target), *what,
    ]  # fmt: skip
    execute(command, log, "Blazar could not be installed")


def execute(command: list[str], log: Path, failure: str) -> None:
    """Run a long command with its output in `log`.

    Raises:
        DevcloudError: it failed; the message ends with the last line it printed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise DevcloudError(f"{failure}: {lines[-1]}", remedy=f"see {log}; run the same command again to resume")
