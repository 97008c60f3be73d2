"""One operation on one stack: registrations, reads, refreshes and deletions.

The engine is a single asyncio program, so decisions need no locks. Each registration runs as a task of its own, and
steps of independent resources run in parallel.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from .errors import EngineError
from .events import Emitter, Step
from .executor import Executor, StepFailedError, mark_secrets
from .generation import StepGenerator, new_state
from .goal import Goal, Registered, UpdateOptions
from .hooks import delete_hooks
from .identity import Identity
from .plan import Planner, PlanViolationError
from .policies import PolicyViolationError
from .recovery import Recovery
from .registry import default_name
from .state import State
from .targets import Targets
from .urn import PROVIDER_PREFIX, ROOT_STACK_TYPE, is_provider_type, make_urn, package_of, qualified_type
from .values import contains_unknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from protocol.values import Properties

    from .policies import Policies
    from .registry import ProviderRegistry
    from .snapshot import Snapshot


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
        planner: Planner | None = None,
        policies: Policies | None = None,
        unprotected: Collection[str] = (),
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
        self._policies = policies
        self._package_config = package_config
        self._planner = planner or Planner(None, record=False)
        self._identity = Identity(project, stack, snapshot.resources)
        self._targets = Targets(options)
        self.executor = Executor(
            snapshot=snapshot,
            registry=registry,
            emitter=emitter,
            dry_run=dry_run,
            find_provider=self._find_provider,
            known_secrets=known_secrets,
            unprotected=unprotected,
        )
        self.recovery = Recovery(snapshot, self._identity, self.executor, emitter)
        self._generator = StepGenerator(
            identity=self._identity,
            targets=self._targets,
            executor=self.executor,
            registry=registry,
            planner=self._planner,
            policies=policies,
            emitter=emitter,
            find_provider=self._find_provider,
            report=self.report,
            dry_run=dry_run,
        )
        self._slots = asyncio.Semaphore(max(1, options.parallel))
        self._failed: set[str] = set()
        self._default_providers: dict[tuple[str, str, str], asyncio.Task[str]] = {}

    def report(self, error: EngineError, urn: str = "") -> None:
        """Show an error; the operation fails, but may go on."""
        self.errored = True
        self.executor.report(error, urn)

    def _find_provider(self, reference: str) -> State | None:
        return self._identity.find_provider(reference, self.executor.news.values())

    async def register(self, goal: Goal) -> Registered:
        """Bring one resource to what the program wants.

        A failure is reported, and returned as a result without success; it is never raised.
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
        except PolicyViolationError:
            self.cancelled = True
            return self._failed_registration(urn, goal)
        except EngineError as error:
            self._stop_at_violation(error)
            self.executor.report(error, urn)
            return self._failed_registration(urn, goal)

    def _stop_at_violation(self, error: EngineError) -> None:
        """Begin no more steps after a violation of the plan; a preview goes on, to find them all."""
        if isinstance(error, PlanViolationError) and not self.dry_run:
            self.cancelled = True

    def _failed_registration(self, urn: str, goal: Goal) -> Registered:
        self.errored = True
        self._failed.add(urn)
        if not self.options.continue_on_error:
            self.cancelled = True
        return Registered(State(goal.type, urn, custom=goal.custom, parent=goal.parent), succeeded=False)

    def _claim(self, urn: str, goal: Goal) -> None:
        if self.cancelled:
            raise CancelledUpdateError
        self._identity.claim(urn, goal)

    async def _register(self, urn: str, goal: Goal) -> Registered:
        if self.cancelled:
            raise CancelledUpdateError
        old, former = self._identity.find_old(urn, goal)
        new = new_state(urn, goal, old, former)
        if self._depends_on_failure(new):
            self._failed.add(urn)
            return Registered(new, succeeded=False)
        steps = await self._generator.generate(urn, goal, old, new)
        self._planner.check_steps(steps)
        for step in steps:
            if self.cancelled and step is steps[0]:
                raise CancelledUpdateError
            await self.executor.execute(step)
        settled = self.executor.news.get(urn, new)
        return Registered(settled, unknown=any(step.skipped_create for step in steps))

    def has_failed(self, urn: str) -> bool:
        """Whether the resource failed in this update, or was skipped because a dependency did."""
        return urn in self._failed

    def _depends_on_failure(self, state: State) -> bool:
        if any(urn in self._failed for urn in state.all_dependencies()):
            return True
        # In an update only a failed function, which is no dependency, leaves an input unknown.
        return self.errored and not self.dry_run and contains_unknown(state.inputs)

    async def read(self, goal: Goal, id_: str) -> Registered:
        """Look up a resource that the stack does not manage (``Resource.get``)."""
        urn = make_urn(self.stack, self.project, goal.parent, goal.type, goal.name)
        try:
            self._claim(urn, goal)
            if not id_:
                raise EngineError(f"Expected an ID for {urn}")
            old, former = self._identity.find_old(urn, goal)
            new = new_state(urn, goal, old, former)
            new.id, new.external = id_, True
            if self._depends_on_failure(new):
                self._failed.add(urn)
                return Registered(new, succeeded=False)
            self._generator.handled.add(urn)
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
        """Attach outputs to a component. After a failure, missing outputs of the stack keep their old values."""
        state = self.executor.news.get(urn)
        if state is None:
            if urn in self._failed:
                return
            raise EngineError(f"outputs were registered for {urn}, which is not a resource of this update")
        old = self._identity.olds.get(self._identity.former.get(urn, urn))
        before = old.outputs if old is not None else {}
        if self.errored and qualified_type(urn) == ROOT_STACK_TYPE:
            # The failure may be why an output is missing or unknown: it keeps its old value.
            outputs = before | {key: value for key, value in outputs.items() if not contains_unknown(value)}
        else:
            try:
                self._planner.check_outputs(urn, before, outputs)
            except PlanViolationError as error:
                self._stop_at_violation(error)
                self.report(error, urn)
                return
        state.outputs = outputs
        mark_secrets(state)
        if old is None or before != outputs:
            await self.snapshot.update(state)
        step = Step("same" if old is not None else "create", old, state)
        self._emit.outputs(step, step.op, planning=self.dry_run)
        # A component is done when it has its outputs.
        if old is None:
            await self.executor.hooks.after("Create", new=state)
        elif urn in self._generator.updated:
            await self.executor.hooks.after("Update", old=old, new=state)

    async def analyze_stack(self) -> None:
        """Let the policies analyze the stack, once all steps are done."""
        if self._policies is not None and not self.errored:
            await self._policies.analyze_stack(
                list(self.executor.news.values()), self._identity.goals, self._find_provider
            )
            self.errored = self._policies.violated

    async def provider_reference(self, explicit: str, type_: str, version: str, url: str) -> str:
        """The reference *explicit*, or that of the default provider of the type's package, registered on first use."""
        if explicit:
            return explicit
        package = package_of(type_)
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

    async def refresh(self) -> None:
        """Update the recorded state to what the providers find; what follows starts from there."""

        async def refresh_one(state: State) -> None:
            async with self._slots:
                if self.cancelled:
                    return
                try:
                    await self.executor.execute(Step("refresh", state, state))
                except StepFailedError:
                    self.errored = True

        await _all(refresh_one(state) for state in self._targets.refreshable(self._identity.base))
        self.executor.news.clear()
        self._identity.rebase(self.snapshot.resources)

    async def delete_unregistered(self) -> None:
        """Delete what the program no longer declares and what replacements left behind, dependents first."""
        await self._generator.keep_needed()
        deletable = self._targets.deletable(self._identity.base)
        steps: list[Step] = []
        for state in self._identity.base:
            if state.delete:
                if id(state) not in self._generator.deleted_early and (deletable is None or state.urn in deletable):
                    steps.append(Step("delete-replaced", state, None))
            elif state.urn not in self._generator.handled and self._identity.aliased.get(state.urn) is None:
                if deletable is not None and state.urn not in deletable:
                    continue
                if state.pending_replacement:
                    steps.append(Step("remove-pending-replace", state, None))
                else:
                    steps.append(Step("discard" if state.external else "delete", state, None))
        unasked = [step.urn for step in steps if self._targets.is_unasked(step.urn)]
        if unasked:
            error = EngineError(
                "\n".join(
                    f"Resource '{urn}' will be destroyed but was not specified in --target list." for urn in unasked
                ),
                remedy="either include the resources in the --target list or pass --target-dependents",
            )
            self.report(error)
            if not self.dry_run:
                return
        self._planner.check_steps(steps)
        self.executor.deletes.update(step.urn for step in steps)
        await self._delete(steps)

    async def _delete(self, steps: Sequence[Step]) -> None:
        """Delete in parallel, each resource after its dependents; a failed delete keeps its dependencies."""
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

    def finish_plan(self) -> None:
        """Raises :class:`PlanViolationError` where the plan has resources that the program did not register."""
        self._planner.check_complete({state.urn for state in self._identity.base})
        self._planner.note_outputs(self.executor.news.values())

    def check_targets(self) -> None:
        """Refuse targets that name nothing; raises :class:`EngineError` naming all of them."""
        self._targets.check(self._identity.goals.keys() | {state.urn for state in self._identity.base})

    def check_replace_targets(self) -> None:
        """The same for ``--replace``, before anything is done."""
        self._targets.check_replace({state.urn for state in self._identity.base})

    def check_delete_hooks(self) -> None:
        """Refuse to destroy resources with delete hooks, which need the program; raises :class:`EngineError`."""
        hooked = {state.urn: names for state in self._identity.base if (names := delete_hooks(state))}
        if hooked:
            raise EngineError(
                "\n".join(
                    f"Resource {urn} has delete hooks, and a destroy does not run the program: {', '.join(names)}"
                    for urn, names in hooked.items()
                ),
                remedy="remove the resources with hooks from the program and run `lab up`, "
                "or use `pulumi destroy --run-program`",
            )


async def _all(awaitables: Iterable[Awaitable[None]]) -> None:
    """Run in parallel; an unexpected error of one is raised after all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
