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
# Of a node: what its cluster is told. Which server it is concerns the node alone.
ABOUT_A_NODE = ("host", "role", "address", "floating_ip")
# Inputs that change what is on the nodes; the key only opens them.
DECISIVE = ("user", "variables", "content")
# What a cluster is made with and keeps.
RANGES = {"cluster_pod_subnet": "network.podCidr", "cluster_service_subnet": "network.serviceCidr"}
READ_SECONDS = 10
KUBECONFIG_DAYS = 270
"""Its certificate is 11 months from its end or more: the control planes renew theirs every month."""


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
            failures.append(CheckFailure("", told))
        for variable, setting in RANGES.items() if olds else ():
            before, after = olds["variables"][variable], news["variables"][variable]
            if before != after:
                told = (
                    f"{setting} is {before} on the running cluster and cannot become {after}: its pods would lose "
                    f"each other. Set it back to {before}; or begin again with `lab destroy` and `lab up`."
                )
                failures.append(CheckFailure("", told))
        return CheckResult(news, failures)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Nodes, variables, playbooks and the bundle's manifest decide whether a playbook runs."""
        changes = any(olds.get(key) != news.get(key) for key in DECISIVE) or _places(olds) != _places(news)
        return DiffResult(changes=changes, replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Make the cluster. Nodes that an interrupted run has finished are left as they are."""
        play("site", props, nodes_of(props))
        return CreateResult(props["name"], props)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The cluster as it is: without the nodes that are gone or not Ready, so that the next `up` brings them back.

        What an interrupted `create` has made is made again, which finds it done.
        """
        if not id_:
            return ReadResult(id_, {})
        ready = ready_nodes(folder(props["name"]) / "kubeconfig")
        if ready is None:
            return ReadResult(id_, props)
        return ReadResult(id_, {**props, "machines": [one for one in props["machines"] if one["host"] in ready]})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Upgrade the nodes that are there, then bring all to what `site` makes of them."""
        if olds["variables"][VERSION] != news["variables"][VERSION]:
            hosts = {node["host"] for node in olds.get("machines", ())}
            play("upgrade", news, [node for node in nodes_of(news, olds) if node["host"] in hosts])
        play("site", news, nodes_of(news, olds))
        return UpdateResult(news)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Put the machines back to what they were. Not called when they go too."""
        play("reset", props, nodes_of(props), confirmed="cluster_reset=yes")


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


def nodes_of(props: Props, olds: Props | None = None) -> list[Any]:
    """Every node, with its server. Those of `olds` first: the first control plane is the one that others join."""
    hosts = {node["host"] for node in (olds or {}).get("machines", ())}
    nodes = [{**node, **props["servers"][node["host"]]} for node in props["machines"]]
    return sorted(nodes, key=lambda node: node["host"] not in hosts)


def ready_nodes(kubeconfig: Path) -> set[str] | None:
    """Names of the nodes that are Ready; None where the API cannot be asked: then nothing is known."""
    # The program and most previews need none of this.
    from kubernetes import client, config  # noqa: PLC0415

    with suppress(Exception):
        api = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
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

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(ClusterProvider(), name, dict(props), opts)


class KubeconfigProvider(dynamic.ResourceProvider):
    """Fetches the administrator's kubeconfig.

    A resource of its own: it is known in a preview in which the cluster changes, so that nothing on the cluster seems
    to change with it.
    """

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Say from which day it is: its certificate lasts a year, and is fetched again in time."""
        today = datetime.now(UTC).date()
        issued = date.fromisoformat(olds.get("issued", today.isoformat()))
        due = issued + timedelta(days=KUBECONFIG_DAYS) <= today
        return CheckResult({**news, "issued": (today if due else issued).isoformat()}, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another address needs another kubeconfig, and one near its end another certificate."""
        changes = any(olds.get(key) != news.get(key) for key in ("address", "issued"))
        return DiffResult(changes=changes, replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Fetch it."""
        return CreateResult(props["name"], {**props, "kubeconfig": _fetched(props)})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Fetch it again."""
        renewed = olds.get("issued") != news["issued"]
        return UpdateResult({**news, "kubeconfig": _fetched(news, renewed=renewed)})


def _fetched(props: Props, *, renewed: bool = False) -> str:
    """The kubeconfig; where that will do, the one of the run of `site` before."""
    path = folder(props["name"]) / "kubeconfig"
    if renewed or not path.exists() or f"https://{props['address']}:" not in path.read_text():
        play("kubeconfig", props, nodes_of(props))
    return path.read_text()


class Kubeconfig(dynamic.Resource, module="ansible", name="Kubeconfig"):
    """How an administrator reaches the cluster, a secret."""

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
        reached: dict[str, Input[Any]] = {
            "name": pulumi.get_stack(),
            "machines": [node.place() for node in nodes.nodes.values()],
            # Apart from the above: they are unknown while a server is replaced, and decide nothing.
            "servers": {node.host: node.machine() for node in nodes.nodes.values()},
            "user": settings.access.user,
            "private_key": private_key,
            "variables": playbook_variables(settings),
        }
        # Servers that all go take their cluster with them.
        own = ResourceOptions(parent=self, deleted_with=nodes, additional_secret_outputs=["private_key", "kubeconfig"])
        self.resource = KubernetesCluster(
            "kubernetes",
            # The engine may ask `read` for what an interrupted create has made.
            {**reached, "__recovers": True, "content": digest()},
            ResourceOptions.merge(own, ResourceOptions(depends_on=nodes.members)),
        )
        kubeconfig = Kubeconfig(
            "kubeconfig",
            {**reached, "address": nodes.entry()},
            ResourceOptions.merge(own, ResourceOptions(depends_on=[self.resource])),
        )
        self.kubeconfig: Output[str] = Output.secret(kubeconfig.kubeconfig)
        self.outputs: dict[str, Input[str]] = {
            "version": settings.cluster.kubernetes_version,
            "api": Output.concat("https://", nodes.entry(), ":6443"),
        }
        if settings.cluster.variables.get("cluster_network_policy") is False:
            self.outputs["networkPolicy"] = "NOT ENFORCED: any pod reaches any other, and the nodes"
        self.register_outputs({"kubernetes": self.outputs})
