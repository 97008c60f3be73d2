"""The report at the end: diagnostics, outputs, counts and duration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.display.ops import OPS, UNCOUNTED, describe
from cli.display.policies import is_forbidden, policies
from cli.display.properties import At, PropertyPrinter, is_blank
from cli.display.values import Diff, Special, Value, diff_objects, diff_values, is_internal
from terminal.text import HEADLINE, clean, duration, plain, plural, tagged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cli.display.model import Diagnostic, Model, Options, Row, Step


def banner(options: Options) -> Text:
    """`Updating (dev):`."""
    return Text(f"{options.label} ({clean(options.stack)}):", HEADLINE)


def configuration(config: Mapping[str, str]) -> list[Text]:
    """The stack's configuration, in which the engine has replaced secrets."""
    return [Text("Configuration:"), *(Text(f"    {key}: {plain(config[key])}") for key in sorted(config))]


def report(model: Model) -> list[Text]:
    """All sections. After a violation of a mandatory policy there is no summary, as in the CLI."""
    ending = [] if is_forbidden(model) else summary(model)
    return [*policies(model), *diagnostics(model), *outputs(model), *ending]


def diagnostics(model: Model) -> list[Text]:
    """Every message that was not ephemeral, grouped by resource."""
    lines: list[Text] = []
    for row in model.rows.values():
        blocks = [block for block in map(message_lines, _streams(row)) if block]
        if blocks:
            lines.append(Text(f"  {clean(row.urn.display_type)} ({clean(row.urn.name)}):", "bright_blue"))
            lines.extend(line for block in blocks for line in block)
    return [Text("Diagnostics:", HEADLINE), *lines] if lines else []


def _streams(row: Row) -> list[list[Diagnostic]]:
    """The row's messages by stream; the parts of a stream make one text."""
    streams: dict[int, list[Diagnostic]] = {}
    for diagnostic in row.diagnostics:
        if not diagnostic.ephemeral:
            streams.setdefault(diagnostic.stream, []).append(diagnostic)
    return list(streams.values())


def message_lines(diagnostics: list[Diagnostic]) -> list[Text]:
    """The indented lines of messages, and a blank one after the last."""
    lines = []
    for diagnostic in diagnostics:
        for text in diagnostic.text.rstrip().split("\n"):
            line = Text.assemble("    ", tagged(text))
            line.rstrip()
            lines.append(line)
    return [*lines, Text()] if lines else []


def outputs(model: Model) -> list[Text]:
    """The stack's outputs: all of them after an update, those that change in a preview."""
    step = model.stack.step if model.stack else None
    if step is None or step.op == "delete" or model.options.suppress_outputs:
        return []
    lines = output_lines(step, 1, model.options)
    return [Text("Outputs:", HEADLINE), *lines, Text()] if lines else []


def output_lines(step: Step, indent: int, options: Options, *, refreshed: bool = False) -> list[Text]:
    """The outputs of a step that differ from its inputs: the changed ones; of the stack after an update, all."""
    planning = options.dry_run
    show_sames = options.show_sames or (not planning and step.urn.is_stack)
    reads = ("read", "read-replacement", "import", "import-replacement")
    if planning and not (refreshed or step.op in reads or step.urn.is_stack):
        return []
    if step.old is not None and step.old.wire.get("initErrors"):
        return []
    inputs, values = (step.new.inputs, step.new.outputs) if step.new is not None else ({}, {})
    hidden = step.hidden()
    items: dict[Any, Diff] | None = None
    if step.old is not None and step.old.wire.get("outputs") is not None:
        items = diff_objects(step.old.outputs, values, hidden)
        if items is None and hidden.hits:
            items = {}
        if planning and step.urn.is_stack and items is not None:
            items = _without_unknown_parts(items)
        if items is None and not show_sames:
            return []
    printer = PropertyPrinter(unchanged=True, truncate=not options.show_full_output)
    printer.hidden(hidden.hits, At(indent, step.op))
    keys = sorted(values if items is None else items)
    width = max(map(len, keys), default=0)
    at = At(indent, step.op)
    for key in keys:
        value = values.get(key)
        if items is None and (is_internal(key) or is_blank(value)):
            continue
        if key in inputs and not refreshed and diff_values(value, inputs[key]) is None:
            continue
        if items is None:
            printer.property(key, width, value, at)
        elif show_sames or items[key].kind != "same":
            printer.property_diff(key, width, items[key], at)
    return printer.finish()


def _without_unknown_parts(items: dict[Any, Diff]) -> dict[Any, Diff]:
    """`items` without what a preview can't know of resources among the stack's outputs."""
    marker = items.get("@isPulumiResource")
    is_resource = marker is not None and marker.kind == "add"
    kept: dict[Any, Diff] = {}
    for key, item in items.items():
        if item.kind == "add" and not (is_resource and (item is marker or item.new is Special.UNKNOWN)):
            kept[key] = Diff("add", None, _without_marker(item.new))
        elif item.kind == "update" and item.new is not Special.UNKNOWN:
            kept[key] = _without_unknown_elements(item)
        elif item.kind in ("delete", "same"):
            kept[key] = item
    return kept


def _without_unknown_elements(item: Diff) -> Diff:
    if item.items is None:
        return item
    if not item.is_list:
        return Diff("update", item.old, item.new, _without_unknown_parts(item.items))
    elements = {
        index: Diff("add", None, _without_marker(element.new))
        if element.kind == "add"
        else _without_unknown_elements(element)
        if element.kind == "update"
        else element
        for index, element in item.items.items()
    }
    return Diff("update", item.old, item.new, elements)


def _without_marker(value: Value) -> Value:
    if isinstance(value, list):
        return [_without_marker(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_marker(item) for key, item in value.items() if key != "@isPulumiResource"}
    return value


def summary(model: Model) -> list[Text]:
    """Number of resources by operation, and the duration."""
    if model.summary is None:
        return []
    errored = sum(1 for row in model.rows.values() if row.counts["error"])
    return [*summary_lines(model.summary, errored), Text()]


def summary_lines(event: Mapping[str, Any], errored: int, packs: Sequence[Text] = ()) -> list[Text]:
    """The lines of a summary event; `packs` precede the duration."""
    changes: Mapping[str, int] = event.get("resourceChanges") or {}
    preview = bool(event.get("isPreview"))
    lines = [Text("Resources:", HEADLINE)]
    counted = [op for op in (*OPS, *(changes.keys() - OPS.keys())) if changes.get(op, 0) > 0 and op not in UNCOUNTED]
    for op in counted:
        words = describe(op)
        what = f"to {op}" if preview else words.counted
        lines.append(Text.assemble("    ", (f"{words.symbol}{changes[op]} {what}", words.style)))
    pieces = []
    if len(counted) >= 2:
        pieces.append(Text(plural(sum(changes[op] for op in counted), "change"), "bold"))
    if same := changes.get("same"):
        pieces.append(Text(f"{same} unchanged"))
    if pieces:
        lines.append(Text.assemble("    ", Text(". ").join(pieces)))
    if errored:
        lines.append(Text.assemble("    ", (f"{errored} errored", "red")))
    lines += packs
    if not preview:
        took = duration(event.get("durationSeconds") or 0)
        lines += [Text(), Text.assemble(("Duration:", HEADLINE), f" {took}")]
    return lines
