"""Images for instances: Debian 12 for containers, made once and kept with their checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

from devcloud import rootfs
from devcloud.errors import DevcloudError

if TYPE_CHECKING:
    from pathlib import Path

    from devcloud.layout import Layout

NAME = "CC-Debian12"
SIZE_MIB = 640
PACKAGES = [
    "systemd-sysv",
    "systemd-resolved",
    "dbus",
    "udev",
    "openssh-server",
    "cloud-init",
    "iproute2",
    "iputils-ping",
    "netbase",
    "ca-certificates",
    "sudo",
    "kmod",
    "curl",
    "procps",
    "isc-dhcp-client",
    "iptables",
    "nftables",
    "conntrack",
    "ethtool",
    "socat",
    "util-linux",
    "mount",
    "e2fsprogs",
    "python3",
    "python3-apt",
]
NETWORK = """[Match]
Name=e* host0
Type=ether
[Network]
DHCP=ipv4
[DHCPv4]
UseMTU=true
ClientIdentifier=mac
"""


def cloud_config(user: str) -> str:
    """cloud-init's settings: OpenStack's metadata service only, addresses left to systemd-networkd."""
    return json.dumps(
        {
            "datasource_list": ["OpenStack"],
            "datasource": {"OpenStack": {"apply_network_config": False, "max_wait": 60, "timeout": 10}},
            "network": {"config": "disabled"},
            "apt_preserve_sources_list": True,
            "manage_etc_hosts": True,
            "ssh_genkeytypes": ["ed25519"],
            "locale": False,
            "system_info": {
                "default_user": {
                    "name": user,
                    "gecos": "Cloud user",
                    "lock_passwd": True,
                    "sudo": ["ALL=(ALL) NOPASSWD:ALL"],
                    "shell": "/bin/bash",
                }
            },
        },
        indent=1,
    )


def fingerprint(layout: Layout) -> str:
    """Changes when the image must be made anew."""
    text = " ".join([rootfs.SUITE, *PACKAGES, NETWORK, cloud_config(layout.settings.image_user), str(SIZE_MIB)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def container_image(layout: Layout) -> Path:
    """Path of the container image: bare ext4 without a partition table, as nova's LXC driver mounts it."""
    return layout.cache / f"debian12-lxc-{fingerprint(layout)}.raw"


def make(layout: Layout) -> Path:
    """Make the image unless it is there with the right checksum; return its path.

    Raises:
        DevcloudError: a tool is missing or a package source cannot be reached.
    """
    image = container_image(layout)
    checksum = image.with_suffix(".sha256")
    if image.exists() and checksum.exists() and checksum.read_text() == sha256(image):
        return image
    tree = layout.cache / "image-tree"
    shutil.rmtree(tree, ignore_errors=True)
    rootfs.debootstrap(
        layout, tree, PACKAGES,
        '--customize-hook=chroot "$1" systemctl enable systemd-networkd systemd-networkd-wait-online ssh',
        '--customize-hook=chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer '
        "e2scrub_reap.service fstrim.timer dpkg-db-backup.timer getty.target console-getty.service",
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
    )  # fmt: skip
    files = {
        "etc/systemd/network/10-dhcp.network": NETWORK,
        "etc/cloud/cloud.cfg.d/99-devcloud.cfg": cloud_config(layout.settings.image_user),
        "etc/machine-id": "",
        "etc/fstab": "",
        "etc/hostname": "debian\n",
    }
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    new = image.with_suffix(".new")
    new.unlink(missing_ok=True)
    with new.open("wb") as file:
        file.truncate(SIZE_MIB << 20)
    command = [
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-L",
        "root",
        "-E",
        "lazy_itable_init=1",
        "-m",
        "0",
        "-d",
        str(tree),
        str(new),
    ]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        raise DevcloudError(f"the image's file system could not be made: {made.stderr.strip()}")
    shutil.rmtree(tree)
    for old in layout.cache.glob("debian12-lxc-*"):
        if old != new:
            old.unlink()
    checksum.write_text(sha256(new))
    new.rename(image)
    return image


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
