"""`lab state`: exports and imports a stack's state, and removes abandoned locks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import LabError
from cli.stack import StackName, confirm

if TYPE_CHECKING:
    from cli.session import Session

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Export, import and unlock the state of a stack.")

Deployment = dict[str, Any]


@app.command("export")
def export(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--file", help="Write here (mode 0600). Default: standard output.")
    ] = None,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Write secrets in plain text.")] = False,
) -> None:
    """Write the stack's deployment, as `pulumi stack export` does."""
    session: Session = context.obj
    stack = session.stack()
    deployment = session.backend.load(session.project.name, stack)
    if show_secrets:
        from engine.values import transform
        from protocol.values import is_secret

        manager = session.state_secrets(stack)

        def reveal(part: Any) -> Any:
            if is_secret(part) and "ciphertext" in part:
                plaintext = manager.decrypt(part["ciphertext"])
                return {key: value for key, value in part.items() if key != "ciphertext"} | {"plaintext": plaintext}
            return part

        deployment = transform(deployment, reveal)
    text = json.dumps(deployment, indent=4, ensure_ascii=False) + "\n"
    if file is None:
        sys.stdout.write(text)
        return
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:  # noqa: PTH123
            stream.write(text)
    except OSError as error:
        raise LabError(f"could not write {file}: {error.strerror}") from None


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path | None, typer.Option("--file", help="Read from here. Default: standard input.")] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Import in spite of apparent errors.")] = False,
) -> None:
    """Replace the stack's state by a deployment that `state export` or `pulumi stack export` wrote."""
    from engine.checkpoint import parse
    from engine.integrity import import_problems, summary

    session: Session = context.obj
    stack = session.stack()
    try:
        deployment = json.loads(file.read_text() if file else sys.stdin.read())
    except OSError as error:
        raise LabError(f"could not open file: {error.strerror}: {file}") from None
    except ValueError as error:
        raise LabError(f"{file or 'standard input'} is not JSON: {error}") from None
    inner = parse(deployment)["deployment"]
    if errors := list(import_problems(inner, session.project.name, stack)):
        message = (
            f"{file or 'standard input'} is not valid as the state of stack '{stack}'; errors found: {len(errors)}\n"
            + summary(errors)
        )
        if not force:
            raise LabError(
                f"{message}\nimporting this file could be dangerous", remedy="rerun with --force to proceed anyway"
            )
        print(f"warning: {message}", file=sys.stderr)
    for pending in inner.pop("pending_operations", None) or []:
        print(
            f"warning: removing pending operation '{pending['type']}' on '{pending['resource']['urn']}'",
            file=sys.stderr,
        )
    session.backend.save(session.project.name, stack, _encrypted(session, stack, deployment), check=not force)
    print("Import complete.")


@app.command()
def policy(
    context: typer.Context,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Also for stacks of this name, which may have `*` in it."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Rights to preview and to save update plans, not to update.")
    ] = False,
) -> None:
    """Print an IAM policy for keys that can read and update this stack's state in its bucket, and no other stack's."""
    from engine.backend.policy import policy as policy_of

    session: Session = context.obj
    stacks = [session.stack(), *(include or ())]
    found = policy_of(session.resolved_backend_url, session.project.name, stacks, read_only=read_only)
    print(json.dumps(found, indent=2))


def _encrypted(session: Session, stack: str, deployment: Deployment) -> Deployment:
    """`deployment` with plain-text secrets, which `export --show-secrets` writes, encrypted for the stack."""
    from engine.values import contains, transform
    from protocol.values import is_secret

    def is_plain(part: Any) -> bool:
        return is_secret(part) and "plaintext" in part

    if not contains(deployment, is_plain):
        return deployment
    manager = session.secrets(stack, session.config(stack))

    def encrypt(part: Any) -> Any:
        if not is_plain(part):
            return part
        sealed = {key: value for key, value in part.items() if key != "plaintext"}
        return sealed | {"ciphertext": manager.encrypt(part["plaintext"])}

    sealed: Deployment = transform(deployment, encrypt)
    sealed["deployment"]["secrets_providers"] = {"type": manager.type, "state": manager.state()}
    return sealed


@app.command()
def unlock(
    context: typer.Context,
    name: StackName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove the lock of an update that is no longer running, as `pulumi cancel` does."""
    session: Session = context.obj
    stack = session.stack(name)
    confirm(session, yes, f"This will irreversibly cancel the currently running update for '{stack}'!", stack)
    holders = session.backend.unlock(session.project.name, stack)
    for holder in holders:
        print(f"removed the lock of {holder}")
    if holders:
        print(f"The currently running update for '{stack}' has been canceled!")
    else:
        print(f"stack '{stack}' is not locked")
