"""The machines: groups of nodes by role and flavor, each with its place in the cluster."""

from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_openstack as openstack
from pulumi import Input, InvokeOptions, Output, ResourceOptions

from infra.access import Access
from infra.cloud_init import user_data
from infra.kubernetes.former import Former, former
from infra.kubernetes.inventory import CONTROL_PLANE
from infra.kubernetes.node import ClusterNode
from infra.kubernetes.variables import playbook_variables
from infra.lease import Lease
from infra.naming import METADATA_KEY, PROJECT, node_part, resource_name, stack_metadata
from infra.network import Network
from infra.settings import NodeGroup, Settings
from infra.storage import Storage

ROLE_KEY = f"{METADATA_KEY.partition(':')[0]}:role"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    name: str
    host: str
    role: str
    port: openstack.networking.Port
    floating_ip: Output[str] | None
    server: openstack.compute.Instance
    volumes: list[dict[str, Input[str]]] = field(default_factory=list)
    """What is kept on volumes here: `holds`, `id` and `device` of each."""

    @property
    def address(self) -> Output[str]:
        """Address inside the nodes' network."""
        return _address(self.port)

    def place(self) -> dict[str, Input[Any]]:
        """What the cluster knows of the node. It stays when another server takes the node's place."""
        kept = [{"holds": volume["holds"], "id": volume["id"]} for volume in self.volumes]
        return {**_place(self.host, self.role, self.port, self.floating_ip), "volumes": kept}

    def machine(self) -> dict[str, Input[Any]]:
        """What the node is on now: its server, and the devices of its volumes there."""
        return {"server": self.server.id, "volumes": self.volumes}


def entry_nodes(settings: Settings) -> set[str]:
    """Nodes that take traffic from outside: those with a floating IP, or the first control plane where none has."""
    groups = settings.nodes.groups.items()
    every = [node_part(name, i) for name, group in groups for i in range(group.count)]
    control = [
        node_part(name, i) for name, group in groups if group.role == "control-plane" for i in range(group.count)
    ]
    return set({"all": every, "control-plane": control}.get(settings.network.floating_ips, control[:1]))


@dataclass(frozen=True)
class _Planned:
    """A node of the settings, before it has a server."""

    name: str
    group: str
    role: str
    port: openstack.networking.Port
    floating_ip: Output[str] | None


class Nodes(pulumi.ComponentResource):
    """The nodes of all groups, each a server on a port of its own, and a member of the cluster."""

    def __init__(
        self,
        settings: Settings,
        lease: Lease,
        network: Network,
        access: Access,
        *,
        storage: Storage,
        opts: ResourceOptions | None = None,
    ) -> None:
        super().__init__(f"{PROJECT}:infra:Nodes", "nodes", None, opts)
        self._settings, self._lease, self._network, self._access = settings, lease, network, access
        self._storage = storage
        self._stack = pulumi.get_stack()
        before = former() if settings.cluster is not None else Former()
        planned = self._planned()
        machines = [
            _place(resource_name(self._stack, one.name), one.role, one.port, one.floating_ip) for one in planned
        ]
        hints = {name: self._hints(name, group) for name, group in settings.nodes.groups.items()}
        made: dict[str, Node] = {}
        self.members: list[pulumi.Resource] = []
        """Each node's place in the cluster; none without a cluster."""
        # Nodes of a running cluster change one at a time; those that are new to it can be made meanwhile.
        last: list[pulumi.Resource] = []
        for one in sorted(planned, key=lambda one: before.turn(one.name, one.role)):
            node = made[one.name] = self._node(one, hints[one.group], last)
            if settings.cluster is not None:
                member = self._member(node, machines, before)
                self.members.append(member)
                if before.knows(one.name):
                    last = [member]
        self.nodes: dict[str, Node] = {one.name: made[one.name] for one in planned}
        """Nodes by name, e.g. `control-0`."""
        self.register_outputs({"addresses": {node.name: node.address for node in self.nodes.values()}})

    def _planned(self) -> list[_Planned]:
        entries = entry_nodes(self._settings)
        found = []
        for group, about in self._settings.nodes.groups.items():
            for index in range(about.count):
                name = node_part(group, index)
                port = self._network.port(name, entry=name in entries)
                floating = name in entries and self._settings.network.floating_ips != "none"
                found.append(
                    _Planned(name, group, about.role, port, self._network.floating_ip(name, port) if floating else None)
                )
        return found

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
        self,
        planned: _Planned,
        hints: openstack.compute.InstanceSchedulerHintArgs | None,
        after: list[pulumi.Resource],
    ) -> Node:
        settings, group = self._settings, self._settings.nodes.groups[planned.group]
        host = resource_name(self._stack, planned.name)
        image = group.image or settings.nodes.image
        # Nova would rebuild the server in place, under a node that is at work.
        replaced_by = ["image_name", "image_id"]
        if settings.reserves_flavors or settings.nodes.on_flavor_change == "replace":
            replaced_by.append("flavor_name")
        server = openstack.compute.Instance(
            planned.name,
            name=host,
            flavor_name=self._lease.flavor(planned.group),
            image_name=image if group.boot_volume_gb is None else None,
            block_devices=None if group.boot_volume_gb is None else [self._boot_volume(image, group)],
            key_pair=self._access.keypair,
            networks=[openstack.compute.InstanceNetworkArgs(port=planned.port.id)],
            scheduler_hints=[hints] if hints else None,
            availability_zone=group.availability_zone,
            user_data=user_data(host),
            metadata={**stack_metadata(self._stack), ROLE_KEY: group.role},
            # The port is the next server's too: it must be free before that one boots.
            opts=ResourceOptions(
                parent=self, depends_on=after, delete_before_replace=True, replace_on_changes=replaced_by
            ),
        )
        volumes = self._storage.attach(planned.name, server)
        return Node(planned.name, host, planned.role, planned.port, planned.floating_ip, server, volumes)

    def _member(self, node: Node, machines: list[dict[str, Input[Any]]], before: Former) -> ClusterNode:
        return ClusterNode(
            f"{node.name}-member",
            {
                **node.place(),
                **node.machine(),
                "node": node.name,
                "name": self._stack,
                "user": self._settings.access.user,
                "private_key": self._access.private_key,
                "machines": machines,
                "variables": playbook_variables(self._settings),
                "formed": before.formed and before.knows(node.name),
            },
            # With all servers goes the cluster: nothing has to be moved away.
            ResourceOptions(parent=self, deleted_with=self, additional_secret_outputs=["private_key"]),
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
        first = next(node for node in self.nodes.values() if node.role == CONTROL_PLANE)
        return first.floating_ip or first.address


def _address(port: openstack.networking.Port) -> Output[str]:
    return port.all_fixed_ips.apply(lambda addresses: addresses[0])


def _place(
    host: str, role: str, port: openstack.networking.Port, floating_ip: Output[str] | None
) -> dict[str, Input[Any]]:
    return {"host": host, "role": role, "address": _address(port), "floating_ip": floating_ip}
