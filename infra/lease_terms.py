"""What a lease reserves and until when: pure rules, shared by the component and by `blazar`."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from infra.settings import Settings


class LeaseError(Exception):
    """Blazar refused or failed; the text says what it answered, and what to do."""


class Reservation(TypedDict):
    """One reservation of a lease: `key` is the flavor (flavor:instance) or the node group (physical:host)."""

    key: str
    amount: int
    properties: str


def parse_time(text: str) -> datetime:
    """A time as Blazar answers it (`2026-12-01T18:00:00.000000`) or takes it (`2026-12-01 18:00`): UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def end_of(start: str, hours: float | None, end: str | None) -> datetime:
    """The wanted end of a lease: `end`, or `hours` after its recorded start, which stays when `up` runs again."""
    return datetime.fromisoformat(end).astimezone(UTC) if end else parse_time(start) + timedelta(hours=hours or 0)


def wanted_reservations(settings: Settings) -> list[Reservation]:
    """What the node groups need: one reservation a flavor, or one a group for hosts."""
    groups = {name: group for name, group in settings.nodes.groups.items() if group.count}
    if settings.lease is None:
        return []
    if settings.lease.type == "physical:host":
        return [
            Reservation(key=name, amount=group.hosts or group.count, properties=host_query(group.host_properties))
            for name, group in groups.items()
        ]
    amounts: dict[str, int] = {}
    for group in groups.values():
        amounts[group.flavor] = amounts.get(group.flavor, 0) + group.count
    return [Reservation(key=flavor, amount=amount, properties="") for flavor, amount in amounts.items()]


def host_query(properties: Mapping[str, str]) -> str:
    """Host properties in Blazar's language: `["==", "$node_type", "compute_skylake"]`; `and` joins several."""
    terms: list[Any] = [["==", f"${name}", value] for name, value in sorted(properties.items())]
    if not terms:
        return ""
    return json.dumps(terms[0] if len(terms) == 1 else ["and", *terms])


def plain(value: object) -> object:
    """A property as it compares with the engine's copy of it: numbers as floats, and nothing like an empty value."""
    return json.loads(json.dumps(value, sort_keys=True), parse_int=float) or None


def lease_replaces(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Inputs whose change needs another lease. Its end is not among them; a start that is taken away is not either."""
    keys = ["name", "kind", "reservations", "cloud", "region", *(["start"] if news.get("start") else [])]
    return [key for key in keys if plain(olds.get(key)) != plain(news.get(key))]
