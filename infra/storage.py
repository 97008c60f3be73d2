"""Volumes that outlive nodes."""

from collections.abc import Mapping

import pulumi
import pulumi_openstack as openstack
from pulumi import Output, ResourceOptions

from infra.naming import PROJECT, resource_name, stack_metadata
from infra.nodes import Node
from infra.settings import Settings


class Storage(pulumi.ComponentResource):
    """The stack's volumes, attached to the nodes that are there."""

    def __init__(self, settings: Settings, nodes: Mapping[str, Node], opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Storage", "storage", None, opts)
        stack = pulumi.get_stack()
        self.devices: dict[str, Output[str]] = {}
        """Device of each attached volume on its node, e.g. /dev/vdb."""
        volumes = {}
        for name, volume in settings.storage.volumes.items():
            volumes[name] = openstack.blockstorage.Volume(
                name,
                name=resource_name(stack, name),
                size=volume.size_gb,
                volume_type=volume.type,
                enable_online_resize=True,
                metadata=stack_metadata(stack),
                opts=ResourceOptions(parent=self, protect=volume.protect, retain_on_delete=volume.retain),
            )
            if volume.attach_to is not None and volume.attach_to in nodes:
                attached = openstack.compute.VolumeAttach(
                    f"{name}-on-{volume.attach_to}",
                    instance_id=nodes[volume.attach_to].server.id,
                    volume_id=volumes[name].id,
                    # A volume can be in one place at a time.
                    opts=ResourceOptions(parent=self, delete_before_replace=True),
                )
                self.devices[name] = attached.device
        self.register_outputs({"volumes": {name: volume.id for name, volume in volumes.items()}})
