"""Plain tables and times, as the Pulumi CLI prints them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


SPAN = re.compile(r"(\d{1,9})([smhdw])")
SPAN_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}


def span_seconds(text: str, units: str = "smhdw") -> int | None:
    """Seconds of a span such as `30m`, `1h` or `14d`; None if it is not one, or in none of the units."""
    found = SPAN.fullmatch(text)
    return int(found[1]) * SPAN_UNITS[found[2]] if found and found[2] in units else None


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], prefix: str = "") -> str:
    """Columns padded to their widest cell and two spaces apart."""
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        prefix + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago `moment` (with a time zone) was, in its largest unit: `3 minutes ago`."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for unit, size in UNITS:
        if count := int(seconds // size):
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


def timestamp(moment: datetime) -> str:
    """`moment` as the CLI's JSON has it: UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(value: Any) -> str:
    """`value` as the CLI's --json prints it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def cell(value: Any) -> str:
    """A value in a table: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
