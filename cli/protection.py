"""Protected resources that hold data, and how a `destroy` can delete them."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cli.data_loss import DATA_TYPES, named
from cli.errors import ExitCode, LabError
from infra.naming import PROJECT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cli.invocation import Operation
    from cli.session import Session

REMEDY = (
    "resources with data are protected. Put it back with `protect: false`, run `lab up`, then remove it; "
    "see docs/explanation/changing-a-cluster.md"
)
"""What to do if an update is refused because of it."""


def protected(session: Session, stack: str, operation: Operation) -> dict[str, str]:
    """Resources that a `destroy` would delete and that no setting protects: description by URN."""
    from engine.targets import Patterns

    if operation.kind != "destroy" or session.project.name != PROJECT:
        return {}
    targets = Patterns(operation.options.targets)
    everything = not targets or operation.options.target_dependents
    kept = _kept_by_settings(session, stack)
    return {
        one["urn"]: named(one)
        for one in _resources(session, stack)
        if one.get("protect")
        and one["type"] in DATA_TYPES
        and (everything or one["urn"] in targets)
        and one["urn"].split("::")[-1] not in kept
    }


def refusal(found: dict[str, str]) -> LabError:
    """The error if nobody has confirmed the deletion of the data."""
    return LabError(
        f"protected because it holds data: {', '.join(sorted(found.values()))}",
        remedy="use --delete-data to delete it too; on a terminal, leave out --yes and type the stack's name",
        code=ExitCode.CONFIGURATION,
    )


def ask(stack: str, found: dict[str, str]) -> None:
    """Ask for the stack's name as confirmation.

    Raises:
        LabError: something else was typed.
    """
    print("Protected because it holds data:", *(f"  {name}" for name in sorted(found.values())), sep="\n")
    print(f"To delete it too, type the stack's name, `{stack}`: ", end="", flush=True)
    if sys.stdin.readline().strip() != stack:
        raise LabError("confirmation declined")


@contextmanager
def lifted(session: Session, stack: str, urns: Collection[str]) -> Iterator[None]:
    """Remove the protection from the state for the Pulumi CLI; remaining resources are protected again afterwards.

    The embedded engine does not need this: it gets the list of protected resources that it may delete.
    """
    if not urns:
        yield
        return
    set_protection(session, stack, urns, wanted=False)
    try:
        yield
    finally:
        set_protection(session, stack, urns, wanted=True)


def set_protection(session: Session, stack: str, urns: Collection[str], *, wanted: bool) -> None:
    """Set the protection of resources in the state."""
    checkpoint = session.backend.load(session.project.name, stack)
    changed = False
    for one in checkpoint["deployment"].get("resources") or []:
        if one["urn"] in urns and bool(one.get("protect")) != wanted:
            one["protect"] = wanted
            changed = True
    if changed:
        session.backend.save(session.project.name, stack, checkpoint)


def _resources(session: Session, stack: str) -> list[dict[str, Any]]:
    deployment = session.backend.load(session.project.name, stack).get("deployment") or {}
    return deployment.get("resources") or []


def _kept_by_settings(session: Session, stack: str) -> set[str]:
    """Volumes that the stack's file protects. Other errors in it do not prevent a destroy."""
    given = session.config(stack).get(f"{PROJECT}:storage")
    try:
        volumes = json.loads(given.value)["volumes"] if given else {}
        return {name for name, volume in volumes.items() if volume.get("protect") is True}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()
