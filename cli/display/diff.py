"""The diff view (`--diff`): every step with all its properties, in the layout of the Pulumi CLI's (`diff.go`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.display.base import Display, Result
from cli.display.model import Event, Options, Step, is_listed
from cli.display.ops import describe
from cli.display.policies import pack_table, remediation_lines, violation_lines
from cli.display.properties import At, PropertyPrinter
from cli.display.report import banner, configuration, output_lines, summary_lines
from cli.display.values import Diff, Special, Value, diff_objects
from protocol.signatures import UNKNOWNS
from terminal.text import clean, tagged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

OWN_COLOR = frozenset({"create", "delete", "delete-replaced", "discard", "discard-replaced"})


class DiffRenderer:
    """Turns step events into lines. `unchanged` also shows unchanged properties, and those of deleted resources."""

    def __init__(self, options: Options, *, unchanged: bool = True) -> None:
        self._options, self._unchanged = options, unchanged
        self._seen: dict[str, Step] = {}

    def render(self, event: Event) -> list[Text]:
        """The lines for one event; none unless it is a `resourcePreEvent` or `resOutputsEvent`."""
        if (payload := event.get("resourcePreEvent")) is not None:
            step = Step(payload["metadata"])
            self._seen[step.urn.text] = step
            hidden = step.op in ("refresh", "import") or not is_listed(step, self._options)
            return [] if hidden else self._step(step, refreshed=False)
        if (payload := event.get("resOutputsEvent")) is None:
            return []
        step = Step(payload["metadata"])
        return self._outputs(step) if is_listed(step, self._options) else []

    def _outputs(self, step: Step) -> list[Text]:
        before = self._seen.get(step.urn.text)
        refreshed = before is not None and before.op == "refresh"
        if step.op == "import" or (refreshed and step.op == "update"):
            return self._step(step, refreshed=refreshed)
        indent = self._indent(step)
        lines = output_lines(step, indent + 1, self._options, refreshed=refreshed)
        header = []
        if refreshed and (step.op != "refresh" or lines or step.urn.is_stack):
            header = self._header(step, indent)
        if not lines or self._options.suppress_outputs:
            return header
        return [*header, Text("    " * (indent + 1) + "--outputs:--", describe(step.op).style), *lines]

    def _step(self, step: Step, *, refreshed: bool) -> list[Text]:
        indent = self._indent(step)
        lines = self._header(step, indent)
        if step.op != "same":
            lines += self._properties(step, indent + 1, refreshed=refreshed)
        return lines

    def _indent(self, step: Step) -> int:
        """How many ancestors are shown above a step."""
        depth, seen = 0, {step.urn.text}
        parent = step.parent
        while parent in self._seen and parent not in seen:
            seen.add(parent)
            above = self._seen[parent]
            depth += is_listed(above, self._options)
            parent = above.parent
        return depth

    def _header(self, step: Step, indent: int) -> list[Text]:
        words = describe(step.op)
        margin, inner = "    " * indent, "    " * (indent + 1)
        style = words.style if step.op in OWN_COLOR else ""
        lock = ""
        if step.new is not None and step.new.protect:
            lock = " 🔒"
        elif step.old is not None and step.old.protect:
            lock = " 🔓" if step.new is not None else " 🔒"
        op = step.op + ("[retain]" if step.retains else "")
        lines = [Text(f"{margin}{words.symbol}{clean(step.type)}: ({op}){lock}", words.style)]
        if step.old is not None and step.old.id:
            lines.append(Text(f"{inner}[id={clean(step.old.id)}]", style))
        lines.append(Text(f"{inner}[urn={clean(step.urn.text)}]", style))
        lines += self._provider(step, inner, style)
        return lines

    def _provider(self, step: Step, margin: str, style: str) -> list[Text]:
        if not step.provider:
            return []
        if step.old is not None and step.new is not None and step.old.provider != step.new.provider:
            new = show_reference(step.new.provider)
            return [
                Text.assemble(
                    (f"{margin}[provider: ", "yellow"), (step.old.provider, "red"), (" => ", "yellow"), (new, "green"),
                    ("]", "yellow"),
                )
            ]  # fmt: skip
        name = step.provider.rpartition("::")[0].rpartition("::")[2]
        return [] if name == "default" else [Text(f"{margin}[provider={step.provider}]", style)]

    def _properties(self, step: Step, indent: int, *, refreshed: bool) -> list[Text]:
        printer = PropertyPrinter(unchanged=self._unchanged, truncate=not self._options.show_full_output)
        same, own = At(indent, "same", marked=True), At(indent, step.op)
        old, new, hidden = step.old, step.new, step.hidden()
        items: dict[Any, Diff] | None
        if step.has_provider_diff:
            items = step.provider_diff(hidden, refreshed=refreshed)
            unchanged: Mapping[str, Value] = old.inputs if old is not None else {}
            only: list[str] = []
        elif old is None or new is None:
            if new is not None:
                printer.objects(new.outputs or new.inputs, own)
            elif old is not None and self._unchanged:
                printer.objects(old.inputs, own)
            return printer.finish()
        else:
            after_outputs = bool(new.outputs) and step.op not in ("import", "import-replacement")
            unchanged = new.outputs if after_outputs else new.inputs
            items = diff_objects(old.outputs if after_outputs else old.inputs, unchanged, hidden)
            only = [] if after_outputs else step.changed_keys
        for key in step.replace_keys:
            if items and key in items and items[key].kind != "same":
                items[key].replaces = True
        if items is None and not hidden.hits:
            printer.objects(unchanged, same)
        else:
            printer.hidden(hidden.hits, same)
            printer.diffs(items or {}, same, only)
        return printer.finish()


def show_reference(provider: str) -> str:
    """A provider reference `<urn>::<id>` to show, with the ID as `[unknown]` if it is not known yet."""
    urn, _, identity = provider.rpartition("::")
    return f"{urn}::{Special.UNKNOWN.value}" if identity in UNKNOWNS else provider


class DiffDisplay(Display):
    """Prints each step's diff as soon as its event arrives; diagnostics go to `errors`."""

    def __init__(self, options: Options, console: Console, errors: Console) -> None:
        super().__init__()
        self._options, self._console, self._errors = options, console, errors
        self._renderer = DiffRenderer(options)
        self._failed = 0
        self._print(banner(options))

    def handle(self, event: dict[str, Any]) -> None:
        """Print one event."""
        self._print(*self._renderer.render(event))
        if "resOpFailedEvent" in event:
            self._failed += 1
        elif (payload := event.get("diagnosticEvent")) is not None:
            if payload.get("severity") != "debug":
                text = (payload.get("prefix", "") + payload.get("message", "")).removesuffix("\n")
                self._errors.print(tagged(text))
        elif (payload := event.get("preludeEvent")) is not None:
            if self._options.show_config and payload.get("config"):
                self._print(*configuration(payload["config"]))
        elif (payload := event.get("stdoutEvent")) is not None:
            self._print(tagged(payload.get("message", "").removesuffix("\n")))
        elif (payload := event.get("policyEvent")) is not None:
            self._print(*violation_lines(payload))
        elif (payload := event.get("policyRemediationEvent")) is not None:
            self._print(*remediation_lines(payload))
        elif (payload := event.get("summaryEvent")) is not None:
            self._print(*summary_lines(payload, self._failed, pack_table(payload)))

    def end(self, result: Result | None) -> None:
        """Do nothing: everything has been printed."""

    def _print(self, *lines: Text) -> None:
        if lines:
            self._console.print(Text("\n").join(lines))
