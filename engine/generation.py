"""From a registration to the steps that bring it about.

The rules are those of ``step_generator.go`` in pulumi/pulumi: which steps a registration leads to, and in which order.
"""

from __future__ import annotations

import functools
import re
import secrets as random
from typing import TYPE_CHECKING

from protocol.signatures import UNKNOWN

from .diff import Diff, force_replacements, is_triggered
from .errors import EngineError
from .events import Step
from .plugins import DiffUnavailableError
from .state import State
from .urn import name_of, split_reference
from .values import equal, redact, reveal_properties

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from protocol.values import Properties

    from .events import Emitter
    from .executor import Executor
    from .goal import Goal
    from .identity import Identity
    from .plan import Planner
    from .policies import Policies
    from .registry import ProviderRegistry
    from .targets import Targets


class StepGenerator:
    """Decides the steps of each registration; ``report`` shows an error that a preview goes on after."""

    def __init__(
        self,
        *,
        identity: Identity,
        targets: Targets,
        executor: Executor,
        registry: ProviderRegistry,
        planner: Planner,
        policies: Policies | None,
        emitter: Emitter,
        find_provider: Callable[[str], State | None],
        report: Callable[[EngineError, str], None],
        dry_run: bool,
    ) -> None:
        self._identity = identity
        self._targets = targets
        self._executor = executor
        self._registry = registry
        self._planner = planner
        self._policies = policies
        self._emit = emitter
        self._find_provider = find_provider
        self._report = report
        self._dry_run = dry_run
        self.handled: set[str] = set()
        """Resources that have a step other than a delete."""
        self.updated: set[str] = set()
        """Components that this update changes."""
        self.deleted_early: set[int] = set()
        """Old states that a delete-before-replace has deleted already."""
        self._replaces: set[str] = set()
        self._replace_keys: dict[str, list[str]] = {}
        self._needed: set[str] = set()
        """Old resources that an untargeted one refers to."""
        self._skipped_creates: set[str] = set()
        self._refused: set[tuple[str, str]] = set()
        """Check failures that a preview has reported, by URN."""

    async def generate(self, urn: str, goal: Goal, old: State | None, new: State) -> list[Step]:
        """The steps of a registration; an import, which they depend on, is carried out here.

        Raises :class:`EngineError` when the registration is refused.
        """
        steps = await self._generate(urn, goal, old, new)
        self._check_skipped_creates(steps)
        return steps

    async def _generate(self, urn: str, goal: Goal, old: State | None, new: State) -> list[Step]:
        recreated = urn in self._executor.deletes
        import_id = (old.import_id or old.id) if old else ""
        importing = goal.custom and goal.import_id and (old is None or old.external or import_id != goal.import_id)
        if importing and not (old is not None and await self._is_same_object(old, new)):
            op = "import" if old is None else "import-replacement"
            imports = [Step(op, old, new, pending_delete=old is not None)]
            if old is not None:
                imports.append(Step("replace", old, new, pending_delete=True))
            self._planner.check_steps(imports)
            for step in imports:
                await self._executor.execute(step)
            # From here on, what was read is the old state.
            steps = await self._generate_from(urn, goal, new, new_state(urn, goal, new, ""), recreated=False)
            return [] if [step.op for step in steps] == ["same"] else steps
        return await self._generate_from(urn, goal, old, new, recreated=recreated)

    async def _is_same_object(self, old: State, new: State) -> bool:
        """Whether the ID to import is another spelling of the one that the resource has already."""
        if old.external or await self._provider_changed(old, new):
            return False
        found = await self._registry.get(new.provider).read(new.urn, new.import_id, None, None)
        return bool(found.id) and found.id == old.id

    async def _generate_from(
        self, urn: str, goal: Goal, old: State | None, new: State, *, recreated: bool
    ) -> list[Step]:
        targeted = self._targets.includes(new)
        was_external = old is not None and old.external
        fresh = recreated or was_external or old is None or self._must_replace(urn, old)
        seed = self._planner.seed(urn) or random.token_bytes(32)
        inputs = goal.properties
        if old is not None:
            inputs = self._executor.ignore_changes(urn, inputs, old.inputs, goal.ignore_changes)
        if not targeted and old is not None:
            await self._analyze(new.copy(inputs=old.inputs), goal)
            return self._untargeted_sames(old, new)
        if targeted:
            new.inputs = (
                await self._check(new, None, goal.properties, seed)
                if fresh or old is None
                else await self._check(new, old.inputs, inputs, seed)
            )
            await self._remediate(new, goal)
        checked = targeted and (not new.custom or new.is_provider or self._registry.get(new.provider).configured)
        self._planner.check_goal(urn, goal, old, new.inputs, seed, fresh=fresh, checked=checked)
        await self._analyze(new, goal)

        if recreated and old is not None:
            self._executor.deletes.discard(urn)
            self._replaces.add(urn)
            self.handled.add(urn)
            keys = self._replace_keys.get(urn, [])
            return [Step("replace", old, new), Step("create-replacement", old, new, keys=keys)]
        if old is not None and was_external:
            self.handled.add(urn)
            return [
                Step("create-replacement", old, new, pending_delete=True),
                Step("replace", old, new, pending_delete=True),
            ]
        self._targets.note_registered(new)
        if old is None:
            self.handled.add(urn)
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
        providers_decision = diff.replaces and not diff.forced
        diff = force_replacements(diff, goal.replace_on_changes, init_errors=bool(old.init_errors))
        self.handled.add(urn)

        triggered = is_triggered(new.replacement_trigger, old.replacement_trigger)
        if triggered:
            diff.changed = True
        if diff.replaces or triggered or old.pending_replacement:
            if not providers_decision and not old.pending_replacement:
                diff.delete_before_replace |= await self._deletes_before_replace(old)
            return await self._generate_replacement(goal, old, new, diff, seed)
        if diff.changed or old.init_errors:
            if not goal.custom:
                self.updated.add(urn)
            return [Step("update", old, new, diffs=diff.changed_keys, detailed=diff.detailed)]
        return [Step("same", old, new)]

    async def _generate_replacement(self, goal: Goal, old: State, new: State, diff: Diff, seed: bytes) -> list[Step]:
        urn = new.urn
        if new.protect and old.protect:
            error = EngineError(
                f"unable to replace resource {urn!r}\nas it is currently marked for protection. To unprotect the "
                "resource, remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
            )
            if not self._dry_run:
                raise error
            self._report(error, urn)
        if goal.import_id:
            message = (
                "previously-imported resources that still specify an ID may not be replaced; "
                "please remove the `import` declaration from your program"
            )
            if not self._dry_run:
                raise EngineError(message)
            self._emit.diagnostic("warning", message, urn)

        self._replaces.add(urn)
        if not self._must_replace(urn, old):
            # Defaults were carried over from the old resource; the replacement gets its own.
            new.inputs = await self._check(new, None, goal.properties, seed)
            await self._remediate(new, goal, silent=True)
        step = functools.partial(
            Step, old=old, new=new, keys=diff.replace_keys, diffs=diff.changed_keys, detailed=diff.detailed
        )
        delete_first = diff.delete_before_replace
        if goal.delete_before_replace is not None:
            delete_first = goal.delete_before_replace
        if not delete_first:
            return [step("create-replacement", pending_delete=True), step("replace", pending_delete=True)]

        steps: list[Step] = []
        for dependent, keys in reversed([*await self._dependents_to_replace(old), *self._cascades(urn)]):
            if id(dependent) in self.deleted_early:
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
            self._executor.deletes.add(dependent.urn)
            self.deleted_early.add(id(dependent))
        await self._executor.ensure_provider(old)
        if not old.pending_replacement:
            self._executor.deletes.add(old.urn)
            steps.append(Step("delete-replaced", old, None, pending_replacement=True))
        return [*steps, step("replace"), step("create-replacement")]

    def _untargeted_sames(self, old: State, new: State) -> list[Step]:
        """An untargeted resource stays as it is, with all it depends on, registered or not."""
        if old.provider and old.provider != new.provider:
            reference = split_reference(old.provider)[0]
            if reference not in self._identity.goals and reference not in self._identity.olds:
                raise EngineError(
                    f"provider {old.provider} of resource {new.urn} has not been registered; this comes from a change "
                    "of providers together with --target",
                    remedy="change the program back to the original providers, or drop --target",
                )
        needed = list(old.all_dependencies())
        while needed:
            urn = needed.pop()
            if urn in self._identity.olds and urn not in self._needed:
                self._needed.add(urn)
                needed += self._identity.olds[urn].all_dependencies()
        self.handled.update([old.urn, new.urn])
        return [Step("same", old, old.copy(urn=new.urn, parent=new.parent, aliases=new.aliases))]

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
                    if not self._dry_run:
                        raise error
                    self._report(error, step.urn)

    async def _remediate(self, new: State, goal: Goal, *, silent: bool = False) -> None:
        if self._policies is not None:
            await self._policies.remediate(new, goal, self._provider_of(new), silent=silent)

    async def _analyze(self, new: State, goal: Goal) -> None:
        if self._policies is not None:
            await self._policies.analyze(new, goal, self._provider_of(new))

    def _must_replace(self, urn: str, old: State | None) -> bool:
        return self._targets.is_replaced(urn) or (old is not None and old.taint)

    async def _check(self, new: State, olds: Properties | None, news: Properties, seed: bytes) -> Properties:
        if new.is_provider:
            inputs, failures = await self._registry.check(new.urn, olds or {}, news)
        elif new.custom:
            provider = self._registry.get(new.provider)
            if not provider.configured:
                return news
            inputs, failures = await provider.check(new.urn, olds, news, seed)
        else:
            return news
        if not failures:
            return inputs
        error = EngineError(
            "\n".join(
                f"{new.type} resource '{name_of(new.urn)}': property {property_} value "
                f"{{{redact(news.get(property_))}}} has a problem: {reason}"
                if property_
                else f"{new.type} resource '{name_of(new.urn)}' has a problem: {reason}"
                for property_, reason in failures
            )
        )
        refused = {re.split(r"[.\[]", property_, maxsplit=1)[0] for property_, _ in failures}
        if not self._dry_run or "" in refused:
            raise error
        # A preview goes on, also with what depends on the resource, to find all failures. A replacement checks twice.
        if (new.urn, str(error)) not in self._refused:
            self._refused.add((new.urn, str(error)))
            self._report(error, new.urn)
        return {**(inputs or olds or {}), **news, **dict.fromkeys(refused, UNKNOWN)}

    async def _diff(self, goal: Goal, old: State, new: State) -> Diff:
        if forced := await self._forced_replacement(old, new):
            return Diff(changed=True, replace_keys=[forced], forced=True)
        if new.is_provider:
            return await self._registry.diff(new.urn, old, new.inputs)
        if not new.custom:
            return Diff(changed=not equal(reveal_properties(old.inputs), reveal_properties(new.inputs)))
        return await self._executor.diff_inputs(
            self._registry.get(new.provider), old, old.inputs, new.inputs, goal.ignore_changes
        )

    async def _forced_replacement(self, old: State, new: State) -> str:
        """The replace key where something other than the resource's own inputs replaces it; empty otherwise."""
        if self._must_replace(new.urn, old):
            return "id"
        if any(urn in self._replaces for urn in new.replace_with):
            return "replaceWith"
        if new.deleted_with in self._replaces:
            return "deletedWith"
        return "provider" if await self._provider_changed(old, new) else ""

    async def _provider_changed(self, old: State, new: State) -> bool:
        """Whether a change of provider replaces the resource: only if the configuration of the new one asks for it."""
        if old.provider == new.provider:
            return False
        if not old.provider or not new.provider:
            return True
        old_urn, new_urn = split_reference(old.provider)[0], split_reference(new.provider)[0]
        if self._identity.aliased.get(old_urn) == new_urn:
            return False
        former, present = self._identity.olds.get(old_urn), self._executor.news.get(new_urn)
        if former is None or present is None:
            return False
        return (await self._registry.diff(new_urn, former, present.inputs)).replaces

    async def _deletes_before_replace(self, old: State) -> bool:
        """Whether the provider deletes a resource of this kind before it creates the replacement.

        The diff of a replacement that the engine forces does not say so; the diff of some changed input does.
        """
        if not old.custom or old.is_provider:
            return False
        provider = await self._executor.ensure_provider(old)
        if provider is None or not provider.configured:
            return False
        for key in old.inputs:
            if key.startswith("__"):
                continue
            diff = await self._executor.diff_inputs(provider, old, old.inputs, {**old.inputs, key: UNKNOWN}, ())
            if diff.replaces and diff.delete_before_replace:
                return True
        return False

    async def _dependents_to_replace(self, root: State) -> list[tuple[State, list[str]]]:
        """Old resources to delete before ``root``: those that its deletion replaces, each with its replace keys.

        Resources already registered cannot depend on ``root`` any more, whatever the old state says.
        """
        found: list[tuple[State, list[str]]] = []
        replaced = {root.urn}
        for state in self._dependents(root):
            replaces, keys = await self._replaced_with(state, replaced)
            if replaces:
                replaced.add(state.urn)
                found.append((state, keys))
        return found

    def _dependents(self, root: State) -> Iterable[State]:
        reached = {root.urn}
        after = False
        for state in self._identity.base:
            if state is root:
                after = True
            elif (
                after
                and state.urn not in self._identity.goals
                and any(urn in reached for urn in state.all_dependencies())
            ):
                reached.add(state.urn)
                yield state

    async def _replaced_with(self, state: State, replaced: set[str]) -> tuple[bool, list[str]]:
        if not state.custom or state.external:
            return False, []
        if state.provider and split_reference(state.provider)[0] in replaced:
            await self._executor.ensure_provider(state)
            return True, []
        if state.deleted_with in replaced:
            return True, []
        affected = {
            key
            for key, urns in state.property_dependencies.items()
            if key in state.inputs and any(urn in replaced for urn in urns)
        }
        if not affected:
            return False, []
        inputs = {key: UNKNOWN if key in affected else value for key, value in state.inputs.items()}
        if state.is_provider:
            diff = await self._registry.diff(state.urn, state, inputs)
        else:
            provider = await self._executor.ensure_provider(state)
            if provider is None:
                return False, []
            diff = await self._executor.diff_inputs(provider, state, state.inputs, inputs, state.ignore_changes)
        diff = force_replacements(diff, state.replace_on_changes, init_errors=False)
        return diff.replaces, diff.replace_keys

    def _cascades(self, urn: str) -> list[tuple[State, list[str]]]:
        """Resources with ``replaceWith`` or ``deletedWith`` of this one."""
        return [
            (state, [])
            for state in self._identity.olds.values()
            if (urn in state.replace_with or state.deleted_with == urn) and state.urn not in self._identity.goals
        ]

    async def keep_needed(self) -> None:
        """Keep in the state what untargeted resources need and the program has not registered."""
        for state in self._identity.base:
            if state.urn not in self._needed or state.urn in self.handled or state.urn in self._identity.aliased:
                continue
            if not state.delete and id(state) not in self.deleted_early:
                self.handled.add(state.urn)
                await self._executor.execute(Step("same", state, state.copy()))

    def _provider_of(self, state: State) -> State | None:
        return self._find_provider(state.provider) if state.provider else None


def new_state(urn: str, goal: Goal, old: State | None, former: str) -> State:
    """The state that a registration asks for; ``former`` is the alias under which ``old`` was recorded."""
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
        resource_hooks=goal.resource_hooks,
    )
