"""A node's membership in the cluster, as a dynamic resource.

Its identity is its server, its role and its host name. So the dependency graph rolls changes through the cluster: a
node leaves before its server is deleted, and the next node is replaced only after the new one has joined.
"""

import sys
from collections.abc import Mapping
from typing import Any

from pulumi import Input, ResourceOptions, dynamic
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, UpdateResult

from infra.kubernetes.inventory import CONTROL_PLANE, control_planes, play, record_servers

IDENTITY = ("server", "role", "host")


class ClusterNodeProvider(dynamic.ResourceProvider):
    """Joins a machine to an existing cluster, and removes it before the machine is deleted."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse to replace the only control plane without etcd's data, which would lose the cluster."""
        # A node that is deleted with its server, or was lost, has no old inputs.
        replaced = news["formed"] and (not olds or olds["server"] != news["server"])
        if not (replaced and news["role"] == CONTROL_PLANE and is_only_control_plane(news)):
            return CheckResult(news, [])
        if has_volume(news, "etcd"):
            # Standard error is a dynamic provider's only way to show a message in the preview.
            sys.stderr.write(
                f"{news['host']} is the only control plane: the cluster's API is unavailable while its server is "
                "replaced. Running pods continue; nothing can be started, moved or scaled meanwhile.\n"
            )
            return CheckResult(news, [])
        reason = (
            f"{news['host']} is the only control plane, and etcd's data is on its own disk: replacing its server "
            "would lose the cluster. Put etcd on a volume first (storage.volumes.<name>: {sizeGb: 1, attachTo: "
            f"{news['node']}, holds: etcd}}, then `lab up`), or undo the change that replaces the server, or start "
            "over with `lab destroy`."
        )
        return CheckResult(news, [CheckFailure("", reason)])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """A change of its identity replaces the node. Addresses and other nodes are no changes."""
        changed = [key for key in IDENTITY if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(changed), replaces=changed, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Join an existing cluster. New nodes join all together in `KubernetesCluster`."""
        record_servers(props["name"], {props["host"]: props["server"]})
        if props["formed"]:
            others = [one for one in control_planes(props["machines"], props["host"]) if one["host"] != props["host"]]
            play("site", props, [*others, props], part=props["node"])
        return CreateResult(props["host"], props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Nothing to do: a node does not change in place."""
        return UpdateResult(news)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Drain the node, respecting PodDisruptionBudgets; remove its etcd member; unmount its volumes."""
        others = [one for one in control_planes(props["machines"], props["host"]) if one["host"] != props["host"]]
        play("leave", props, [*others, props], part=props["node"], cluster_remove_nodes=[props["host"]])


def is_only_control_plane(props: Mapping[str, Any]) -> bool:
    """Whether the stack has one control plane."""
    return len(control_planes(props["machines"])) == 1


def has_volume(props: Mapping[str, Any], data: str) -> bool:
    """Whether a volume with `holds: <data>` is attached to the node."""
    return any(volume["holds"] == data for volume in props["volumes"])


class ClusterNode(dynamic.Resource, module="ansible", name="ClusterNode"):
    """A node of the cluster.

    Inputs: `name` (the stack), `node` (e.g. control-0), `host`, `role`, `server` (its id), `address`, `floating_ip`,
    `user`, `private_key`, `machines` (every node of the stack: host, role, address, floating_ip), `variables` of the
    playbooks, `volumes` attached here (`holds`, `id`, `device`), `formed` (whether there is a cluster to join).
    """

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(ClusterNodeProvider(), name, dict(props), opts)
