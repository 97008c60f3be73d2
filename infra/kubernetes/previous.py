"""The stack's nodes before this update, from its state. Used only for the order in which nodes change."""

from dataclasses import dataclass
from typing import Any

import pulumi

from infra.kubernetes.inventory import CONTROL_PLANE, record_servers


@dataclass(frozen=True)
class PreviousNodes:
    """The nodes of a stack before this update."""

    formed: bool = False
    """Whether the nodes are a cluster."""
    servers: frozenset[str] = frozenset()
    """Nodes that have a server."""
    ports: frozenset[str] = frozenset()
    """Nodes that have a port. It stays while the server is replaced, so an interrupted replacement is recognized."""

    def has_member(self, node: str) -> bool:
        """Whether a node is a member of the cluster, or was until it was lost or while it is being replaced."""
        return self.formed and node in self.ports

    def sort_key(self, node: str, role: str) -> tuple[bool, bool, bool]:
        """Order of changes: missing members first, so that never two are unavailable; then control planes."""
        return not self.has_member(node), node in self.servers, role != CONTROL_PLANE


def read_previous_nodes() -> PreviousNodes:
    """Read the nodes from this stack's state."""
    stack = pulumi.get_stack()
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}"
    result = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": name}).value or {}
    resources: dict[str, dict[str, Any]] = result.get("outputs") or {}
    servers, ports, formed = set(), set(), False
    ids: dict[str, str] = {}
    for urn, details in resources.items():
        type_, resource = str(details["type"]), urn.split("::")[-1]
        if type_ == "openstack:compute/instance:Instance":
            servers.add(resource)
        elif type_ == "openstack:networking/port:Port":
            ports.add(resource.removesuffix("-port"))
        elif type_.endswith("ansible:ClusterNode"):
            ids[details["outputs"]["host"]] = details["outputs"]["server"]
        elif type_.endswith("ansible:KubernetesCluster"):
            formed = True
    record_servers(stack, ids)
    return PreviousNodes(formed, frozenset(servers), frozenset(ports))
