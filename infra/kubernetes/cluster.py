"""The stack's nodes as one Kubernetes cluster: a dynamic resource around the playbooks of `ansible/`."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions, dynamic
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, UpdateResult

from infra.bundle import kubernetes_versions
from infra.kubernetes.inventory import VERSION, Props, folder, play
from infra.kubernetes.playbook import ANSIBLE
from infra.kubernetes.variables import playbook_variables
from infra.naming import PROJECT
from infra.nodes import Nodes
from infra.settings import Settings

ROOT = ANSIBLE.parent
# Changes of these properties of a node run a playbook. Its server is not among them: that is the node's own concern.
NODE_PROPERTIES = ("host", "role", "address", "floating_ip")
# Changes of these inputs run a playbook. The private key is not among them: it only gives access.
COMPARED_INPUTS = ("user", "variables", "content")
# Ranges that a running cluster cannot change.
RANGES = {"cluster_pod_subnet": "network.podCidr", "cluster_service_subnet": "network.serviceCidr"}
READ_SECONDS = 10
KUBECONFIG_DAYS = 270
"""The client certificate is valid for at least 11 months: the control planes renew theirs every month."""


class ClusterProvider(dynamic.ResourceProvider):
    """Runs the playbooks: `site`; before it `upgrade`, if the version changes; `reset`, if the machines stay."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse a version that the bundle lacks, and a change of a running cluster's ranges."""
        failures = []
        available = kubernetes_versions(news["variables"]["cluster_bundle"])
        version = news["variables"][VERSION]
        # A preview may run without a bundle.
        if available and version not in available:
            reason = f"the bundle has no Kubernetes {version}; it has {', '.join(sorted(available))}"
            failures.append(CheckFailure("", reason))
        for variable, setting in RANGES.items() if olds else ():
            before, after = olds["variables"][variable], news["variables"][variable]
            if before != after:
                reason = (
                    f"{setting} is {before} on the running cluster and cannot change to {after}: pods could no longer "
                    f"reach each other. Set it back to {before}, or start over with `lab destroy` and `lab up`."
                )
                failures.append(CheckFailure("", reason))
        return CheckResult(news, failures)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """A change of nodes, variables, playbooks or the bundle's manifest is an update."""
        changes = any(olds.get(key) != news.get(key) for key in COMPARED_INPUTS)
        return DiffResult(changes=changes or _compared_nodes(olds) != _compared_nodes(news), replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Install the cluster. Nodes that an interrupted run has finished stay as they are."""
        play("site", props, nodes_of(props))
        return CreateResult(props["name"], props)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Read the cluster without nodes that are missing or not Ready, so that the next `up` restores them.

        An interrupted `create` is repeated, which changes nothing on nodes that are finished.
        """
        if not id_:
            return ReadResult(id_, {})
        ready = ready_nodes(folder(props["name"]) / "kubeconfig")
        if ready is None:
            return ReadResult(id_, props)
        return ReadResult(id_, {**props, "machines": [one for one in props["machines"] if one["host"] in ready]})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Upgrade existing nodes if the version changes, then run `site` on all nodes."""
        if olds["variables"][VERSION] != news["variables"][VERSION]:
            hosts = {node["host"] for node in olds.get("machines", ())}
            play("upgrade", news, [node for node in nodes_of(news, olds) if node["host"] in hosts])
        play("site", news, nodes_of(news, olds))
        return UpdateResult(news)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Remove the cluster from the machines. Not called if the machines are deleted too."""
        play("reset", props, nodes_of(props), confirmed="cluster_reset=yes")


def _compared_nodes(props: Props) -> list[tuple[Any, ...]] | None:
    """Properties of each node whose change is an update; None while they are unknown."""
    if not isinstance(props.get("machines", []), list):
        return None
    return sorted(
        (
            *(str(node.get(key)) for key in NODE_PROPERTIES),
            *(f"{volume['holds']} {volume['id']}" for volume in node.get("volumes") or ()),
        )
        for node in props.get("machines", ())
    )


def nodes_of(props: Props, olds: Props | None = None) -> list[Any]:
    """Every node with its server; nodes of `olds` come first, because others join the first control plane."""
    hosts = {node["host"] for node in (olds or {}).get("machines", ())}
    nodes = [{**node, **props["servers"][node["host"]]} for node in props["machines"]]
    return sorted(nodes, key=lambda node: node["host"] not in hosts)


def ready_nodes(kubeconfig: Path) -> set[str] | None:
    """Names of the nodes that are Ready; None if the API does not answer."""
    # Imported here because the program and most previews do not need it.
    from kubernetes import client, config  # noqa: PLC0415

    with suppress(Exception):
        api = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
        nodes: list[dict[str, Any]] = client.ApiClient().sanitize_for_serialization(
            api.list_node(_request_timeout=READ_SECONDS).items
        )
        return {
            node["metadata"]["name"]
            for node in nodes
            if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", ()))
        }
    return None


def digest() -> str:
    """Digest of the playbooks and the bundle's manifest, so that a change of them is an update."""
    content = hashlib.sha256()
    for path in sorted([*ANSIBLE.rglob("*"), *(ROOT / "bundle").glob("manifest.[yl]*")]):
        if path.is_file() and path.parent.name != "__pycache__":
            content.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return content.hexdigest()


class KubernetesCluster(dynamic.Resource, module="ansible", name="KubernetesCluster"):
    """A Kubernetes cluster on existing machines."""

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(ClusterProvider(), name, dict(props), opts)


class KubeconfigProvider(dynamic.ResourceProvider):
    """Fetches the administrator's kubeconfig.

    A separate resource, so that it stays known in a preview in which the cluster changes. Otherwise all objects in the
    cluster would seem to change too.
    """

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Record the day of issue: its certificate is valid for a year, and fetched again in time."""
        today = datetime.now(UTC).date()
        issued = date.fromisoformat(olds.get("issued", today.isoformat()))
        due = issued + timedelta(days=KUBECONFIG_DAYS) <= today
        return CheckResult({**news, "issued": (today if due else issued).isoformat()}, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """A new address needs a new kubeconfig, and so does a certificate that ends soon."""
        changes = any(olds.get(key) != news.get(key) for key in ("address", "issued"))
        return DiffResult(changes=changes, replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Fetch it."""
        return CreateResult(props["name"], {**props, "kubeconfig": _fetch(props)})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Fetch it again."""
        renewed = olds.get("issued") != news["issued"]
        return UpdateResult({**news, "kubeconfig": _fetch(news, renewed=renewed)})


def _fetch(props: Props, *, renewed: bool = False) -> str:
    """Fetch the kubeconfig, or use the one that the last run of `site` has fetched if it is still valid."""
    path = folder(props["name"]) / "kubeconfig"
    if renewed or not path.exists() or f"https://{props['address']}:" not in path.read_text():
        play("kubeconfig", props, nodes_of(props))
    return path.read_text()


class Kubeconfig(dynamic.Resource, module="ansible", name="Kubeconfig"):
    """The administrator's kubeconfig, a secret."""

    kubeconfig: Output[str]

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(KubeconfigProvider(), name, {**props, "kubeconfig": None}, opts)


class Cluster(pulumi.ComponentResource):
    """Kubernetes on the stack's nodes."""

    def __init__(
        self, settings: Settings, nodes: Nodes, private_key: Output[str] | None, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(f"{PROJECT}:infra:Cluster", "cluster", None, opts)
        assert settings.cluster is not None
        props: dict[str, Input[Any]] = {
            "name": pulumi.get_stack(),
            "machines": [node.description() for node in nodes.nodes.values()],
            # Separate, because they are unknown while a server is replaced, and are not compared.
            "servers": {node.host: node.machine() for node in nodes.nodes.values()},
            "user": settings.access.user,
            "private_key": private_key,
            "variables": playbook_variables(settings),
        }
        # If all servers are deleted, the cluster is too.
        own = ResourceOptions(parent=self, deleted_with=nodes, additional_secret_outputs=["private_key", "kubeconfig"])
        self.resource = KubernetesCluster(
            "kubernetes",
            # The engine may use `read` after an interrupted create.
            {**props, "__recovers": True, "content": digest()},
            ResourceOptions.merge(own, ResourceOptions(depends_on=nodes.members)),
        )
        kubeconfig = Kubeconfig(
            "kubeconfig",
            {**props, "address": nodes.entry()},
            ResourceOptions.merge(own, ResourceOptions(depends_on=[self.resource])),
        )
        self.kubeconfig: Output[str] = Output.secret(kubeconfig.kubeconfig)
        self.outputs: dict[str, Input[str]] = {
            "version": settings.cluster.kubernetes_version,
            "api": Output.concat("https://", nodes.entry(), ":6443"),
        }
        if settings.cluster.variables.get("cluster_network_policy") is False:
            self.outputs["networkPolicy"] = "NOT ENFORCED: every pod can reach all other pods and the nodes"
        self.register_outputs({"kubernetes": self.outputs})
