"""The stack's nodes as one Kubernetes cluster: a dynamic resource around the playbooks of `ansible/`."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions, dynamic
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, UpdateResult

from infra.bundle import kubernetes_versions
from infra.kubernetes.inventory import VERSION, Props, play
from infra.kubernetes.playbook import ANSIBLE
from infra.kubernetes.variables import playbook_variables
from infra.naming import PROJECT
from infra.nodes import Nodes
from infra.settings import Settings

ROOT = ANSIBLE.parent
OUTPUTS = ("kubeconfig", "kubernetes_version")
# Of a node: what its cluster is told. Which server it is concerns the node alone.
ABOUT_A_NODE = ("host", "role", "address", "floating_ip")
# Inputs that change what is on the nodes; the key only opens them.
DECISIVE = ("user", "variables", "content")
# What a cluster is made with and keeps.
RANGES = {"cluster_pod_subnet": "network.podCidr", "cluster_service_subnet": "network.serviceCidr"}
READ_SECONDS = 10


class ClusterProvider(dynamic.ResourceProvider):
    """Runs `site`, before it `upgrade` where the version changes; `reset` where the machines stay."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse a version that the bundle lacks, and other ranges for a cluster that runs."""
        failures = []
        held = kubernetes_versions(news["variables"]["cluster_bundle"])
        version = news["variables"][VERSION]
        # A preview needs no bundle: it may run anywhere.
        if held and version not in held:
            told = f"the bundle has no Kubernetes {version}; it has {', '.join(sorted(held))}"
            failures.append(CheckFailure("variables", told))
        for variable, setting in RANGES.items() if olds else ():
            before, after = olds["variables"][variable], news["variables"][variable]
            if before != after:
                told = (
                    f"{setting} is {before} on the running cluster and cannot become {after}: its pods would lose "
                    f"each other. Set it back to {before}; or begin again with `lab destroy` and `lab up`."
                )
                failures.append(CheckFailure("variables", told))
        return CheckResult(news, failures)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Nodes, variables, playbooks and the bundle's manifest decide whether a playbook runs."""
        changes = any(olds.get(key) != news.get(key) for key in DECISIVE) or _places(olds) != _places(news)
        return DiffResult(changes=changes, replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Make the cluster. Nodes that an interrupted run has finished are left as they are."""
        return CreateResult(props["name"], {**props, **site(props)})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The cluster as it is: without the nodes that are gone or not Ready, so that the next `up` brings them back.

        What an interrupted `create` has made is made again, which finds it done.
        """
        if not id_:
            return ReadResult(id_, {})
        ready = ready_nodes(props.get("kubeconfig") or "")
        if ready is None:
            return ReadResult(id_, props)
        return ReadResult(id_, {**props, "machines": [one for one in props["machines"] if one["host"] in ready]})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Upgrade the nodes that are there, then bring all to what `site` makes of them."""
        if olds["variables"][VERSION] != news["variables"][VERSION]:
            hosts = {node["host"] for node in olds.get("machines", ())}
            play("upgrade", news, [node for node in _nodes(news, olds) if node["host"] in hosts])
        return UpdateResult({**news, **site(news, olds)})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Put the machines back to what they were. Not called when they go too."""
        play("reset", props, _nodes(props), confirmed="cluster_reset=yes")


def site(props: Props, olds: Props | None = None) -> dict[str, str]:
    """Run `site` on all nodes; what it tells of the cluster."""
    kubeconfig = play("site", props, _nodes(props, olds))
    return {
        "kubeconfig": kubeconfig.read_text() if kubeconfig.exists() else "",
        "kubernetes_version": props["variables"][VERSION],
    }


def _places(props: Props) -> list[tuple[Any, ...]] | None:
    """What decides, of each node; None while it is unknown."""
    if not isinstance(props.get("machines", []), list):
        return None
    return sorted(
        (
            *(str(node.get(key)) for key in ABOUT_A_NODE),
            *(f"{volume['holds']} {volume['id']}" for volume in node.get("volumes") or ()),
        )
        for node in props.get("machines", ())
    )


def _nodes(props: Props, olds: Props | None = None) -> list[Any]:
    """Every node, with its server. Those of `olds` first: the first control plane is the one that others join."""
    hosts = {node["host"] for node in (olds or {}).get("machines", ())}
    nodes = [{**node, **props["servers"][node["host"]]} for node in props["machines"]]
    return sorted(nodes, key=lambda node: node["host"] not in hosts)


def ready_nodes(kubeconfig: str) -> set[str] | None:
    """Names of the nodes that are Ready; None where the API does not answer: then nothing is known."""
    # The program and most previews need none of this.
    import yaml  # noqa: PLC0415
    from kubernetes import client, config  # noqa: PLC0415

    with suppress(Exception):
        api = client.CoreV1Api(config.new_client_from_config_dict(yaml.safe_load(kubeconfig)))
        found: list[dict[str, Any]] = client.ApiClient().sanitize_for_serialization(
            api.list_node(_request_timeout=READ_SECONDS).items
        )
        return {
            node["metadata"]["name"]
            for node in found
            if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", ()))
        }
    return None


def digest() -> str:
    """What the playbooks and the bundle's manifest say, so that a change of them runs."""
    content = hashlib.sha256()
    for path in sorted([*ANSIBLE.rglob("*"), *(ROOT / "bundle").glob("manifest.[yl]*")]):
        if path.is_file() and path.parent.name != "__pycache__":
            content.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return content.hexdigest()


class KubernetesCluster(dynamic.Resource, module="ansible", name="KubernetesCluster"):
    """A Kubernetes cluster on machines that are there."""

    kubeconfig: Output[str]
    kubernetes_version: Output[str]

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(ClusterProvider(), name, {**props, **dict.fromkeys(OUTPUTS)}, opts)


class Cluster(pulumi.ComponentResource):
    """Kubernetes on the stack's nodes."""

    def __init__(
        self, settings: Settings, nodes: Nodes, private_key: Output[str] | None, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(f"{PROJECT}:infra:Cluster", "cluster", None, opts)
        assert settings.cluster is not None
        cluster = KubernetesCluster(
            "kubernetes",
            {
                "name": pulumi.get_stack(),
                # The engine may ask `read` for what an interrupted create has made.
                "__recovers": True,
                "machines": [node.place() for node in nodes.nodes.values()],
                # Apart from the above: they are unknown while a server is replaced, and decide nothing.
                "servers": {node.host: node.machine() for node in nodes.nodes.values()},
                "user": settings.access.user,
                "private_key": private_key,
                "variables": playbook_variables(settings),
                "content": digest(),
            },
            ResourceOptions(
                parent=self,
                depends_on=nodes.members,
                # Servers that all go take their cluster with them.
                deleted_with=nodes,
                additional_secret_outputs=["kubeconfig", "private_key"],
            ),
        )
        self.resource = cluster
        self.kubeconfig: Output[str] = Output.secret(cluster.kubeconfig)
        self.outputs: dict[str, Input[str]] = {
            "version": cluster.kubernetes_version,
            "api": Output.concat("https://", nodes.entry(), ":6443"),
        }
        if settings.cluster.variables.get("cluster_network_policy") is False:
            self.outputs["networkPolicy"] = "NOT ENFORCED: any pod reaches any other, and the nodes"
        self.register_outputs({"kubernetes": self.outputs})
