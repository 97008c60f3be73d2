"""Contents and end of a lease, computed without I/O; shared by the component and by `blazar`."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.settings import Settings


class LeaseError(Exception):
    """Blazar refused a request or failed; the text has its answer and a remedy."""


def parse_time(text: str) -> datetime:
    """Parse a time in Blazar's answers (`2026-12-01T18:00:00.000000`) or requests (`2026-12-01 18:00`): UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def minute(time: datetime) -> str:
    """Format a time in UTC to the minute, Blazar's resolution, for the state and the outputs."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def end_of(start: str, hours: float | None, end: str | None) -> datetime:
    """The desired end of a lease: `end`, or `hours` after its recorded start, which does not change at a later `up`."""
    return datetime.fromisoformat(end).astimezone(UTC) if end else parse_time(start) + timedelta(hours=hours or 0)


def reservation(settings: Settings, group: str) -> dict[str, Any]:
    """The reservation for a node group: a number of instances of a flavor, or of hosts with certain properties."""
    nodes = settings.nodes.groups[group]
    if settings.reserves_flavors:
        return {"kind": "flavor:instance", "amount": nodes.count, "flavor": nodes.flavor, "properties": None}
    amount = nodes.hosts or nodes.count
    return {"kind": "physical:host", "amount": amount, "flavor": None, "properties": host_query(nodes.host_properties)}


def host_query(properties: Mapping[str, str]) -> str:
    """Host properties in Blazar's language: `["==", "$node_type", "compute_skylake"]`; `and` joins several."""
    terms: list[Any] = [["==", f"${name}", value] for name, value in sorted(properties.items())]
    if not terms:
        return ""
    return json.dumps(terms[0] if len(terms) == 1 else ["and", *terms])


def lease_replaces(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Inputs whose change replaces the lease. These do not include its end, nor a start that is removed."""
    keys = [
        "name",
        "kind",
        "amount",
        "flavor",
        "properties",
        "cloud",
        "region",
        *(["start"] if news.get("start") else []),
    ]
    # The engine drops empty values.
    return [key for key in keys if (olds.get(key) or None) != (news.get(key) or None)]
