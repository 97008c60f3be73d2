"""The nodes as a Kubernetes cluster: a dynamic resource around the playbooks of `ansible/`."""

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions, dynamic
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, UpdateResult

from infra.bundle import kubernetes_versions
from infra.login import host_options
from infra.naming import PROJECT
from infra.nodes import Node, Nodes
from infra.playbook import ANSIBLE, Job, PlaybookError, run
from infra.settings import Cluster as ClusterSettings
from infra.settings import Settings

Props = Mapping[str, Any]
ROOT = ANSIBLE.parent
VERSION = "cluster_kubernetes_version"
BOOT_SECONDS = 600
"""How long nodes that were only just made may take to answer SSH; bare metal takes longest."""
CONTROL_PLANE = "control-plane"
OUTPUTS = ("kubeconfig", "kubernetes_version")
# Inputs that change what is on the nodes; the key only opens them.
DECISIVE = ("nodes", "user", "variables", "content")


class ClusterProvider(dynamic.ResourceProvider):
    """Runs `site`, and on changes `scale` and `upgrade`; `reset` where the machines stay."""

    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse a version that the bundle lacks. A preview needs no bundle: it may run anywhere."""
        held = kubernetes_versions(news["variables"]["cluster_bundle"])
        version = news["variables"][VERSION]
        if held and version not in held:
            told = f"the bundle has no Kubernetes {version}; it has {', '.join(sorted(held))}"
            return CheckResult(news, [CheckFailure("variables", told)])
        return CheckResult(news, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Nodes, variables, playbooks and the bundle's manifest decide whether a playbook runs."""
        return DiffResult(changes=any(olds.get(key) != news.get(key) for key in DECISIVE), replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Make the cluster. Nodes that an interrupted run has finished are left as they are."""
        return CreateResult(props["name"], {**props, **play("site", props)})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """As it was left. What an interrupted `create` has made is made again, which finds it done."""
        return ReadResult(id_, props if id_ else {})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Take nodes out, upgrade, add nodes: in this order, and only what is due."""
        staying = [node for node in news["nodes"] if node in olds["nodes"]]
        if not any(node["role"] == CONTROL_PLANE for node in staying):
            # With its last control plane the cluster is gone.
            if staying:
                play("reset", {**news, "nodes": staying}, confirmed="cluster_reset=yes")
            return UpdateResult({**news, **play("site", news)})
        hosts = {node["host"] for node in news["nodes"]}
        gone = [node for node in olds["nodes"] if node not in staying]
        leaving = [node for node in gone if node["host"] not in hosts]
        upgraded = olds["variables"][VERSION] != news["variables"][VERSION]
        if gone:
            names = [node["host"] for node in gone]
            variables = {**news["variables"], VERSION: olds["variables"][VERSION]}
            before = {**news, "nodes": [*staying, *leaving], "variables": variables}
            told = play("scale", before, cluster_remove_nodes=names)
            # It ends with what `site` does.
            if len(staying) == len(news["nodes"]) and not upgraded:
                return UpdateResult({**news, **told})
        if upgraded:
            play("upgrade", {**news, "nodes": staying})
        # The first control plane of an inventory is the one that others join.
        ordered = [*staying, *(node for node in news["nodes"] if node not in staying)]
        return UpdateResult({**news, **play("site", {**news, "nodes": ordered})})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Put the machines back to what they were. Not called when they go too."""
        play("reset", props, confirmed="cluster_reset=yes")


def play(playbook: str, props: Props, *, confirmed: str | None = None, **variables: Any) -> dict[str, Any]:
    """Run a playbook on the nodes; what it tells of the cluster."""
    bundle = props["variables"]["cluster_bundle"]
    if not kubernetes_versions(bundle):
        raise RuntimeError(f"There is no bundle in {bundle}: `lab bundle build` makes it.")
    kubeconfig = Path(".state", "ansible", props["name"], "kubeconfig").absolute()
    job = Job(
        playbook=f"{playbook}.yml",
        extra=confirmed,
        inventory=inventory(props, cluster_kubeconfig=str(kubeconfig), **variables),
        private_key=props.get("private_key"),
        artifacts=kubeconfig.parent,
    )
    try:
        run(job)
    except PlaybookError as error:
        # The engine shows the text alone.
        raise RuntimeError(str(error)) from None
    return {
        "kubeconfig": kubeconfig.read_text() if kubeconfig.exists() else "",
        "kubernetes_version": props["variables"][VERSION],
    }


def inventory(props: Props, **variables: Any) -> dict[str, Any]:
    """The inventory: as someone would write it by hand."""
    entry = next((node for node in props["nodes"] if node.get("floating_ip")), None)
    groups: dict[str, dict[str, Any]] = {"control_plane": {}, "workers": {}}
    for node in props["nodes"]:
        reached = {"ansible_host": node.get("floating_ip") or node["address"], "node_address": node["address"]}
        options = host_options(node["server"])
        if entry and not node.get("floating_ip"):
            to = f"{props['user']}@{entry['floating_ip']}"
            jump = ["ssh", *host_options(entry["server"]), "-W", "%h:%p", to]
            options += ["-o", f"ProxyCommand={shlex.join(jump)}"]
        reached["ansible_ssh_common_args"] = shlex.join(options)
        group = groups["control_plane" if node["role"] == CONTROL_PLANE else "workers"]
        group[node["host"]] = reached
    shared = {
        "ansible_user": props["user"],
        "ansible_host_key_checking": True,
        "validate_boot_seconds": BOOT_SECONDS,
        "cluster_api_names": [entry["floating_ip"]] if entry else [],
        **props["variables"],
        **variables,
    }
    children = {name: {"hosts": hosts} for name, hosts in groups.items()}
    return {"all": {"vars": shared, "children": {**children, "cluster": {"children": {name: {} for name in groups}}}}}


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
        wanted: ClusterSettings = settings.cluster
        stack = pulumi.get_stack()
        every = list(nodes.nodes.values())
        first = next(node for node in every if node.role == CONTROL_PLANE)
        cluster = KubernetesCluster(
            "kubernetes",
            {
                "name": stack,
                # The engine may ask `read` for what an interrupted create has made.
                "__recovers": True,
                "nodes": [_told(node) for node in every],
                "user": settings.access.user,
                "private_key": private_key,
                "variables": {
                    "cluster_name": stack,
                    "cluster_bundle": wanted.bundle,
                    VERSION: wanted.kubernetes_version,
                    "cluster_platform": settings.platform is not None,
                    "cluster_pod_subnet": str(settings.network.pod_cidr),
                    "cluster_service_subnet": str(settings.network.service_cidr),
                    **wanted.variables,
                },
                "content": digest(),
            },
            ResourceOptions(
                parent=self, deleted_with=first.server, additional_secret_outputs=["kubeconfig", "private_key"]
            ),
        )
        self.kubeconfig: Output[str] = Output.secret(cluster.kubeconfig)
        self.told: dict[str, Input[str]] = {
            "version": cluster.kubernetes_version,
            "api": Output.concat("https://", nodes.entry(), ":6443"),
        }
        if wanted.variables.get("cluster_network_policy") is False:
            self.told["networkPolicy"] = "NOT ENFORCED: any pod reaches any other, and the nodes"
        self.register_outputs({"kubernetes": self.told})


def _told(node: Node) -> dict[str, Input[Any]]:
    return {
        "name": node.name,
        "host": node.server.name,
        "role": node.role,
        "server": node.server.id,
        "address": node.address,
        "floating_ip": node.floating_ip,
    }
