"""`lab kubeconfig`: lets kubectl reach the stack's cluster."""

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
        typer.Option("--output", "-o", help="File to write. Default: one of lab's own.", show_default=False),
    ] = None,
) -> None:
    """Write the cluster's kubeconfig to a file that you alone can read, and print how to use it.

    `eval "$(lab kubeconfig)"` lets kubectl find the cluster in this shell.
    """
    from cli.workspace import pulumi_home

    session: Session = context.obj
    stack = session.stack()
    content = stack_outputs(session, stack, show_secrets=True).get("kubeconfig")
    if not content:
        raise LabError(f"stack '{stack}' has no cluster", remedy="give it a section `ml-cluster:cluster`, and `lab up`")
    path = (output or pulumi_home() / "ml-cluster" / f"{stack}.kubeconfig").absolute()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(content)
    print(f"export KUBECONFIG={shlex.quote(str(path))}")
