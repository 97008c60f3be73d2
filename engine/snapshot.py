"""The stack's state while an update runs: what it was, what became of it, and the journal of every step.

A checkpoint is a list of resources in which each comes after those it depends on. While an update runs, the engine
keeps the list it began with (the *base*) and a list of the states it has produced, in the order they were produced;
a base state is crossed out when its successor is recorded. What is left of both is the stack's state at any moment.

Each change is one journal entry, durable before the next provider call that depends on it, so that a run which is cut
off at any point leaves a checkpoint and a journal from which :func:`replay` makes the state of that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .errors import EngineError, UnknownOutcomeError
from .state import Codec, State, now
from .urn import split_reference

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from .secrets import SecretsManager
    from .state import Json

Operation = Literal["creating", "updating", "deleting", "reading", "importing"]


class JournalWriter(Protocol):
    """Where entries go; :meth:`append` resolves when the entry is durable."""

    def append(self, entry: dict[str, Any]) -> concurrent.futures.Future[None]: ...


@dataclass
class Pending:
    """An operation that an interrupted run began and did not see the end of."""

    state: State
    operation: Operation


class Snapshot:
    """The base of an update and all that the update has done to it."""

    def __init__(
        self, base: Sequence[State], pending: Sequence[Pending], codec: Codec, journal: JournalWriter | None
    ) -> None:
        self._base = list(base)
        self.interrupted = list(pending)
        """Operations that an earlier run left unfinished and this one has not settled."""
        self._codec = codec
        self._journal = journal
        self._references = {id(state): f"b{index}" for index, state in enumerate(self._base)}
        self._added: list[State] = []
        self._done: set[int] = set()
        self._pending: dict[int, Pending] = {}
        self._sequence = 0

    @property
    def resources(self) -> list[State]:
        """The stack's resources as of now, dependencies first."""
        return [state for state in (*self._added, *self._base) if id(state) not in self._done]

    @property
    def pending(self) -> list[Pending]:
        """Operations that have begun and not ended, with those an earlier run left."""
        return [*self.interrupted, *self._pending.values()]

    async def begin(self, operation: Operation, state: State) -> int:
        """Record that an operation is about to be asked of a provider; returns its key for :meth:`end`."""
        self._sequence += 1
        key = self._sequence
        self._pending[key] = Pending(state, operation)
        if self._journal:
            await self._write({"t": "begin", "k": key, "op": operation, "r": self._codec.encode(state)})
        return key

    @contextlib.asynccontextmanager
    async def operation(self, operation: Operation, state: State) -> AsyncIterator[int]:
        """Ask a provider for something inside: a refusal is recorded as the end, success is for :meth:`end` to record.

        Whatever else cuts the inside off leaves the operation pending, for the next run to find out what became of it;
        so does a create whose outcome its provider does not know.
        """
        key = await self.begin(operation, state)
        try:
            yield key
        except EngineError as error:
            if operation != "creating" or not isinstance(error, UnknownOutcomeError):
                await self.end(key)
            raise

    async def end(
        self,
        key: int | None = None,
        *,
        done: Iterable[State] = (),
        add: State | None = None,
        changed: Iterable[State] = (),
    ) -> None:
        """Record how an operation ended: states crossed out, a state added, states changed in place."""
        if key is not None:
            del self._pending[key]
        gone = list(done)
        self._done.update(id(state) for state in gone)
        entry: Json = {"t": "end"}
        if key is not None:
            entry["k"] = key
        if gone:
            entry["done"] = [self._references[id(state)] for state in gone]
        if add is not None:
            entry["add"] = [self._add(add), self._codec.encode(add)] if self._journal else self._add(add)
        if self._journal:
            altered = [
                [self._references[id(state)], self._codec.encode(state)]
                for state in changed
                if id(state) in self._references
            ]
            if altered:
                entry["set"] = altered
            await self._write(entry)

    def keep(self, old: State, new: State) -> None:
        """Record that a resource stays as it is, under a new state object; nothing waits for it to be durable."""
        self._done.add(id(old))
        self._add(new)
        if self._journal:
            same = all(getattr(old, item.name) == getattr(new, item.name) for item in fields(State))
            entry: Json = {"t": "keep", "done": self._references[id(old)], "as": self._references[id(new)]}
            if not same:
                entry["r"] = self._codec.encode(new)
            self._journal.append(entry)

    async def settle(self, pending: Pending, *, done: Iterable[State] = (), add: State | None = None) -> None:
        """Record what became of an operation that an earlier run left unfinished."""
        index = self.interrupted.index(pending)
        self.interrupted.pop(index)
        gone = list(done)
        self._done.update(id(state) for state in gone)
        entry: Json = {"t": "settle", "index": index, "done": [self._references[id(state)] for state in gone]}
        if add is not None:
            entry["add"] = [self._add(add), self._codec.encode(add)]
        if self._journal:
            await self._write(entry)

    async def update(self, state: State) -> None:
        """Record that a state was changed in place (the outputs of a component)."""
        if self._journal and id(state) in self._references:
            await self._write({"t": "set", "r": [[self._references[id(state)], self._codec.encode(state)]]})

    def _add(self, state: State) -> str:
        reference = self._references[id(state)] = f"n{len(self._added)}"
        self._added.append(state)
        return reference

    async def _write(self, entry: Json) -> None:
        if self._journal:
            await asyncio.wrap_future(self._journal.append(entry))

    def checkpoint(self, secrets: SecretsManager, plugins: Sequence[Json] = ()) -> Json:
        """The whole as an untyped version-3 deployment, as the Pulumi CLI writes it."""
        resources = self.resources
        _follow_aliases(resources)
        return make_deployment(
            [self._codec.encode(state) for state in resources],
            [{"resource": self._codec.encode(op.state), "type": op.operation} for op in self.pending],
            {"type": secrets.type, "state": secrets.state()},
            plugins,
        )


def _follow_aliases(resources: Sequence[State]) -> None:
    """Point every reference to a resource's former URN to its present one."""
    renamed = {alias: state.urn for state in resources for alias in state.aliases if alias != state.urn}
    for state in resources:
        state.aliases = []
    if not renamed:
        return

    def current(urn: str) -> str:
        return renamed.get(urn, urn)

    for state in resources:
        state.parent = current(state.parent)
        state.deleted_with = current(state.deleted_with)
        state.replace_with = [current(urn) for urn in state.replace_with]
        state.dependencies = [current(urn) for urn in state.dependencies]
        state.property_dependencies = {
            key: [current(urn) for urn in urns] for key, urns in state.property_dependencies.items()
        }
        if state.provider:
            urn, id_ = split_reference(state.provider)
            state.provider = f"{current(urn)}::{id_}"


def make_deployment(
    resources: list[Json], pending: list[Json], secrets_provider: Json, plugins: Sequence[Json] = ()
) -> Json:
    """An untyped deployment with a manifest of this engine."""
    version = f"v{importlib.metadata.version('pulumi')}"
    manifest: Json = {"time": now(), "magic": hashlib.sha256(version.encode()).hexdigest(), "version": version}
    if plugins:
        manifest["plugins"] = list(plugins)
    deployment: Json = {"manifest": manifest, "secrets_providers": secrets_provider}
    if resources:
        deployment["resources"] = resources
    if pending:
        deployment["pending_operations"] = pending
    deployment["metadata"] = {}
    return {"version": 3, "deployment": deployment}


def header(secrets: SecretsManager) -> Json:
    """The first entry of a journal: what a checkpoint without resources does not say."""
    return {"t": "base", "secrets_providers": {"type": secrets.type, "state": secrets.state()}}


def load(deployment: Mapping[str, Any], codec: Codec) -> tuple[list[State], list[Pending]]:
    """The resources and the unfinished operations of a deployment."""
    inner = deployment.get("deployment") or {}
    resources = [codec.decode(record) for record in inner.get("resources") or []]
    pending = [
        Pending(codec.decode(record["resource"]), record["type"]) for record in inner.get("pending_operations") or []
    ]
    return resources, pending


def replay(deployment: Json, entries: Sequence[Json]) -> Json:
    """Apply the journal of an interrupted update to the checkpoint it started from."""
    if not entries:
        return deployment
    inner = deployment.get("deployment") or {}
    base: list[Json] = inner.get("resources") or []
    records: dict[str, Json] = {f"b{index}": record for index, record in enumerate(base)}
    interrupted: list[Json] = list(inner.get("pending_operations") or [])
    begun: dict[int, Json] = {}
    added: list[str] = []
    done: set[str] = set()

    def add(reference: str, record: Json) -> None:
        records[reference] = record
        added.append(reference)

    for entry in entries[1:]:
        match entry["t"]:
            case "begin":
                begun[entry["k"]] = {"resource": entry["r"], "type": entry["op"]}
            case "end":
                begun.pop(entry.get("k", 0), None)
                done.update(entry.get("done", ()))
                if "add" in entry:
                    add(*entry["add"])
                records.update(entry.get("set", ()))
            case "keep":
                done.add(entry["done"])
                add(entry["as"], entry.get("r") or records[entry["done"]])
            case "settle":
                interrupted.pop(entry["index"])
                done.update(entry["done"])
                if "add" in entry:
                    add(*entry["add"])
            case "set":
                records.update(entry["r"])
    order = [*added, *(f"b{index}" for index in range(len(base)))]
    resources = [records[reference] for reference in order if reference not in done]
    return make_deployment(
        resources,
        [*interrupted, *begun.values()],
        inner.get("secrets_providers") or entries[0]["secrets_providers"],
        (inner.get("manifest") or {}).get("plugins") or (),
    )
