"""up, preview, destroy and refresh, with the Pulumi CLI's flags."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.invocation import Kind

URNS = list[str] | None


def _urns(*names: str, description: str) -> Any:
    return Annotated[URNS, typer.Option(*names, help=description, metavar="URN")]


def _file(*names: str, description: str) -> Any:
    return Annotated[Path | None, typer.Option(*names, help=description, metavar="FILE", dir_okay=False)]


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
            description="Continue with resources that do not depend on a failed one.",
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
    "markdown": (
        Annotated[
            str,
            typer.Option(
                "--markdown",
                metavar="FILE",
                help="Write a summary for a pull request as Markdown; - is standard output.",
            ),
        ],
        "",
    ),
    "fail_on_destructive": (
        _flag("--fail-on-destructive", description="Exit with status 10 if data or resources would be lost."),
        False,
    ),
    "save_plan": (_file("--save-plan", description="Save an update plan (mode 0600)."), None),
    "plan": (
        _file(
            "--plan", description="Only do what this update plan allows; the state must be the one it was made from."
        ),
        None,
    ),
    "former_plan": (
        _file("--plan", description="Fail if the update would do more than this update plan allows, in any state."),
        None,
    ),
    "policy_pack": (
        Annotated[
            URNS,
            typer.Option("--policy-pack", metavar="DIR", help="Check the update with this policy pack; repeatable."),
        ],
        None,
    ),
    "policy_pack_config": (
        Annotated[
            URNS,
            typer.Option(
                "--policy-pack-config",
                metavar="FILE",
                help="JSON configuration of the policy pack at the same position.",
            ),
        ],
        None,
    ),
    "delete_data": (
        _flag("--delete-data", description="Delete volumes too that are protected because they hold data."),
        False,
    ),
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

        if "former_plan" in given:
            given["plan"] = given.pop("former_plan")
        operate(context.obj, kind, given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)] + [
        inspect.Parameter(name, keyword, default=OPTIONS[name][1], annotation=OPTIONS[name][0]) for name in names
    ]
    command.__doc__ = summary
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    cast("Any", command).__signature__ = inspect.Signature(parameters)
    return command


POLICIES = ("policy_pack", "policy_pack_config")
_PROGRAM = (
    *TARGETS, "replace", "target_replace", "refresh", "expect_no_changes", "config", "config_path", *POLICIES, *SHARED
)  # fmt: skip

up = _verb("update", "Create or update the stack's resources.", *CONFIRMATION, "continue_on_error", "plan", *_PROGRAM)
preview = _verb(
    "preview", "Show what `up` would change.", "markdown", "fail_on_destructive", "save_plan", "former_plan", *_PROGRAM
)
destroy = _verb(
    "destroy",
    "Delete all of the stack's resources, but not the stack itself.",
    *CONFIRMATION,
    "preview_only",
    "delete_data",
    "remove",
    "continue_on_error",
    "refresh",
    *TARGETS,
    *SHARED,
)
refresh = _verb(
    "refresh",
    "Compare the state with the actual resources, and update the state.",
    *CONFIRMATION,
    "preview_only",
    "markdown",
    "expect_no_changes",
    *TARGETS,
    *SHARED,
)
