"""The cells of a resource's row: operation, type, name, status and information."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from cli.display.ops import describe
from terminal.text import clean, duration, plural, tagged

if TYPE_CHECKING:
    from cli.display.model import Model, Row, Step

SEVERITIES = (("error", "error", "red"), ("warning", "warning", "yellow"), ("info", "message", "magenta"))
DIFF_MARKS = (("add", "+", "green"), ("delete", "-", "red"), ("update", "~", "yellow"))


class Cells(NamedTuple):
    """One row of the table."""

    op: Text
    type: Text
    name: Text
    status: Text
    info: Text


def cells(model: Model, row: Row, *, live: bool) -> Cells:
    """The cells of `row`. Where rows are redrawn (`live`), the steps of a replacement show as one replacement."""
    op = row.op
    merged = live and not model.failed and (model.options.dry_run or model.finished)
    if merged and op in ("create-replacement", "delete-replaced", "discard-replaced"):
        op = "replace"
    return Cells(
        Text(describe(op).symbol, describe(op).style),
        Text(clean(row.urn.display_type)),
        Text(clean(row.urn.name)),
        status(model, row, op),
        info(model, row, live=live),
    )


def status(model: Model, row: Row, op: str) -> Text:
    """The current or last operation on a resource, and its duration."""
    words = describe(op)
    retain = "[retain]" if row.step is not None and row.step.retains else ""
    dry_run = model.options.dry_run
    if model.is_interrupted(row):
        return Text(f"{words.doing} (interrupted){retain}", "yellow")
    if not model.is_done(row):
        if row.urn.is_stack and op == "same":
            return Text("running")
        doing = words.plan if dry_run else words.doing
        return Text(doing + _time(model, row, op) + retain, f"bold {words.style}")
    if dry_run:
        return Text(words.planned + retain, words.style)
    if row.failed or row.counts["error"]:
        return Text(f"**{words.failed}{_time(model, row, op)}**{retain}", "red")
    return Text(words.done + _time(model, row, op) + retain, words.style)


def _time(model: Model, row: Row, op: str) -> str:
    elapsed = model.elapsed(row)
    if elapsed is None or op == "same" or model.options.dry_run or not model.options.timings:
        return ""
    if model.is_done(row):
        return "" if row.ended is None else f" ({elapsed:.2f}s)" if elapsed < 1 else f" ({duration(elapsed)})"
    return f" ({duration(elapsed)})"


def info(model: Model, row: Row, *, live: bool) -> Text:
    """The properties that change, and the last message, or at the end the number of messages."""
    parts = []
    if row.step is not None and (changed := short_diff(_telling_step(row, row.step))):
        parts.append(changed)
    if row.violation is not None:
        level = row.violation["enforcementLevel"]
        violation = f"{level}: {clean(row.violation['policyName'])}"
        parts.append(Text(violation, "red" if level == "mandatory" else "yellow"))
    if model.finished:
        for severity, noun, style in SEVERITIES:
            if count := row.counts[severity]:
                number, word = plural(count, noun).split(" ")
                parts.append(Text.assemble(f"{number} ", (word, style)))
    else:
        # Status messages matter only until the resource is done.
        left = [one for one in row.diagnostics if not (one.ephemeral and model.is_done(row))]
        last = row.last_error if live and row.last_error else left[-1] if left else None
        if last is not None:
            parts.append(tagged(last.text.split("\n", 1)[0]))
    return Text("; ").join(parts)


def _telling_step(row: Row, step: Step) -> Step:
    """The step with the changes: of a replacement's three, the logical one."""
    if step.op in ("create-replacement", "delete-replaced"):
        return row.finished.get("replace", step)
    if step.op in ("import", "import-replacement"):
        return row.finished.get(step.op, step)
    return step


def short_diff(step: Step) -> Text:
    """The changed properties, as `[diff: +added-removed~changed]`; those that force a replacement have its colour."""
    if not step.changed:
        return Text()
    result = Text("[diff: ")
    for kind, mark, style in DIFF_MARKS:
        keys = sorted(key for key, item in step.changed.items() if item.kind == kind)
        for position, key in enumerate(keys):
            result.append("," if position else mark, style)
            result.append(clean(key), describe("replace").style if step.changed[key].replaces else style)
    return result.append("]")
