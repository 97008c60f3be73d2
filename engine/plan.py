"""Update plans: what a preview found, saved, and compared with the steps of an update.

Semantics and file are those of Pulumi's (``pkg/resource/deploy/plan.go`` and ``apitype.DeploymentPlanV1`` in
pulumi/pulumi): for each resource the goal that the program gave it, the operations in their order, and what of its
properties changes.
An unknown value in the plan allows any value. An update may do less than planned, never more.

Unlike the CLI's, a plan records the state it was made from (``base`` in the file, which the CLI ignores), and an
interrupted update can be finished under its plan.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from protocol.signatures import ARCHIVE_SIG, ASSET_SIG, RESOURCE_SIG, UNKNOWN
from protocol.values import Properties, Value, is_secret, signature

from .errors import EngineError
from .state import now
from .urn import name_of, split_reference
from .values import contains_unknown, redact, reveal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .events import Step
    from .goal import Goal
    from .state import Codec, Json, State

_LESS = {
    "create": {"same", "update"},
    "update": {"same"},
    "replace": {"same", "update"},
    "create-replacement": {"same", "update"},
    "delete-replaced": {"same", "update"},
}
"""The operations that are allowed in place of a planned one: an update for a create, where an interrupted run had
created the resource."""
_SHOWN_CHARACTERS = 60
_REMEDY = (
    "the program, its settings or the stack has changed since the plan was made: preview again with --save-plan, and "
    "look at what it says"
)


class PlanViolationError(EngineError):
    """The update has a step that its plan does not allow. The step was not executed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, remedy=_REMEDY)


@dataclass
class PropertyPlan:
    """Which of an object's properties change, and to what."""

    adds: Properties = field(default_factory=dict)
    updates: Properties = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)


@dataclass
class ResourcePlan:
    """The plan of one resource."""

    goal: Json | None = None
    """Its options, by their names in the file; None where it is only deleted."""
    inputs: PropertyPlan = field(default_factory=PropertyPlan)
    component_outputs: PropertyPlan = field(default_factory=PropertyPlan)
    steps: list[str] = field(default_factory=list)
    outputs: Properties | None = None
    """Its outputs as far as the preview knew them; informative only."""
    seed: bytes = b""
    unchecked: bool = False
    """The preview had no configured provider: `inputs` lack the provider's defaults."""


@dataclass
class Plan:
    """The plan of a stack."""

    resources: dict[str, ResourcePlan] = field(default_factory=dict)
    """By URN."""
    config: Json = field(default_factory=dict)
    """The configuration of the preview, its secrets encrypted."""
    base: Json = field(default_factory=dict)
    """`project`, `stack` and `resources` (:func:`fingerprints`) of the state it was made from."""

    def encode(self, codec: Codec) -> Json:
        """The plan in the form of its file; secrets are encrypted."""
        version = f"v{importlib.metadata.version('pulumi')}"
        manifest = {"time": now(), "magic": hashlib.sha256(version.encode()).hexdigest(), "version": version}
        return {
            "manifest": manifest,
            "config": self.config,
            "resourcePlans": {urn: _encode_resource(plan, codec) for urn, plan in self.resources.items()},
            "base": self.base,
        }

    @classmethod
    def decode(cls, record: Json, codec: Codec) -> Plan:
        """The plan of a file.

        Raises:
            EngineError: it is not a plan, or its secrets belong to another stack.
        """
        try:
            plans = {urn: _decode_resource(plan, codec) for urn, plan in (record.get("resourcePlans") or {}).items()}
            if not isinstance(record["manifest"], dict):
                raise TypeError
            return cls(plans, record.get("config") or {}, record.get("base") or {})
        except EngineError:
            raise EngineError(
                "the plan's secrets cannot be decrypted: it was made for another stack, or with another passphrase",
                remedy="make one for this stack with `lab preview --save-plan FILE`",
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError):
            raise EngineError(
                "the file is not an update plan", remedy="give --plan a file that `lab preview --save-plan` wrote"
            ) from None

    def check_base(self, project: str, stack: str, deployment: Mapping[str, Any], *, moved: bool = False) -> None:
        """Raise :class:`EngineError` unless the plan is of this stack and, without ``moved``, of its current state.

        ``deployment`` is the stack's checkpoint. A plan of the CLI does not name its state.
        """
        planned = (self.base.get("project", project), self.base.get("stack", stack))
        if planned != (project, stack):
            raise EngineError(
                f"the plan is one of stack '{planned[1]}' of project '{planned[0]}', not of '{stack}' of '{project}'",
                remedy=f"make one for this stack: `lab preview --stack {stack} --save-plan FILE`",
            )
        if moved or "resources" not in self.base:
            return
        before, after = self.base["resources"], fingerprints(deployment)
        if before == after:
            return
        changes = [
            *(f"{_short(key)} is new" for key in after if key not in before),
            *(f"{_short(key)} changed" for key in after if key in before and before[key] != after[key]),
            *(f"{_short(key)} is gone" for key in before if key not in after),
        ]
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise EngineError(
            f"the state of stack '{stack}' is not the one that the plan was made of: {', '.join(changes[:5])}{more}",
            remedy="somebody has updated the stack since; preview again with --save-plan, and look at what it says",
        )


def fingerprints(deployment: Mapping[str, Any]) -> dict[str, str]:
    """A digest of each resource and pending operation of a checkpoint, independent of their order and of source
    positions.
    """
    inner = deployment.get("deployment") or {}
    found: dict[str, str] = {}
    records = [
        *((record["urn"] + ("#" + record.get("id", "") if record.get("delete") else ""), record)
          for record in inner.get("resources") or []),
        *((f"{record['resource']['urn']}#{record['type']}", record)
          for record in inner.get("pending_operations") or []),
    ]  # fmt: skip
    for key, record in records:
        counted = {name: value for name, value in record.items() if name != "sourcePosition"}
        text = json.dumps(counted, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        found[key] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


class Planner:
    """Records the plan of a preview, and constrains an update, or another preview, to a plan."""

    def __init__(self, allowed: Plan | None, *, record: bool) -> None:
        self._allowed = allowed
        self._left = {urn: list(plan.steps) for urn, plan in (allowed.resources if allowed else {}).items()}
        self._begun: set[str] = set()
        self._recorded: dict[str, ResourcePlan] | None = {} if record else None

    @property
    def recorded(self) -> dict[str, ResourcePlan]:
        """The recorded plans, by URN."""
        return self._recorded or {}

    def seed(self, urn: str) -> bytes:
        """The random seed of planned names; empty where there is none."""
        plan = self._allowed.resources.get(urn) if self._allowed else None
        return plan.seed if plan else b""

    def check_goal(
        self, urn: str, goal: Goal, old: State | None, inputs: Properties, seed: bytes, *, fresh: bool, checked: bool
    ) -> None:
        """Record the goal of a resource, and compare it with the plan.

        ``checked`` says that the provider has checked the ``inputs``; ``fresh``, that they are of a new resource or a
        replacement.

        Raises:
            PlanViolationError: the plan differs.
        """
        olds = old.inputs if old is not None and not fresh else {}
        if self._recorded is not None:
            plan = self._recorded.setdefault(urn, ResourcePlan())
            plan.goal, plan.seed, plan.unchecked = _describe(goal), seed, not checked
            plan.inputs = _compare(olds, inputs, unknowns=False)
        if self._allowed is None:
            return
        planned = self._allowed.resources.get(urn)
        if planned is None:
            if old is None:
                return  # its create step is what violates the plan
            planned = ResourcePlan(_describe_state(old, goal))
        if planned.goal is None:
            raise PlanViolationError(f"resource {urn} violates plan: resource unexpectedly not deleted")
        problems = _differences(planned, _describe(goal))
        if planned.unchecked and checked:
            inputs = goal.properties
        if changed := _exceeds(olds, inputs, planned.inputs):
            problems.append(f"properties changed: {changed}")
        if problems:
            raise PlanViolationError(f"resource {urn} violates plan: {'; '.join(problems)}")

    def check_steps(self, steps: Iterable[Step]) -> None:
        """Record steps, and compare them with the plan, before any of them is executed.

        Raises:
            PlanViolationError: the plan lacks some of them; all are named.
        """
        problems = []
        for step in steps:
            if self._recorded is not None and (step.op != "same" or step.urn in self._recorded):
                self._recorded.setdefault(step.urn, ResourcePlan()).steps.append(step.op)
            if self._allowed is not None and (problem := self._refuse(step.op, step.urn, self._allowed.resources)):
                problems.append(f"resource {step.urn}: {step.op} is not allowed by the plan: {problem}")
        if problems:
            raise PlanViolationError("\n".join(problems))

    def _refuse(self, op: str, urn: str, plans: Mapping[str, ResourcePlan]) -> str:
        """Why the next operation on a resource violates the plan; empty where it does not."""
        if urn not in plans:
            return "" if op == "same" else "no steps were expected for this resource"
        left = self._left[urn]
        self._begun.add(urn)
        for index, planned in enumerate(left):
            # An interrupted run has done the operations before it.
            if op == planned or op in _LESS.get(planned, ()):
                del left[: index + 1]
                return ""
        constraint = f"this resource is constrained to {', '.join(plans[urn].steps) or 'no steps'}"
        return constraint if left else f"no more steps were expected for this resource; {constraint}"

    def check_outputs(self, urn: str, old: Properties, new: Properties) -> None:
        """Record the outputs of a component, and compare them with the plan.

        Raises:
            PlanViolationError: they change in another way than planned.
        """
        if self._recorded is not None and urn in self._recorded:
            self._recorded[urn].component_outputs = _compare(old, new, unknowns=False)
            self._recorded[urn].outputs = new
        if self._allowed is not None:
            planned = self._allowed.resources.get(urn, ResourcePlan())
            if changed := _exceeds(old, new, planned.component_outputs):
                raise PlanViolationError(f"resource {urn} violates plan: outputs changed: {changed}")

    def note_outputs(self, states: Iterable[State]) -> None:
        """Record the outputs of resources as far as the preview knows them."""
        for state in states:
            if self._recorded is not None and state.urn in self._recorded:
                self._recorded[state.urn].outputs = state.outputs

    def check_complete(self, existing: Collection[str]) -> None:
        """Check that no planned resource is missing; ``existing`` are the URNs that the stack had before.

        Raises:
            PlanViolationError: the plan expects operations on resources that the program does not declare any more.
        """
        unmet = [
            f"expected resource operations for {urn} ({', '.join(left)}) but none were seen"
            for urn, left in self._left.items()
            if left
            and urn not in self._begun
            # A resource that is gone already need not be deleted.
            and (urn in existing or any(op not in {"delete", "discard", "delete-replaced"} for op in left))
        ]
        if unmet:
            raise PlanViolationError("\n".join(unmet))


def _describe(goal: Goal) -> Json:
    """The options of a goal, by their names in the file, without empty ones."""
    options: Json = {
        "type": goal.type,
        "name": goal.name,
        "custom": goal.custom,
        "parent": goal.parent,
        "protect": goal.protect,
        "dependencies": sorted(set(goal.dependencies)),
        "provider": goal.provider,
        "propertyDependencies": {key: sorted(set(urns)) for key, urns in goal.property_dependencies.items()},
        "deleteBeforeReplace": goal.delete_before_replace,
        "ignoreChanges": sorted(set(goal.ignore_changes)),
        "additionalSecretOutputs": sorted(set(goal.additional_secret_outputs)),
        "structuredAliases": [
            {
                "URN": alias.urn,
                "Name": alias.name,
                "Type": alias.type,
                "Project": alias.project,
                "Stack": alias.stack,
                "Parent": alias.parent,
                "NoParent": alias.no_parent,
            }
            for alias in goal.aliases
        ],
        "id": goal.import_id,
        "customTimeouts": dict(goal.custom_timeouts),
    }
    kept = {"custom", "protect", "customTimeouts"}
    return {name: value for name, value in options.items() if name in kept or value not in ("", None, [], {})}


def _describe_state(old: State, goal: Goal) -> Json:
    """The options that leave a resource as it is. Those that a state does not record are taken from the goal."""
    options = {
        "type": old.type,
        "name": name_of(old.urn),
        "custom": old.custom,
        "parent": old.parent,
        "protect": old.protect,
        "dependencies": sorted(set(old.dependencies)),
        "provider": old.provider,
        "propertyDependencies": {key: sorted(set(urns)) for key, urns in old.property_dependencies.items()},
        "additionalSecretOutputs": sorted(set(old.additional_secret_outputs)),
        "customTimeouts": dict(old.custom_timeouts),
    }
    program = _describe(goal)
    unknown = ("deleteBeforeReplace", "ignoreChanges", "structuredAliases", "id")
    return options | {name: program[name] for name in unknown if name in program}


def _differences(plan: ResourcePlan, wanted: Json) -> list[str]:
    """Every option of a resource that violates the plan."""
    planned = plan.goal or {}
    problems = []
    if not _is_provider(str(planned.get("provider") or ""), str(wanted.get("provider") or "")):
        problems.append(f"provider changed (expected {planned.get('provider') or 'none'})")
    for name in ("custom", "parent", "protect", "deleteBeforeReplace", "id"):
        before, after = planned.get(name), wanted.get(name)
        if (before or None) != (after or None) or (name == "deleteBeforeReplace" and before is not after):
            expected = before if before not in (None, "") else "no value"
            problems.append(f"{name} changed (expected {expected})")
    for name in ("create", "update", "delete"):
        before, after = (float((part.get("customTimeouts") or {}).get(name) or 0) for part in (planned, wanted))
        if before != after:
            problems.append(f"{name} timeout changed (expected {before:g} s)")
    # An unknown value may turn out to depend on more resources than the preview could see.
    unknown = {key for key, value in {**plan.inputs.adds, **plan.inputs.updates}.items() if contains_unknown(value)}
    for name in ("ignoreChanges", "additionalSecretOutputs", "dependencies", "structuredAliases"):
        more = name == "dependencies" and bool(unknown)
        message = _compare_sets(planned.get(name) or [], wanted.get(name) or [], more=more)
        problems += [f"{name} changed: {message}"] if message else []
    properties = wanted.get("propertyDependencies") or {}
    for key, urns in (planned.get("propertyDependencies") or {}).items():
        # A property that the plan does not know yet may be left out in the end.
        if key in properties and (message := _compare_sets(urns, properties[key], more=key in unknown)):
            problems.append(f"dependencies for {key} changed: {message}")
    return problems


def _is_provider(planned: str, wanted: str) -> bool:
    """Whether a provider reference is the planned one, whose ID a preview may not know."""
    urn, id_ = split_reference(planned)
    return planned == wanted or (urn == split_reference(wanted)[0] and id_ in {"", UNKNOWN})


def _compare_sets(planned: Sequence[Any], wanted: Sequence[Any], *, more: bool) -> str:
    """How two sets differ; ``more`` allows additions to the planned one."""
    before, after = (
        {item if isinstance(item, str) else json.dumps(item) for item in part} for part in (planned, wanted)
    )
    added, deleted = [] if more else sorted(after - before), sorted(before - after)
    parts = [f"{verb} {', '.join(items)}" for verb, items in (("added", added), ("deleted", deleted)) if items]
    return "; ".join(parts)


def _compare(old: Properties, new: Properties, *, unknowns: bool) -> PropertyPlan:
    """The changes from one object to another; with ``unknowns``, an unknown value equals any value."""
    plan = PropertyPlan()
    for key in sorted({**old, **new}):
        before, after = old.get(key), new.get(key)
        if before is None and after is not None:
            plan.adds[key] = after
        elif after is None and before is not None:
            if not (unknowns and before == UNKNOWN):
                plan.deletes.append(key)
        elif not _equal(before, after, unknowns=unknowns):
            plan.updates[key] = after
    return plan


def _equal(one: Value, other: Value, *, unknowns: bool) -> bool:
    if unknowns and UNKNOWN in (one, other):
        return True
    if is_secret(one) and is_secret(other):
        # A file keeps one mark for a whole secret, also where parts of it were marked once more.
        one, other = reveal(one), reveal(other)
    if isinstance(one, dict) and isinstance(other, dict):
        if signature(one) != signature(other):
            return False
        if signature(one) in {ASSET_SIG, ARCHIVE_SIG} and one.get("hash"):
            return bool(one["hash"] == other.get("hash"))
        keys = {**one, **other}.keys() - ({"packageVersion"} if signature(one) == RESOURCE_SIG else set())
        return all(_equal(one.get(key), other.get(key), unknowns=unknowns) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            _equal(before, after, unknowns=unknowns) for before, after in zip(one, other, strict=True)
        )
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _exceeds(old: Properties, new: Properties, planned: PropertyPlan) -> str:
    """The properties whose changes violate the plan, and how; empty for none."""
    actual = _compare(old, new, unknowns=True)
    expected = {**planned.adds, **planned.updates}
    problems: dict[str, str] = {}

    def differs(key: str) -> None:
        before = (
            f"set to {_show(expected[key])}" if key in expected else "deleted" if key in planned.deletes else "kept"
        )
        after = "without it" if new.get(key) is None else f"set to {_show(new[key])}"
        problems[key] = f"{key} (planned: {before}; now: {after})"

    for key, value in actual.adds.items():
        if key not in planned.adds or not _equal(planned.adds[key], value, unknowns=True):
            differs(key)
    for key, value in actual.updates.items():
        # A planned addition may find the property set already.
        if key not in expected or not _equal(expected[key], value, unknowns=True):
            differs(key)
    for key in actual.deletes:
        if key not in planned.deletes and planned.updates.get(key) != UNKNOWN:
            differs(key)
    for key, value in expected.items():
        if key not in actual.adds and key not in actual.updates:
            # An unknown value may turn out to be absent.
            present = new.get(key)
            if not _equal(value, present, unknowns=True):
                differs(key)
    for key in planned.deletes:
        if new.get(key) is not None:
            differs(key)
    return ", ".join(problems[key] for key in sorted(problems))


def _show(value: Value) -> str:
    """A value for a message: short, and masked where it is secret."""
    if value == UNKNOWN:
        return "a value not known yet"
    text = json.dumps(redact(value), ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _short(key: str) -> str:
    urn, _, _ = key.partition("#")
    return name_of(urn)


def _encode_properties(plan: PropertyPlan, codec: Codec) -> Json:
    record: Json = {
        "adds": codec.encode_value(plan.adds),
        "deletes": plan.deletes,
        "updates": codec.encode_value(plan.updates),
    }
    return {name: value for name, value in record.items() if value}


def _decode_properties(record: Mapping[str, Any], codec: Codec) -> PropertyPlan:
    return PropertyPlan(
        codec.decode_value(record.get("adds") or {}),
        codec.decode_value(record.get("updates") or {}),
        list(record.get("deletes") or []),
    )


def _encode_resource(plan: ResourcePlan, codec: Codec) -> Json:
    record: Json = {}
    if plan.goal is not None:
        record["goal"] = plan.goal | {
            "inputDiff": _encode_properties(plan.inputs, codec),
            "outputDiff": _encode_properties(plan.component_outputs, codec),
        }
    record["steps"] = plan.steps
    record["state"] = None if plan.outputs is None else codec.encode_value(plan.outputs)
    if plan.seed:
        record["seed"] = base64.b64encode(plan.seed).decode()
    if plan.unchecked:
        record["unchecked"] = True
    return record


def _decode_resource(record: Mapping[str, Any], codec: Codec) -> ResourcePlan:
    goal = dict(record["goal"]) if record.get("goal") else None
    inputs, outputs = ((goal or {}).pop(name, None) or {} for name in ("inputDiff", "outputDiff"))
    return ResourcePlan(
        goal,
        _decode_properties(inputs, codec),
        _decode_properties(outputs, codec),
        list(record.get("steps") or []),
        None if record.get("state") is None else codec.decode_value(record["state"]),
        base64.b64decode(record.get("seed") or ""),
        unchecked=bool(record.get("unchecked")),
    )
