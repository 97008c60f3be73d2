"""The engine's operations, in the symbols, words and colours of the Pulumi CLI (`pkg/resource/deploy/step.go`)."""

from __future__ import annotations

from typing import NamedTuple


class Op(NamedTuple):
    """How one operation is shown."""

    symbol: str
    style: str
    doing: str
    done: str
    failed: str
    plan: str
    """Shown in a preview while the step is checked."""
    planned: str
    """Shown after that; the steps of a replacement have one label."""
    counted: str
    """Past tense, in the summary of an update."""


OPS = {
    "same": Op("  ", "", "", "", "failed", "", "", "sames"),
    "create": Op("+ ", "green", "creating", "created", "creating failed", "create", "create", "created"),
    "update": Op("~ ", "yellow", "updating", "updated", "updating failed", "update", "update", "updated"),
    "delete": Op("- ", "red", "deleting", "deleted", "deleting failed", "delete", "delete", "deleted"),
    "replace": Op(
        "+-", "bright_magenta", "replacing", "replaced", "replacing failed", "replace", "replace", "replaced"
    ),
    "create-replacement": Op(
        "++", "bright_green", "creating replacement", "created replacement", "creating failed", "create replacement",
        "replace", "create-replacementd",
    ),
    "delete-replaced": Op(
        "--", "bright_red", "deleting original", "deleted original", "deleting failed", "delete original", "replace",
        "deleted",
    ),
    "read": Op("> ", "bright_cyan", "reading", "read", "reading failed", "read", "read", "read"),
    "read-replacement": Op(
        ">>", "bright_magenta", "reading for replacement", "read for replacement", "reading failed",
        "read for replacement", "replace", "read-replacementd",
    ),
    "refresh": Op("~ ", "yellow", "refreshing", "refresh", "refreshing failed", "refreshing", "refresh", "refreshed"),
    "discard": Op("< ", "red", "discarding", "discarded", "discarding failed", "discard", "discard", "discarded"),
    "discard-replaced": Op(
        "<<", "red", "discarding original", "discarded original", "discarding failed", "discard original", "replace",
        "discarded",
    ),
    "remove-pending-replace": Op("~ ", "", "", "", "", "", "", "removed"),
    "import": Op("= ", "green", "importing", "imported", "importing failed", "import", "import", "imported"),
    "import-replacement": Op(
        "=>", "bright_magenta", "importing replacement", "imported replacement", "importing failed",
        "import replacement", "import", "imported",
    ),
}  # fmt: skip
REPLACEMENT_STEPS = frozenset(
    {
        "replace", "create-replacement", "delete-replaced", "read-replacement", "discard-replaced",
        "remove-pending-replace", "import-replacement",
    }
)  # fmt: skip
UNCOUNTED = frozenset({"same", "read", "discard", "read-replacement"})


def describe(op: str) -> Op:
    """How to show `op`; an unknown operation of a newer engine is shown by its name."""
    return OPS.get(op) or Op("  ", "", op, op, f"{op} failed", op, op, op)
