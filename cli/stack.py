"""`lab stack`: lists, creates, selects and removes stacks, and shows their outputs."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.session import confirmations_skipped
from cli.text import ago, as_json, cell, table, timestamp

if TYPE_CHECKING:
    from cli.session import Session

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Manage stacks.")

StackName = Annotated[str | None, typer.Argument(help="The name of the stack.", metavar="[STACK]")]
Json = Annotated[bool, typer.Option("--json", "-j", help="Write JSON.")]


@app.command("ls")
def list_stacks(
    context: typer.Context,
    json: Json = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="List the stacks of all projects in the backend.")
    ] = False,
) -> None:
    """List the stacks of the project."""
    session: Session = context.obj
    summaries = session.backend.list_stacks(None if everything else session.project.name)
    current = session.current_stack()
    stacks = [
        (
            f"organization/{s.project}/{s.name}" if everything else s.name,
            s.name == current and s.project == session.project.name,
            s,
        )
        for s in sorted(summaries, key=lambda s: (s.project, s.name))
    ]
    if json:
        print(
            as_json(
                [
                    {"name": name, "current": is_current}
                    | ({"lastUpdate": timestamp(s.last_update)} if s.last_update else {})
                    | {"updateInProgress": s.locked}
                    | ({"resourceCount": s.resource_count} if s.resource_count is not None else {})
                    for name, is_current, s in stacks
                ]
            )
        )
        return
    rows = [
        (
            name + ("*" if is_current else ""),
            "in progress" if s.locked else ago(s.last_update) if s.last_update else "n/a",
            str(s.resource_count) if s.resource_count is not None else "n/a",
        )
        for name, is_current, s in stacks
    ]
    print(table(("NAME", "LAST UPDATE", "RESOURCE COUNT"), rows))


@app.command()
def init(
    context: typer.Context,
    name: StackName = None,
    no_select: Annotated[bool, typer.Option("--no-select", help="Do not make it the current stack.")] = False,
) -> None:
    """Create an empty stack, ready for updates."""
    session: Session = context.obj
    if name and session.stack_option:
        raise LabError(
            "only one of --stack or argument stack name may be specified, not both", code=ExitCode.CONFIGURATION
        )
    reference = name or session.stack_option
    if not reference and session.interactive:
        reference = typer.prompt("stack name", default="dev")
    if not reference:
        raise LabError("missing stack name", remedy="lab stack init NAME", code=ExitCode.CONFIGURATION)
    stack = session.create_stack(session.parse_stack(reference))
    if not no_select:
        session.select(stack)


@app.command()
def select(
    context: typer.Context,
    name: StackName = None,
    create: Annotated[bool, typer.Option("--create", "-c", help="Create the stack if it does not exist.")] = False,
) -> None:
    """Make a stack the current one."""
    session: Session = context.obj
    reference = name or session.stack_option
    if not reference:
        if not session.interactive:
            raise LabError("no stack selected; specify a stack name with --stack", code=ExitCode.STACK_NOT_FOUND)
        session.select(session.choose_stack(offer_new=True))
        return
    stack = session.parse_stack(reference)
    if create and not session.backend.exists(session.project.name, stack):
        session.create_stack(stack)
    session.select(session.stack(name))


@app.command()
def rm(
    context: typer.Context,
    name: StackName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Remove it even if it has resources, which are not deleted.")
    ] = False,
    preserve_config: Annotated[bool, typer.Option("--preserve-config", help="Keep Pulumi.<stack>.yaml.")] = False,
) -> None:
    """Remove a stack and its configuration."""
    session: Session = context.obj
    stack = session.stack(name)
    confirm(session, yes, f"This will permanently remove the '{stack}' stack!", stack)
    remove_stack(session, stack, force=force, preserve_config=preserve_config)
    print(f"Stack '{stack}' has been removed!")


def remove_stack(session: Session, stack: str, *, force: bool = False, preserve_config: bool = False) -> None:
    """Remove `stack`, its configuration file and its selection.

    Raises:
        StackNotEmptyError: it has resources, and `force` is not given.
    """
    session.backend.remove_stack(session.project.name, stack, force=force)
    if not preserve_config:
        session.project.stack_config_path(stack).unlink(missing_ok=True)
    if session.current_stack() == stack:
        session.select(None)


@app.command()
def output(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The output to show. Default: all.", metavar="[OUTPUT]")] = None,
    json: Json = False,
    shell: Annotated[bool, typer.Option("--shell", help="Write a shell script that sets variables.")] = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Show secret outputs in plain text.")] = False,
) -> None:
    """Show the outputs of the stack."""
    if json and shell:
        raise LabError("only one of --json and --shell may be set", code=ExitCode.CONFIGURATION)
    session: Session = context.obj
    outputs = stack_outputs(session, session.stack(), show_secrets=show_secrets)
    if name is not None and name not in outputs:
        raise LabError(f"current stack does not have output property '{name}'")
    if json:
        print(as_json(outputs if name is None else outputs[name]))
    elif shell:
        for key in [name] if name is not None else sorted(outputs):
            print(f"{key}={shlex.quote(cell(outputs[key]))}")
    elif name is not None:
        print(cell(outputs[name]))
    else:
        print(describe_outputs(outputs))


def stack_outputs(session: Session, stack: str, *, show_secrets: bool) -> dict[str, Any]:
    """The outputs of `stack`; a secret is `[secret]` unless it is to be shown."""
    from engine.state import Codec
    from engine.values import redact, reveal

    deployment = session.backend.load(session.project.name, stack).get("deployment") or {}
    root: dict[str, Any] = next(
        (r for r in deployment.get("resources") or [] if r["type"] == "pulumi:pulumi:Stack"), {}
    )
    outputs: dict[str, Any] = root.get("outputs", {})
    if not show_secrets:
        return {key: redact(value) for key, value in outputs.items()}
    codec = Codec(session.state_secrets(stack))
    return {key: reveal(codec.decode_value(value)) for key, value in outputs.items()}


def describe_outputs(outputs: dict[str, Any]) -> str:
    """The outputs as a table."""
    title = f"Current stack outputs ({len(outputs)}):\n"
    if not outputs:
        return title + "    No output values currently in this stack"
    return title + table(("OUTPUT", "VALUE"), [(key, cell(outputs[key])) for key in sorted(outputs)], prefix="    ")


def confirm(session: Session, yes: bool, warning: str, word: str) -> None:
    """Ask the user to confirm by typing `word`.

    Raises:
        LabError: the session is not interactive, or the user declined.
    """
    if yes or confirmations_skipped():
        return
    if not session.interactive:
        raise LabError("non-interactive mode requires --yes flag", code=ExitCode.CONFIGURATION)
    print(warning)
    print(f"Please confirm that this is what you'd like to do by typing `{word}`: ", end="", flush=True)
    if sys.stdin.readline().strip() != word:
        raise LabError("confirmation declined")
