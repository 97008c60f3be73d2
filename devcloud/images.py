"""Images for instances: built once with mmdebstrap and cloud-init, stored with their checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from devcloud import rootfs
from devcloud.errors import DevcloudError

if TYPE_CHECKING:
    from pathlib import Path

    from devcloud.layout import Layout, Settings

PACKAGES = (
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
)
KERNEL_PACKAGES = ("initramfs-tools", "grub-pc-bin", "grub-common", "cloud-guest-utils")
# By suite: the kernel of its official cloud images, and their security module.
KERNELS = {"bookworm": ("linux-image-cloud-amd64",), "noble": ("linux-image-virtual", "apparmor")}
NETWORK = """[Match]
Name=e* host0
Type=ether
[Network]
DHCP=ipv4
[DHCPv4]
UseMTU=true
ClientIdentifier=mac
"""
# An initramfs with only the disk drivers: an emulated machine unpacks it slowly. cloud-init chooses its
# source of metadata before anything else is loaded: a config drive must be seen by then.
DISK_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ext4", "ata_piix", "sr_mod")
INITRAMFS = (
    "mkdir -p $1/etc/initramfs-tools/conf.d $1/usr/share/initramfs-tools/modules.d",
    "echo MODULES=list >$1/etc/initramfs-tools/conf.d/devcloud.conf",
    f"printf '%s\\n' {' '.join(DISK_MODULES)} >$1/usr/share/initramfs-tools/modules.d/devcloud",
)
GRUB_MODULES = "biosdisk part_msdos ext2 linux"
# On a busy machine an emulated timer fails the kernel's test of it; the kernel then looks for another, and may hang.
GRUB_SCRIPT = """set root=(hd0,msdos1)
linux /boot/vmlinuz root=LABEL=root rw console=tty0 console=ttyS0 no_timer_check
initrd /boot/initrd.img
boot
"""
UBUNTU = "http://archive.ubuntu.com/ubuntu"
UBUNTU_KEYRING = f"{UBUNTU}/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
UBUNTU_KEYRING_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
SECTOR = 512
FIRST_PARTITION = 1 << 20


@dataclass(frozen=True)
class Image:
    """An image, and its hypervisor type in Nova's and Glance's terms."""

    name: str
    file: str
    suite: str
    hypervisor: Literal["lxc", "qemu"]
    size_mib: int

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages in the image."""
        return PACKAGES + ((*KERNELS[self.suite], *KERNEL_PACKAGES) if self.hypervisor == "qemu" else ())

    @property
    def properties(self) -> dict[str, str]:
        """Image properties that select a hypervisor."""
        return {"hypervisor_type": self.hypervisor} | ({"hw_rng_model": "virtio"} if self.hypervisor == "qemu" else {})

    def fingerprint(self, layout: Layout) -> str:
        """Changes when the image must be built again."""
        parts = [self.suite, *self.packages, NETWORK, self.cloud_config(layout.settings.image_user), str(self.size_mib)]
        if self.hypervisor == "qemu":
            parts += [*INITRAMFS, GRUB_MODULES, GRUB_SCRIPT]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

    def path(self, layout: Layout) -> Path:
        """Path of the image."""
        return layout.cache / f"{self.file}-{self.fingerprint(layout)}.raw"

    def kernel(self, layout: Layout) -> Path:
        """A copy of a virtual machine's kernel, for the check of KVM."""
        return self.path(layout).with_suffix(".kernel")

    def is_made(self, layout: Layout) -> bool:
        """Whether the image exists, judged by its checksum file."""
        return self.path(layout).with_suffix(".sha256").exists()

    def cloud_config(self, user: str) -> str:
        """cloud-init's settings: OpenStack is the only data source, systemd-networkd configures the network."""
        sources = ["ConfigDrive", "OpenStack"] if self.hypervisor == "qemu" else ["OpenStack"]
        return json.dumps(
            {
                "datasource_list": sources,
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


CONTAINER = Image("CC-Debian12", "debian12-lxc", "bookworm", "lxc", 640)
VIRTUAL_MACHINE = Image("CC-Debian12-VM", "debian12-vm", "bookworm", "qemu", 1024)
# Made where the settings ask for them.
MORE = {
    image.name: image
    for image in (
        Image("CC-Debian13", "debian13-lxc", "trixie", "lxc", 800),
        Image("CC-Ubuntu24.04", "ubuntu24.04-lxc", "noble", "lxc", 1000),
        Image("CC-Ubuntu24.04-VM", "ubuntu24.04-vm", "noble", "qemu", 1400),
    )
}


def of_machines(settings: Settings) -> Image:
    """The image of virtual machines that is always built: the first in the settings, else Debian's."""
    return next((MORE[name] for name in settings.more_images if MORE[name].hypervisor == "qemu"), VIRTUAL_MACHINE)


def later(settings: Settings) -> list[Image]:
    """Images that are built in the background: devcloud is usable without them."""
    more = [MORE[name] for name in settings.more_images]
    needed = [of_machines(settings)] if settings.virtual_machines else []
    return [*more, *(image for image in needed if image not in more)]


def make(layout: Layout, image: Image) -> Path:
    """Build the image unless it exists with the right checksum; return its path.

    Raises:
        DevcloudError: a tool is missing or a package source cannot be reached.
    """
    path = image.path(layout)
    checksum = path.with_suffix(".sha256")
    if path.exists() and checksum.exists() and checksum.read_text() == sha256(path):
        return path
    for old in layout.cache.glob(f"{image.file}-*"):
        old.unlink()
    tree = layout.cache / f"tree-{image.file}"
    shutil.rmtree(tree, ignore_errors=True)
    _debootstrap(layout, image, tree)
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.truncate(image.size_mib << 20)
    if image.hypervisor == "qemu":
        _make_file_system(tree, new, image.size_mib - (FIRST_PARTITION >> 20), FIRST_PARTITION)
        _make_bootable(tree, new)
        shutil.copyfile(tree / "boot/vmlinuz", image.kernel(layout))
    else:
        # Nova's LXC driver mounts the image itself: it has no partition table.
        _make_file_system(tree, new, image.size_mib)
    shutil.rmtree(tree)
    new.rename(path)
    checksum.write_text(sha256(path))
    return path


def _debootstrap(layout: Layout, image: Image, tree: Path) -> None:
    kernel = image.hypervisor == "qemu"
    ubuntu = image.suite == "noble"
    sources = [f"deb {UBUNTU} {image.suite}{pocket} main universe" for pocket in ("", "-updates", "-security")]
    rootfs.debootstrap(
        layout, tree, image.packages,
        *([f"--keyring={_ubuntu_keyring(layout)}"] if ubuntu else []),
        *([f"--essential-hook={command}" for command in INITRAMFS] if kernel else []),
        '--customize-hook=chroot "$1" systemctl enable systemd-networkd systemd-networkd-wait-online ssh',
        '--customize-hook=chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer '
        "e2scrub_reap.service fstrim.timer dpkg-db-backup.timer getty.target console-getty.service",
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
        suite=image.suite, sources=sources if ubuntu else (),
    )  # fmt: skip
    files = {
        "etc/systemd/network/10-dhcp.network": NETWORK,
        "etc/cloud/cloud.cfg.d/99-devcloud.cfg": image.cloud_config(layout.settings.image_user),
        "etc/machine-id": "",
        "etc/fstab": "LABEL=root / ext4 defaults 0 1\n" if kernel else "",
        "etc/hostname": "instance\n",
    }
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)


def _ubuntu_keyring(layout: Layout) -> Path:
    """The keys of Ubuntu's archive, which Debian does not package; from Ubuntu's keyring package.

    Raises:
        DevcloudError: the package cannot be downloaded, or its checksum differs.
    """
    keyring = layout.cache / "ubuntu-archive-keyring.gpg"
    if keyring.exists():
        return keyring
    package = layout.cache / "ubuntu-keyring.deb"
    try:
        urllib.request.urlretrieve(UBUNTU_KEYRING, package)  # noqa: S310
    except OSError as error:
        raise DevcloudError(f"{UBUNTU_KEYRING} could not be downloaded: {error}") from None
    if sha256(package) != UBUNTU_KEYRING_SHA256:
        raise DevcloudError(f"{UBUNTU_KEYRING} does not have the expected checksum")
    unpacked = layout.cache / "ubuntu-keyring"
    _run(["dpkg-deb", "--extract", str(package), str(unpacked)], "the keys of Ubuntu's archive could not be unpacked")
    (unpacked / "usr/share/keyrings" / keyring.name).rename(keyring)
    shutil.rmtree(unpacked)
    package.unlink()
    return keyring


def _make_file_system(tree: Path, disk: Path, size_mib: int, offset: int = 0) -> None:
    options = f"lazy_itable_init=1,offset={offset}"
    command = [
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-E", options, "-m", "0", "-d", str(tree), str(disk),
        f"{size_mib}M",
    ]  # fmt: skip
    _run(command, "the image's file system could not be created")


def _make_bootable(tree: Path, disk: Path) -> None:
    """Write a partition table and GRUB before the first partition: no loop device, no mount."""
    (tree / "boot/grub.cfg").write_text(GRUB_SCRIPT)
    for name in ("vmlinuz", "initrd.img"):
        # Debian links to them from /, Ubuntu from /boot.
        if not (tree / "boot" / name).exists():
            [versioned] = (tree / "boot").glob(f"{name}-*")
            (tree / "boot" / name).symlink_to(versioned.name)
    make_core = "grub-mkimage -O i386-pc -p /boot -c /boot/grub.cfg -o /boot/core.img " + GRUB_MODULES
    _run(["chroot", str(tree), *make_core.split()], "the image's boot loader could not be built")
    core = (tree / "boot/core.img").read_bytes()
    first, sectors = FIRST_PARTITION // SECTOR, (disk.stat().st_size - FIRST_PARTITION) // SECTOR
    # Bootable, Linux, addressed by sector number alone.
    partition = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", first, sectors)
    code = (tree / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440]
    with disk.open("r+b") as file:
        # GRUB's boot sector loads what follows it.
        file.write(code.ljust(446, b"\0") + partition.ljust(64, b"\0") + b"\x55\xaa" + core)


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise DevcloudError(f"{failure}: {done.stderr.strip()}")


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
