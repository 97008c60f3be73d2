"""The machines: groups of nodes by role and flavor."""

from dataclasses import dataclass

import pulumi
import pulumi_openstack as openstack
from pulumi import InvokeOptions, Output, ResourceOptions

from infra.access import Access
from infra.cloud_init import user_data
from infra.lease import Lease
from infra.naming import METADATA_KEY, PROJECT, node_part, resource_name, stack_metadata
from infra.network import Network
from infra.settings import NodeGroup, Settings

ROLE_KEY = f"{METADATA_KEY.partition(':')[0]}:role"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    name: str
    role: str
    server: openstack.compute.Instance
    address: Output[str]
    """Address inside the nodes' network."""
    floating_ip: Output[str] | None


def entry_nodes(settings: Settings) -> set[str]:
    """Nodes that take traffic from outside: those with a floating IP, or the first control plane where none has."""
    groups = settings.nodes.groups.items()
    every = [node_part(name, i) for name, group in groups for i in range(group.count)]
    control = [
        node_part(name, i) for name, group in groups if group.role == "control-plane" for i in range(group.count)
    ]
    return set({"all": every, "control-plane": control}.get(settings.network.floating_ips, control[:1]))


class Nodes(pulumi.ComponentResource):
    """The nodes of all groups, each a server on a port of its own."""

    def __init__(
        self,
        settings: Settings,
        lease: Lease,
        network: Network,
        access: Access,
        opts: ResourceOptions | None = None,
    ) -> None:
        super().__init__(f"{PROJECT}:infra:Nodes", "nodes", None, opts)
        self._settings, self._lease, self._network, self._access = settings, lease, network, access
        self._stack = pulumi.get_stack()
        entries = entry_nodes(settings)
        self.nodes: dict[str, Node] = {}
        """Nodes by name, e.g. `control-0`."""
        for name, group in settings.nodes.groups.items():
            hints = self._hints(name, group)
            for index in range(group.count):
                node = node_part(name, index)
                self.nodes[node] = self._node(node, name, hints, entry=node in entries)
        self.register_outputs({"addresses": {node.name: node.address for node in self.nodes.values()}})

    def _hints(self, name: str, group: NodeGroup) -> openstack.compute.InstanceSchedulerHintArgs | None:
        spread = None
        nodes = self._settings.nodes
        bare_metal = group.flavor in self._settings.cloud.bare_metal_flavors
        # A group of one has it too: nodes that join later must not change the hints of those that are there.
        if nodes.anti_affinity != "none" and not bare_metal:
            spread = openstack.compute.ServerGroup(
                f"{name}-spread",
                name=resource_name(self._stack, name),
                policies="anti-affinity" if nodes.anti_affinity == "hard" else "soft-anti-affinity",
                opts=ResourceOptions(parent=self),
            ).id
        reservation = self._lease.hint(name)
        if spread is None and reservation is None:
            return None
        return openstack.compute.InstanceSchedulerHintArgs(
            group=spread, additional_properties={"reservation": reservation} if reservation is not None else None
        )

    def _node(
        self, node: str, name: str, hints: openstack.compute.InstanceSchedulerHintArgs | None, *, entry: bool
    ) -> Node:
        settings, group = self._settings, self._settings.nodes.groups[name]
        host = resource_name(self._stack, node)
        image = group.image or settings.nodes.image
        port = self._network.port(node, entry=entry)
        replaced_by = (
            ["flavor_name"] if settings.reserves_flavors or settings.nodes.on_flavor_change == "replace" else []
        )
        server = openstack.compute.Instance(
            node,
            name=host,
            flavor_name=self._lease.flavor(name),
            image_name=image if group.boot_volume_gb is None else None,
            block_devices=None if group.boot_volume_gb is None else [self._boot_volume(image, group)],
            key_pair=self._access.keypair,
            networks=[openstack.compute.InstanceNetworkArgs(port=port.id)],
            scheduler_hints=[hints] if hints else None,
            availability_zone=group.availability_zone,
            user_data=user_data(host),
            metadata={**stack_metadata(self._stack), ROLE_KEY: group.role},
            # The port is the next server's too: it must be free before that one boots.
            opts=ResourceOptions(parent=self, delete_before_replace=True, replace_on_changes=replaced_by),
        )
        floating = entry and settings.network.floating_ips != "none"
        return Node(
            name=node,
            role=group.role,
            server=server,
            address=port.all_fixed_ips.apply(lambda addresses: addresses[0]),
            floating_ip=self._network.floating_ip(node, port) if floating else None,
        )

    def _boot_volume(self, image: str, group: NodeGroup) -> openstack.compute.InstanceBlockDeviceArgs:
        found = openstack.images.get_image_output(name=image, most_recent=True, opts=InvokeOptions(parent=self))
        return openstack.compute.InstanceBlockDeviceArgs(
            uuid=found.id,
            source_type="image",
            destination_type="volume",
            boot_index=0,
            volume_size=group.boot_volume_gb,
            volume_type=group.boot_volume_type,
            delete_on_termination=True,
        )

    def entry(self) -> Output[str]:
        """Address by which the cluster is reached: the first control plane's floating IP, or its own address."""
        first = next(node for node in self.nodes.values() if node.role == "control-plane")
        return first.floating_ip or first.address
