"""Engine events folded into rows, one per resource: the data that every human-readable display shows."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cli.display.ops import REPLACEMENT_STEPS
from cli.display.values import Diff, Hidden, PropertyPath, Value, decode, diff_by_provider, diff_objects, parse_path

Event = Mapping[str, Any]
STACK_TYPE = "pulumi:pulumi:Stack"
RECENT = 64


@dataclass(frozen=True)
class Options:
    """What to show, and how; named after the Pulumi CLI's flags."""

    stack: str
    project: str
    kind: str = "update"
    dry_run: bool = False
    show_sames: bool = False
    show_reads: bool = False
    show_replacement_steps: bool = False
    show_config: bool = False
    show_full_output: bool = False
    suppress_outputs: bool = False
    timings: bool = True

    @property
    def label(self) -> str:
        """Label of the operation, as in `Updating (dev):`."""
        noun, verb = {
            "refresh": ("refresh", "Refreshing"),
            "destroy": ("destroy", "Destroying"),
            "import": ("import", "Importing"),
        }.get(self.kind, ("update", "Updating"))
        return f"Previewing {noun}" if self.dry_run else verb


@dataclass(frozen=True)
class Urn:
    """The parts of `urn:pulumi:<stack>::<project>::<parent type>$<type>::<name>`."""

    text: str
    type: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Urn:
        """Split a URN. A text that is not a URN becomes a name without a type."""
        parts = text.split("::", 3)
        return cls(text, parts[2].rsplit("$", 1)[-1], parts[3]) if len(parts) == 4 else cls(text, "", text)

    @property
    def display_type(self) -> str:
        """The type as the CLI shows it: `openstack:compute/instance:Instance` as `openstack:compute:Instance`."""
        match self.type.split(":"):
            case [package, module, name] if name and "/" in module:
                folder, file = module.rsplit("/", 1)
                if file == name[0].lower() + name[1:]:
                    return f"{package}:{folder}:{name}"
        return self.type

    @property
    def is_stack(self) -> bool:
        """Whether this is the root resource."""
        return self.type == STACK_TYPE


class State:
    """A resource before or after a step."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        self.wire = wire
        self.id: str = wire.get("id") or ""
        self.parent: str = wire.get("parent") or ""
        self.provider: str = wire.get("provider") or ""
        self.custom = bool(wire.get("custom"))
        self.protect = bool(wire.get("protect"))
        self.taint = bool(wire.get("taint"))
        self.retain = bool(wire.get("retainOnDelete"))

    @cached_property
    def inputs(self) -> dict[str, Value]:
        """The inputs, from the program."""
        return decode_object(self.wire.get("inputs"))

    @cached_property
    def outputs(self) -> dict[str, Value]:
        """The outputs, from the provider."""
        return decode_object(self.wire.get("outputs"))

    @property
    def hidden(self) -> list[PropertyPath]:
        """Paths of properties whose diffs are not shown."""
        return [parse_path(path) for path in self.wire.get("hideDiffs") or ()]


def decode_object(wire: object) -> dict[str, Value]:
    """The properties of an event."""
    value = decode(wire or {})
    return value if isinstance(value, dict) else {}


class Step:
    """One operation on one resource (`StepEventMetadata`)."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        self.wire = wire
        self.op: str = wire["op"]
        self.urn = Urn.parse(wire["urn"])
        self.type: str = wire.get("type") or self.urn.type
        self.old = State(wire["old"]) if wire.get("old") else None
        self.new = State(wire["new"]) if wire.get("new") else None
        self.provider: str = wire.get("provider") or ""
        self.logical = bool(wire.get("logical"))
        self.changed_keys: list[str] = wire.get("diffs") or []
        self.replace_keys: list[str] = wire.get("keys") or []

    @property
    def parent(self) -> str:
        """The URN of the parent, or an empty text."""
        state = self.new or self.old
        return state.parent if state else ""

    @property
    def custom(self) -> bool:
        """Whether a provider manages the resource; components and the stack are not custom."""
        state = self.new or self.old
        return state is not None and state.custom

    @property
    def changes_protection(self) -> bool:
        """Whether the step protects or unprotects the resource."""
        return self.old is not None and self.new is not None and self.old.protect != self.new.protect

    @property
    def retains(self) -> bool:
        """Whether the step removes the resource from the state but keeps it in the cloud."""
        forgets = self.op in ("delete", "replace", "create-replacement", "delete-replaced")
        return forgets and self.old is not None and self.old.retain

    def hidden(self) -> Hidden:
        """The properties whose diffs are not shown."""
        state = self.new or self.old
        return Hidden(state.hidden if state else ())

    @property
    def has_provider_diff(self) -> bool:
        """Whether the provider reported a detailed diff, which may be empty."""
        return self.wire.get("detailedDiff") is not None

    def provider_diff(self, hidden: Hidden, *, refreshed: bool = False) -> dict[Any, Diff] | None:
        """The provider's diff. After a refresh, it compares the state before with the state now."""
        old, new = self.old, self.new
        return diff_by_provider(
            self.wire["detailedDiff"],
            lambda inputs: None if old is None else old.inputs if inputs else old.outputs,
            lambda inputs: None if new is None else new.outputs if refreshed and not inputs else new.inputs,
            hidden,
        )

    @cached_property
    def changed(self) -> dict[str, Diff]:
        """The top-level properties that an update or replacement changes, as the tree lists them."""
        if self.old is None or self.new is None:
            return {}
        items: dict[Any, Diff] | None = None
        if self.op != "same":
            if self.has_provider_diff:
                items = self.provider_diff(self.hidden())
            elif self.old.wire.get("inputs") is not None and self.new.wire.get("inputs") is not None:
                items = diff_objects(self.old.inputs, self.new.inputs)
        changed = {key: item for key, item in (items or {}).items() if item.kind != "same"}
        for name in ("provider", "protect", "taint"):
            if getattr(self.old, name) != getattr(self.new, name):
                changed[name] = Diff("update")
        only = set(self.changed_keys)
        kept = {key: item for key, item in changed.items() if not only or key in only}
        for key in self.replace_keys:
            if key in kept:
                kept[key].replaces = True
        return kept


def is_listed(step: Step, options: Options) -> bool:
    """Whether the diff view and the JSON digest list a step: changes, and only the logical step of a replacement."""
    if step.urn.is_stack:
        return True
    if step.op == "same":
        return options.show_sames or step.changes_protection
    return step.logical or step.op not in REPLACEMENT_STEPS or options.show_replacement_steps


@dataclass(frozen=True)
class Diagnostic:
    """A message about a resource. `text` may contain colour tags; `stream` groups the parts of one message."""

    severity: str
    text: str
    stream: int = 0
    ephemeral: bool = False


@dataclass(eq=False, slots=True)
class Row:
    """The state of one resource. Times are in seconds of the model's clock."""

    urn: Urn
    order: int
    step: Step | None = None
    parent: Row | None = None
    started: float | None = None
    ended: float | None = None
    failed: bool = False
    wanted: bool = False
    """Whether the row is shown for itself, not only as a parent."""
    shown: bool = False
    children: dict[str, Row] = field(default_factory=dict)
    """The children that are shown."""
    finished: dict[str, Step] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    last_error: Diagnostic | None = None
    violation: Event | None = None
    """The last policy violation; mandatory ones take precedence."""

    @property
    def op(self) -> str:
        """The current or last operation."""
        return self.step.op if self.step else "same"


class Model:
    """Folds events in the order of arrival. The cost of `apply` does not grow with their number."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self.options, self.clock = options, clock
        self.started = clock()
        self._orders = itertools.count()
        self.rows: dict[str, Row] = {}
        self.stack: Row | None = None
        self.active: dict[str, Row] = {}
        """Shown rows whose operation is in progress, except the root."""
        self.failed: dict[str, Row] = {}
        self.recent: deque[Row] = deque(maxlen=RECENT)
        self.shown = 0
        self.sames: set[str] = set()
        self.completed = 0
        self.config: dict[str, str] | None = None
        self.summary: Mapping[str, Any] | None = None
        self.system: list[str] = []
        self.downloads: dict[str, Mapping[str, Any]] = {}
        self.notices: deque[tuple[Row, Diagnostic]] = deque(maxlen=RECENT)
        self.violations: list[Event] = []
        self.remediations: list[Event] = []
        self.finished = False
        self.revision = 0
        """Increases with each event that changes the display."""

    def apply(self, event: Event) -> Row | None:
        """Apply one event. Returns the row to print again in displays that print rows one by one."""
        self.revision += 1
        for name, record in (
            ("resourcePreEvent", self._begin),
            ("resOutputsEvent", self._complete),
            ("resOpFailedEvent", self._fail),
        ):
            if (payload := event.get(name)) is not None:
                return self._step(payload, record)
        if (payload := event.get("diagnosticEvent")) is not None:
            return self._diagnose(payload)
        if (payload := event.get("policyEvent")) is not None:
            return self._violate(payload)
        if (payload := event.get("preludeEvent")) is not None:
            self.config = payload.get("config") or {}
        elif (payload := event.get("summaryEvent")) is not None:
            self.summary = payload
        elif (payload := event.get("policyRemediationEvent")) is not None:
            self.remediations.append(payload)
        elif (payload := event.get("stdoutEvent")) is not None:
            self.system.append(payload.get("message", ""))
        elif (payload := event.get("progressEvent")) is not None:
            self.downloads[payload["id"]] = payload
            if payload.get("done"):
                del self.downloads[payload["id"]]
        return None

    def finish(self) -> list[Row]:
        """Mark the end of the events. Returns the rows whose operation had not ended."""
        unfinished = [row for row in self.rows.values() if not self.is_done(row)]
        self.finished = True
        self.revision += 1
        self.active.clear()
        return unfinished

    def is_done(self, row: Row) -> bool:
        """Whether no operation is in progress for `row`; the root is done when all rows are."""
        return row.failed or self.finished or (not row.urn.is_stack and row.op in row.finished)

    def is_interrupted(self, row: Row) -> bool:
        """Whether the update ended while an operation on `row` was in progress."""
        if not self.finished or row.failed or row.counts["error"] or row.step is None or not row.step.custom:
            return False
        return row.op not in row.finished and row.op not in ("same", "remove-pending-replace")

    def elapsed(self, row: Row) -> float | None:
        """Duration of the operation so far, or in total, in seconds."""
        if row.started is None:
            return None
        return (self.clock() if row.ended is None else row.ended) - row.started

    def is_wanted(self, step: Step) -> bool:
        """Whether a step gets its own row."""
        return step.op != "same" or self.options.show_sames or step.changes_protection or step.urn.is_stack

    def _step(self, payload: Mapping[str, Any], record: Callable[[Row, Step], Row | None]) -> Row | None:
        """Add a step to its row and `record` it. Unless requested, reads only show as a short message of the stack."""
        step = Step(payload["metadata"])
        if not self.options.show_reads:
            if step.op in ("discard", "read-replacement"):
                return None
            if step.op == "read":
                message = f"read {step.urn.display_type} {step.urn.name}"
                return self._record(self._stack_row(), Diagnostic("info", message, ephemeral=True))
        row = self._row(step.urn)
        if row.parent is None or (step.parent and row.parent.urn.text != step.parent):
            self._link(row, step.parent)
        before, row.step = row.op, step
        if self.is_wanted(step):
            self._want(row)
        shown = record(row, step)
        return row if before == "refresh" else shown

    def _begin(self, row: Row, _: Step) -> Row:
        row.started, row.ended = self.clock(), None
        if row.wanted and not row.urn.is_stack:
            self.active[row.urn.text] = row
        return row

    def _complete(self, row: Row, step: Step) -> Row | None:
        row.ended = self.clock()
        row.finished[step.op] = step
        self.active.pop(row.urn.text, None)
        self.completed += 1
        if step.op == "same":
            self.sames.add(row.urn.text)
        elif row.wanted:
            self.recent.append(row)
        # Otherwise the row would only repeat the line printed at the start of the step.
        repeats = self.options.dry_run or not step.custom or step.op == "same"
        return None if repeats else row

    def _fail(self, row: Row, _: Step) -> Row:
        row.failed, row.ended = True, self.clock()
        self.active.pop(row.urn.text, None)
        self.failed[row.urn.text] = row
        return row

    def _diagnose(self, payload: Mapping[str, Any]) -> Row | None:
        text = (payload.get("prefix", "") + payload.get("message", "")).rstrip()
        severity = payload.get("severity", "info").removesuffix("#err")
        if not text or severity == "debug":
            return None
        row = self._row(Urn.parse(payload["urn"])) if payload.get("urn") else self._stack_row()
        if row.parent is None:
            self._link(row, "")
        self._want(row)
        diagnostic = Diagnostic(severity, text, payload.get("streamID", 0), bool(payload.get("ephemeral")))
        return self._record(row, diagnostic)

    def _violate(self, payload: Event) -> Row:
        """Show the row of a resource that violates a policy: it may get no step."""
        self.violations.append(payload)
        row = self._row(Urn.parse(payload["resourceUrn"])) if payload.get("resourceUrn") else self._stack_row()
        if row.parent is None:
            self._link(row, "")
        self._want(row)
        if row.violation is None or payload["enforcementLevel"] == "mandatory":
            row.violation = payload
        return row

    def _record(self, row: Row, diagnostic: Diagnostic) -> Row:
        row.diagnostics.append(diagnostic)
        if diagnostic.ephemeral:
            return row
        row.counts[diagnostic.severity] += 1
        if diagnostic.severity == "error":
            row.last_error = diagnostic
        if diagnostic.severity in ("error", "warning"):
            self.notices.append((row, diagnostic))
        return row

    def _stack_row(self) -> Row:
        if self.stack is None:
            name = f"{self.options.project}-{self.options.stack}"
            urn = f"urn:pulumi:{self.options.stack}::{self.options.project}::{STACK_TYPE}::{name}"
            self.stack = self._add(Urn.parse(urn))
            self._want(self.stack)
        return self.stack

    def _row(self, urn: Urn) -> Row:
        if (row := self.rows.get(urn.text)) is not None:
            return row
        if not urn.is_stack:
            self._stack_row()
            return self._add(urn)
        if self.stack is None or self.stack.step is not None:
            row = self._add(urn)
            self.stack = self.stack or row
            return row
        del self.rows[self.stack.urn.text]
        self.stack.urn = urn
        self.rows[urn.text] = self.stack
        return self.stack

    def _add(self, urn: Urn) -> Row:
        row = self.rows[urn.text] = Row(urn, next(self._orders))
        return row

    def _link(self, row: Row, parent: str) -> None:
        """Add `row` below its parent, or below the stack. An unknown parent gets a row first."""
        if row is self.stack:
            return
        stack = self._stack_row()
        above = self._row(Urn.parse(parent)) if parent else stack
        if above is not stack and above.parent is None:
            above.parent = stack
        ancestor: Row | None = above
        while ancestor is not None and ancestor is not row:
            ancestor = ancestor.parent
        if ancestor is row:
            above = stack
        if above is row.parent:
            return
        if row.parent is not None:
            row.parent.children.pop(row.urn.text, None)
        row.parent = above
        if row.shown:
            row.shown = False
            self.shown -= 1
            self._show(row)

    def _want(self, row: Row) -> None:
        row.wanted = True
        self._show(row)

    def _show(self, row: Row) -> None:
        current: Row | None = row
        while current is not None and not current.shown:
            current.shown = True
            self.shown += 1
            if current.parent is not None:
                current.parent.children[current.urn.text] = current
            current = current.parent

    def tree(self) -> list[tuple[str, Row]]:
        """Every shown row, parents first, each with the branches drawn before it."""
        result: list[tuple[str, Row]] = []
        stack: list[tuple[str, str, Row]] = [("", "", self.stack)] if self.stack else []
        while stack:
            branch, below, row = stack.pop()
            result.append((branch, row))
            children = sorted(row.children.values(), key=lambda child: child.order, reverse=True)
            for index, child in enumerate(children):
                last = index == 0
                stack.append((below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "), child))
        return result
