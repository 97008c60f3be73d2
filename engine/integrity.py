"""Checks the integrity of a stack's state, and puts its resources in order.

Everything here works on the records of a checkpoint. The rules are those of ``Snapshot.VerifyIntegrity`` in
pulumi/pulumi: whatever a resource refers to comes before it, and of the resources with one URN the live one is first.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from .errors import EngineError
from .urn import is_provider_type, split_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Json = dict[str, Any]
Record = dict[str, Any]

SHOWN_PROBLEMS = 10
EVERY_STEP = "every-step"
"""Value of ``LAB_CHECK_STATE`` that has the whole state checked after each step, not only when it is written."""


class StateIntegrityError(EngineError):
    """A state is damaged: a resource refers to one that is missing, or that comes after it."""


def references(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(role, URN) of all that has to come before a resource, other than its provider."""
    if parent := record.get("parent"):
        yield "parent", parent
    yield from (("dependency", urn) for urn in record.get("dependencies") or ())
    for name, urns in (record.get("propertyDependencies") or {}).items():
        yield from ((f"dependency of property '{name}'", urn) for urn in urns or ())
    if deleted_with := record.get("deletedWith"):
        yield "deletedWith", deleted_with
    yield from (("replaceWith", urn) for urn in record.get("replaceWith") or ())


def problems(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Every integrity error of a state's resources."""
    records = list(records)
    everything = {record["urn"] for record in records}
    seen: set[str] = set()
    providers: set[str] = set()
    for record in records:
        urn = record["urn"]
        if is_provider_type(record["type"]):
            providers.add(f"{urn}::{record.get('id') or ''}")
        if not record.get("custom") and record.get("id"):
            yield f"resource '{urn}' has 'custom' false but non-empty ID"
        provider = record.get("provider")
        if provider and provider not in providers and not record.get("pendingReplacement"):
            yield f"resource {urn} refers to unknown provider {provider}"
        for role, needed in references(record):
            if needed not in seen:
                problem = "comes after it" if needed in everything else "is missing"
                yield f"resource {urn}'s {role} {needed} {problem}"
        if urn in seen and not record.get("delete"):
            yield f"duplicate resource {urn} (not marked for deletion)"
        seen.add(urn)


def manifest_problems(deployment: Mapping[str, Any]) -> Iterator[str]:
    """A manifest whose ``magic`` is not the digest of its ``version`` was changed by hand."""
    manifest = deployment.get("manifest") or {}
    version = manifest.get("version") or ""
    if (manifest.get("magic") or "") != (hashlib.sha256(version.encode()).hexdigest() if version else ""):
        yield "magic cookie mismatch; possible tampering/corruption detected"


def import_problems(deployment: Mapping[str, Any], project: str, stack: str) -> Iterator[str]:
    """Every error that `pulumi stack import` finds in a deployment for this stack."""
    records = deployment.get("resources") or []
    for record in records:
        theirs = record["urn"].removeprefix("urn:pulumi:").split("::")
        if theirs[0] != stack:
            yield f"resource '{record['urn']}' is from a different stack ({theirs[0]} != {stack})"
        elif theirs[1] != project:
            yield f"resource '{record['urn']}' is from a different project ({theirs[1]} != {project})"
    yield from manifest_problems(deployment)
    yield from problems(records)


def summary(found: Sequence[str]) -> str:
    """Faults as lines, the first ten of them."""
    lines = [f"  {problem}" for problem in found[:SHOWN_PROBLEMS]]
    if len(found) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(found) - SHOWN_PROBLEMS} more")
    return "\n".join(lines)


def check_written(records: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to write a damaged state; raises :class:`StateIntegrityError`."""
    if found := list(problems(records)):
        raise StateIntegrityError(
            f"The new state would be damaged, so it was not written; it has {_count(found)}:\n{summary(found)}",
            remedy="this is a defect of lab, please report it. The state from before and the journal of this update "
            "are kept: take the state out with `lab state export`, repair it, and put it back with `lab state import`",
        )


def check_read(records: Iterable[Mapping[str, Any]], stack: str) -> None:
    """Refuse to work with a damaged state; raises :class:`StateIntegrityError`."""
    if found := list(problems(records)):
        raise StateIntegrityError(
            f"The state of stack '{stack}' is damaged, it has {_count(found)}:\n{summary(found)}",
            remedy="restore a backup of it, or take it out with `lab state export`, repair it, and put it back with "
            "`lab state import`",
        )


def checks_every_step() -> bool:
    """Whether ``LAB_CHECK_STATE`` asks for a check after each step."""
    return os.environ.get("LAB_CHECK_STATE") == EVERY_STEP


def in_order(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """The order in which each resource comes after all that it refers to, as indexes of ``records``.

    Records that are in such an order stay as they are; others move no more than they have to.
    """
    by_urn: dict[str, list[int]] = {}
    by_reference: dict[str, int] = {}
    for index, record in enumerate(records):
        by_urn.setdefault(record["urn"], []).append(index)
        by_reference.setdefault(f"{record['urn']}::{record.get('id') or ''}", index)
    ordered: list[int] = []
    placed: set[str] = set()
    begun: set[int] = set()

    def before(index: int) -> Iterator[int]:
        """The records that have to be placed before this one, and are not yet."""
        record = records[index]
        if record.get("delete"):
            yield from (index for index in by_urn[record["urn"]] if not records[index].get("delete"))
        if (provider := by_reference.get(record.get("provider") or "")) is not None:
            yield provider
        for _, urn in references(record):
            if urn not in placed:
                # References to a URN need its live resource, which comes first.
                yield from sorted(by_urn.get(urn, ()), key=lambda other: bool(records[other].get("delete")))[:1]

    for root in range(len(records)):
        if root in begun:
            continue
        begun.add(root)
        path = [(root, before(root))]
        while path:
            index, rest = path[-1]
            following = next((other for other in rest if other not in begun), None)
            if following is None:
                ordered.append(index)
                placed.add(records[index]["urn"])
                path.pop()
            else:
                begun.add(following)
                path.append((following, before(following)))
    return ordered


def follow_aliases(records: Sequence[Record]) -> list[Record]:
    """The records with references to aliases replaced by references to the current URN."""
    renamed = {
        alias: record["urn"] for record in records for alias in record.get("aliases") or () if alias != record["urn"]
    }
    if not renamed:
        return [_without(record, "aliases") for record in records]

    def current(urn: str) -> str:
        return str(renamed.get(urn, urn))

    changed = []
    for record in records:
        fresh = _without(record, "aliases")
        for key in ("parent", "deletedWith"):
            if fresh.get(key):
                fresh[key] = current(fresh[key])
        for key in ("dependencies", "replaceWith"):
            if fresh.get(key):
                fresh[key] = [current(urn) for urn in fresh[key]]
        if by_property := fresh.get("propertyDependencies"):
            fresh["propertyDependencies"] = {
                name: [current(urn) for urn in urns or ()] for name, urns in by_property.items()
            }
        if fresh.get("provider"):
            urn, id_ = split_reference(fresh["provider"])
            fresh["provider"] = f"{current(urn)}::{id_}"
        changed.append(fresh)
    return changed


def _without(record: Record, key: str) -> Record:
    return {name: value for name, value in record.items() if name != key}


def _count(found: Sequence[str]) -> str:
    return f"{len(found)} problem{'s' if len(found) > 1 else ''}"
