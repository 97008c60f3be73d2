"""Renders a preview as Markdown for a comment: warnings first, the whole plan in a collapsed section."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cli.display.base import is_internal
from cli.display.diff import DiffRenderer
from cli.display.model import Options
from cli.display.ops import describe
from terminal.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cli.review import Change, Review

FORGE_LIMIT = 65_536
"""Maximum length of a comment on GitHub, in characters; the lowest of the three forges."""
LIMIT_BYTES = FORGE_LIMIT - 1024
"""Maximum length of a summary. Bytes, to be safe, with room for additions of a job."""
_ROOM_FOR_NOTES = 512
_VERBS = {"delete": "to delete", "replace": "to replace", "update": "to change", "create": "to create"}
_FOUND = {"delete": "missing", "update": "changed"}
"""Words for drift."""


def marker(kind: str, stack: str) -> str:
    """The invisible first line that identifies the comment or the issue of a stack."""
    return f"<!-- ml-cluster: {kind} of stack {stack} -->"


def render(
    review: Review, events: Sequence[Mapping[str, Any]], *, stack: str, project: str, limit: int = LIMIT_BYTES
) -> str:
    """Render a preview in at most `limit` bytes; notes say how much is left out."""
    kind = "drift" if review.kind == "refresh" else "preview"
    warnings = _list("Destructive", review.destructive)
    warnings += _list("Opened to more addresses", review.openings)
    warnings += _list("Ends sooner", review.shortened)
    warnings += _list("Warnings", dict.fromkeys(first_line(warning) for warning in review.warnings))
    text = [marker(kind, stack), _headline(review, stack), "", *_failure(review, limit // 4)]
    text += _cut(warnings, limit // 4, "more lines of warnings; `lab preview` shows all\n")
    costs = [*_nodes(review), *_leases(review)]
    words = _FOUND if review.kind == "refresh" else {}
    rows = [_row(change, words) for change in review.changes]
    if rows:
        header = ["| | operation | resource | properties |", "|---|---|---|---|"]
        room = limit * 2 // 3 - _size([*text, *costs, *header])
        text += [*header, *_cut(rows, room, "more resources; see the whole plan", row=True), ""]
    text += costs
    plan = _plan(events, stack=stack, project=project)
    if plan and review.changes:
        text += _fold(plan, limit - _size(text) - _ROOM_FOR_NOTES)
    return "\n".join(text) + "\n"


def refused(kind: str, stack: str, error: str) -> str:
    """Render a preview that could not start."""
    lines = _cut(error.split("\n"), LIMIT_BYTES // 2, "more lines")
    return "\n".join([marker(kind, stack), f"### The {kind} of stack {code(stack)} failed", "", *_fence(lines), ""])


def code(text: str) -> str:
    """`text` in a code span, so that it mentions nobody and breaks no table."""
    flat = " ".join(text.split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def first_line(text: str) -> str:
    """The first line of a message, escaped for Markdown."""
    return code(text.split("\n", 1)[0])


def _headline(review: Review, stack: str) -> str:
    title = f"Drift of stack {code(stack)}" if review.kind == "refresh" else f"Preview of stack {code(stack)}"
    if review.failed:
        return f"### {title}: failed"
    words = _FOUND if review.kind == "refresh" else _VERBS
    counts = [f"{count} {words.get(op, 'to ' + op)}" for op, count in review.counts.items()]
    return f"### {title}: {', '.join(counts) or 'no changes'}, {review.unchanged} unchanged"


def _failure(review: Review, room: int) -> list[str]:
    if not review.failed:
        return []
    message = "\n".join(review.errors) or "It ended without a result; see the job's log."
    return [
        "The preview failed, so its changes are unknown:",
        "",
        *_fence(_cut(message.split("\n"), room, "more lines")),
        "",
    ]


def _list(title: str, sentences: Iterable[str]) -> list[str]:
    items = [f"- {sentence}" for sentence in sentences]
    return [f"**{title}**", "", *items, ""] if items else []


def _row(change: Change, words: Mapping[str, str]) -> str:
    properties = ", ".join(code(name) for name in change.properties[:12])
    more = f" and {len(change.properties) - 12} more" if len(change.properties) > 12 else ""
    symbol, kind = code(describe(change.op).symbol.strip()), code(change.step.urn.display_type)
    return f"| {symbol} | {words.get(change.op, change.op)} | {kind} {code(change.name)} | {properties}{more} |"


def _nodes(review: Review) -> list[str]:
    rows = [f"| {code(flavor)} | {now} | {then} |" for flavor, (now, then) in review.nodes.items()]
    if not rows:
        return []
    now, then = (sum(count[index] for count in review.nodes.values()) for index in (0, 1))
    return ["| nodes by flavor | now | after |", "|---|---|---|", *rows, f"| all | {now} | {then} |", ""]


def _leases(review: Review) -> list[str]:
    def number(value: float | None) -> str:
        return "unknown" if value is None else f"{value:g}"

    def total(index: int) -> str:
        hours = [cost.node_hours[index] for cost in review.leases]
        return number(sum(hour for hour in hours if hour is not None)) if None not in hours else "unknown"

    if not review.leases:
        return []
    rows = [
        f"| {code(cost.name)} | {number(cost.hours[0])} | {number(cost.hours[1])} | {number(cost.node_hours[0])} | "
        f"{number(cost.node_hours[1])} |"
        for cost in review.leases
    ]
    return [
        "| lease | hours now | after | node-hours now | after |",
        "|---|---|---|---|---|",
        *rows,
        f"| all | | | {total(0)} | {total(1)} |",
        "",
    ]


def _plan(events: Iterable[Mapping[str, Any]], *, stack: str, project: str) -> list[str]:
    """The lines of `lab preview --diff`."""
    renderer = DiffRenderer(Options(stack=stack, project=project, dry_run=True), unchanged=False)
    shown = (text for event in events if not is_internal(event) for text in renderer.render(event))
    return [line for text in shown for line in text.plain.split("\n")]


def _fold(lines: list[str], room: int) -> list[str]:
    fenced = _fence([])
    kept = _cut(lines, room - _size(fenced), "")
    left = plural(len(lines) - len(kept), "more line")
    note = [f"The plan is too long for a comment: {left}. `lab preview --diff` shows all."]
    if not kept:
        return note
    fold = ["<details><summary>The whole plan</summary>", "", *_fence(kept), "", "</details>"]
    return fold if len(kept) == len(lines) else [*fold, "", *note]


def _fence(lines: list[str]) -> list[str]:
    longest = max((len(run) for line in lines for run in re.findall("`{3,}", line)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}text", *lines, fence]


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def _cut(lines: list[str], room: int, note: str, *, row: bool = False) -> list[str]:
    """The first lines that fit and, if there is a `note`, a line with the number of others."""
    kept: list[str] = []
    for line in lines:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.append(line)
    left = len(lines) - len(kept)
    if left and note:
        kept.append(f"| | | {left} {note} | |" if row else f"{left} {note}")
    return kept
