"""The stack's state while an update runs, and the journal of its changes.

A checkpoint is a list of resources in which each comes after those it depends on. While an update runs, the engine
keeps the list it began with (the *base*) and a list of the states it has produced, in the order they were produced;
a base state is done when its successor is recorded. The remaining states of both lists are the stack's state at any
moment.
A refresh keeps the order: it replaces states in place.

Each change is one journal entry, durable before the next provider call that depends on it. So from the checkpoint and
the journal of an interrupted run, :func:`replay` makes the state at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

from . import integrity
from .errors import EngineError, UnknownOutcomeError
from .state import Codec, State, now, outline
from .values import equal

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from .secrets import SecretsManager
    from .state import Json

Operation = Literal["creating", "updating", "deleting", "reading", "importing"]


class JournalWriter(Protocol):
    """Writes journal entries; the future of :meth:`append` resolves when the entry is durable."""

    def append(self, entry: dict[str, Any]) -> concurrent.futures.Future[None]: ...


@dataclass
class Pending:
    """A pending operation: begun by an interrupted run, with an unknown outcome."""

    state: State
    operation: Operation


class Snapshot:
    """The base of an update and the update's changes."""

    def __init__(
        self, base: Sequence[State], pending: Sequence[Pending], codec: Codec, journal: JournalWriter | None
    ) -> None:
        self._base = list(base)
        self.interrupted = list(pending)
        """Pending operations of an earlier run that this one has not resolved."""
        self._codec = codec
        self._journal = journal
        self._references = {id(state): f"b{index}" for index, state in enumerate(self._base)}
        self._by_id: dict[str, list[State]] = {}
        for state in self._base:
            self._by_id.setdefault(state.id, []).append(state)
        self._added: list[State] = []
        self._replaced: list[State] = []
        """Kept alive, because references use the identity of states."""
        self._done: set[int] = set()
        self._gone: set[str] = set()
        self._pending: dict[int, Pending] = {}
        self._sequence = 0
        self.changed = bool(self.interrupted)
        """Whether the state is another one than at the start, or would be after the update that is previewed."""
        self._check = journal is not None and integrity.checks_every_step()

    @property
    def resources(self) -> list[State]:
        """The stack's resources as of now, dependencies first."""
        left = list(self._remaining())
        return [left[index] for index in integrity.in_order([outline(state) for state in left])]

    def _remaining(self) -> Iterator[State]:
        return (state for state in (*self._added, *self._base) if id(state) not in self._done)

    def others_of(self, state: State) -> list[State]:
        """The other states of resources with the type and the ID of this one."""
        same_id = self._by_id.get(state.id, ()) if state.id else ()
        return [
            other
            for other in same_id
            if other is not state and other.type == state.type and id(other) not in self._done
        ]

    @property
    def pending(self) -> list[Pending]:
        """Pending operations of this run and of an earlier one."""
        return [*self.interrupted, *self._pending.values()]

    async def begin(self, operation: Operation, state: State) -> int:
        """Record that an operation begins; returns its key for :meth:`end`."""
        self.changed = True
        self._sequence += 1
        key = self._sequence
        self._pending[key] = Pending(state, operation)
        if self._journal:
            await self._write({"t": "begin", "k": key, "op": operation, "r": self._codec.encode(state)})
        return key

    @contextlib.asynccontextmanager
    async def operation(self, operation: Operation, state: State) -> AsyncIterator[int]:
        """A provider call: a failure is recorded as its end; the caller records success by :meth:`end`.

        Any other interruption leaves the operation pending, for the next run to resolve; so does a create whose outcome
        the provider does not know.
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
        """Record how an operation ended: states that are done, a state added, states changed in place."""
        self.changed = True
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

    async def replace(self, old: State, new: State) -> None:
        """Record that a refresh found a resource changed: the new state takes the place of the old one."""
        self.changed = True
        for urn in self._gone:
            new.drop(urn)
        reference = self._references[id(new)] = f"n{len(self._references)}"
        place = self._added if old in self._added else self._base
        place[place.index(old)] = new
        self._replaced.append(old)
        self._by_id[old.id].remove(old)
        self._by_id.setdefault(new.id, []).append(new)
        if self._journal:
            record = self._codec.encode(new)
            await self._write({"t": "replace", "done": self._references[id(old)], "add": [reference, record]})

    async def forget(self, gone: State) -> None:
        """Record that a refresh found a resource deleted: it leaves the state, with all references to it."""
        self._done.add(id(gone))
        left = list(self._remaining())
        changed: list[State] = []
        if not any(state.urn == gone.urn for state in left):
            self._gone.add(gone.urn)
            changed = [state for state in left if state.drop(gone.urn)]
        await self.end(done=[gone], changed=changed)

    def refers_to(self, state: State) -> bool:
        """Whether another resource refers to this one."""
        others = (outline(other) for other in self._remaining() if other is not state)
        return any(urn == state.urn for other in others for _, urn in integrity.references(other))

    def record_same(self, old: State, new: State) -> None:
        """Record that a resource stays as it is, under a new state object; does not wait for durability."""
        self._done.add(id(old))
        self._add(new)
        same = all(equal(getattr(old, item.name), getattr(new, item.name)) for item in fields(State))
        self.changed |= not same
        if self._journal:
            entry: Json = {"t": "keep", "done": self._references[id(old)], "as": self._references[id(new)]}
            if not same:
                entry["r"] = self._codec.encode(new)
            self._journal.append(entry)

    async def resolve(self, pending: Pending, *, done: Iterable[State] = (), add: State | None = None) -> None:
        """Record the outcome of a pending operation of an earlier run."""
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
        self.changed = True
        if self._journal and id(state) in self._references:
            await self._write({"t": "set", "r": [[self._references[id(state)], self._codec.encode(state)]]})

    def _add(self, state: State) -> str:
        reference = self._references[id(state)] = f"n{len(self._references)}"
        self._added.append(state)
        self._by_id.setdefault(state.id, []).append(state)
        return reference

    async def _write(self, entry: Json) -> None:
        if self._check:
            integrity.check_written(integrity.follow_aliases([outline(state) for state in self.resources]))
        if self._journal:
            await asyncio.wrap_future(self._journal.append(entry))

    def checkpoint(self, secrets: SecretsManager, plugins: Sequence[Json] = ()) -> Json:
        """The snapshot as an untyped version-3 deployment, as the Pulumi CLI writes it."""
        return make_deployment(
            [self._codec.encode(state) for state in self.resources],
            [{"resource": self._codec.encode(op.state), "type": op.operation} for op in self.pending],
            {"type": secrets.type, "state": secrets.state()},
            plugins,
        )


def make_deployment(
    resources: list[Json], pending: list[Json], secrets_provider: Json, plugins: Sequence[Json] = ()
) -> Json:
    """An untyped deployment with a manifest of this engine; every resource comes after what it refers to."""
    resources = integrity.follow_aliases(resources)
    resources = [resources[index] for index in integrity.in_order(resources)]
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
    """The first entry of a journal: what a checkpoint without resources lacks."""
    return {"t": "base", "secrets_providers": {"type": secrets.type, "state": secrets.state()}}


def load(deployment: Mapping[str, Any], codec: Codec) -> tuple[list[State], list[Pending]]:
    """The resources and the pending operations of a deployment."""
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
    kept = list(records)
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
            case "replace":
                reference, records[entry["add"][0]] = entry["add"]
                place = added if entry["done"] in added else kept
                place[place.index(entry["done"])] = reference
            case "settle":
                interrupted.pop(entry["index"])
                done.update(entry["done"])
                if "add" in entry:
                    add(*entry["add"])
            case "set":
                records.update(entry["r"])
    resources = [records[reference] for reference in (*added, *kept) if reference not in done]
    return make_deployment(
        resources,
        [*interrupted, *begun.values()],
        inner.get("secrets_providers") or entries[0]["secrets_providers"],
        (inner.get("manifest") or {}).get("plugins") or (),
    )
