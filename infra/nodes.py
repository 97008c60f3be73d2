"""The nodes: groups by role and flavor, each node a member of the cluster."""

from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_openstack as openstack
from pulumi import Input, InvokeOptions, Output, ResourceOptions

from infra.access import Access
from infra.cloud_init import user_data
from infra.kubernetes.inventory import CONTROL_PLANE
from infra.kubernetes.node import ClusterNode
from infra.kubernetes.previous import PreviousNodes, read_previous_nodes
from infra.kubernetes.variables import playbook_variables
from infra.lease import Lease
from infra.naming import METADATA_KEY, PROJECT, node_part, resource_name, stack_metadata
from infra.network import Network
from infra.settings import NodeGroup, Settings
from infra.storage import Storage

ROLE_KEY = f"{METADATA_KEY.partition(':')[0]}:role"


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    name: str
    host: str
    role: str
    port: openstack.networking.Port
    floating_ip: Output[str] | None
    server: openstack.compute.Instance
    volumes: list[dict[str, Input[str]]] = field(default_factory=list)
    """Its data volumes: `holds`, `id` and `device` of each."""

    @property
    def address(self) -> Output[str]:
        """Address inside the nodes' network."""
        return _address(self.port)

    def description(self) -> dict[str, Input[Any]]:
        """Properties of the node that stay the same when its server is replaced."""
        volumes = [{"holds": volume["holds"], "id": volume["id"]} for volume in self.volumes]
        return {**_description(self.host, self.role, self.port, self.floating_ip), "volumes": volumes}

    def machine(self) -> dict[str, Input[Any]]:
        """The node's present server, and the devices of its volumes on it."""
        return {"server": self.server.id, "volumes": self.volumes}


def entry_nodes(settings: Settings) -> set[str]:
    """Nodes that accept traffic from outside: those with a floating IP, or else the first control plane."""
    groups = settings.nodes.groups.items()
    every = [node_part(name, i) for name, group in groups for i in range(group.count)]
    control = [
        node_part(name, i) for name, group in groups if group.role == "control-plane" for i in range(group.count)
    ]
    return set({"all": every, "control-plane": control}.get(settings.network.floating_ips, control[:1]))


@dataclass(frozen=True)
class _NodeSpec:
    """A node in the settings, with its port, but without a server."""

    name: str
    group: str
    role: str
    port: openstack.networking.Port
    floating_ip: Output[str] | None


class Nodes(pulumi.ComponentResource):
    """The nodes of all groups: each has a port, a server, and a membership in the cluster."""

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
        previous = read_previous_nodes() if settings.cluster is not None else PreviousNodes()
        specs = self._specs()
        machines = [
            _description(resource_name(self._stack, spec.name), spec.role, spec.port, spec.floating_ip)
            for spec in specs
        ]
        hints = {name: self._hints(name, group) for name, group in settings.nodes.groups.items()}
        nodes: dict[str, Node] = {}
        self.members: list[pulumi.Resource] = []
        """Each node's membership in the cluster; empty without a cluster."""
        # Members of a running cluster change one at a time; new nodes can be created meanwhile.
        last: list[pulumi.Resource] = []
        for spec in sorted(specs, key=lambda spec: previous.sort_key(spec.name, spec.role)):
            node = nodes[spec.name] = self._node(spec, hints[spec.group], last)
            if settings.cluster is not None:
                member = self._member(node, machines, previous)
                self.members.append(member)
                if previous.has_member(spec.name):
                    last = [member]
        self.nodes: dict[str, Node] = {spec.name: nodes[spec.name] for spec in specs}
        """Nodes by name, e.g. `control-0`."""
        self.register_outputs({"addresses": {node.name: node.address for node in self.nodes.values()}})

    def _specs(self) -> list[_NodeSpec]:
        entries = entry_nodes(self._settings)
        specs = []
        for group, group_settings in self._settings.nodes.groups.items():
            for index in range(group_settings.count):
                name = node_part(group, index)
                port = self._network.port(name, entry=name in entries)
                floating = name in entries and self._settings.network.floating_ips != "none"
                floating_ip = self._network.floating_ip(name, port) if floating else None
                specs.append(_NodeSpec(name, group, group_settings.role, port, floating_ip))
        return specs

    def _hints(self, name: str, group: NodeGroup) -> openstack.compute.InstanceSchedulerHintArgs | None:
        spread = None
        nodes = self._settings.nodes
        bare_metal = group.flavor in self._settings.cloud.bare_metal_flavors
        # A group with one node has it too, so that later nodes do not change the hints of existing ones.
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
        spec: _NodeSpec,
        hints: openstack.compute.InstanceSchedulerHintArgs | None,
        after: list[pulumi.Resource],
    ) -> Node:
        settings, group = self._settings, self._settings.nodes.groups[spec.group]
        host = resource_name(self._stack, spec.name)
        image = group.image or settings.nodes.image
        # Otherwise Nova would rebuild the server in place, under a running node.
        replaced_by = ["image_name", "image_id"]
        if settings.reserves_flavors or settings.nodes.on_flavor_change == "replace":
            replaced_by.append("flavor_name")
        server = openstack.compute.Instance(
            spec.name,
            name=host,
            flavor_name=self._lease.flavor(spec.group),
            image_name=image if group.boot_volume_gb is None else None,
            block_devices=None if group.boot_volume_gb is None else [self._boot_volume(image, group)],
            key_pair=self._access.keypair,
            networks=[openstack.compute.InstanceNetworkArgs(port=spec.port.id)],
            scheduler_hints=[hints] if hints else None,
            availability_zone=group.availability_zone,
            user_data=user_data(host),
            metadata={**stack_metadata(self._stack), ROLE_KEY: group.role},
            # The next server uses the same port, which must be free before it boots.
            opts=ResourceOptions(
                parent=self, depends_on=after, delete_before_replace=True, replace_on_changes=replaced_by
            ),
        )
        volumes = self._storage.attach(spec.name, server)
        return Node(spec.name, host, spec.role, spec.port, spec.floating_ip, server, volumes)

    def _member(self, node: Node, machines: list[dict[str, Input[Any]]], previous: PreviousNodes) -> ClusterNode:
        return ClusterNode(
            f"{node.name}-member",
            {
                **node.description(),
                **node.machine(),
                "node": node.name,
                "name": self._stack,
                "user": self._settings.access.user,
                "private_key": self._access.private_key,
                "machines": machines,
                "variables": playbook_variables(self._settings),
                "formed": previous.has_member(node.name),
            },
            # If all servers are deleted, the cluster is too, and nodes need not be drained.
            ResourceOptions(parent=self, deleted_with=self, additional_secret_outputs=["private_key"]),
        )

    def _boot_volume(self, image: str, group: NodeGroup) -> openstack.compute.InstanceBlockDeviceArgs:
        result = openstack.images.get_image_output(name=image, most_recent=True, opts=InvokeOptions(parent=self))
        return openstack.compute.InstanceBlockDeviceArgs(
            uuid=result.id,
            source_type="image",
            destination_type="volume",
            boot_index=0,
            volume_size=group.boot_volume_gb,
            volume_type=group.boot_volume_type,
            delete_on_termination=True,
        )

    def entry(self) -> Output[str]:
        """External address of the cluster: the first control plane's floating IP, or else its address."""
        first = next(node for node in self.nodes.values() if node.role == CONTROL_PLANE)
        return first.floating_ip or first.address


def _address(port: openstack.networking.Port) -> Output[str]:
    return port.all_fixed_ips.apply(lambda addresses: addresses[0])


def _description(
    host: str, role: str, port: openstack.networking.Port, floating_ip: Output[str] | None
) -> dict[str, Input[Any]]:
    return {"host": host, "role": role, "address": _address(port), "floating_ip": floating_ip}
