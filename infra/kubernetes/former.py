"""What the stack's state says of the cluster before this run: it decides in which order nodes change, nothing else."""

from dataclasses import dataclass
from typing import Any

import pulumi

from infra.kubernetes.inventory import CONTROL_PLANE, record_servers


@dataclass(frozen=True)
class Former:
    """A stack as the run before left it."""

    formed: bool = False
    """Whether its nodes are a cluster."""
    servers: frozenset[str] = frozenset()
    """Nodes that have a server."""
    ports: frozenset[str] = frozenset()
    """Nodes that have a port. It stays while their server is exchanged, so that an interrupted exchange is known."""

    def knows(self, node: str) -> bool:
        """Whether a node is, or was until it was lost or is exchanged, one of the cluster."""
        return self.formed and node in self.ports

    def turn(self, node: str, role: str) -> tuple[bool, bool, bool]:
        """When a node's turn comes: first what is missing, so that never two are away; then control planes."""
        return not self.knows(node), node in self.servers, role != CONTROL_PLANE


def former() -> Former:
    """What the state says of this stack."""
    stack = pulumi.get_stack()
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}"
    told = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": name}).value or {}
    resources: dict[str, dict[str, Any]] = told.get("outputs") or {}
    servers, ports, formed = set(), set(), False
    ids: dict[str, str] = {}
    for urn, found in resources.items():
        type_, resource = str(found["type"]), urn.split("::")[-1]
        if type_ == "openstack:compute/instance:Instance":
            servers.add(resource)
        elif type_ == "openstack:networking/port:Port":
            ports.add(resource.removesuffix("-port"))
        elif type_.endswith("ansible:ClusterNode"):
            ids[found["outputs"]["host"]] = found["outputs"]["server"]
        elif type_.endswith("ansible:KubernetesCluster"):
            formed = True
    record_servers(stack, ids)
    return Former(formed, frozenset(servers), frozenset(ports))
