"""`lab ci environment`: a preview environment, which is a stack of its own for a pull request with a label.

Its settings are those of the template ``Pulumi.environment.yaml`` in the pull request's branch. Each job writes its
file, which is not part of the repository; the encryption salt of its secrets is in its state.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cli.errors import ExitCode, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.forge import Forge, PullRequest
    from cli.session import Session

LABEL = "environment"
TEMPLATE = "environment"
PREFIX = "pr-"
HOURS = "LAB_ENVIRONMENT_HOURS"
DEFAULT_HOURS = 8.0
"""Lifetime of an environment after the last push."""


def stack_name(number: int) -> str:
    """Name of a pull request's stack."""
    return f"{PREFIX}{number}"


def bring_up(session: Session, forge: Forge, proposed: PullRequest) -> None:
    """Create or update a pull request's stack, and comment its addresses.

    Raises:
        LabError: there is no template, or the update failed, which the comment reports too.
    """
    from cli.operations import operate
    from engine.errors import EngineError

    name = stack_name(proposed.number)
    write_settings(session, name)
    if not session.backend.exists(session.project.name, name):
        session.create_stack(name)
    environment = session.on(name)
    message = f"{proposed.title} (#{proposed.number})"
    ended: EngineError | SystemExit | None = None
    try:
        operate(environment, "update", {"yes": True, "skip_preview": True, "message": message})
    except (EngineError, SystemExit) as error:
        ended = error
    forge.put_comment(proposed.number, _comment(environment, name, proposed, ended))
    if ended is not None:
        raise ended


def write_settings(session: Session, name: str) -> None:
    """Write the settings file of an environment from the template.

    Raises:
        LabError: there is no template.
    """
    template = session.project.stack_config_path(TEMPLATE)
    if not template.exists():
        raise LabError(
            f"the template {template.name} does not exist",
            remedy=f"write the settings of preview environments to {template.name}, or remove the label '{LABEL}'",
            code=ExitCode.CONFIGURATION,
        )
    session.config_from(template, name).save()


def destroy(session: Session, name: str) -> bool:
    """Destroy and remove an environment. Return whether it existed."""
    from cli.operations import operate

    if not session.backend.exists(session.project.name, name):
        return False
    operate(session.on(name), "destroy", {"yes": True, "remove": True, "delete_data": True})
    return True


def lifetime() -> timedelta:
    """Lifetime of an environment after its last update.

    Raises:
        LabError: the environment variable is not a positive number.
    """
    text = os.environ.get(HOURS) or str(DEFAULT_HOURS)
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise LabError(f"{HOURS} is not a number of hours: {text}", code=ExitCode.CONFIGURATION)
    return timedelta(hours=hours)


def ended(session: Session, forge: Forge) -> Iterator[tuple[str, str]]:
    """Environments to destroy, with the reason: expired, or their pull request is closed."""
    kept = lifetime()
    now = datetime.now(UTC)
    for summary in session.backend.list_stacks(session.project.name):
        number = summary.name.removeprefix(PREFIX)
        if summary.name == number or not number.isdecimal():
            continue
        proposed = forge.find_pull_request(int(number))
        if not proposed.is_open:
            yield summary.name, f"pull request {number} is closed"
        elif LABEL not in proposed.labels:
            yield summary.name, f"pull request {number} has no label '{LABEL}'"
        elif summary.last_update is None or now - summary.last_update >= kept:
            yield summary.name, f"its last update is more than {_hours(kept)} ago"


def _comment(session: Session, name: str, proposed: PullRequest, ended: BaseException | None) -> str:
    from cli.markdown import marker
    from cli.stack import stack_outputs

    lines = [marker("environment", name), f"### Environment `{name}`", ""]
    if ended is not None:
        lines.append(
            f"Commit {proposed.head[:12]} could not be brought up; the job's log says why. What was made until then is "
            "still there: the next push goes on from it."
        )
    else:
        outputs = stack_outputs(session, name, show_secrets=False)
        lines += ["| | |", "|---|---|", *(f"| {what} | {where} |" for what, where in _addresses(outputs))]
        lines += ["", f"It is commit {proposed.head[:12]}. `lab -s {name} open` shows how to log in."]
    end = datetime.now(UTC) + lifetime()
    last = (
        f"It is destroyed when the pull request is closed or loses the label `{LABEL}`, and "
        f"{_hours(lifetime())} after the last push: {end:%Y-%m-%d %H:%M} UTC."
    )
    return "\n".join([*lines, "", last]) + "\n"


def _addresses(outputs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    endpoints = outputs.get("endpoints")
    if isinstance(endpoints, dict):
        for what in sorted(endpoints):
            if isinstance(where := endpoints[what], str):
                yield what, f"`{where}`" if " " in where else where


def _hours(duration: timedelta) -> str:
    hours = duration / timedelta(hours=1)
    return f"{hours:g} hour{'' if hours == 1 else 's'}"
