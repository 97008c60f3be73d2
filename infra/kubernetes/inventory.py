"""The inventory of a playbook that runs for a stack: as someone would write it by hand. Free of Pulumi."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.bundle import kubernetes_versions
from infra.kubernetes.playbook import Job, PlaybookError, run
from infra.login import host_options

Props = Mapping[str, Any]
CONTROL_PLANE = "control-plane"
VERSION = "cluster_kubernetes_version"
BOOT_SECONDS = 600
"""How long nodes that were only just made may take to answer SSH; bare metal takes longest."""


def folder(stack: str) -> Path:
    """Where the runs of a stack's playbooks are kept, below the project's folder."""
    return Path(".state", "ansible", stack).absolute()


def record_servers(stack: str, servers: Mapping[str, str]) -> None:
    """Remember which server each host name is now: what a resource's own inputs say may be a run old.

    `servers`: server ids by host name.
    """
    path = folder(stack) / "servers.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps({**_servers(stack), **servers}))
    new.replace(path)


def _servers(stack: str) -> dict[str, str]:
    with suppress(OSError, ValueError):
        known: dict[str, str] = json.loads((folder(stack) / "servers.json").read_text())
        return known
    return {}


def inventory(props: Props, nodes: Sequence[Props], **variables: Any) -> dict[str, Any]:
    """Machines and variables of a playbook.

    `props`: `name` (the stack), `user`, `machines` (every node of the stack) and `variables`. `nodes`: those that the
    playbook is for; the first control plane of them leads. A node has `host`, `role`, `address`, `floating_ip`, where
    known `server`, and `volumes` that are attached to it.
    """
    given = {node["host"]: node["server"] for node in (*props["machines"], *nodes) if node.get("server")}
    servers: dict[str, str] = {**given, **_servers(props["name"])}

    def identity(node: Props) -> list[str]:
        return host_options(servers.get(node["host"]) or str(node["host"]))

    entry = next((node for node in props["machines"] if node.get("floating_ip")), None)
    groups: dict[str, dict[str, Any]] = {"control_plane": {}, "workers": {}}
    for node in nodes:
        reached: dict[str, Any] = {
            "ansible_host": node.get("floating_ip") or node["address"],
            "node_address": node["address"],
            "cluster_volumes": node.get("volumes") or [],
        }
        options = identity(node)
        if entry and not node.get("floating_ip"):
            to = f"{props['user']}@{entry['floating_ip']}"
            jump = ["ssh", *identity(entry), "-W", "%h:%p", to]
            options += ["-o", f"ProxyCommand={shlex.join(jump)}"]
        reached["ansible_ssh_common_args"] = shlex.join(options)
        groups["control_plane" if node["role"] == CONTROL_PLANE else "workers"][node["host"]] = reached
    workers = any(node["role"] != CONTROL_PLANE for node in props["machines"])
    shared = {
        "ansible_user": props["user"],
        "ansible_host_key_checking": True,
        "validate_boot_seconds": BOOT_SECONDS,
        "cluster_api_names": [entry["floating_ip"]] if entry else [],
        # A playbook that is for some of the nodes would take their number for the cluster's.
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
    """Run a playbook for `nodes`; where the administrator's kubeconfig is, if the playbook has fetched one.

    `part`: folder of its runs below the stack's; resources that run at the same time have one each.

    Raises:
        RuntimeError: it failed; the text says where, why and what to do.
    """
    bundle = props["variables"]["cluster_bundle"]
    if not kubernetes_versions(bundle):
        raise RuntimeError(f"There is no bundle in {bundle}: `lab bundle build` makes it.")
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
        # The engine shows the text alone.
        raise RuntimeError(str(error)) from None
    return kubeconfig


def control_planes(nodes: Iterable[Props], last: str = "") -> list[Props]:
    """The control planes of `nodes`; the one called `last` is last, so that another one leads."""
    return sorted((one for one in nodes if one["role"] == CONTROL_PLANE), key=lambda one: bool(one["host"] == last))
