"""What stacks need of a project's quotas, and what is available: for `lab doctor` and `lab class`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openstack.compute.v2.flavor import Flavor
    from openstack.connection import Connection

    from infra.settings import NodeGroup, Settings

Limits = dict[str, tuple[int, int]]
"""Limit and use of each quota; -1 means no limit."""


@dataclass(frozen=True)
class Quota:
    """What is needed of one quota."""

    name: str
    needed: int
    limit: int
    used: int

    @property
    def free(self) -> int:
        """How much is left, if there is a limit."""
        return max(0, self.limit - self.used)

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.limit < 0 or self.needed == 0 or self.needed <= self.free


def quotas(needs: Mapping[str, int], limits: Limits) -> list[Quota]:
    """The quotas in `limits` with what is needed of each."""
    return [Quota(name, needs.get(name, 0), limit, used) for name, (limit, used) in limits.items()]


def _groups(settings: Settings) -> list[NodeGroup]:
    return [group for group in settings.nodes.groups.values() if group.count]


def floating_ips(settings: Settings) -> int:
    """Number of floating IPs of a stack."""
    planes = sum(g.count for g in _groups(settings) if g.role == "control-plane")
    counts = {"first-control-plane": min(1, planes), "control-plane": planes, "all": settings.nodes.total, "none": 0}
    return counts[settings.network.floating_ips]


def volume_sizes(settings: Settings) -> list[int]:
    """The sizes of a stack's volumes in GB."""
    sizes = [volume.size_gb for volume in settings.storage.volumes.values()]
    return sizes + [g.boot_volume_gb for g in _groups(settings) if g.boot_volume_gb for _ in range(g.count)]


def compute_needs(settings: Settings, flavors: Mapping[str, Flavor], own: Mapping[str, int]) -> dict[str, int]:
    """Compute quota that a stack needs in addition to its `own` resources, counted by kind."""
    missing = [flavors[g.flavor] for g in _groups(settings) for _ in range(g.count)][own.get("server", 0) :]
    spread = [g for g in _groups(settings) if g.flavor not in settings.cloud.bare_metal_flavors]
    server_groups = 0 if settings.nodes.anti_affinity == "none" else len(spread)
    return {
        "instances": len(missing),
        "cores": sum(flavor.vcpus for flavor in missing),
        "MB of RAM": sum(flavor.ram for flavor in missing),
        "server groups": max(0, server_groups - own.get("server group", 0)),
        "key pairs": max(0, 1 - own.get("keypair", 0)),
    }


def compute_limits(cloud: Connection) -> Limits:
    """The project's Nova quotas; key pairs belong to the user."""
    limits = cloud.compute.get_limits().absolute
    return {
        "instances": (limits.instances, limits.instances_used),
        "cores": (limits.total_cores, limits.total_cores_used),
        "MB of RAM": (limits.total_ram, limits.total_ram_used),
        "server groups": (limits.server_groups, limits.server_groups_used or 0),
        "key pairs": (limits.keypairs, sum(1 for _ in cloud.compute.keypairs())),
    }


def network_needs(settings: Settings, own: Mapping[str, int]) -> dict[str, int]:
    """Network quota that a stack needs in addition to its `own` resources, counted by kind."""
    from infra.network import ingress_rules

    new = 0 if settings.network.existing else 1
    # Neutron adds an egress rule for IPv4 and one for IPv6 to every group.
    groups = [len(rules) + 2 for rules in ingress_rules(settings)] if settings.network.port_security else []
    groups = groups[own.get("security group", 0) :]
    # A router's interface and a DHCP agent need a port each.
    return {
        "networks": max(0, new - own.get("network", 0)),
        "subnets": max(0, new - own.get("subnet", 0)),
        "routers": max(0, new * bool(settings.network.external_network) - own.get("router", 0)),
        "ports": max(0, settings.nodes.total - own.get("port", 0)) + (0 if own.get("network") else 2 * new),
        "floating ips": max(0, floating_ips(settings) - own.get("floating IP", 0)),
        "security groups": len(groups),
        "security group rules": sum(groups),
    }


def network_limits(cloud: Connection, project: str) -> Limits:
    """The project's Neutron quotas."""
    quota = cloud.network.get_quota(project, details=True)
    names = ("networks", "subnets", "routers", "ports", "floating ips", "security groups", "security group rules")
    details = {name: getattr(quota, name.replace(" ", "_")) for name in names}
    return {name: (detail["limit"], detail["used"] + detail["reserved"]) for name, detail in details.items()}


def volume_needs(settings: Settings, own: Mapping[str, int]) -> dict[str, int]:
    """Volume quota that a stack needs in addition to its `own` volumes."""
    sizes = volume_sizes(settings)[own.get("volume", 0) :]
    return {"volumes": len(sizes), "GB": sum(sizes)}


def volume_limits(cloud: Connection) -> Limits:
    """The project's Cinder quotas."""
    limits = cloud.block_storage.get_limits().absolute
    return {
        "volumes": (limits.max_total_volumes, limits.total_volumes_used),
        "GB": (limits.max_total_volume_gigabytes, limits.total_gigabytes_used),
    }
