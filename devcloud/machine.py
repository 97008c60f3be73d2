"""Checks whether devcloud can run on this machine, without changing it; installs mmdebstrap if it is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from devcloud import images, rootfs
from devcloud.errors import DevcloudError
from devcloud.processes import execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcloud.layout import Layout

# Measured: control plane and compute hosts take 2.2 GiB; three small instances and the page cache take the rest.
NEEDED_MEMORY_GIB = 4
# Measured: trees 2.4 GB and image 0.4 GB, twice that while they are created, 2 GB for data.
NEEDED_DISK_GIB = 8
NEEDED_DISK_LATER_GIB = 2
TOOLS = {
    "ip": "iproute2", "losetup": "mount", "mke2fs": "e2fsprogs", "nsenter": "util-linux", "setpriv": "util-linux",
    "unshare": "util-linux",
}  # fmt: skip
BOOTSTRAP = ("mmdebstrap", "debian-archive-keyring")
# What devcloud creates, tried in temporary namespaces.
TRIAL = (
    "ip link add trial0 type bridge && ip link add trial1 type veth peer name trial2 && "
    "ip link add trial3 type vxlan id 1 dstport 4789 && mount -t tmpfs none /mnt"
)
ALTERNATIVES = "use another cloud: set OS_CLIENT_CONFIG_FILE and OS_CLOUD, or use a stack for it"


def check(layout: Layout, interface: str, *, running: bool) -> None:
    """Refuse a machine on which devcloud cannot run, with all reasons. `interface` is devcloud's own.

    Raises:
        DevcloudError: not Linux or not root; memory, disk, a tool or a kernel feature is missing; or the external
            network is in use.
    """
    if sys.platform != "linux":
        raise DevcloudError("devcloud needs Linux: its instances are containers", remedy=ALTERNATIVES)
    if reasons := list(_lacking(layout, interface, running=running)):
        raise DevcloudError("devcloud cannot run on this machine:\n  - " + "\n  - ".join(reasons), remedy=ALTERNATIVES)


def _lacking(layout: Layout, interface: str, *, running: bool) -> Iterator[str]:
    root = os.geteuid() == 0
    if not root:
        yield "it must run as root to create namespaces: use sudo"
    memory = next(
        int(line.split()[1]) / 2**20
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    if memory < NEEDED_MEMORY_GIB and not running:
        yield f"it needs {NEEDED_MEMORY_GIB} GiB of free memory; {memory:.1f} are free"
    made = rootfs.is_ready(layout) and images.CONTAINER.path(layout).exists()
    needed = NEEDED_DISK_LATER_GIB if made else NEEDED_DISK_GIB
    existing = next(path for path in (layout.state, *layout.state.parents) if path.exists())
    disk = shutil.disk_usage(existing).free / 2**30
    if disk < needed:
        yield f"it needs {needed} GiB of disk below {layout.state}; {disk:.1f} are free"
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        yield f"tools are missing: apt-get install {' '.join(missing)}"
    if not (shutil.which("mmdebstrap") or shutil.which("apt-get")):
        yield "mmdebstrap and apt-get are missing: only Debian and Ubuntu have them"
    if missing or running:
        return
    for network, device in _taken(layout.settings.subnet):
        if device != interface:
            other = ", of another devcloud," if device.startswith("devcloud") else ""
            yield (
                f"its external network {layout.settings.subnet} overlaps {network}{other} on {device}: "
                "choose another one with --subnet"
            )
    if root and (refused := _refused()):
        yield f"it cannot create namespaces, or its kernel lacks bridges, veth or VXLAN: {refused}"
    if not Path("/dev/loop-control").exists():
        yield "there are no loop devices (/dev/loop-control)"


def _taken(subnet: IPv4Network) -> Iterator[tuple[IPv4Network, str]]:
    """Routes and addresses of this machine that overlap `subnet`, with their interfaces."""
    shown = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"], check=True, capture_output=True, text=True
    )
    for route in json.loads(shown.stdout):
        if route["dst"] != "default" and route.get("type", "unicast") in {"unicast", "local"}:
            network = IPv4Network(route["dst"])
            if network.overlaps(subnet):
                yield network, route.get("dev", "a route without an interface")


def _refused() -> str | None:
    namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--fork"]
    tried = subprocess.run(["unshare", *namespaces, "sh", "-c", TRIAL], check=False, capture_output=True, text=True)
    return (tried.stderr.strip().splitlines() or ["refused"])[-1] if tried.returncode else None


def install_bootstrap(layout: Layout, say: Callable[[str], None]) -> None:
    """Install mmdebstrap with apt-get if it is missing, and record the installed packages.

    Raises:
        DevcloudError: apt-get failed.
    """
    if shutil.which("mmdebstrap"):
        return
    say("apt-get install " + " ".join(BOOTSTRAP) + "; `lab devcloud purge` removes it again")
    before = _installed()
    log = layout.log / "apt.log"
    failure = "mmdebstrap, which creates the Debian trees, could not be installed"
    execute(["apt-get", "update"], log, failure)
    try:
        execute(["apt-get", "install", "--yes", "--no-install-recommends", *BOOTSTRAP], log, failure)
    finally:
        note = _note(layout)
        noted = note.read_text().split() if note.exists() else []
        note.write_text("".join(f"{name}\n" for name in sorted({*noted, *(_installed() - before)})))


def remove_bootstrap(layout: Layout) -> None:
    """Remove the packages that `install_bootstrap` has recorded.

    Raises:
        DevcloudError: apt-get failed.
    """
    note = _note(layout)
    if note.exists() and (names := [name for name in note.read_text().split() if name in _installed()]):
        execute(["apt-get", "purge", "--yes", *names], layout.log / "apt.log", "mmdebstrap could not be removed")
    note.unlink(missing_ok=True)


def _note(layout: Layout) -> Path:
    return layout.cache / "installed-on-this-machine"


def _installed() -> set[str]:
    shown = subprocess.run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n"],
                           check=True, capture_output=True, text=True)  # fmt: skip
    return {line.split()[0] for line in shown.stdout.splitlines() if line.endswith(" installed")}
