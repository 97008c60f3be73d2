"""`lab extend`: extends the stack's lease, and changes nothing else."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import LabError

if TYPE_CHECKING:
    from cli.session import Session
    from engine.project import StackConfig

KEY = "lease"
ENDS = "**:LeaseEnd::*"
"""URNs of the ends of leases (`infra.lease`)."""


def extend(
    context: typer.Context,
    hours: Annotated[int, typer.Argument(min=1, metavar="HOURS", help="Hours to add.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Extend the stack's lease by HOURS: in its settings and in the cloud. Nothing else is changed.

    If that fails or is declined, the settings are not changed.
    """
    from cli.operations import operate

    session: Session = context.obj
    config = session.config(session.stack())
    before = config.path.read_text() if config.path.exists() else ""
    config.set(*longer(config, hours), path=True)
    config.save()
    try:
        operate(session, "update", {"yes": yes, "targets": [ENDS]})
    except BaseException:
        config.path.write_text(before)
        raise


def longer(config: StackConfig, hours: int) -> tuple[str, str]:
    """The setting for the lease's length, and its new value.

    Raises:
        LabError: the stack has no lease, or one without a length.
    """
    found = config.get(KEY)
    lease = json.loads(found.value) if found and found.is_object else {}
    if isinstance(length := lease.get("hours"), int):
        return f"{KEY}.hours", str(length + hours)
    try:
        end = datetime.fromisoformat(str(lease["end"]))
    except (KeyError, ValueError):
        raise LabError(
            f"the stack has no lease with hours or an end in {config.path.name}", remedy="set ml-cluster:lease there"
        ) from None
    return f"{KEY}.end", (end + timedelta(hours=hours)).isoformat()
