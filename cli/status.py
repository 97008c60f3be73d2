"""`lab status` and `lab history`: a stack's resources, and its updates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.default_cloud import is_on_devcloud, is_up
from cli.stack import Json, describe_outputs, stack_outputs
from cli.text import ago, as_json, table, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.session import Session


def status(
    context: typer.Context,
    json: Json = False,
    show_ids: Annotated[bool, typer.Option("--show-ids", "-i", help="Show the cloud's ID of each resource.")] = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Show secret outputs in plain text.")] = False,
) -> None:
    """Show the stack's resources, outputs, last update and lock."""
    session: Session = context.obj
    stack = session.stack()
    deployment = session.backend.load(session.project.name, stack).get("deployment") or {}
    resources = deployment.get("resources") or []
    pending = deployment.get("pending_operations") or []
    summary = next(s for s in session.backend.list_stacks(session.project.name) if s.name == stack)
    outputs = stack_outputs(session, stack, show_secrets=show_secrets)
    if json:
        print(
            as_json(
                {
                    "stack": stack,
                    "project": session.project.name,
                    "backend": session.backend.url,
                    "lastUpdate": timestamp(summary.last_update) if summary.last_update else None,
                    "updateInProgress": summary.locked,
                    "pendingOperations": [{"type": p["type"], "urn": p["resource"]["urn"]} for p in pending],
                    "resources": [{key: r[key] for key in ("urn", "type", "id") if key in r} for r in resources],
                    "outputs": outputs,
                }
            )
        )
        return
    print(f"Current stack is {stack}:")
    print(f"    Managed by {session.backend.url}")
    if summary.locked:
        print("    An update is in progress or was interrupted (`lab state unlock` removes its lock)")
    if summary.last_update:
        print(f"    Last updated: {ago(summary.last_update)} ({summary.last_update.astimezone():%Y-%m-%d %H:%M:%S %z})")
    else:
        print("    No updates yet; run `lab up`")
    for operation in pending:
        print(f"    Unfinished: {operation['type']} {operation['resource']['urn']} (`lab refresh` resolves it)")
    if is_on_devcloud(session, stack) and not is_up():
        print("    Its cloud, devcloud, is not running: start it with `lab up` or `lab devcloud up`")
    print(f"Current stack resources ({len(resources)}):")
    if resources:
        headers = ("TYPE", "NAME", "ID") if show_ids else ("TYPE", "NAME")
        print(table(headers, [row[: len(headers)] for row in _tree(resources)], prefix="    "))
    else:
        print("    No resources currently in this stack")
    if "platform" in outputs:
        from cli.services import platform_status

        print(platform_status(session, stack))
    print()
    print(describe_outputs(outputs))


def _tree(resources: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    children: dict[str, list[dict[str, Any]]] = {}
    known = {resource["urn"] for resource in resources}
    for resource in resources:
        parent = resource.get("parent", "")
        children.setdefault(parent if parent in known else "", []).append(resource)

    def walk(parent: str, padding: str) -> Iterator[tuple[str, str, str]]:
        siblings = children.pop(parent, [])
        for resource in siblings:
            last = resource is siblings[-1]
            branch = "" if not parent else "└─ " if last else "├─ "
            deleting = " (pending deletion)" if resource.get("delete") else ""
            name = resource["urn"].split("::")[-1] + deleting
            yield padding + branch + resource["type"], name, resource.get("id", "")
            yield from walk(resource["urn"], padding + ("" if not parent else "   " if last else "│  "))

    yield from walk("", "")


def history(
    context: typer.Context,
    json: Json = False,
    page_size: Annotated[int, typer.Option("--page-size", min=1, help="Number of updates to show.")] = 10,
    page: Annotated[int, typer.Option("--page", min=1, help="Page to show.")] = 1,
) -> None:
    """Show the updates of the stack, newest first."""
    session: Session = context.obj
    updates = session.backend.history(session.project.name, session.stack())
    chosen = updates[(page - 1) * page_size : page * page_size]
    if json:
        print(as_json([_update_json(update) for update in chosen]))
        return
    if not chosen:
        print("Stack has never been updated" if page == 1 else f"No stack updates found on page '{page}'")
    for update in chosen:
        changes = update.get("resourceChanges") or {}
        started = datetime.fromtimestamp(update["startTime"], UTC)
        print(f"Version: {update.get('version', '')}")
        print(f"UpdateKind: {update['kind']}")
        print(f"Status: {update['result']}")
        print(f"Message: {update.get('message', '')}")
        counts = (("+", "create"), ("-", "delete"), ("~", "update"), (" ", "same"))
        print(" ".join(f"{sign}{changes.get(op, 0)}" for sign, op in counts))
        print(f"Updated {ago(started)} took {update['endTime'] - update['startTime']}s\n")


def _update_json(update: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": update.get("version"),
        "kind": update["kind"],
        "startTime": timestamp(datetime.fromtimestamp(update["startTime"], UTC)),
        "message": update.get("message", ""),
        "environment": update.get("environment") or {},
        "config": {
            key: {"secret": True} if "secure" in value else {"value": value.get("string"), "secret": False}
            for key, value in (update.get("config") or {}).items()
            if isinstance(value, dict)
        },
        "result": update["result"],
        "endTime": timestamp(datetime.fromtimestamp(update["endTime"], UTC)),
        "resourceChanges": update.get("resourceChanges") or {},
    }
