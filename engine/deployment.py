"""From what the program declares to the steps that bring it about.

The rules are those of Pulumi's engine (``pkg/resource/deploy`` in pulumi/pulumi): which steps a registration leads to
and in which order. The engine is a single asyncio program, so decisions need no locks: each registration runs as a task
of its own, and steps of independent resources run side by side.
"""

from __future__ import annotations

import asyncio
import functools
import json
import secrets as random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .diff import Diff, force_replacements, is_triggered
from .errors import EngineError
from .events import Emitter, Step
from .executor import Executor, StepFailedError, is_dynamic_that_recovers, mark_secrets
from .goal import Alias, Goal, Registered, UpdateOptions
from .plugins import DYNAMIC_PACKAGE, DiffUnavailableError, Provider
from .registry import default_name
from .state import State, now
from .targets import Patterns
from .urn import (
    PROVIDER_PREFIX,
    ROOT_STACK_TYPE,
    is_provider_type,
    make_urn,
    name_of,
    project_of,
    qualified_type,
    split_reference,
    type_of,
)
from .values import UNKNOWN, Properties, contains_unknown, redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from .registry import ProviderRegistry
    from .snapshot import Pending, Snapshot


SETTLING_SECONDS = 15.0
"""How long after its begin an interrupted create may still come to be: what was asked goes on without the asker."""
SLOWNESS = 5
"""It is given this many times longer than the search for it takes: a busy cloud is slow in both."""


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
        self.errored = False
        self.cancelled = False
        self._emit = emitter
        self._package_config = package_config
        self.executor = Executor(
            snapshot=snapshot,
            registry=registry,
            emitter=emitter,
            dry_run=dry_run,
            find_provider=self._find_provider,
            known_secrets=known_secrets,
        )
        self._slots = asyncio.Semaphore(max(1, options.parallel))
        self._targets = Patterns(options.targets)
        self._replace_targets = Patterns(options.replace)
        self._targets_actual: set[str] = set()
        self._excludes = Patterns(options.exclude)
        self._excluded: set[str] = set()

        self._unsettled: set[str] = set()
        self._goals: dict[str, Goal] = {}
        self._urns: set[str] = set()
        self._replaces: set[str] = set()
        self._operated: set[str] = set()
        """Resources that a step of this update deals with, other than deleting them."""
        self._reads: set[str] = set()
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

    # --- registrations -----------------------------------------------------------------------------------------------

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
            self.executor.report(error, urn)
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
            await self.executor.execute(step)
        settled = self.executor.news.get(urn, new)
        return Registered(settled, unknown=any(step.skipped_create for step in steps))

    def has_failed(self, urn: str) -> bool:
        """Whether the resource failed in this update, or was left out because something it needs did."""
        return urn in self._failed

    def _depends_on_failure(self, state: State) -> bool:
        if any(urn in self._failed for urn in state.all_dependencies()):
            return True
        # Once everything is for real, only a failure leaves an input unknown: of a function, which nobody depends on.
        return self.errored and not self.dry_run and contains_unknown(state.inputs)

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

    # --- identity ----------------------------------------------------------------------------------------------------

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
                    self.executor.report(error, step.urn)
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

    # --- generating steps --------------------------------------------------------------------------------------------

    async def _generate(self, urn: str, goal: Goal, old: State | None, new: State) -> list[Step]:
        recreating = urn in self.executor.deletes
        import_id = (old.import_id or old.id) if old else ""
        if goal.custom and goal.import_id and (old is None or old.external or import_id != goal.import_id):
            op = "import" if old is None else "import-replacement"
            await self.executor.execute(Step(op, old, new, pending_delete=old is not None))
            if old is not None:
                await self.executor.execute(Step("replace", old, new, pending_delete=True))
            # What was read is the old state from here on: the program's inputs are compared with it.
            steps = await self._generate_from(urn, goal, new, self._new_state(urn, goal, new, ""), recreating=False)
            return [] if [step.op for step in steps] == ["same"] else steps
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
            inputs = self.executor.ignore_changes(urn, inputs, old.inputs, goal.ignore_changes)
        if not targeted and old is not None:
            return self._untargeted_sames(old, new)
        if targeted:
            new.inputs = (
                await self._check(new, None, goal.properties, seed)
                if fresh or old is None
                else await self._check(new, old.inputs, inputs, seed)
            )

        if recreating and old is not None:
            self.executor.deletes.discard(urn)
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
        diff = force_replacements(diff, goal.replace_on_changes, init_errors=bool(old.init_errors))
        self._operated.add(urn)

        triggered = is_triggered(new.replacement_trigger, old.replacement_trigger)
        if triggered:
            diff.changed = True
        if diff.replaces or triggered or old.pending_replacement:
            return await self._generate_replacement(goal, old, new, diff, seed)
        if diff.changed or old.init_errors:
            return [Step("update", old, new, diffs=diff.changed_keys, detailed=diff.detailed)]
        return [Step("same", old, new)]

    async def _generate_replacement(self, goal: Goal, old: State, new: State, diff: Diff, seed: bytes) -> list[Step]:
        urn = new.urn
        if new.protect and old.protect:
            error = EngineError(
                f"unable to replace resource {urn!r}\nas it is currently marked for protection. To unprotect the "
                "resource, remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
            )
            if not self.dry_run:
                raise error
            self.executor.report(error, urn)
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
            self.executor.deletes.add(dependent.urn)
            self._condemned.add(id(dependent))
        await self.executor.ensure_provider(old)
        if not old.pending_replacement:
            self.executor.deletes.add(old.urn)
            steps.append(Step("delete-replaced", old, None, pending_replacement=True))
        return [*steps, step("replace"), step("create-replacement")]

    def _untargeted_sames(self, old: State, new: State) -> list[Step]:
        """An untargeted resource stays as it is, and so does what it needs and nobody registers any more."""
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
                    f"{{{redact(news.get(property_))}}} has a problem: {reason}"
                    if property_
                    else f"{new.type} resource '{name_of(new.urn)}' has a problem: {reason}"
                    for property_, reason in failures
                )
            )
        return inputs

    async def _diff(self, goal: Goal, old: State, new: State) -> Diff:
        if forced := await self._forced_replacement(old, new):
            return Diff(changed=True, replace_keys=[forced])
        if new.is_provider:
            return await self.registry.diff(new.urn, old, new.inputs)
        if not new.custom:
            return Diff(changed=old.inputs != new.inputs)
        return await self.executor.diff_inputs(
            self.registry.get(new.provider), old, old.inputs, new.inputs, goal.ignore_changes
        )

    async def _forced_replacement(self, old: State, new: State) -> str:
        """What replaces a resource whatever its properties say, as the key to blame; empty for nothing."""
        if self._must_replace(new.urn, old):
            return "id"
        if any(urn in self._replaces for urn in new.replace_with):
            return "replaceWith"
        if new.deleted_with in self._replaces:
            return "deletedWith"
        return "provider" if await self._provider_changed(old, new) else ""

    async def _provider_changed(self, old: State, new: State) -> bool:
        """Whether another provider means another resource: only if the new one says its configuration replaces it."""
        if old.provider == new.provider:
            return False
        if not old.provider or not new.provider:
            return True
        old_urn, new_urn = split_reference(old.provider)[0], split_reference(new.provider)[0]
        if self._aliased.get(old_urn) == new_urn:
            return False
        former, present = self._olds.get(old_urn), self.executor.news.get(new_urn)
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
            await self.executor.ensure_provider(state)
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
            provider = await self.executor.ensure_provider(state)
            if provider is None:
                return False, []
            diff = await self.executor.diff_inputs(provider, state, state.inputs, inputs, state.ignore_changes)
        diff = force_replacements(diff, state.replace_on_changes, init_errors=False)
        return diff.replaces, diff.replace_keys

    def _cascades(self, urn: str) -> list[tuple[State, list[str]]]:
        """Resources that are to be replaced, or are deleted, together with the one named."""
        return [
            (state, [])
            for state in self._olds.values()
            if (urn in state.replace_with or state.deleted_with == urn) and state.urn not in self._urns
        ]

    def _find_provider(self, reference: str) -> State | None:
        urn, id_ = split_reference(reference)
        # After an aliased provider, resources that are still to be deleted refer to it by its former URN.
        for state in (*self._base, *self.executor.news.values()):
            if state.id == id_ and (state.urn == urn or urn in state.aliases or self._aliased.get(urn) == state.urn):
                return state
        return None

    # --- what else the program can ask for ---------------------------------------------------------------------------

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
                    await self.executor.execute(Step("read-replacement", old, new, pending_delete=True))
                    await self.executor.execute(Step("replace", old, new, pending_delete=True))
                else:
                    await self.executor.execute(Step("read", old, new))
            return Registered(new)
        except StepFailedError:
            return self._failed_registration(urn, goal)
        except EngineError as error:
            self.executor.report(error, urn)
            return self._failed_registration(urn, goal)

    async def register_outputs(self, urn: str, outputs: Properties) -> None:
        """Attach outputs to a component; those of the stack stay as they were where a failure left them out."""
        state = self.executor.news.get(urn)
        if state is None:
            if urn in self._failed:
                return
            raise EngineError(f"outputs were registered for {urn}, which is not a resource of this update")
        old = self._olds.get(self._former.get(urn, urn))
        before = old.outputs if old is not None else {}
        if self.errored and qualified_type(urn) == ROOT_STACK_TYPE:
            # An output that is missing or unknown now may be so because of the failure: it stays as it was.
            outputs = before | {key: value for key, value in outputs.items() if not contains_unknown(value)}
        state.outputs = outputs
        mark_secrets(state)
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

    # --- the ends of an update ---------------------------------------------------------------------------------------

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
                    await self.executor.execute(Step("refresh", state, state))
                except StepFailedError:
                    self.errored = True

        await _all(refresh_one(state) for state in chosen)
        self.executor.news.clear()
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
            self.executor.report(error)
            if not self.dry_run:
                return
        self.executor.deletes.update(step.urn for step in condemned)
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
                    await self.executor.execute(step)
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
        urn = split_reference(lost.provider)[0]
        successor = next((state for state in self.snapshot.resources if state.urn == urn), None)
        if successor is None:
            self._warn_unsettled(pending, "its provider is not in the state any more")
            return
        if self._find_provider(lost.provider) is None:
            lost.provider = f"{urn}::{successor.id}"
        provider = await self.executor.ensure_provider(lost)
        if not isinstance(provider, Provider) or not (provider.recovers or is_dynamic_that_recovers(provider, lost)):
            self._warn_unsettled(pending, "its provider has no way to look for a resource without knowing its ID")
            return
        asked = time.monotonic()
        others = [state.id for state in self.snapshot.resources if state.type == lost.type and state.id]
        found = await provider.read(lost.urn, "", lost.inputs, None, began=lost.created, others=others)
        while not found.id and provider.package == DYNAMIC_PACKAGE and _may_come_to_be(lost, time.monotonic() - asked):
            await asyncio.sleep(1)
            asked = time.monotonic()
            found = await provider.read(lost.urn, "", lost.inputs, None)
        if not found.id:
            await self.snapshot.settle(pending)
            return
        current = self._olds.get(lost.urn)
        lost.id, lost.outputs, lost.init_errors = found.id, found.outputs, found.init_errors
        if found.inputs is not None:
            # What is missing from a half-made resource has to differ from what the program asks for.
            lost.inputs = found.inputs
        lost.created = lost.modified = now()
        mark_secrets(lost)
        known = {(state.type, state.provider, state.id) for state in self.snapshot.resources}
        if (lost.type, lost.provider, lost.id) in known:
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
            (
                state
                for state in self.snapshot.resources
                if state.urn == pending.state.urn and state.id == pending.state.id
            ),
            None,
        )
        gone = False
        if current is not None and current.custom and not current.is_provider:
            provider = await self.executor.ensure_provider(current)
            if provider is not None:
                found = await provider.read(current.urn, current.id, current.inputs, current.outputs)
                gone = not found.id
        await self.snapshot.settle(pending, done=[current] if gone and current is not None else [])

    def _warn_unsettled(self, pending: Pending, reason: str) -> None:
        """Say so once a resource, however often it was tried."""
        urn = pending.state.urn
        if urn in self._unsettled:
            return
        self._unsettled.add(urn)
        self._emit.diagnostic(
            "warning",
            f"an earlier run was interrupted while {pending.operation} this resource, and what became of it is "
            f"unknown: {reason}\nLook for it in the cloud: `lab sweep` lists what a stack has left there. "
            "`lab refresh` forgets the interrupted operation",
            urn,
        )

    async def forget_interrupted(self) -> None:
        """Drop unfinished operations that nothing could be found out about, as a refresh does."""
        for pending in list(self.snapshot.interrupted):
            await self.snapshot.settle(pending)


async def _all(awaitables: Iterable[Awaitable[None]]) -> None:
    """Run side by side; an unexpected error of one is raised after all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _may_come_to_be(lost: State, search_seconds: float) -> bool:
    """Whether the request of an interrupted create may still be under way; plugins consider that themselves."""
    if not lost.created:
        return False
    settling = timedelta(seconds=max(SETTLING_SECONDS, SLOWNESS * search_seconds))
    return datetime.now(UTC) < datetime.fromisoformat(lost.created) + settling


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
