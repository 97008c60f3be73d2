"""From what the program declares to what is done about it: the step generator and executor.

The rules are those of Pulumi's engine (``pkg/resource/deploy`` in pulumi/pulumi): which steps a registration leads to, in
which order, and what the state says at each moment. The engine is a single asyncio program, so decisions need no locks:
each registration runs as a task of its own, and steps of independent resources run side by side.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import secrets as random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .errors import EngineError
from .events import Emitter, Step, mask
from .paths import covers, parse_path, reset
from .plugins import Diff, DiffUnavailableError, PartialFailureError, PropertyDiff, ProviderError
from .registry import default_name
from .state import State, now
from .urn import (
    PROVIDER_PREFIX,
    ROOT_STACK_TYPE,
    is_provider_type,
    make_urn,
    name_of,
    package_of,
    project_of,
    qualified_type,
    split_reference,
    type_of,
)
from .values import UNKNOWN, Properties, contains_unknown, is_secret, redact, reveal, reveal_properties, secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from .builtin import BuiltinProvider
    from .plugins import Provider
    from .registry import ProviderRegistry
    from .snapshot import Pending, Snapshot

INIT_ERROR_PATH = "#initerror"
DEFAULT_PARALLEL = 16


@dataclass(frozen=True)
class UpdateOptions:
    """How an operation goes about its work. Names and meanings are those of the CLI's flags."""

    parallel: int = DEFAULT_PARALLEL
    targets: tuple[str, ...] = ()
    """URNs, or patterns with ``*`` and ``**``; only these resources are touched."""
    target_dependents: bool = False
    exclude: tuple[str, ...] = ()
    """URNs or patterns of resources that are left alone."""
    exclude_dependents: bool = False
    replace: tuple[str, ...] = ()
    refresh: bool = False
    continue_on_error: bool = True
    expect_no_changes: bool = False


@dataclass(frozen=True)
class Alias:
    """Another identity a resource may have had."""

    urn: str = ""
    name: str = ""
    type: str = ""
    stack: str = ""
    project: str = ""
    parent: str = ""
    no_parent: bool = False


@dataclass
class Goal:
    """What the program wants of one resource."""

    type: str
    name: str
    custom: bool
    properties: Properties
    parent: str = ""
    protect: bool = False
    dependencies: list[str] = field(default_factory=list)
    provider: str = ""
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    delete_before_replace: bool | None = None
    ignore_changes: list[str] = field(default_factory=list)
    additional_secret_outputs: list[str] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    import_id: str = ""
    custom_timeouts: dict[str, float] = field(default_factory=dict)
    replace_on_changes: list[str] = field(default_factory=list)
    retain_on_delete: bool = False
    deleted_with: str = ""
    replace_with: list[str] = field(default_factory=list)
    replacement_trigger: Any = None
    source_position: str = ""


@dataclass
class Registered:
    """The engine's answer to a registration."""

    state: State
    succeeded: bool = True
    unknown: bool = False


class StepFailedError(Exception):
    """A step failed and has been reported."""


class CancelledUpdateError(Exception):
    """The update was cancelled before this step began."""


class Deployment:
    """One update, preview, refresh or destroy of one stack."""

    def __init__(
        self,
        *,
        project: str,
        stack: str,
        snapshot: Snapshot,
        registry: ProviderRegistry,
        emitter: Emitter,
        options: UpdateOptions,
        dry_run: bool,
        package_config: Callable[[str], Properties],
        known_secrets: Iterable[str] = (),
    ) -> None:
        self.project = project
        self.stack = stack
        self.snapshot = snapshot
        self.registry = registry
        self.options = options
        self.dry_run = dry_run
        self.changes: dict[str, int] = {}
        self.errored = False
        self.cancelled = False
        self._emit = emitter
        self._package_config = package_config
        self._secrets = set(known_secrets)
        self._slots = asyncio.Semaphore(max(1, options.parallel))
        self._targets = _Patterns(options.targets)
        self._replace_targets = _Patterns(options.replace)
        self._targets_actual: set[str] = set()
        self._excludes = _Patterns(options.exclude)
        self._excluded: set[str] = set()
        self._steps_run = 0

        self.news: dict[str, State] = {}
        self._goals: dict[str, Goal] = {}
        self._urns: set[str] = set()
        self._replaces: set[str] = set()
        self._operated: set[str] = set()
        """Resources that a step of this update deals with, other than deleting them."""
        self._reads: set[str] = set()
        self._deletes: set[str] = set()
        self._condemned: set[int] = set()
        """Old states that a delete-before-replace has deleted already."""
        self._replace_keys: dict[str, list[str]] = {}
        self._aliased: dict[str, str] = {}
        self._former: dict[str, str] = {}
        self._skipped_creates: set[str] = set()
        self._failed: set[str] = set()
        self._default_providers: dict[tuple[str, str, str], asyncio.Task[str]] = {}
        self._base: list[State] = []
        self._olds: dict[str, State] = {}
        self._rebase(snapshot.resources)

    def _rebase(self, resources: Sequence[State]) -> None:
        self._base = list(resources)
        self._olds = {state.urn: state for state in resources if not state.delete}

    # --- registrations -------------------------------------------------------------------------------------------

    async def register(self, goal: Goal) -> Registered:
        """Bring one resource to what the program wants.

        A failure is reported here and answered with a a result that says so; it never raises for it.
        Raises :class:`CancelledUpdateError` once the update was cancelled.
        """
        urn = make_urn(self.stack, self.project, goal.parent, goal.type, goal.name)
        try:
            self._claim(urn, goal)
            if goal.custom and not is_provider_type(goal.type):
                async with self._slots:
                    return await self._register(urn, goal)
            return await self._register(urn, goal)
        except StepFailedError:
            return self._failed_registration(urn, goal)
        except EngineError as error:
            self.report(error, urn)
            return self._failed_registration(urn, goal)

    def _failed_registration(self, urn: str, goal: Goal) -> Registered:
        self.errored = True
        self._failed.add(urn)
        if not self.options.continue_on_error:
            self.cancelled = True
        return Registered(State(goal.type, urn, custom=goal.custom, parent=goal.parent), succeeded=False)

    def _claim(self, urn: str, goal: Goal) -> None:
        if self.cancelled:
            raise CancelledUpdateError
        if goal.parent and goal.parent not in self._urns:
            raise EngineError(f"could not find parent resource {goal.parent}")
        if urn in self._urns:
            raise EngineError(
                f"Duplicate resource URN '{urn}'; try giving it a unique name",
                remedy="two resources of one type and parent need different names",
            )
        self._urns.add(urn)
        self._goals[urn] = goal

    async def _register(self, urn: str, goal: Goal) -> Registered:
        if self.cancelled:
            raise CancelledUpdateError
        old, former = self._find_old(urn, goal)
        new = self._new_state(urn, goal, old, former)
        if self._depends_on_failure(new):
            self._failed.add(urn)
            return Registered(new, succeeded=False)
        steps = await self._generate(urn, goal, old, new)
        self._check_skipped_creates(steps)
        for step in steps:
            if self.cancelled and step is steps[0]:
                raise CancelledUpdateError
            await self._execute(step)
        settled = self.news.get(urn, new)
        return Registered(settled, unknown=any(step.skipped_create for step in steps))

    def _depends_on_failure(self, state: State) -> bool:
        return any(urn in self._failed for urn in state.all_dependencies())

    def _new_state(self, urn: str, goal: Goal, old: State | None, former: str) -> State:
        return State(
            type=goal.type,
            urn=urn,
            custom=goal.custom,
            inputs=goal.properties,
            parent=goal.parent,
            protect=goal.protect,
            dependencies=goal.dependencies,
            provider=goal.provider,
            property_dependencies=goal.property_dependencies,
            additional_secret_outputs=goal.additional_secret_outputs,
            aliases=[former] if former else [],
            custom_timeouts=goal.custom_timeouts,
            import_id=goal.import_id,
            retain_on_delete=goal.retain_on_delete,
            deleted_with=goal.deleted_with,
            replace_with=goal.replace_with,
            created=old.created if old else "",
            modified=old.modified if old else "",
            source_position=goal.source_position,
            ignore_changes=goal.ignore_changes,
            replace_on_changes=goal.replace_on_changes,
            replacement_trigger=goal.replacement_trigger,
            refresh_before_update=old.refresh_before_update if old else False,
        )

    # --- identity --------------------------------------------------------------------------------------------------

    def _find_old(self, urn: str, goal: Goal) -> tuple[State | None, str]:
        """The resource's old state, under its own URN or else under one it had before; and that former URN."""
        if (claimant := self._aliased.get(urn)) is not None:
            raise EngineError(f"resource '{urn}' is registered, but '{claimant}' is already aliased to it")
        if old := self._olds.get(urn):
            return old, ""
        for alias in self._alias_urns(goal):
            old = self._olds.get(alias)
            if old is None or alias == urn:
                continue
            if alias in self._urns:
                raise EngineError(f"'{urn}' is aliased to '{alias}', which the program registers as well")
            if (claimant := self._aliased.get(alias)) is not None:
                raise EngineError(f"'{urn}' is aliased to '{alias}', and so is '{claimant}'")
            self._aliased[alias] = urn
            self._former[urn] = alias
            return old, alias
        return None, ""

    def _alias_urns(self, goal: Goal) -> list[str]:
        own = [self._alias_urn(goal, alias) for alias in goal.aliases]
        found = dict.fromkeys(own)
        if goal.parent in self._former:
            former_parent = self._former[goal.parent]
            for alias_urn in ["", *own]:
                type_ = type_of(alias_urn) if alias_urn else goal.type
                name = name_of(alias_urn) if alias_urn else goal.name
                parent_name = name_of(goal.parent)
                if name.startswith(parent_name):
                    name = name_of(former_parent) + name.removeprefix(parent_name)
                # An alias of the parent may come from another project, as far as the chain of types goes.
                found[make_urn(self.stack, project_of(former_parent), former_parent, type_, name)] = None
        return list(found)

    def _alias_urn(self, goal: Goal, alias: Alias) -> str:
        if alias.urn:
            return alias.urn
        parent = goal.parent
        if alias.parent:
            parent = self._former.get(alias.parent, alias.parent)
        if alias.no_parent or (parent and qualified_type(parent) == ROOT_STACK_TYPE):
            parent = ""
        return make_urn(
            alias.stack or self.stack,
            alias.project or self.project,
            parent,
            alias.type or goal.type,
            alias.name or goal.name,
        )

    # --- targets -----------------------------------------------------------------------------------------------------

    def _is_targeted(self, state: State) -> bool:
        if state.is_provider or qualified_type(state.urn) == ROOT_STACK_TYPE:
            return True
        if self._targets:
            return self._is_chosen(state)
        return not self._is_excluded(state)

    def _is_excluded(self, state: State) -> bool:
        dependent = self.options.exclude_dependents and any(urn in self._excluded for urn in state.all_dependencies())
        if dependent or state.urn in self._excludes:
            self._excluded.add(state.urn)
            return True
        return False

    def _is_chosen(self, state: State) -> bool:
        if state.urn in self._targets:
            return True
        return self.options.target_dependents and any(urn in self._targets_actual for urn in state.all_dependencies())

    def _check_skipped_creates(self, steps: Sequence[Step]) -> None:
        if not self._skipped_creates:
            return
        for step in steps:
            if step.new is None or step.skipped_create:
                continue
            for urn in step.new.all_dependencies():
                if urn in self._skipped_creates:
                    self._skipped_creates.discard(urn)
                    error = EngineError(
                        f"Resource '{step.urn}' depends on '{urn}' which was not specified in --target list.",
                        remedy=f"add --target '{urn}'",
                    )
                    if not self.dry_run:
                        raise error
                    self.report(error, step.urn)
                    self.errored = True

    def check_targets(self) -> None:
        """Refuse targets that name nothing; raises :class:`EngineError` naming all of them."""
        known = self._urns | {state.urn for state in self._base}
        unknown = [text for text in (*self._targets.literals, *self._excludes.literals) if text not in known]
        if unknown:
            raise EngineError(
                "\n".join(f"Target '{text}' could not be found in the stack." for text in unknown),
                remedy="list the stack's URNs with `lab stack --show-urns`, and quote a URN that has a $ in it",
            )

    def check_replace_targets(self) -> None:
        """The same for ``--replace``, before anything is done."""
        known = {state.urn for state in self._base}
        unknown = [text for text in self._replace_targets.literals if text not in known]
        if unknown:
            raise EngineError("\n".join(f"Target '{text}' could not be found in the stack." for text in unknown))

    # --- generating steps ----------------------------------------------------------------------------------------------

    async def _generate(self, urn: str, goal: Goal, old: State | None, new: State) -> list[Step]:
        recreating = urn in self._deletes
        import_id = (old.import_id or old.id) if old else ""
        if goal.custom and goal.import_id and (old is None or old.external or import_id != goal.import_id):
            imported = await self._import(goal, old, new)
            # What was read is the old state from here on: the program's inputs are compared with it.
            new = self._new_state(urn, goal, imported, "")
            return await self._generate_from(urn, goal, imported, new, recreating=False)
        return await self._generate_from(urn, goal, old, new, recreating=recreating)

    async def _generate_from(
        self, urn: str, goal: Goal, old: State | None, new: State, *, recreating: bool
    ) -> list[Step]:
        targeted = self._is_targeted(new)
        was_external = old is not None and old.external
        fresh = recreating or was_external or old is None or self._must_replace(urn, old)
        seed = random.token_bytes(32)
        inputs = goal.properties
        if old is not None:
            inputs = self._ignore_changes(urn, inputs, old.inputs, goal.ignore_changes)
        if not targeted and old is not None:
            return self._untargeted_sames(old, new)
        if targeted:
            new.inputs = (
                await self._check(new, None, goal.properties, seed)
                if fresh or old is None
                else await self._check(new, old.inputs, inputs, seed)
            )

        if recreating and old is not None:
            self._deletes.discard(urn)
            self._replaces.add(urn)
            self._operated.add(urn)
            keys = self._replace_keys.get(urn, [])
            return [Step("replace", old, new), Step("create-replacement", old, new, keys=keys)]
        if old is not None and was_external:
            self._operated.add(urn)
            return [
                Step("create-replacement", old, new, pending_delete=True),
                Step("replace", old, new, pending_delete=True),
            ]
        if targeted and self._is_chosen(new):
            self._targets_actual.add(urn)
        if old is None:
            self._operated.add(urn)
            if not targeted:
                self._skipped_creates.add(urn)
                return [Step("same", None, new, skipped_create=True)]
            return [Step("create", None, new)]
        return await self._generate_from_diff(urn, goal, old, new, seed)

    async def _generate_from_diff(self, urn: str, goal: Goal, old: State, new: State, seed: bytes) -> list[Step]:
        try:
            diff = await self._diff(goal, old, new)
        except DiffUnavailableError as error:
            self._emit.diagnostic("warning", str(error), urn)
            diff = Diff(changed=True)
        diff = _force_replacements(diff, goal.replace_on_changes, init_errors=bool(old.init_errors))
        self._operated.add(urn)

        triggered = _triggered(new.replacement_trigger, old.replacement_trigger)
        if triggered:
            diff.changed = True
        if diff.replaces or triggered or old.pending_replacement:
            return await self._generate_replacement(urn, goal, old, new, diff, seed)
        if diff.changed or old.init_errors:
            return [Step("update", old, new, diffs=diff.changed_keys, detailed=diff.detailed)]
        return [Step("same", old, new)]

    async def _generate_replacement(
        self, urn: str, goal: Goal, old: State, new: State, diff: Diff, seed: bytes
    ) -> list[Step]:
        if new.protect and old.protect:
            error = EngineError(
                f"unable to replace resource {urn!r}\nas it is currently marked for protection. To unprotect the "
                "resource, remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
            )
            if not self.dry_run:
                raise error
            self.report(error, urn)
            self.errored = True
        if goal.import_id:
            message = (
                "previously-imported resources that still specify an ID may not be replaced; "
                "please remove the `import` declaration from your program"
            )
            if not self.dry_run:
                raise EngineError(message)
            self._emit.diagnostic("warning", message, urn)

        self._replaces.add(urn)
        if not self._must_replace(urn, old):
            # Defaults were carried over from the old resource; the replacement gets its own.
            new.inputs = await self._check(new, None, goal.properties, seed)
        details = {"keys": diff.replace_keys, "diffs": diff.changed_keys, "detailed": diff.detailed}
        delete_first = diff.delete_before_replace
        if goal.delete_before_replace is not None:
            delete_first = goal.delete_before_replace
        if not delete_first:
            return [
                Step("create-replacement", old, new, pending_delete=True, **details),
                Step("replace", old, new, pending_delete=True, **details),
            ]

        steps: list[Step] = []
        for dependent, keys in reversed([*await self._dependents_to_replace(old), *self._cascades(urn)]):
            if id(dependent) in self._condemned:
                continue
            self._replace_keys[dependent.urn] = keys
            if dependent.protect:
                raise EngineError(
                    f"unable to replace resource {dependent.urn!r} as part of replacing {urn!r} "
                    "as it is currently marked for protection. To unprotect the resource, "
                    "remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
                )
            steps.append(
                Step("delete", dependent, None)
                if dependent.delete
                else Step("delete-replaced", dependent, None, pending_replacement=True)
            )
            self._deletes.add(dependent.urn)
            self._condemned.add(id(dependent))
        await self._ensure_provider(old)
        if not old.pending_replacement:
            self._deletes.add(old.urn)
            steps.append(Step("delete-replaced", old, None, pending_replacement=True))
        return [*steps, Step("replace", old, new, **details), Step("create-replacement", old, new, **details)]

    def _untargeted_sames(self, old: State, new: State) -> list[Step]:
        """An untargeted resource stays as it is, and so do the old resources it needs that nobody registers any more."""
        if old.provider and old.provider != new.provider:
            reference = split_reference(old.provider)[0]
            if reference not in self._urns and reference not in self._olds:
                raise EngineError(
                    f"provider {old.provider} of resource {new.urn} has not been registered; this comes from a change "
                    "of providers together with --target",
                    remedy="change the program back to the original providers, or drop --target",
                )
        steps: list[Step] = []

        def visit(state: State) -> None:
            self._urns.add(state.urn)
            self._operated.add(state.urn)
            for urn in state.all_dependencies():
                dependency = self._olds.get(urn)
                if urn not in self._operated and dependency is not None:
                    visit(dependency)
            kept = state.copy()
            if state is old:
                kept.urn, kept.parent, kept.aliases = new.urn, new.parent, new.aliases
                self._operated.add(new.urn)
            steps.append(Step("same", state, kept))

        visit(old)
        return steps

    def _must_replace(self, urn: str, old: State | None) -> bool:
        return urn in self._replace_targets or (old is not None and old.taint)

    def _ignore_changes(self, urn: str, news: Properties, olds: Properties, paths: Sequence[str]) -> Properties:
        if not paths:
            return news
        result = copy.deepcopy(news)
        unmatched = [text for text in paths if not reset(parse_path(text), olds, result)]
        if unmatched:
            listed = ", ".join(unmatched)
            message = f"cannot ignore changes in added or removed elements of the path: {listed!r}"
            self._emit.diagnostic("info", message, urn)
        return result

    async def _check(self, new: State, olds: Properties | None, news: Properties, seed: bytes) -> Properties:
        if new.is_provider:
            inputs, failures = await self.registry.check(new.urn, olds or {}, news)
        elif new.custom:
            provider = self.registry.get(new.provider)
            if not provider.configured:
                return news
            inputs, failures = await provider.check(new.urn, olds, news, seed)
        else:
            return news
        if failures:
            raise EngineError(
                "\n".join(
                    f"{new.type} resource '{name_of(new.urn)}': property {property_} value "
                    f"{{{_display(news.get(property_))}}} has a problem: {reason}"
                    if property_
                    else f"{new.type} resource '{name_of(new.urn)}' has a problem: {reason}"
                    for property_, reason in failures
                )
            )
        return inputs

    async def _diff(self, goal: Goal, old: State, new: State) -> Diff:
        if self._must_replace(new.urn, old):
            return Diff(changed=True, replace_keys=["id"])
        if any(urn in self._replaces for urn in new.replace_with):
            return Diff(changed=True, replace_keys=["replaceWith"])
        if new.deleted_with in self._replaces:
            return Diff(changed=True, replace_keys=["deletedWith"])
        if await self._provider_changed(old, new):
            return Diff(changed=True, replace_keys=["provider"])
        if new.is_provider:
            diff = await self.registry.diff(new.urn, old, new.inputs)
            return diff if diff.known else Diff(changed=old.inputs != new.inputs)
        if not new.custom:
            return Diff(changed=old.inputs != new.inputs)
        return await self._diff_inputs(
            self.registry.get(new.provider), old, old.inputs, new.inputs, goal.ignore_changes
        )

    async def _diff_inputs(
        self,
        provider: Provider | BuiltinProvider,
        old: State,
        old_inputs: Properties,
        news: Properties,
        ignore_changes: Sequence[str],
    ) -> Diff:
        if not provider.configured:
            raise DiffUnavailableError(
                "The provider for this resource has inputs that are not known during preview.\n"
                "This preview may not correctly represent the changes that will be applied during an update."
            )
        diff = await provider.diff(
            old.urn,
            old.id,
            old_inputs=old_inputs,
            old_outputs=old.outputs,
            news=news,
            ignore_changes=ignore_changes,
        )
        if not diff.known:
            compared = self._ignore_changes(old.urn, news, old_inputs, ignore_changes)
            own = compare(reveal_properties(old_inputs), reveal_properties(compared))
            diff.known, diff.changed = True, own.changed
            diff.changed_keys, diff.detailed = own.changed_keys, diff.detailed or own.detailed
        return diff

    async def _provider_changed(self, old: State, new: State) -> bool:
        """Whether another provider means another resource: only if the new one says its configuration replaces it."""
        if old.provider == new.provider:
            return False
        if not old.provider or not new.provider:
            return True
        old_urn, new_urn = split_reference(old.provider)[0], split_reference(new.provider)[0]
        if self._aliased.get(old_urn) == new_urn:
            return False
        former, present = self._olds.get(old_urn), self.news.get(new_urn)
        if former is None or present is None:
            return False
        return (await self.registry.diff(new_urn, former, present.inputs)).replaces

    async def _dependents_to_replace(self, root: State) -> list[tuple[State, list[str]]]:
        """Old resources that must go before ``root`` can: those whose own replacement its deletion would cause.

        Resources already registered cannot depend on ``root`` any more, whatever the old state says.
        """
        found: list[tuple[State, list[str]]] = []
        condemned = {root.urn}
        for state in self._dependents(root):
            replaces, keys = await self._replaced_with(state, condemned)
            if replaces:
                condemned.add(state.urn)
                found.append((state, keys))
        return found

    def _dependents(self, root: State) -> Iterable[State]:
        reached = {root.urn}
        after = False
        for state in self._base:
            if state is root:
                after = True
            elif after and state.urn not in self._urns and any(urn in reached for urn in state.all_dependencies()):
                reached.add(state.urn)
                yield state

    async def _replaced_with(self, state: State, condemned: set[str]) -> tuple[bool, list[str]]:
        if not state.custom or state.external:
            return False, []
        if state.provider and split_reference(state.provider)[0] in condemned:
            await self._ensure_provider(state)
            return True, []
        if state.deleted_with in condemned:
            return True, []
        affected = {
            key
            for key, urns in state.property_dependencies.items()
            if key in state.inputs and any(urn in condemned for urn in urns)
        }
        if not affected:
            return False, []
        inputs = {key: UNKNOWN if key in affected else value for key, value in state.inputs.items()}
        if state.is_provider:
            diff = await self.registry.diff(state.urn, state, inputs)
        else:
            provider = await self._ensure_provider(state)
            if provider is None:
                return False, []
            diff = await self._diff_inputs(provider, state, state.inputs, inputs, state.ignore_changes)
        diff = _force_replacements(diff, state.replace_on_changes, init_errors=False)
        return diff.replaces, diff.replace_keys

    def _cascades(self, urn: str) -> list[tuple[State, list[str]]]:
        """Resources that are to be replaced, or are deleted, together with the one named."""
        return [
            (state, [])
            for state in self._olds.values()
            if (urn in state.replace_with or state.deleted_with == urn) and state.urn not in self._urns
        ]

    # --- executing steps -------------------------------------------------------------------------------------------------

    async def _execute(self, step: Step) -> None:
        """Run one step: tell, do, record, tell again. Raises :class:`StepFailedError` when it failed."""
        self._emit.before(step, planning=self.dry_run)
        self._steps_run += 1
        try:
            op = await self._apply(step)
        except EngineError as error:
            partial = isinstance(error, PartialFailureError)
            self.report(error, step.urn)
            self._emit.failed(step, status=1 if partial else 0, steps=self._steps_run)
            raise StepFailedError from None
        if step.new is not None and step.op != "replace" and not step.skipped_create:
            self.news[step.urn] = step.new
        if step.logical and not step.hidden and not _is_silent_read(step):
            self.changes[op] = self.changes.get(op, 0) + 1
        if step.state.custom or step.new is None:
            self._emit.outputs(step, op, planning=self.dry_run)

    async def _apply(self, step: Step) -> str:
        match step.op:
            case "same":
                await self._apply_same(step)
            case "create" | "create-replacement":
                await self._apply_create(step)
            case "update":
                await self._apply_update(step)
            case "delete" | "delete-replaced" | "discard" | "discard-replaced":
                await self._apply_delete(step)
            case "read" | "read-replacement":
                await self._apply_read(step)
            case "refresh":
                return await self._apply_refresh(step)
            case "remove-pending-replace":
                await self.snapshot.end(done=[_required(step.old)])
        return step.op

    async def _apply_same(self, step: Step) -> None:
        new = _required(step.new)
        if step.old is None:
            return
        new.id, new.outputs = step.old.id, step.old.outputs
        if new.is_provider and new.id:
            await self.registry.serve(new.urn, new.id, step.old.inputs)
        self.snapshot.keep(step.old, new)

    async def _apply_create(self, step: Step) -> None:
        old, new = step.old, _required(step.new)
        key = None if self.dry_run else await self.snapshot.begin("creating", new)
        failure: PartialFailureError | None = None
        try:
            if new.is_provider:
                new.id, new.outputs = await self.registry.create(new.urn, new.inputs), dict(new.inputs)
            elif new.custom:
                provider = self.registry.get(new.provider)
                new.id, new.outputs = (
                    await provider.create(
                        new.urn, new.inputs, new.custom_timeouts.get("create", 0), preview=self.dry_run
                    )
                    if provider.configured
                    else ("", {})
                )
        except PartialFailureError as error:
            failure = error
            new.id, new.outputs, new.init_errors = error.id, error.outputs, error.reasons
        except EngineError:
            if key is not None:
                await self.snapshot.end(key)
            raise
        new.created = new.modified = now()
        _mark_secrets(new)
        done, changed = [], []
        if old is not None and step.op == "create-replacement":
            if step.pending_delete:
                old.delete = True
                changed.append(old)
            elif old.pending_replacement:
                done.append(old)
        await self.snapshot.end(key, done=done, add=new, changed=changed)
        if failure is not None:
            self.news[new.urn] = new
            raise failure

    async def _apply_update(self, step: Step) -> None:
        old, new = _required(step.old), _required(step.new)
        new.id = old.id
        key = None if self.dry_run else await self.snapshot.begin("updating", new)
        failure: PartialFailureError | None = None
        try:
            if new.is_provider:
                await self.registry.serve(new.urn, new.id, new.inputs)
                new.outputs = dict(new.inputs)
            elif new.custom:
                provider = self.registry.get(new.provider)
                new.outputs = (
                    await provider.update(
                        new.urn,
                        new.id,
                        old_inputs=old.inputs,
                        old_outputs=old.outputs,
                        news=new.inputs,
                        timeout=new.custom_timeouts.get("update", 0),
                        ignore_changes=new.ignore_changes,
                        preview=self.dry_run,
                    )
                    if provider.configured
                    else {}
                )
            else:
                new.outputs = old.outputs
        except PartialFailureError as error:
            failure = error
            new.outputs, new.init_errors = error.outputs, error.reasons
        except EngineError:
            if key is not None:
                await self.snapshot.end(key)
            raise
        new.modified = now()
        _mark_secrets(new)
        await self.snapshot.end(key, done=[old], add=new)
        if failure is not None:
            self.news[new.urn] = new
            raise failure

    async def _apply_delete(self, step: Step) -> None:
        old = _required(step.old)
        replacing = step.op == "delete-replaced"
        if old.protect and not replacing:
            raise EngineError(
                f"resource {old.urn!r} cannot be deleted\nbecause it is protected. To unprotect the resource, remove "
                "the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
            )
        if self.dry_run:
            if step.pending_replacement:
                old.pending_replacement = True
            return
        key = await self.snapshot.begin("deleting", old)
        kept = old.external or old.retain_on_delete or (old.deleted_with and old.deleted_with in self._deletes)
        try:
            if old.custom and not kept and not old.is_provider:
                provider = await self._ensure_provider(old)
                if provider is not None:
                    timeout = old.custom_timeouts.get("delete", 0)
                    await provider.delete(old.urn, old.id, old.inputs, old.outputs, timeout)
        except EngineError:
            await self.snapshot.end(key)
            raise
        if step.pending_replacement:
            old.pending_replacement = True
            await self.snapshot.end(key, changed=[old])
        else:
            await self.snapshot.end(key, done=[old])

    async def _apply_read(self, step: Step) -> None:
        old, new = step.old, _required(step.new)
        key = None if self.dry_run else await self.snapshot.begin("reading", new)
        try:
            if new.id == UNKNOWN:
                new.outputs = {}
            else:
                provider = self.registry.get(new.provider)
                found = await provider.read(
                    new.urn, new.id, new.inputs, new.inputs, new.custom_timeouts.get("read", 0)
                )
                if not found.id:
                    raise ProviderError(f"resource '{new.id}' does not exist")
                new.id, new.outputs, new.init_errors = found.id, found.outputs, found.init_errors
        except EngineError:
            if key is not None:
                await self.snapshot.end(key)
            raise
        _mark_secrets(new)
        if old is not None:
            new.created, new.modified = old.created, old.modified
            if (old.inputs, old.outputs) != (new.inputs, new.outputs):
                new.modified = now()
        if step.op == "read-replacement" and old is not None:
            old.delete = True
            await self.snapshot.end(key, add=new, changed=[old])
        else:
            await self.snapshot.end(key, done=[old] if old is not None else [], add=new)

    async def _apply_refresh(self, step: Step) -> str:
        old = _required(step.old)
        step.new = old
        if not old.custom or old.is_provider or old.pending_replacement:
            return "same"
        provider = await self._ensure_provider(old)
        if provider is None:
            return "same"
        found = await provider.read(old.urn, old.id, old.inputs, old.outputs, old.custom_timeouts.get("read", 0))
        if not found.id:
            step.new = None
            await self.snapshot.end(done=[old])
            return "delete"
        if found.init_errors:
            listed = "\n* ".join(found.init_errors)
            self._emit.diagnostic("warning", f"Refreshed resource is in an unhealthy state:\n* {listed}", old.urn)
        new = old.copy(id=found.id, outputs=found.outputs, init_errors=found.init_errors)
        if found.inputs is not None:
            new.inputs = found.inputs
        _mark_secrets(new)
        if (new.inputs, new.outputs) != (old.inputs, old.outputs):
            new.modified = now()
        step.new = new
        if old.external:
            changed = new.outputs != old.outputs
        else:
            diff = await self._diff_inputs(provider, new, new.inputs, old.inputs, old.ignore_changes)
            step.detailed, step.diffs, changed = _inverted(diff.detailed), diff.changed_keys, diff.changed
        await self.snapshot.end(done=[old], add=new)
        return "update" if changed else "same"

    async def _import(self, goal: Goal, old: State | None, new: State) -> State:
        """Adopt an existing resource by its ID; what is read becomes the resource's recorded state."""
        replacing = old is not None
        step = Step("import-replacement" if replacing else "import", old, new, pending_delete=replacing)
        self._emit.before(step, planning=self.dry_run)
        key = None if self.dry_run else await self.snapshot.begin("importing", new)
        try:
            found = await self.registry.get(new.provider).read(new.urn, goal.import_id, None, None)
            if not found.id:
                raise ProviderError(f"resource '{goal.import_id}' does not exist")
            if found.inputs is None:
                raise ProviderError(f"the {package_of(new.type)} provider does not support importing resources")
        except EngineError as error:
            if key is not None:
                await self.snapshot.end(key)
            self.report(error, new.urn)
            self._emit.failed(step, status=0, steps=self._steps_run)
            raise StepFailedError from None
        new.id, new.inputs, new.outputs = found.id, found.inputs, found.outputs
        new.created = new.modified = now()
        _mark_secrets(new)
        changed = []
        if old is not None:
            old.delete = True
            changed.append(old)
        await self.snapshot.end(key, add=new, changed=changed)
        self.news[new.urn] = new
        if replacing:
            await self._execute(Step("replace", old, new, pending_delete=True))
        else:
            self.changes["import"] = self.changes.get("import", 0) + 1
        self._emit.outputs(step, step.op, planning=self.dry_run)
        return new

    async def _ensure_provider(self, state: State) -> Provider | BuiltinProvider | None:
        if not state.provider:
            return None
        return await self.registry.ensure(state.provider, self._find_provider)

    def _find_provider(self, reference: str) -> State | None:
        urn, id_ = split_reference(reference)
        # After an aliased provider, resources that are still to be deleted refer to it by its former URN.
        for state in (*self._base, *self.news.values()):
            if state.id == id_ and (state.urn == urn or urn in state.aliases or self._aliased.get(urn) == state.urn):
                return state
        return None

    # --- what else the program can ask for ----------------------------------------------------------------------------------

    async def read(self, goal: Goal, id_: str) -> Registered:
        """Look up a resource that the stack does not manage (``Resource.get``)."""
        urn = make_urn(self.stack, self.project, goal.parent, goal.type, goal.name)
        try:
            self._claim(urn, goal)
            if not id_:
                raise EngineError(f"Expected an ID for {urn}")
            old, former = self._find_old(urn, goal)
            new = self._new_state(urn, goal, old, former)
            new.id, new.external = id_, True
            if self._depends_on_failure(new):
                self._failed.add(urn)
                return Registered(new, succeeded=False)
            self._operated.add(urn)
            async with self._slots:
                if old is not None and not old.external and old.id != id_:
                    await self._execute(Step("read-replacement", old, new, pending_delete=True))
                    await self._execute(Step("replace", old, new, pending_delete=True))
                else:
                    await self._execute(Step("read", old, new))
            return Registered(new)
        except StepFailedError:
            return self._failed_registration(urn, goal)
        except EngineError as error:
            self.report(error, urn)
            return self._failed_registration(urn, goal)

    async def register_outputs(self, urn: str, outputs: Properties) -> None:
        """Attach outputs to a component; those of the stack are kept from before where a failure left them unknown."""
        state = self.news.get(urn)
        if state is None:
            if urn in self._failed:
                return
            raise EngineError(f"outputs were registered for {urn}, which is not a resource of this update")
        old = self._olds.get(self._former.get(urn, urn))
        before = old.outputs if old is not None else {}
        if self.errored and not self.dry_run:
            outputs = {
                key: before.get(key) if contains_unknown(value) else value
                for key, value in outputs.items()
                if not contains_unknown(value) or key in before
            }
        state.outputs = outputs
        _mark_secrets(state)
        if not self.dry_run and (old is None or before != outputs):
            await self.snapshot.update(state)
        step = Step("same" if old is not None else "create", old, state)
        self._emit.outputs(step, step.op, planning=self.dry_run)

    async def default_provider(self, package: str, version: str = "", url: str = "") -> str:
        """The reference of a package's default provider, registered on first use."""
        if package != "pulumi" and self._denied(package):
            raise EngineError(
                f"Default provider for '{package}' disabled. "
                f"'pulumi:disable-default-providers' names it or is '*': give the resource an explicit provider"
            )
        request = (package, version, url)
        if request not in self._default_providers:
            self._default_providers[request] = asyncio.create_task(self._register_default(package, version, url))
        return await asyncio.shield(self._default_providers[request])

    def _denied(self, package: str) -> bool:
        listed = self._package_config("pulumi").get("disable-default-providers")
        if not isinstance(listed, str) or not listed:
            return False
        return any(name in ("*", package) for name in json.loads(listed))

    async def _register_default(self, package: str, version: str, url: str) -> str:
        inputs = dict(self._package_config(package)) if package != "pulumi" else {}
        if version:
            inputs["version"] = version
        if url:
            inputs["__internal"] = {"pluginDownloadURL": url}
        goal = Goal(PROVIDER_PREFIX + package, default_name(version), custom=True, properties=inputs)
        registered = await self.register(goal)
        if not registered.succeeded:
            raise EngineError(f"the default provider for package {package!r} could not be set up")
        return f"{registered.state.urn}::{registered.state.id}"

    # --- the ends of an update -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Bring the recorded state in line with what the providers find, and make that the base of what follows."""
        chosen: list[State] = []
        reached: set[str] = set()
        for state in self._base:
            dependents = self.options.target_dependents and any(urn in reached for urn in state.all_dependencies())
            chosen_one = state.urn in self._targets or dependents if self._targets else not self._is_excluded(state)
            if chosen_one:
                reached.add(state.urn)
                chosen.append(state)

        async def refresh_one(state: State) -> None:
            async with self._slots:
                if self.cancelled:
                    return
                try:
                    await self._execute(Step("refresh", state, state))
                except StepFailedError:
                    self.errored = True

        await _all(refresh_one(state) for state in chosen)
        self.news.clear()
        await self._forget_missing()
        self._rebase(_in_order(self.snapshot.resources))

    async def _forget_missing(self) -> None:
        """Drop references to resources that a refresh found gone."""
        resources = self.snapshot.resources
        urns = {state.urn for state in resources}
        for state in resources:
            before = (state.parent, state.dependencies, state.property_dependencies, state.deleted_with)
            after = (
                state.parent if state.parent in urns else "",
                [urn for urn in state.dependencies if urn in urns],
                {key: [urn for urn in deps if urn in urns] for key, deps in state.property_dependencies.items()},
                state.deleted_with if state.deleted_with in urns else "",
            )
            if before != after:
                state.parent, state.dependencies, state.property_dependencies, state.deleted_with = after
                await self.snapshot.update(state)

    async def delete_unregistered(self) -> None:
        """Delete what the program no longer declares and what replacements left behind, dependents first."""
        chosen = self._deletable()
        condemned: list[Step] = []
        for state in self._base:
            if state.delete:
                if id(state) not in self._condemned and self._may_delete(state, chosen):
                    condemned.append(Step("delete-replaced", state, None))
            elif state.urn not in self._operated and self._aliased.get(state.urn) is None:
                if not self._may_delete(state, chosen):
                    continue
                if state.pending_replacement:
                    condemned.append(Step("remove-pending-replace", state, None))
                else:
                    condemned.append(Step("discard" if state.external else "delete", state, None))
        unasked = [
            step.urn
            for step in condemned
            if self._targets and step.urn not in self._targets and not self.options.target_dependents
        ]
        if unasked:
            error = EngineError(
                "\n".join(
                    f"Resource '{urn}' will be destroyed but was not specified in --target list." for urn in unasked
                ),
                remedy="either include the resources in the --target list or pass --target-dependents",
            )
            self.errored = True
            self.report(error)
            if not self.dry_run:
                return
        self._deletes.update(step.urn for step in condemned)
        await self._delete(condemned)

    def _deletable(self) -> set[str] | None:
        """URNs that ``--target`` or ``--exclude`` let this update delete, or None without either."""
        if self._excludes and not self._targets:
            kept: set[str] = set()
            for state in reversed(self._base):
                # What an excluded resource needs has to stay as well.
                if state.urn in kept or self._is_excluded(state):
                    kept.update([state.urn, *state.all_dependencies()])
            return {state.urn for state in self._base} - kept
        if not self._targets:
            return None
        reached = {state.urn for state in self._base if state.urn in self._targets}
        for state in self._base:
            if any(urn in reached for urn in state.all_dependencies()):
                reached.add(state.urn)
        return reached

    @staticmethod
    def _may_delete(state: State, chosen: set[str] | None) -> bool:
        return chosen is None or state.urn in chosen

    async def _delete(self, steps: Sequence[Step]) -> None:
        """Delete side by side, each resource after the last of those that need it; a failure keeps what it needs."""
        finished: dict[int, asyncio.Future[bool]] = {}
        by_dependency: dict[str, list[int]] = {}
        loop = asyncio.get_running_loop()
        for index, step in enumerate(steps):
            finished[index] = loop.create_future()
            for urn in set(step.state.all_dependencies()):
                by_dependency.setdefault(urn, []).append(index)

        async def delete(index: int, step: Step) -> None:
            # The base is in dependency order: only what comes later can depend on this resource.
            waits = [finished[later] for later in by_dependency.get(step.urn, ()) if later > index]
            gone = False
            try:
                if not all([await asyncio.shield(wait) for wait in waits]):
                    return
                async with self._slots:
                    if self.cancelled:
                        return
                    await self._execute(step)
                    gone = True
            except StepFailedError:
                self.errored = True
                if not self.options.continue_on_error:
                    self.cancelled = True
            finally:
                finished[index].set_result(gone)

        await _all(delete(index, step) for index, step in enumerate(steps))

    async def settle_interrupted(self) -> None:
        """Find out what became of the operations that an interrupted run left unfinished.

        A create may have made a resource nobody knows of: a provider that can look it up is asked to, and what it finds
        joins the state. A delete may have succeeded: the resource is looked up again. Updates are simply compared anew.
        """
        for pending in list(self.snapshot.interrupted):
            try:
                if pending.operation == "creating":
                    await self._settle_create(pending)
                elif pending.operation == "deleting":
                    await self._settle_delete(pending)
                else:
                    await self.snapshot.settle(pending)
            except EngineError as error:
                self._warn_unsettled(pending, str(error))
        self._rebase(_in_order(self.snapshot.resources))

    async def _settle_create(self, pending: Pending) -> None:
        lost = pending.state
        if not lost.custom or lost.is_provider:
            await self.snapshot.settle(pending)
            return
        provider = await self._ensure_provider(lost)
        if provider is None or not provider.recovers:
            self._warn_unsettled(pending, "its provider has no way to look for a resource without knowing its ID")
            return
        found = await provider.read(lost.urn, "", lost.inputs, None)
        if not found.id:
            await self.snapshot.settle(pending)
            return
        current = self._olds.get(lost.urn)
        lost.id, lost.outputs, lost.init_errors = found.id, found.outputs, found.init_errors
        lost.created = lost.modified = now()
        _mark_secrets(lost)
        if current is not None and current.id == lost.id:
            await self.snapshot.settle(pending)
            return
        if current is not None and not current.pending_replacement:
            current.delete = True
            await self.snapshot.update(current)
        done = [current] if current is not None and current.pending_replacement else []
        await self.snapshot.settle(pending, done=done, add=lost)
        self._emit.diagnostic("info", f"found the resource that an interrupted create had made ({lost.id})", lost.urn)

    async def _settle_delete(self, pending: Pending) -> None:
        current = next(
            (state for state in self.snapshot.resources if state.urn == pending.state.urn and state.id == pending.state.id),
            None,
        )
        gone = False
        if current is not None and current.custom and not current.is_provider:
            provider = await self._ensure_provider(current)
            if provider is not None:
                found = await provider.read(current.urn, current.id, current.inputs, current.outputs)
                gone = not found.id
        await self.snapshot.settle(pending, done=[current] if gone and current is not None else [])

    def _warn_unsettled(self, pending: Pending, reason: str) -> None:
        self._emit.diagnostic(
            "warning",
            f"an earlier run was interrupted while {pending.operation} this resource, and what became of it is unknown: "
            f"{reason}. Look for it in the cloud; `lab refresh` forgets the interrupted operation",
            pending.state.urn,
        )

    async def forget_interrupted(self) -> None:
        """Drop unfinished operations that nothing could be found out about, as a refresh does."""
        for pending in list(self.snapshot.interrupted):
            await self.snapshot.settle(pending)

    def report(self, error: EngineError, urn: str = "") -> None:
        """Tell the user of a failure."""
        message = mask(str(error), self._secrets)
        if error.remedy:
            message += f"\n{error.remedy[0].upper()}{error.remedy[1:]}"
        self._emit.diagnostic("error", message, urn)


class _Patterns:
    """URNs and patterns: ``*`` matches within a part of a URN, ``**`` across parts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.literals = [text for text in texts if "*" not in text]
        self._literals = set(self.literals)
        self._patterns = [
            re.compile(re.escape(text).replace(r"\*\*", ".*").replace(r"\*", "[^:]*")) for text in texts if "*" in text
        ]

    def __bool__(self) -> bool:
        return bool(self._literals or self._patterns)

    def __contains__(self, urn: str) -> bool:
        return urn in self._literals or any(pattern.fullmatch(urn) for pattern in self._patterns)


async def _all(awaitables: Iterable[Awaitable[None]]) -> None:
    """Run side by side; an unexpected error of one is raised after all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _is_silent_read(step: Step) -> bool:
    """A read that found what it had found before is no news."""
    if step.op != "read" or step.old is None or step.new is None:
        return False
    return (step.old.inputs, step.old.outputs) == (step.new.inputs, step.new.outputs)


def _required(state: State | None) -> State:
    if state is None:
        raise AssertionError
    return state


def _mark_secrets(state: State) -> None:
    """Secret inputs make secret outputs, and so does the program's own list."""
    for key, value in state.outputs.items():
        if not is_secret(value) and (key in state.additional_secret_outputs or is_secret(state.inputs.get(key))):
            state.outputs[key] = secret(value)


def _force_replacements(diff: Diff, paths: Sequence[str], *, init_errors: bool) -> Diff:
    """Apply ``replace_on_changes``: changes of the properties it names replace the resource."""
    if not paths or not (diff.changed or init_errors):
        return diff
    patterns = [parse_path(text) for text in paths]

    def forced(text: str) -> bool:
        path = parse_path(text)
        return any(covers(pattern, path) for pattern in patterns)

    detailed = diff.detailed
    if detailed is not None:
        detailed = {text: entry.replacing() if forced(text) else entry for text, entry in detailed.items()}
    keys = dict.fromkeys([*diff.replace_keys, *(key for key in diff.changed_keys if forced(key))])
    if init_errors and any(covers(pattern, (INIT_ERROR_PATH,)) for pattern in patterns):
        keys[INIT_ERROR_PATH] = None
        return replace(diff, changed=True, detailed=detailed, replace_keys=list(keys))
    return replace(diff, detailed=detailed, replace_keys=list(keys))


def _triggered(new: Any, old: Any) -> bool:
    """Whether the replacement trigger changed; no trigger at all never does."""
    new, old = reveal(new), reveal(old)
    if contains_unknown(new) or contains_unknown(old):
        return True
    return new is not None and old is not None and new != old


def _inverted(detailed: Mapping[str, PropertyDiff] | None) -> dict[str, PropertyDiff] | None:
    """A diff seen from the other side: a refresh compares the program's inputs with what was found."""
    if detailed is None:
        return None
    flipped = {"add": "delete", "add-replace": "delete", "delete": "add", "delete-replace": "add"}
    return {path: PropertyDiff(flipped.get(entry.kind, "update"), entry.input_diff) for path, entry in detailed.items()}


def compare(old: Properties, new: Properties) -> Diff:
    """The engine's own diff of two sets of inputs, for providers that leave it to the engine."""
    detailed: dict[str, PropertyDiff] = {}
    _compare("", old, new, detailed)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) or (key in old) != (key in new)]
    keys = [key for key in keys if not key.startswith("__")]
    visible = {path: entry for path, entry in detailed.items() if not path.startswith("__")}
    hidden_change = any(key.startswith("__") and old.get(key) != new.get(key) for key in {**old, **new})
    return Diff(changed=bool(keys) or hidden_change, changed_keys=sorted(keys), detailed=visible)


def _compare(path: str, old: Any, new: Any, found: dict[str, PropertyDiff]) -> None:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            plain = re.fullmatch(r"[^.\[\]\"]+", key)
            inner = (f"{path}.{key}" if path else key) if plain else f'{path}["{key}"]'
            if key not in old:
                found[inner] = PropertyDiff("add", input_diff=True)
            elif key not in new:
                found[inner] = PropertyDiff("delete", input_diff=True)
            else:
                _compare(inner, old[key], new[key], found)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            inner = f"{path}[{index}]"
            if index >= len(old):
                found[inner] = PropertyDiff("add", input_diff=True)
            elif index >= len(new):
                found[inner] = PropertyDiff("delete", input_diff=True)
            else:
                _compare(inner, old[index], new[index], found)
    else:
        found[path] = PropertyDiff("update", input_diff=True)


def _display(value: Any) -> str:
    return str(redact(value))


def _in_order(resources: Sequence[State]) -> list[State]:
    """Sort states so that each comes after those it depends on, otherwise as they were."""
    by_urn: dict[str, list[State]] = {}
    for state in resources:
        by_urn.setdefault(state.urn, []).append(state)
    ordered: list[State] = []
    seen: set[int] = set()

    def visit(state: State) -> None:
        stack = [(state, iter(list(state.all_dependencies())))]
        seen.add(id(state))
        while stack:
            current, dependencies = stack[-1]
            for urn in dependencies:
                following = next((s for s in by_urn.get(urn, ()) if id(s) not in seen), None)
                if following is not None:
                    seen.add(id(following))
                    stack.append((following, iter(list(following.all_dependencies()))))
                    break
            else:
                ordered.append(current)
                stack.pop()

    for state in resources:
        if id(state) not in seen:
            visit(state)
    return ordered
