"""How the engine and a provider find out what an interrupted create has made.

A provider that can look a resource up without its ID says so in ``GetPluginInfo``. The engine then calls its ``Read``
with an empty ID, and with metadata about the interrupted create.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

RECOVERY_KEY: Final = "recovers-interrupted-creates"
"""Trailing metadata of ``GetPluginInfo``: ``Read`` without an ID finds what an interrupted create has made."""
BEGAN_KEY: Final = "interrupted-create-began"
"""Metadata of such a ``Read``: when the create began (RFC 3339)."""
OTHERS_KEY: Final = "interrupted-create-others"
"""Metadata of such a ``Read``: a JSON list of the IDs of the type's other resources. The create made none of these."""
UNKNOWN_OUTCOME_KEY: Final = "outcome-unknown"
"""Trailing metadata of a failed ``Create``: it may have made something, or may still do so."""

GRACE_SECONDS: Final = 15.0
"""How long after its start an interrupted create may still take effect: the cloud goes on without the client."""
LOOKUP_FACTOR: Final = 5
"""The grace period is at least this many times as long as a lookup takes: a busy cloud is slow in both."""


def may_still_appear(began: datetime | None, lookup_seconds: float) -> bool:
    """Whether the cloud may still carry out a create that ``began`` then; no, where the start is unknown."""
    if began is None:
        return False
    return datetime.now(UTC) < began + timedelta(seconds=max(GRACE_SECONDS, LOOKUP_FACTOR * lookup_seconds))
