"""Volumes that survive the replacement of nodes."""

import pulumi
import pulumi_openstack as openstack
from pulumi import Input, Output, ResourceOptions

from infra.naming import PROJECT, resource_name, stack_metadata
from infra.settings import Settings


class Storage(pulumi.ComponentResource):
    """The stack's volumes. `attach` attaches those of a node to its present server."""

    def __init__(self, settings: Settings, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Storage", "storage", None, opts)
        stack = pulumi.get_stack()
        self._settings = settings.storage.volumes
        self.devices: dict[str, Output[str]] = {}
        """Device of each attached volume on its node, e.g. /dev/vdb."""
        self._volumes = {
            name: openstack.blockstorage.Volume(
                name,
                name=resource_name(stack, name),
                size=volume.size_gb,
                volume_type=volume.type,
                enable_online_resize=True,
                metadata=stack_metadata(stack),
                opts=ResourceOptions(parent=self, protect=volume.protected, retain_on_delete=volume.retain),
            )
            for name, volume in self._settings.items()
        }
        self.register_outputs({"volumes": {name: volume.id for name, volume in self._volumes.items()}})

    def attach(self, node: str, server: openstack.compute.Instance) -> list[dict[str, Input[str]]]:
        """Attach the volumes of a node, e.g. control-0; return `holds`, `id` and `device` of its data volumes."""
        data_volumes: list[dict[str, Input[str]]] = []
        for name, volume in self._settings.items():
            if volume.attach_to != node:
                continue
            attached = openstack.compute.VolumeAttach(
                f"{name}-on-{node}",
                instance_id=server.id,
                volume_id=self._volumes[name].id,
                # A volume can be attached to one server at a time.
                opts=ResourceOptions(parent=self, delete_before_replace=True),
            )
            self.devices[name] = attached.device
            if volume.holds is not None:
                data_volumes.append({"holds": volume.holds, "id": self._volumes[name].id, "device": attached.device})
        return data_volumes
