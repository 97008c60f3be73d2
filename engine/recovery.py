"""What became of the operations that an interrupted run left unfinished."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING

from protocol.recovery import may_still_appear

from .errors import EngineError
from .executor import is_dynamic_that_recovers, mark_secrets
from .plugins import DYNAMIC_PACKAGE, Provider, ReadResult
from .state import now
from .urn import split_reference

if TYPE_CHECKING:
    from .events import Emitter
    from .executor import Executor
    from .identity import Identity
    from .snapshot import Pending, Snapshot
    from .state import State


class Recovery:
    """Resolves the pending operations that an update begins with."""

    def __init__(self, snapshot: Snapshot, identity: Identity, executor: Executor, emitter: Emitter) -> None:
        self._snapshot = snapshot
        self._identity = identity
        self._executor = executor
        self._emit = emitter
        self._warned: set[str] = set()

    async def resolve(self) -> None:
        """Find out what became of the operations that an interrupted run left unfinished.

        A create may have made a resource that no state has: a provider that can look it up is asked, and what it finds
        joins the state. A delete may have succeeded: the resource is read again. The next diff deals with updates.
        """
        for pending in list(self._snapshot.interrupted):
            try:
                if pending.operation == "creating":
                    await self._resolve_create(pending)
                elif pending.operation == "deleting":
                    await self._resolve_delete(pending)
                else:
                    await self._snapshot.resolve(pending)
            except EngineError as error:
                self._warn(pending, str(error))
        self._identity.rebase(self._snapshot.resources)

    async def forget(self) -> None:
        """Drop the operations that are still unresolved, as a refresh does."""
        for pending in list(self._snapshot.interrupted):
            await self._snapshot.resolve(pending)

    async def _resolve_create(self, pending: Pending) -> None:
        state = pending.state
        if not state.custom or state.is_provider:
            await self._snapshot.resolve(pending)
            return
        urn = split_reference(state.provider)[0]
        successor = next((other for other in self._snapshot.resources if other.urn == urn), None)
        if successor is None:
            self._warn(pending, "its provider is not in the state any more")
            return
        if self._identity.find_provider(state.provider) is None:
            state.provider = f"{urn}::{successor.id}"
        provider = await self._executor.ensure_provider(state)
        if not isinstance(provider, Provider) or not (provider.recovers or is_dynamic_that_recovers(provider, state)):
            self._warn(pending, "its provider cannot look for a resource without its ID")
            return
        found = await self._look_up(provider, state)
        known = {(other.type, other.provider, other.id) for other in self._snapshot.resources}
        if not found.id or (state.type, state.provider, found.id) in known:
            await self._snapshot.resolve(pending)
            return
        state.id, state.outputs, state.init_errors = found.id, found.outputs, found.init_errors
        if found.inputs is not None:
            # What is missing from a half-made resource has to differ from what the program asks for.
            state.inputs = found.inputs
        state.created = state.modified = now()
        mark_secrets(state)
        current = self._identity.olds.get(state.urn)
        replaced = current is not None and current.pending_replacement
        if current is not None and not replaced:
            current.delete = True
            await self._snapshot.update(current)
        await self._snapshot.resolve(pending, done=[current] if current is not None and replaced else [], add=state)
        self._emit.diagnostic("info", f"found the resource that an interrupted create had made ({state.id})", state.urn)

    async def _look_up(self, provider: Provider, state: State) -> ReadResult:
        """What an interrupted create has made; plugins wait for a late effect of it themselves."""
        began = datetime.fromisoformat(state.created) if state.created else None
        asked = time.monotonic()
        others = [other.id for other in self._snapshot.resources if other.type == state.type and other.id]
        found = await provider.read(state.urn, "", state.inputs, None, began=state.created, others=others)
        waits = provider.package == DYNAMIC_PACKAGE
        while waits and not found.id and may_still_appear(began, time.monotonic() - asked):
            await asyncio.sleep(1)
            asked = time.monotonic()
            found = await provider.read(state.urn, "", state.inputs, None)
        return found

    async def _resolve_delete(self, pending: Pending) -> None:
        urn, id_ = pending.state.urn, pending.state.id
        current = next((state for state in self._snapshot.resources if state.urn == urn and state.id == id_), None)
        gone = False
        if current is not None and current.custom and not current.is_provider:
            provider = await self._executor.ensure_provider(current)
            if provider is not None:
                found = await provider.read(current.urn, current.id, current.inputs, current.outputs)
                gone = not found.id
        if gone and current is not None and not current.delete and self._snapshot.refers_to(current):
            # It was deleted before its replacement: it keeps its place in the state, as after a recorded delete.
            current.pending_replacement = True
            await self._snapshot.update(current)
            gone = False
        await self._snapshot.resolve(pending, done=[current] if gone and current is not None else [])

    def _warn(self, pending: Pending, reason: str) -> None:
        """Warn once for each resource."""
        urn = pending.state.urn
        if urn in self._warned:
            return
        self._warned.add(urn)
        self._emit.diagnostic(
            "warning",
            f"an earlier run was interrupted while {pending.operation} this resource, and its outcome is unknown: "
            f"{reason}\nLook for the resource in the cloud: `lab sweep` lists what a stack has left there. "
            "`lab refresh` forgets the interrupted operation",
            urn,
        )
