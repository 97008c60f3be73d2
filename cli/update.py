"""The verbs that run the engine, with the Pulumi CLI's flags."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.operations import Kind

URNS = list[str] | None


def _urns(*names: str, description: str) -> Any:
    return Annotated[URNS, typer.Option(*names, help=description, metavar="URN")]


def _flag(*names: str, description: str) -> Any:
    return Annotated[bool, typer.Option(*names, help=description)]


# Parameter of cli.operations.Operation or engine.operations.UpdateOptions -> its flag and default.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "yes": (_flag("--yes", "-y", description="Approve and perform the operation after previewing it."), False),
    "skip_preview": (_flag("--skip-preview", "-f", description="Do not preview first; implies --yes."), False),
    "preview_only": (_flag("--preview-only", description="Only show a preview, perform nothing."), False),
    "remove": (_flag("--remove", description="Remove the stack and its configuration file afterwards."), False),
    "targets": (_urns("--target", "-t", description="Work on this resource only; repeatable; * and ** match."), None),
    "target_dependents": (_flag("--target-dependents", description="Also work on what depends on the targets."), False),
    "replace": (_urns("--replace", description="Replace this resource; repeatable; * and ** match."), None),
    "target_replace": (_urns("--target-replace", description="Shorthand for --target URN --replace URN."), None),
    "parallel": (
        Annotated[
            int,
            typer.Option(
                "--parallel",
                "-p",
                envvar="PULUMI_PARALLEL",
                min=1,
                metavar="N",
                help="Resource operations to run at once.",
            ),
        ],
        16,
    ),
    "refresh": (_flag("--refresh", "-r", description="Refresh the state before this operation."), False),
    "expect_no_changes": (
        _flag("--expect-no-changes", description="Exit with status 7 if there is any change."),
        False,
    ),
    "continue_on_error": (
        _flag(
            "--continue-on-error/--no-continue-on-error",
            description="Go on with the resources that do not depend on a failed one.",
        ),
        True,
    ),
    "message": (Annotated[str, typer.Option("--message", "-m", help="A message for the stack's history.")], ""),
    "config": (
        Annotated[
            URNS,
            typer.Option("--config", "-c", metavar="KEY=VALUE", help="Set and save this configuration; repeatable."),
        ],
        None,
    ),
    "config_path": (_flag("--config-path", description="The keys of --config are paths into maps or lists."), False),
    "json": (_flag("--json", "-j", description="Write events as JSON."), False),
    "diff": (_flag("--diff", description="Show each change as a rich diff."), False),
    "show_sames": (_flag("--show-sames", description="Show unchanged resources too."), False),
}
TARGETS = ("targets", "target_dependents")
SHARED = ("parallel", "message", "json", "diff", "show_sames")
CONFIRMATION = ("yes", "skip_preview")


def _verb(kind: Kind, summary: str, *names: str) -> Callable[..., None]:
    def command(context: typer.Context, **given: Any) -> None:
        from cli.operations import operate

        operate(context.obj, kind, given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)] + [
        inspect.Parameter(name, keyword, default=OPTIONS[name][1], annotation=OPTIONS[name][0]) for name in names
    ]
    command.__doc__ = summary
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    cast("Any", command).__signature__ = inspect.Signature(parameters)
    return command


_PROGRAM = (*TARGETS, "replace", "target_replace", "refresh", "expect_no_changes", "config", "config_path", *SHARED)

up = _verb("update", "Create or update the stack's resources.", *CONFIRMATION, "continue_on_error", *_PROGRAM)
preview = _verb("preview", "Show what `up` would change.", *_PROGRAM)
destroy = _verb(
    "destroy",
    "Delete all of the stack's resources, but not the stack itself.",
    *CONFIRMATION,
    "preview_only",
    "remove",
    "continue_on_error",
    "refresh",
    *TARGETS,
    *SHARED,
)
refresh = _verb(
    "refresh",
    "Compare the state with what exists, and adopt what differs.",
    *CONFIRMATION,
    "preview_only",
    "expect_no_changes",
    *TARGETS,
    *SHARED,
)
