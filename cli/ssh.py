"""`lab ssh`: log in to a node with the stack's key, which stays out of files and command lines."""

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
    from cli.session import Session

# The agent lives as long as the command, and has the key from file descriptor 3 before the command starts.
WITH_KEY = 'ssh-add -q - <&3 && exec 3<&- && exec "$@"'


def ssh(
    context: typer.Context,
    node: Annotated[
        str | None, typer.Argument(help="Default: the first control plane.", metavar="[NODE]", show_default=False)
    ] = None,
) -> None:
    """Log in to a node, or run the COMMAND that follows its name there.

    With the key that the stack made, or else with your own, as ssh itself would. A node without a floating IP is
    reached through the first control plane.
    """
    session: Session = context.obj
    stack = session.stack()
    outputs = stack_outputs(session, stack, show_secrets=True)
    ids = _server_ids(session, stack)
    nodes: dict[str, Any] = {name: about for name, about in (outputs.get("nodes") or {}).items() if name in ids}
    first = next((name for name, about in nodes.items() if about["role"] == "control-plane"), None)
    if first is None:
        raise LabError(f"stack '{stack}' has no node to log in to", remedy="make them: lab up")
    chosen = node or first
    if chosen not in nodes:
        raise LabError(
            f"there is no node '{chosen}'", remedy=f"choose one of: {', '.join(nodes)}", code=ExitCode.CONFIGURATION
        )
    user, _, entry = str(outputs["endpoints"]["ssh"]).removeprefix("ssh ").rpartition("@")

    def command(name: str) -> list[str]:
        return ["ssh", *host_options(ids[name])]

    address = nodes[chosen]["floatingIp"] or nodes[chosen]["address"]
    jump = []
    if not nodes[chosen]["floatingIp"] and chosen != first:
        jump = ["-o", f"ProxyCommand={shlex.join([*command(first), '-W', '%h:%p', f'{user}@{entry}'])}"]
    raise typer.Exit(_run([*command(chosen), *jump, f"{user}@{address}", *context.args], outputs.get("privateKey")))


def _server_ids(session: Session, stack: str) -> dict[str, str]:
    """Ids of the stack's servers, by node."""
    resources = (session.backend.load(session.project.name, stack).get("deployment") or {}).get("resources") or []
    servers = [one for one in resources if one["type"] == "openstack:compute/instance:Instance"]
    return {one["urn"].split("::")[-1]: one["id"] for one in servers if not one.get("delete")}


def _run(command: list[str], key: str | None) -> int:
    """Run `command`, with `key` in an agent of its own; its exit status."""
    needed = ("ssh",) if key is None else ("ssh", "ssh-agent", "ssh-add")
    if missing := [program for program in needed if not shutil.which(program)]:
        raise LabError(f"there is no {missing[0]} on PATH", remedy="install OpenSSH (apt install openssh-client)")
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
