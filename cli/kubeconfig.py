"""`lab kubeconfig`: writes the kubeconfig of the stack's cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import LabError
from cli.stack import stack_outputs

if TYPE_CHECKING:
    from cli.session import Session


def kubeconfig(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write. Default: a file of lab's.", show_default=False),
    ] = None,
) -> None:
    """Write the cluster's kubeconfig to a file that only you can read, and print the command to use it.

    `eval "$(lab kubeconfig)"` lets kubectl find the cluster in this shell.
    """
    from cli.workspace import pulumi_home

    session: Session = context.obj
    stack = session.stack()
    content = stack_outputs(session, stack, show_secrets=True).get("kubeconfig")
    if not content:
        raise LabError(
            f"stack '{stack}' has no cluster",
            remedy="add a section `ml-cluster:cluster` to its settings, then run `lab up`",
        )
    path = (output or pulumi_home() / "ml-cluster" / f"{stack}.kubeconfig").absolute()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(content)
    print(f"export KUBECONFIG={shlex.quote(str(path))}")
