"""Generates the inventory of a stack's playbooks, as one would write it by hand. Does not import Pulumi."""

import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.bundle import kubernetes_versions
from infra.kubernetes.playbook import Job, PlaybookError, run
from infra.login import host_options

Props = Mapping[str, Any]
CONTROL_PLANE = "control-plane"
VERSION = "cluster_kubernetes_version"
BOOT_SECONDS = 600
"""Time for new nodes to answer SSH; bare metal takes longest."""


def folder(stack: str) -> Path:
    """Folder with the runs of a stack's playbooks, below the project folder."""
    return Path(".state", "ansible", stack).absolute()


def record_servers(stack: str, servers: Mapping[str, str]) -> None:
    """Record the present server of each host name; a resource's inputs may have the previous one.

    `servers`: server ids by host name.
    """
    target = folder(stack) / "servers"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for host, server in servers.items():
        # One file per host, because threads and processes create nodes at the same time.
        with tempfile.NamedTemporaryFile("w", dir=target, prefix=".", delete=False) as new:
            new.write(server)
        Path(new.name).replace(target / host)


def recorded_servers(stack: str) -> dict[str, str]:
    """Server ids by host name, from `record_servers`."""
    return {path.name: path.read_text() for path in (folder(stack) / "servers").glob("[!.]*")}


def inventory(props: Props, nodes: Sequence[Props], **variables: Any) -> dict[str, Any]:
    """Machines and variables of a playbook.

    `props`: `name` (the stack), `user`, `machines` (every node of the stack) and `variables`. `nodes`: the nodes to run
    the playbook on; others join the first control plane among them. A node has `host`, `role`, `address`,
    `floating_ip`, `volumes` that are attached to it and, if known, `server`.
    """
    known = {node["host"]: node["server"] for node in (*props["machines"], *nodes) if node.get("server")}
    servers: dict[str, str] = {**known, **recorded_servers(props["name"])}

    def identity(node: Props) -> list[str]:
        return host_options(servers.get(node["host"]) or str(node["host"]))

    entry = next((node for node in props["machines"] if node.get("floating_ip")), None)
    groups: dict[str, dict[str, Any]] = {"control_plane": {}, "workers": {}}
    for node in nodes:
        host: dict[str, Any] = {
            "ansible_host": node.get("floating_ip") or node["address"],
            "node_address": node["address"],
            "cluster_volumes": node.get("volumes") or [],
        }
        options = identity(node)
        if entry and not node.get("floating_ip"):
            to = f"{props['user']}@{entry['floating_ip']}"
            jump = ["ssh", *identity(entry), "-W", "%h:%p", to]
            options += ["-o", f"ProxyCommand={shlex.join(jump)}"]
        host["ansible_ssh_common_args"] = shlex.join(options)
        groups["control_plane" if node["role"] == CONTROL_PLANE else "workers"][node["host"]] = host
    workers = any(node["role"] != CONTROL_PLANE for node in props["machines"])
    shared = {
        "ansible_user": props["user"],
        "ansible_host_key_checking": True,
        "validate_boot_seconds": BOOT_SECONDS,
        "cluster_api_names": [entry["floating_ip"]] if entry else [],
        # Set here because a playbook for some of the nodes does not know the others.
        "cluster_control_plane_schedulable": not workers,
        **props["variables"],
        **variables,
    }
    children = {name: {"hosts": hosts} for name, hosts in groups.items()}
    return {"all": {"vars": shared, "children": {**children, "cluster": {"children": {name: {} for name in groups}}}}}


def play(
    playbook: str, props: Props, nodes: Sequence[Props], *, part: str = "", confirmed: str | None = None,
    **variables: Any,
) -> Path:  # fmt: skip
    """Run a playbook on `nodes`; return the path of the administrator's kubeconfig, if the playbook fetches one.

    `part`: folder of its runs below the stack's; concurrent resources have one each.

    Raises:
        RuntimeError: it failed; the text has the place, the reason and what to do.
    """
    bundle = props["variables"]["cluster_bundle"]
    if not kubernetes_versions(bundle):
        raise RuntimeError(f"There is no bundle in {bundle}: run `lab bundle build`.")
    kubeconfig = folder(props["name"]) / part / "kubeconfig"
    job = Job(
        playbook=f"{playbook}.yml",
        extra=confirmed,
        inventory=inventory(props, nodes, cluster_kubeconfig=str(kubeconfig), **variables),
        private_key=props.get("private_key"),
        artifacts=kubeconfig.parent,
    )
    try:
        run(job)
    except PlaybookError as error:
        # The engine shows only the text.
        raise RuntimeError(str(error)) from None
    return kubeconfig


def control_planes(nodes: Iterable[Props], last: str = "") -> list[Props]:
    """The control planes of `nodes`; the host `last` comes last, so that others do not join it."""
    return sorted((one for one in nodes if one["role"] == CONTROL_PLANE), key=lambda one: bool(one["host"] == last))
