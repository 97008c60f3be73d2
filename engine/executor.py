"""Executes steps: emit an event, call the provider, record the outcome, emit the result."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

from protocol.signatures import UNKNOWN
from protocol.values import Properties, is_secret, secret

from .diff import Diff, compare, inverted
from .errors import EngineError, UnknownOutcomeError
from .events import Emitter, Step, mask
from .hooks import Hooks
from .paths import parse_path, reset
from .plugins import DYNAMIC_PACKAGE, DiffUnavailableError, PartialFailureError, Provider, ProviderError
from .registry import is_same_configuration
from .state import State, now
from .urn import package_of
from .values import conceal, cover_secrets, reveal, reveal_properties, secret_texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from .builtin import BuiltinProvider
    from .registry import ProviderRegistry
    from .snapshot import Snapshot


T = TypeVar("T")


class StepFailedError(Exception):
    """A step failed and has been reported."""


class Executor:
    """Executes the steps of one operation, in the order of the calls."""

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        registry: ProviderRegistry,
        emitter: Emitter,
        dry_run: bool,
        find_provider: Callable[[str], State | None],
        known_secrets: Iterable[str],
        unprotected: Collection[str] = (),
    ) -> None:
        self.snapshot = snapshot
        self.registry = registry
        self.dry_run = dry_run
        self.changes: dict[str, int] = {}
        """How many resources had each operation."""
        self.news: dict[str, State] = {}
        """The new state of each resource."""
        self.deletes: set[str] = set()
        """Resources that this operation deletes: resources with ``deletedWith`` of one need no delete of their own."""
        self.hooks = Hooks(emitter, dry_run=dry_run)
        self._emit = emitter
        self._find_provider = find_provider
        self._secrets = set(known_secrets)
        self._unprotected = frozenset(unprotected)
        self._steps_run = 0

    async def execute(self, step: Step) -> None:
        """Execute one step. Raises :class:`StepFailedError` when it failed, after reporting the error."""
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
            case "import" | "import-replacement":
                await self._apply_import(step)
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
        new.import_id = new.import_id or step.old.import_id
        mark_secrets(new)
        if fresh := secret_texts(new.inputs) - secret_texts(step.old.inputs):
            # The provider knows a value that only became secret in plain text, and returned it so.
            new.outputs = {key: conceal(value, fresh) for key, value in new.outputs.items()}
        if new.is_provider and new.id:
            await self.registry.serve(new.urn, new.id, step.old.inputs)
        self.snapshot.record_same(step.old, new)

    async def _apply_create(self, step: Step) -> None:
        old, new = step.old, _required(step.new)
        await self.hooks.before("Create", new=new)
        new.created = now()  # if this run is interrupted, the next one looks for resources created since
        failure: PartialFailureError | None = None
        async with self.snapshot.operation("creating", new) as key:
            try:
                if new.is_provider:
                    new.id, new.outputs = await self.registry.create(new.urn, new.inputs), dict(new.inputs)
                elif new.custom:
                    provider = self.registry.get(new.provider)
                    new.id, new.outputs = (
                        await self._retry(
                            "create",
                            lambda: self._create(provider, new),
                            new=new,
                        )
                        if provider.configured
                        else ("", {})
                    )
            except PartialFailureError as error:
                failure = error
                new.id, new.outputs, new.init_errors = error.id, error.outputs, error.reasons
        new.created = new.modified = now()
        mark_secrets(new)
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
        if new.custom:
            await self.hooks.after("Create", new=new)

    async def _create(self, provider: Provider | BuiltinProvider, new: State) -> tuple[str, Properties]:
        try:
            return await provider.create(
                new.urn, new.inputs, new.custom_timeouts.get("create", 0), preview=self.dry_run
            )
        except (PartialFailureError, UnknownOutcomeError):
            raise
        except EngineError as error:
            if self.dry_run or not isinstance(provider, Provider) or not is_dynamic_that_recovers(provider, new):
                raise
            # The SDK's server cannot say whether the failed create made something.
            try:
                found = await provider.read(new.urn, "", new.inputs, None, began=new.created)
            except EngineError:
                raise UnknownOutcomeError(str(error), remedy=error.remedy) from error
            if not found.id:
                raise
            raise PartialFailureError([str(error)], found.id, found.outputs, found.inputs) from error

    async def _apply_update(self, step: Step) -> None:
        old, new = _required(step.old), _required(step.new)
        new.id = old.id
        new.import_id = new.import_id or old.import_id
        await self.hooks.before("Update", old=old, new=new)
        failure: PartialFailureError | None = None
        async with self.snapshot.operation("updating", new) as key:
            try:
                if new.is_provider:
                    await self.registry.serve(new.urn, new.id, new.inputs)
                    new.outputs = dict(new.inputs)
                elif new.custom:
                    provider = self.registry.get(new.provider)
                    new.outputs = (
                        await self._retry(
                            "update",
                            lambda: provider.update(
                                new.urn,
                                new.id,
                                old_inputs=old.inputs,
                                old_outputs=old.outputs,
                                news=new.inputs,
                                timeout=new.custom_timeouts.get("update", 0),
                                ignore_changes=new.ignore_changes,
                                preview=self.dry_run,
                            ),
                            old=old,
                            new=new,
                        )
                        if provider.configured
                        else {}
                    )
                else:
                    new.outputs = old.outputs
            except PartialFailureError as error:
                failure = error
                new.outputs, new.init_errors = error.outputs, error.reasons
        new.modified = now()
        mark_secrets(new)
        await self.snapshot.end(key, done=[old], add=new)
        if failure is not None:
            self.news[new.urn] = new
            raise failure
        if new.custom:
            await self.hooks.after("Update", old=old, new=new)

    async def _apply_delete(self, step: Step) -> None:
        old = _required(step.old)
        if step.op.startswith("discard"):
            await self._delete(step, old)
            return
        await self.hooks.before("Delete", old=old)
        await self._delete(step, old)
        await self.hooks.after("Delete", old=old)

    async def _delete(self, step: Step, old: State) -> None:
        replacing = step.op == "delete-replaced"
        if old.protect and not replacing and old.urn not in self._unprotected:
            raise EngineError(
                f"resource {old.urn!r} cannot be deleted\nbecause it is protected. To unprotect the resource, remove "
                "the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
            )
        if self.dry_run:
            if step.pending_replacement:
                old.pending_replacement = True
            return
        kept = (
            old.external
            or old.retain_on_delete
            or (old.deleted_with and old.deleted_with in self.deletes)
            or self._is_kept_by_another(old)
        )
        async with self.snapshot.operation("deleting", old) as key:
            if old.custom and not kept and not old.is_provider:
                provider = await self.ensure_provider(old)
                if provider is not None:
                    timeout = old.custom_timeouts.get("delete", 0)
                    await self._retry(
                        "delete",
                        lambda: provider.delete(old.urn, old.id, old.inputs, old.outputs, timeout),
                        old=old,
                    )
        if step.pending_replacement:
            old.pending_replacement = True
            await self.snapshot.end(key, changed=[old])
        else:
            await self.snapshot.end(key, done=[old])

    async def _retry(
        self,
        operation: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        old: State | None = None,
        new: State | None = None,
    ) -> T:
        """Try a step, again and again where it certainly has done nothing and an error hook asks for it."""
        errors: list[str] = []
        while True:
            try:
                return await attempt()
            except (PartialFailureError, UnknownOutcomeError):
                raise
            except EngineError as error:
                errors.insert(0, str(error))
                if not await self.hooks.wants_retry(operation, errors, old=old, new=new):
                    raise
                urn = new.urn if new is not None else _required(old).urn
                message = f"the {operation} failed, and a hook asks for another attempt: {error}"
                self._emit.diagnostic("warning", mask(message, self._secrets), urn)

    def _is_kept_by_another(self, old: State) -> bool:
        """Whether another resource of the state is the same object, imported by its ID."""
        return any(
            (old.import_id or other.import_id)
            and not (other.delete or other.external or other.pending_replacement)
            and self._is_same_provider(old.provider, other.provider)
            for other in self.snapshot.others_of(old)
        )

    def _is_same_provider(self, left: str, right: str) -> bool:
        """Whether two references name one provider, or two with the same configuration."""
        if left == right:
            return True
        one, other = self._find_provider(left), self._find_provider(right)
        return one is not None and other is not None and is_same_configuration(one.inputs, other.inputs)

    async def _apply_read(self, step: Step) -> None:
        old, new = step.old, _required(step.new)
        async with self.snapshot.operation("reading", new) as key:
            if new.id == UNKNOWN:
                new.outputs = {}
            else:
                provider = self.registry.get(new.provider)
                found = await provider.read(new.urn, new.id, new.inputs, new.inputs, new.custom_timeouts.get("read", 0))
                if not found.id:
                    raise ProviderError(f"resource '{new.id}' does not exist")
                new.id, new.outputs, new.init_errors = found.id, found.outputs, found.init_errors
        mark_secrets(new)
        if old is not None:
            new.created, new.modified = old.created, old.modified
            if (old.inputs, old.outputs) != (new.inputs, new.outputs):
                new.modified = now()
        if step.op == "read-replacement" and old is not None and old.id != new.id:
            old.delete = True
            await self.snapshot.end(key, add=new, changed=[old])
        else:
            await self.snapshot.end(key, done=[old] if old is not None else [], add=new)

    async def _apply_refresh(self, step: Step) -> str:
        old = _required(step.old)
        step.new = old
        if not old.custom or old.is_provider or old.pending_replacement:
            return "same"
        provider = await self.ensure_provider(old)
        if provider is None:
            return "same"
        found = await provider.read(old.urn, old.id, old.inputs, old.outputs, old.custom_timeouts.get("read", 0))
        if not found.id:
            step.new = None
            await self.snapshot.forget(old)
            return "delete"
        if found.init_errors:
            listed = "\n* ".join(found.init_errors)
            self._emit.diagnostic("warning", f"Refreshed resource is in an unhealthy state:\n* {listed}", old.urn)
        new = old.copy(id=found.id, outputs=found.outputs, init_errors=found.init_errors)
        if found.inputs is not None:
            new.inputs = found.inputs
        mark_secrets(new)
        if (new.inputs, new.outputs) != (old.inputs, old.outputs):
            new.modified = now()
        step.new = new
        if old.external:
            changed = new.outputs != old.outputs
        else:
            diff = await self.diff_inputs(provider, new, new.inputs, old.inputs, old.ignore_changes)
            step.detailed, step.diffs, changed = inverted(diff.detailed), diff.changed_keys, diff.changed
        await self.snapshot.replace(old, new)
        return "update" if changed else "same"

    async def _apply_import(self, step: Step) -> None:
        """Adopt an existing resource by its ID; what is read becomes the resource's recorded state."""
        old, new = step.old, _required(step.new)
        async with self.snapshot.operation("importing", new) as key:
            found = await self.registry.get(new.provider).read(new.urn, new.import_id, None, None)
            if not found.id:
                raise ProviderError(f"resource '{new.import_id}' does not exist")
            if found.inputs is None:
                raise ProviderError(f"the {package_of(new.type)} provider does not support importing resources")
        new.id, new.inputs, new.outputs = found.id, found.inputs, found.outputs
        new.created = new.modified = now()
        mark_secrets(new)
        if old is not None:
            old.delete = True
        await self.snapshot.end(key, add=new, changed=[old] if old is not None else [])

    async def ensure_provider(self, state: State) -> Provider | BuiltinProvider | None:
        if not state.provider:
            return None
        return await self.registry.ensure(state.provider, self._find_provider)

    async def diff_inputs(
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
            compared = self.ignore_changes(old.urn, news, old_inputs, ignore_changes)
            own = compare(reveal_properties(old_inputs), reveal_properties(compared))
            diff.known, diff.changed = True, own.changed
            diff.changed_keys, diff.detailed = own.changed_keys, diff.detailed or own.detailed
        return diff

    def ignore_changes(self, urn: str, news: Properties, olds: Properties, paths: Sequence[str]) -> Properties:
        if not paths:
            return news
        result = copy.deepcopy(news)
        unmatched = [text for text in paths if not reset(parse_path(text), olds, result)]
        if unmatched:
            listed = ", ".join(unmatched)
            message = f"cannot ignore changes in added or removed elements of the path: {listed!r}"
            self._emit.diagnostic("info", message, urn)
        return result

    def report(self, error: EngineError, urn: str = "") -> None:
        """Show an error, with secrets masked."""
        message = mask(str(error), self._secrets)
        if error.remedy:
            message += f"\n{error.remedy[0].upper()}{error.remedy[1:]}"
        self._emit.diagnostic("error", message, urn)


def is_dynamic_that_recovers(provider: Provider, state: State) -> bool:
    """Whether a dynamic resource has the input ``__recovers``: its ``read`` without an ID looks it up.

    The SDK's server of dynamic providers cannot announce that for them.
    """
    return provider.package == DYNAMIC_PACKAGE and reveal(state.inputs.get("__recovers")) is True


def _is_silent_read(step: Step) -> bool:
    """Whether a read found what it had found before; it is not counted then."""
    if step.op != "read" or step.old is None or step.new is None:
        return False
    return (step.old.inputs, step.old.outputs) == (step.new.inputs, step.new.outputs)


def _required(state: State | None) -> State:
    if state is None:
        raise AssertionError
    return state


def mark_secrets(state: State) -> None:
    """Mark outputs as secret: those of secret inputs, and those that the program lists."""
    state.outputs = {
        key: secret(reveal(value))
        if key in state.additional_secret_outputs and not is_secret(value)
        else cover_secrets(value, state.inputs.get(key))
        for key, value in state.outputs.items()
    }
