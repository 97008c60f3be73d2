"""Nova driver for LXC instances that can be Kubernetes nodes.

Nova's own LXC driver starts a container's init without a cgroup namespace, so the guest's systemd writes to the
machine's root cgroups, and without the capabilities and devices that a container runtime needs. It cannot attach
volumes either. Instances share the machine's kernel, so they do not isolate untrusted code.
"""

# ruff: noqa: ARG002, PLR0917  (the interface is nova's)
# mypy: disable-error-code="import-not-found,import-untyped,misc,no-untyped-def,no-untyped-call"
import contextlib
import os
import shutil
import stat
from pathlib import Path

import libvirt
from lxml import etree
from nova import exception
from nova.compute import power_state
from nova.virt.disk import api as disk
from nova.virt.libvirt import driver
from nova.virt.libvirt import utils as libvirt_utils
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

INIT = "/usr/sbin/init.devcloud"
DEVICES = ("/dev/kmsg", "/dev/fuse", "/dev/net/tun")
KILL_FAILED = "Some processes refused to die"
POWER_OFF_SECONDS = 60
RUNNING_STATES = (power_state.RUNNING, power_state.PAUSED)


class ContainerDriver(driver.LibvirtDriver):
    """libvirt's LXC containers with a cgroup namespace, all capabilities, and volumes."""

    def _get_guest_xml(self, *args, **kwargs):
        domain = etree.fromstring(super()._get_guest_xml(*args, **kwargs))
        domain.find("os/init").text = INIT
        features = domain.find("features")
        if features is None:
            features = etree.SubElement(domain, "features")
        etree.SubElement(features, "capabilities", policy="allow")
        devices = domain.find("devices")
        for path in DEVICES:
            if Path(path).exists():
                device = etree.SubElement(devices, "hostdev", mode="capabilities", type="misc")
                etree.SubElement(etree.SubElement(device, "source"), "char").text = path
        return etree.tostring(domain, encoding="unicode", pretty_print=True)

    def _create_domain_setup_lxc(self, context, instance, image_meta, block_device_info):
        super()._create_domain_setup_lxc(context, instance, image_meta, block_device_info)
        root = Path(libvirt_utils.get_instance_path(instance), "rootfs")
        try:
            target = root / INIT.lstrip("/")
            shutil.copyfile(Path(__file__).with_name("lxc-init"), target)
            target.chmod(0o755)
        except OSError as error:
            disk.teardown_container(container_dir=str(root))
            raise exception.InvalidDiskInfo(reason=f"the image has no usable root file system: {error}") from error

    def _destroy(self, instance):
        with contextlib.suppress(exception.InstanceNotFound, libvirt.libvirtError):
            self._power_off(instance)
        super()._destroy(instance)

    @retry(
        retry=retry_if_exception(lambda error: KILL_FAILED in str(error)), wait=wait_fixed(1),
        stop=stop_after_delay(POWER_OFF_SECONDS), reraise=True,
    )  # fmt: skip
    def _power_off(self, instance):
        """Power off, with retries: libvirt gives up on a container that takes seconds to stop, and misses its end."""
        self._host.get_guest(instance).poweroff()

    def destroy(self, context, instance, *args, **kwargs):
        super().destroy(context, instance, *args, **kwargs)
        for cgroup in Path("/sys/fs/cgroup").glob(f"*/machine/{instance.name}-{instance.uuid}"):
            for folder in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                cgroup.rmdir()

    def _get_instance_disk_info(self, instance, block_device_info):
        """The root file system, which a resize must copy; a container's definition does not list it as a disk."""
        path = Path(libvirt_utils.get_instance_path(instance), "disk")
        if not path.exists():
            return []
        size = path.stat()
        used = size.st_blocks * 512
        return [
            {
                "type": "raw",
                "path": str(path),
                "virt_disk_size": size.st_size,
                "backing_file": "",
                "disk_size": used,
                "over_committed_disk_size": size.st_size - used,
            }
        ]

    def get_device_name_for_instance(self, instance, bdms, block_device_obj):
        taken = {bdm.device_name for bdm in bdms}
        names = (f"/dev/vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
        for name in names:
            if name not in taken:
                return name
        raise exception.TooManyDiskDevices(maximum=26)

    def attach_volume(
        self, context, connection_info, instance, mountpoint, disk_bus=None, device_type=None, encryption=None
    ):
        """Create the device node in the container.

        libvirt's own method needs the container's process ID, which its monitor often misses when a container starts.
        """
        self._connect_volume(context, connection_info, instance, encryption=encryption)
        node = self._device_node(instance, mountpoint)
        number = Path(connection_info["data"]["device_path"]).stat().st_rdev
        node.unlink(missing_ok=True)
        os.mknod(node, stat.S_IFBLK | 0o660, number)

    def detach_volume(self, context, connection_info, instance, mountpoint, encryption=None):
        """Remove the device node."""
        with contextlib.suppress(exception.InstanceNotFound, exception.InstanceNotRunning):
            self._device_node(instance, mountpoint).unlink(missing_ok=True)
        self._disconnect_volume(context, connection_info, instance, encryption=encryption)

    def _device_node(self, instance, mountpoint):
        """The device's path in the container, through its first process."""
        domain = self._host.get_guest(instance).id
        if domain < 0:
            raise exception.InstanceNotRunning(instance_id=instance.uuid)
        first = Path(f"/proc/{domain}/task/{domain}/children").read_text().split()[0]
        return Path(f"/proc/{first}/root/dev", Path(mountpoint).name)

    def _detach_with_retry(self, guest, instance_uuid, get_device_conf_func, device_name):
        """Detach once: libvirt's LXC driver detaches synchronously and sends no event to wait for."""
        live = guest.get_power_state(self._host) in RUNNING_STATES
        device = get_device_conf_func() if live else get_device_conf_func(from_persistent_config=True)
        if device is None:
            raise exception.DeviceNotFound(device=device_name)
        guest.detach_device(device, persistent=guest.has_persistent_configuration(), live=live)
