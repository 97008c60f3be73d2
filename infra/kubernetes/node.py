"""A machine's place in the cluster: a dynamic resource a node.

Its identity is its server and its role. So the graph does the rolling: before a server goes, its node leaves the
cluster; after its successor is there, that one joins, and only then the next node's turn comes.
"""

from collections.abc import Mapping
from typing import Any

from pulumi import Input, ResourceOptions, dynamic
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, UpdateResult

from infra.kubernetes.inventory import CONTROL_PLANE, control_planes, play, record_servers

IDENTITY = ("server", "role", "host")


class ClusterNodeProvider(dynamic.ResourceProvider):
    """Joins a machine to a cluster that is there, and takes it out before the machine goes."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse what would lose the cluster: another server for the only control plane, without its data."""
        if (
            olds
            and news["formed"]
            and news["role"] == olds["role"] == CONTROL_PLANE
            and olds["server"] != news["server"]
            and alone(news)
            and not holds(news, "etcd")
        ):
            told = (
                f"{news['host']} is the only control plane, and etcd's data is on its own disk: with its server the "
                "cluster would be lost. Give etcd a volume first (storage.volumes.<name>: {sizeGb: 1, attachTo: "
                f"{news['node']}, holds: etcd}}, then `lab up`), or take back what replaces the server, or begin again "
                "with `lab destroy`."
            )
            return CheckResult(news, [CheckFailure("", told)])
        return CheckResult(news, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another server or role is another node. How it is reached, and who else is there, changes nothing here."""
        other = [key for key in IDENTITY if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(other), replaces=other, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Join, where there is a cluster already: the first nodes become one all together (`KubernetesCluster`)."""
        record_servers(props["name"], {props["host"]: props["server"]})
        if props["formed"]:
            others = [one for one in control_planes(props["machines"], props["host"]) if one["host"] != props["host"]]
            play("site", props, [*others, props], part=props["node"])
        return CreateResult(props["host"], props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Nothing of a node changes without another one taking its place."""
        return UpdateResult(news)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Leave: pods move, PodDisruptionBudgets kept; etcd forgets the member; volumes are let go."""
        others = [one for one in control_planes(props["machines"], props["host"]) if one["host"] != props["host"]]
        play("leave", props, [*others, props], part=props["node"], cluster_remove_nodes=[props["host"]])


def alone(props: Mapping[str, Any]) -> bool:
    """Whether the stack has one control plane."""
    return len(control_planes(props["machines"])) == 1


def holds(props: Mapping[str, Any], what: str) -> bool:
    """Whether a volume that holds `what` is attached to the node."""
    return any(volume["holds"] == what for volume in props["volumes"])


class ClusterNode(dynamic.Resource, module="ansible", name="ClusterNode"):
    """A node of the cluster.

    Inputs: `name` (the stack), `node` (e.g. control-0), `host`, `role`, `server` (its id), `address`, `floating_ip`,
    `user`, `private_key`, `machines` (every node of the stack: host, role, address, floating_ip), `variables` of the
    playbooks, `volumes` attached here (`holds`, `id`, `device`), `formed` (whether there is a cluster to join).
    """

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(ClusterNodeProvider(), name, dict(props), opts)
