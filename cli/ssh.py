"""`lab ssh`: logs in to a node with the stack's key, which is never in a file or on a command line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.stack import stack_outputs
from infra.login import host_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.session import Session

# The agent ends with the command, and reads the key from file descriptor 3 before the command starts.
WITH_KEY = 'ssh-add -q - <&3 && exec 3<&- && exec "$@"'


def ssh(
    context: typer.Context,
    node: Annotated[
        str | None, typer.Argument(help="Default: the first control plane.", metavar="[NODE]", show_default=False)
    ] = None,
) -> None:
    """Log in to a node, or run a COMMAND on it: `lab ssh NODE COMMAND`.

    This uses the stack's key or, if the stack has none, your own. Nodes without a floating IP are reached through the
    first control plane.
    """
    session: Session = context.obj
    stack = session.stack()
    outputs = stack_outputs(session, stack, show_secrets=True)
    ids = _server_ids(session, stack)
    nodes: dict[str, Any] = {name: node for name, node in (outputs.get("nodes") or {}).items() if name in ids}
    user, _, entry = str((outputs.get("endpoints") or {}).get("ssh", "")).removeprefix("ssh ").rpartition("@")
    first = node_at(entry, nodes)
    if not nodes:
        raise LabError(f"stack '{stack}' has no nodes", remedy="create them: lab up")
    chosen = node or first or min(nodes)
    if chosen not in nodes:
        raise LabError(
            f"node '{chosen}' does not exist", remedy=f"choose one of: {', '.join(nodes)}", code=ExitCode.CONFIGURATION
        )

    def command(name: str) -> list[str]:
        return ["ssh", *host_options(ids[name])]

    address = nodes[chosen]["floatingIp"] or nodes[chosen]["address"]
    jump = []
    if not nodes[chosen]["floatingIp"] and chosen != first:
        if first is None:
            raise LabError(
                f"the first control plane, through which '{chosen}' is reached, is missing", remedy="restore it: lab up"
            )
        jump = ["-o", f"ProxyCommand={shlex.join([*command(first), '-W', '%h:%p', f'{user}@{entry}'])}"]
    raise typer.Exit(_run([*command(chosen), *jump, f"{user}@{address}", *context.args], outputs.get("privateKey")))


def node_at(address: str, nodes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The node with an address. Outputs have no order, so the first one need not be the first control plane."""
    return next((name for name, node in nodes.items() if address in (node["floatingIp"], node["address"])), None)


def _server_ids(session: Session, stack: str) -> dict[str, str]:
    """IDs of the stack's servers, by node."""
    resources = (session.backend.load(session.project.name, stack).get("deployment") or {}).get("resources") or []
    servers = [one for one in resources if one["type"] == "openstack:compute/instance:Instance"]
    return {one["urn"].split("::")[-1]: one["id"] for one in servers if not one.get("delete")}


def _run(command: list[str], key: str | None) -> int:
    """Run `command`, with `key` in a separate agent; return its exit status."""
    needed = ("ssh",) if key is None else ("ssh", "ssh-agent", "ssh-add")
    if missing := [program for program in needed if not shutil.which(program)]:
        raise LabError(f"{missing[0]} is not on PATH", remedy="install OpenSSH (apt install openssh-client)")
    if key is None:
        return subprocess.run(command, check=False).returncode
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write(key)  # a key is far smaller than a pipe's buffer
    agent = ["ssh-agent", "sh", "-c", f"exec 3<&{reading}; {WITH_KEY}", "sh", *command]
    try:
        return subprocess.run(agent, check=False, pass_fds=(reading,)).returncode
    finally:
        os.close(reading)
