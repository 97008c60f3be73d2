"""Cinder driver: a volume is a sparse file, attached to instances on this machine as a loop device."""

# ruff: noqa: ARG002  (the interface is cinder's)
# mypy: disable-error-code="import-not-found,import-untyped,misc,no-untyped-def,no-untyped-call"
import os
import subprocess
from pathlib import Path

from cinder.image import image_utils
from cinder.volume import driver, volume_utils
from oslo_config import cfg
from oslo_utils import units

OPTS = [cfg.StrOpt("loopback_folder", help="Folder of the volume files.")]
cfg.CONF.register_opts(OPTS, group="backend_defaults")


def run(*command):
    """Run a command as root; return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class LoopbackDriver(driver.VolumeDriver):
    """Volumes as sparse files, connected as local block devices."""

    VERSION = "1.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTS)

    @property
    def folder(self):
        """Folder of the volume files."""
        return Path(self.configuration.loopback_folder)

    def path(self, resource):
        """The file of a volume or snapshot."""
        return self.folder / resource["name"]

    def do_setup(self, context):
        self.folder.mkdir(parents=True, exist_ok=True)

    def check_for_setup_error(self):
        pass

    def _update_volume_stats(self):
        disk = os.statvfs(self.folder)
        self._stats = {
            "volume_backend_name": self.configuration.safe_get("volume_backend_name"),
            "vendor_name": "ml-cluster",
            "driver_version": self.VERSION,
            "storage_protocol": "local",
            "total_capacity_gb": disk.f_frsize * disk.f_blocks / units.Gi,
            "free_capacity_gb": disk.f_frsize * disk.f_bavail / units.Gi,
            "reserved_percentage": 0,
            "QoS_support": False,
            "multiattach": True,
            "thin_provisioning_support": True,
            "thick_provisioning_support": False,
            "max_over_subscription_ratio": 20.0,
            "provisioned_capacity_gb": 0,
        }

    def _device(self, volume):
        out = run("losetup", "--list", "--noheadings", "--output", "NAME", "--associated", str(self.path(volume)))
        return out.split()[0] if out else None

    def create_volume(self, volume):
        with self.path(volume).open("wb") as file:
            file.truncate(volume["size"] * units.Gi)

    def delete_volume(self, volume):
        self.remove_export(None, volume)
        self.path(volume).unlink(missing_ok=True)

    def extend_volume(self, volume, new_size):
        os.truncate(self.path(volume), new_size * units.Gi)
        if device := self._device(volume):
            run("losetup", "--set-capacity", device)

    def _copy(self, source, target, size):
        run("cp", "--sparse=always", "--reflink=auto", str(self.path(source)), str(self.path(target)))
        os.truncate(self.path(target), size * units.Gi)

    def create_snapshot(self, snapshot):
        self._copy(snapshot["volume"], snapshot, snapshot["volume_size"])

    def delete_snapshot(self, snapshot):
        self.path(snapshot).unlink(missing_ok=True)

    def create_volume_from_snapshot(self, volume, snapshot):
        self._copy(snapshot, volume, volume["size"])

    def create_cloned_volume(self, volume, src_vref):
        self._copy(src_vref, volume, volume["size"])

    def copy_image_to_volume(self, context, volume, image_service, image_id, disable_sparse=False):
        image_utils.fetch_to_raw(
            context,
            image_service,
            image_id,
            self.path(volume),
            self.configuration.volume_dd_blocksize,
            size=volume["size"],
        )
        os.truncate(self.path(volume), volume["size"] * units.Gi)

    def copy_volume_to_image(self, context, volume, image_service, image_meta):
        volume_utils.upload_volume(context, image_service, image_meta, str(self.path(volume)), volume)

    def ensure_export(self, context, volume):
        if volume["attach_status"] == "attached":
            self._connect(volume)

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        if device := self._device(volume):
            run("losetup", "--detach", device)
        self._link(volume).unlink(missing_ok=True)

    def initialize_connection(self, volume, connector):
        path = self._connect(volume)
        return {"driver_volume_type": "local", "data": {"device_path": str(path), "volume_id": volume["id"]}}

    def terminate_connection(self, volume, connector, **kwargs):
        pass

    def _link(self, volume):
        return self.folder / f"device-{volume['id']}"

    def _connect(self, volume):
        """Create the loop device. Returns a path that stays valid if the device's number changes at the next start."""
        device = self._device(volume) or run("losetup", "--find", "--show", str(self.path(volume)))
        link = self._link(volume)
        link.unlink(missing_ok=True)
        link.symlink_to(device)
        return link
