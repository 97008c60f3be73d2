"""Resource hooks: functions of the program that run before and after the steps of a resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi.runtime.proto import resource_pb2

from protocol.signatures import UNKNOWN
from protocol.values import Properties, to_wire

from .errors import EngineError
from .urn import name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.protobuf import struct_pb2

    from .events import Emitter
    from .state import State

    Invoke = Callable[[resource_pb2.ResourceHookRequest], Awaitable[resource_pb2.ResourceHookResponse]]
    InvokeOnError = Callable[[resource_pb2.ErrorHookRequest], Awaitable[resource_pb2.ErrorHookResponse]]

_FIELDS = {
    "before_create": "BeforeCreate",
    "after_create": "AfterCreate",
    "before_update": "BeforeUpdate",
    "after_update": "AfterUpdate",
    "before_delete": "BeforeDelete",
    "after_delete": "AfterDelete",
    "on_error": "OnError",
}
"""Field of a registration -> key of the checkpoint."""
MAX_RETRIES = 100
"""Retries of one step that error hooks can ask for."""


@dataclass(frozen=True)
class _Hook:
    invoke: Invoke
    on_dry_run: bool
    ignore_errors: bool


class Hooks:
    """The hooks that the program has registered."""

    def __init__(self, emitter: Emitter, *, dry_run: bool) -> None:
        self._emit = emitter
        self._dry_run = dry_run
        self._hooks: dict[str, _Hook] = {}
        self._error_hooks: dict[str, InvokeOnError] = {}
        self.failed = False
        """Whether a hook failed after its step: the step is done, but the operation fails."""

    def __bool__(self) -> bool:
        return bool(self._hooks or self._error_hooks)

    def register(self, request: resource_pb2.RegisterResourceHookRequest, invoke: Invoke) -> None:
        """Register a hook; raises :class:`EngineError` for one without a name, or with a name in use."""
        self._check_name(request.name)
        self._hooks[request.name] = _Hook(invoke, request.on_dry_run, request.ignore_errors)

    def register_error_hook(self, name: str, invoke: InvokeOnError) -> None:
        """Register an error hook; raises :class:`EngineError` for one without a name, or with a name in use."""
        self._check_name(name)
        self._error_hooks[name] = invoke

    def _check_name(self, name: str) -> None:
        if not name:
            raise EngineError("a resource hook needs a name")
        if name in self._hooks or name in self._error_hooks:
            raise EngineError(f"resource hook already registered for name {name!r}")

    async def before(self, operation: str, *, old: State | None = None, new: State | None = None) -> None:
        """Run the hooks before ``Create``, ``Update`` or ``Delete``; raises :class:`EngineError` where one fails."""
        await self._run(f"Before{operation}", old, new)

    async def after(self, operation: str, *, old: State | None = None, new: State | None = None) -> None:
        """Run the hooks after a step. A failure is reported and sets :attr:`failed`."""
        try:
            await self._run(f"After{operation}", old, new)
        except EngineError as error:
            self.failed = True
            state = new if new is not None else old
            self._emit.diagnostic("error", str(error), state.urn if state is not None else "")

    async def wants_retry(
        self, operation: str, errors: Sequence[str], *, old: State | None = None, new: State | None = None
    ) -> bool:
        """Whether an error hook wants a failed ``create``, ``update`` or ``delete`` to be tried again.

        ``errors``: of all attempts, the newest first. A hook that fails is reported, and decides nothing; so does one
        that the program no longer registers.
        """
        state = new if new is not None else old
        if state is None:
            raise AssertionError
        if self._dry_run or len(errors) > MAX_RETRIES:
            return False
        wanted = False
        for name in state.resource_hooks.get("OnError", ()):
            invoke = self._error_hooks.get(name)
            if invoke is None:
                continue
            response = await invoke(
                resource_pb2.ErrorHookRequest(
                    urn=state.urn,
                    id="" if state.id == UNKNOWN else state.id,
                    name=name_of(state.urn),
                    type=state.type,
                    new_inputs=_wire(new.inputs if new is not None else None),
                    old_inputs=_wire(old.inputs if old is not None else None),
                    old_outputs=_wire(old.outputs if old is not None else None),
                    failed_operation=operation,
                    errors=errors,
                )
            )
            if response.error:
                self._emit.diagnostic("warning", f"error hook {name!r} failed: {response.error}", state.urn)
            wanted |= response.retry
        return wanted

    async def _run(self, kind: str, old: State | None, new: State | None) -> None:
        state = new if new is not None else old
        if state is None:
            raise AssertionError
        after = kind.startswith("After")
        for name in state.resource_hooks.get(kind, ()):
            hook = self._hooks.get(name)
            if hook is None:
                raise EngineError(f"hook {name!r} was not registered")
            if self._dry_run and not hook.on_dry_run:
                continue
            response = await hook.invoke(
                resource_pb2.ResourceHookRequest(
                    urn=state.urn,
                    id="" if state.id == UNKNOWN else state.id,
                    name=name_of(state.urn),
                    type=state.type,
                    new_inputs=_wire(new.inputs if new is not None else None),
                    old_inputs=_wire(old.inputs if old is not None else None),
                    new_outputs=_wire(new.outputs if new is not None and after else None),
                    old_outputs=_wire(old.outputs if old is not None else None),
                )
            )
            if not response.error:
                continue
            if hook.ignore_errors:
                self._emit.diagnostic("warning", f"{kind} hook {name!r} failed: {response.error}", state.urn)
                continue
            raise EngineError(f"{'after' if after else 'before'} hook {name!r} failed: {response.error}")


def bindings(request: resource_pb2.RegisterResourceRequest.ResourceHooksBinding) -> dict[str, list[str]]:
    """The names of a resource's hooks, as the checkpoint keeps them."""
    found = {key: list(getattr(request, field)) for field, key in _FIELDS.items()}
    return {key: names for key, names in found.items() if names}


def delete_hooks(state: State) -> list[str]:
    """The names of the hooks that deleting a resource runs."""
    return [name for kind in ("BeforeDelete", "AfterDelete") for name in state.resource_hooks.get(kind, ())]


def _wire(properties: Properties | None) -> struct_pb2.Struct | None:
    return None if properties is None else to_wire(properties)
