"""The nodes' network: network, subnet and router, security groups, floating IPs."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_openstack as openstack
from pulumi import InvokeOptions, Output, Resource, ResourceOptions

from infra import settings as model
from infra.manifests import PORT, REDIRECT_PORT
from infra.naming import PROJECT, resource_name, stack_tag


@dataclass(frozen=True)
class Rule:
    """An ingress rule of a security group. `source` None: the nodes themselves; `port` None: every protocol."""

    name: str
    description: str
    port: int | None
    source: model.Network | None


def ingress_rules(settings: model.Settings) -> tuple[list[Rule], list[Rule]]:
    """Rules for all nodes, and further rules for the nodes that accept traffic from outside."""
    access = settings.access
    # Pods use any port. Through the allowed address pairs, the remote group includes their addresses.
    nodes = [Rule("between-nodes", "anything between the nodes", None, None)]
    nodes += [Rule(_slug("ssh", source), "SSH", 22, source) for source in access.ssh_from]
    entry = [Rule(_slug("api", source), "Kubernetes API", 6443, source) for source in access.api_from]
    if settings.platform is not None:
        entry += [
            Rule(_slug(f"gateway-{port}", source), "platform's gateway", port, source)
            for port in (PORT, REDIRECT_PORT)
            for source in access.api_from
        ]
    entry += [
        Rule(_slug(f"web-{port}", source), "web entry", port, source)
        for port in access.web_ports
        for source in access.web_from
    ]
    return nodes, entry


def _slug(what: str, source: model.Network) -> str:
    return f"{what}-{source}".replace("/", "-").replace(":", "-")


class Network(pulumi.ComponentResource):
    """A new network behind a router, or an existing network, with the stack's security groups."""

    def __init__(self, settings: model.Settings, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Network", "network", None, opts)
        self._stack = pulumi.get_stack()
        self._tags = [stack_tag(self._stack)]
        self._own = ResourceOptions(parent=self)
        self._settings = settings.network
        self.subnet_id: Output[str] | None = None
        """The stack's subnet; None on an existing network."""
        self.ready: list[Resource] = []
        """Resources that must exist before a node boots, so that it reaches the metadata service and the internet."""
        if self._settings.existing is None:
            self.network_id = self._own_network()
        else:
            existing = openstack.networking.get_network_output(
                name=self._settings.existing, opts=InvokeOptions(parent=self)
            )
            self.network_id = existing.id
        self.node_groups: list[Output[str]] = []
        """Security groups of every node."""
        self.entry_groups: list[Output[str]] = []
        """Further security groups of the nodes that accept traffic from outside."""
        if self._settings.port_security:
            nodes, entry = ingress_rules(settings)
            self.node_groups = [self._security_group("nodes", "Nodes: SSH, and all between them", nodes)]
            self.entry_groups = [self._security_group("entry", "Entry: web and Kubernetes API", entry)]
        self.register_outputs({"networkId": self.network_id, "subnetId": self.subnet_id})

    def _own_network(self) -> Output[str]:
        name = self._cloud_name
        network = openstack.networking.Network(
            "network",
            name=name("network"),
            admin_state_up=True,
            mtu=self._settings.mtu,
            port_security_enabled=self._settings.port_security,
            tags=self._tags,
            opts=self._own,
        )
        subnet = openstack.networking.Subnet(
            "subnet",
            name=name("subnet"),
            network_id=network.id,
            cidr=str(self._settings.cidr),
            ip_version=4,
            dns_nameservers=[str(server) for server in self._settings.dns_servers] or None,
            tags=self._tags,
            opts=self._own,
        )
        self.subnet_id = subnet.id
        self.ready.append(subnet)
        if self._settings.external_network is not None:
            external = openstack.networking.get_network_output(
                name=self._settings.external_network, external=True, opts=InvokeOptions(parent=self)
            )
            router = openstack.networking.Router(
                "router",
                name=name("router"),
                admin_state_up=True,
                external_network_id=external.id,
                tags=self._tags,
                opts=self._own,
            )
            self.ready.append(
                openstack.networking.RouterInterface(
                    "router-interface", router_id=router.id, subnet_id=subnet.id, opts=self._own
                )
            )
        return network.id

    def _security_group(self, part: str, description: str, rules: Sequence[Rule]) -> Output[str]:
        group = openstack.networking.SecGroup(
            part, name=self._cloud_name(part), description=description, tags=self._tags, opts=self._own
        )
        for rule in rules:
            openstack.networking.SecGroupRule(
                f"{part}-{rule.name}",
                description=rule.description,
                security_group_id=group.id,
                direction="ingress",
                ethertype="IPv6" if rule.source is not None and rule.source.version == 6 else "IPv4",
                protocol="tcp" if rule.port else None,
                port_range_min=rule.port,
                port_range_max=rule.port,
                remote_ip_prefix=str(rule.source) if rule.source is not None else None,
                remote_group_id=group.id if rule.source is None else None,
                # Neutron refuses a second rule that differs only in its description.
                opts=ResourceOptions(parent=group, delete_before_replace=True),
            )
        return group.id

    def _cloud_name(self, part: str) -> str:
        return resource_name(self._stack, part)

    def port(self, node: str, *, entry: bool) -> openstack.networking.Port:
        """A port for `node`. It stays when the server is replaced, so the node keeps its address."""
        groups = self.node_groups + (self.entry_groups if entry else [])
        pairs = [self._settings.pod_cidr, self._settings.service_cidr] if self._settings.routes_pods else []
        return openstack.networking.Port(
            f"{node}-port",
            name=self._cloud_name(node),
            network_id=self.network_id,
            admin_state_up=True,
            fixed_ips=[openstack.networking.PortFixedIpArgs(subnet_id=self.subnet_id)] if self.subnet_id else None,
            security_group_ids=groups or None,
            no_security_groups=None if groups else True,
            allowed_address_pairs=[
                openstack.networking.PortAllowedAddressPairArgs(ip_address=str(pair)) for pair in pairs
            ]
            or None,
            tags=self._tags,
            opts=ResourceOptions(parent=self, depends_on=self.ready),
        )

    def floating_ip(self, node: str, port: openstack.networking.Port) -> Output[str]:
        """The address of a floating IP on `port`. The node keeps it when its server or port is replaced."""
        floating = openstack.networking.FloatingIp(
            f"{node}-ip",
            pool=self._settings.external_network,
            description=self._cloud_name(node),
            tags=self._tags,
            opts=self._own,
        )
        associated = openstack.networking.FloatingIpAssociate(
            f"{node}-ip-on-port",
            floating_ip=floating.address,
            port_id=port.id,
            opts=ResourceOptions(parent=self, depends_on=self.ready),
        )
        return associated.floating_ip
