"""Stacks in a bucket, laid out as the Pulumi CLI's own file and bucket backends do it, and the journal of an update.

While an update runs, each step is appended to a journal next to the checkpoint, so that n steps cost n small writes
and not n checkpoints. At the end the journal is folded into the checkpoint; after a crash, the next load replays it.
The journal's first record names the checkpoint it belongs to by digest, its last one the checkpoint that replaces it:
whichever of the two is found decides whether to replay.
"""

from __future__ import annotations

import contextlib
import getpass
import gzip
import hashlib
import json
import logging
import os
import queue
import re
import socket
import threading
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from engine.errors import EngineError, StackExistsError, StackNotEmptyError, StackNotFoundError, StateLockedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

_log = logging.getLogger(__name__)

Json = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_ROOT = ".pulumi/"
_META = f"{_ROOT}meta.yaml"
_ENDINGS = (".json", ".json.gz", ".json.zst")
_ROOT_STACK_TYPE = "pulumi:pulumi:Stack"
_BEGIN, _FINISH = "$begin", "$finish"


class StorageError(EngineError):
    """The storage refused: it is full, broken, out of reach or not permitted. What was recorded before is kept."""


class Entry(NamedTuple):
    """A key of a bucket and when it was last written, in seconds since the epoch."""

    key: str
    modified: float


class Journal(Protocol):
    """A journal open for appending."""

    def append(self, data: bytes) -> None:
        """Add ``data``, durably. After a StorageError, the next append is of data that begins with this."""
        ...

    def close(self) -> None:
        """Release what is held; the journal stays."""
        ...


class Bucket(Protocol):
    """Where bytes are kept under keys. Every method may raise StorageError."""

    def locate(self, key: str) -> str:
        """How a user finds ``key``: a path or a URL."""
        ...

    def read(self, key: str) -> bytes | None:
        """The contents, None when there are none."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Replace the contents atomically and durably."""
        ...

    def delete(self, key: str) -> None:
        """Delete durably; nothing happens when there is nothing."""
        ...

    def list(self, prefix: str) -> Iterable[Entry]:
        """All keys that start with ``prefix``."""
        ...

    def read_journal(self, key: str) -> bytes | None:
        """The contents of a journal, None when there is none."""
        ...

    def create_journal(self, key: str, data: bytes) -> Journal:
        """Start a journal with ``data``, durably, in place of any that is there."""
        ...

    def resume_journal(self, key: str, length: int) -> Journal:
        """Open a journal to append after its first ``length`` bytes, which are its whole records."""
        ...

    def delete_journal(self, key: str) -> None:
        """Delete a journal."""
        ...


@dataclass(frozen=True)
class LockHolder:
    """Who holds a lock. A lock of the Pulumi CLI names no operation."""

    user: str
    host: str
    pid: int
    operation: str
    since: str
    location: str

    def __str__(self) -> str:
        doing = f"running '{self.operation}' " if self.operation else ""
        return f"{self.user}@{self.host} (process {self.pid}), {doing}since {self.since}"


@dataclass(frozen=True)
class StackSummary:
    """A stack in a list. ``last_update`` is None before the first update."""

    name: str
    project: str
    last_update: datetime | None
    resource_count: int
    locked: bool


class _LockCollisionError(StateLockedError):
    """Two processes asked for the lock at the same moment, and both gave way."""


class Backend:
    """Stacks and their state. Deployments are untyped: ``{"version": 3, "deployment": {...}}``, as `stack export`'s."""

    def __init__(self, url: str, bucket: Bucket) -> None:
        """Use ``bucket``. Raises EngineError when it holds state in a layout that is not supported."""
        self.url = url
        self._bucket = bucket
        self._lock_id = str(uuid.uuid4())
        self._held: dict[tuple[str, str], int] = {}
        self._has_meta = self._check_layout()

    def list_stacks(self, project: str | None = None) -> list[StackSummary]:
        """The stacks of ``project``, or of all projects."""
        prefix = f"{_ROOT}stacks/{project}/" if project else f"{_ROOT}stacks/"
        found = {place for entry in self._bucket.list(prefix) if (place := _stack_of(entry.key))}
        locks = {tuple(entry.key.split("/")[3:5]) for entry in self._bucket.list(f"{_ROOT}locks/organization/")}
        stacks = []
        for owner, name in sorted(found):
            with contextlib.suppress(StackNotFoundError):
                key, data = self._read(owner, name)
                deployment = _decode(data, self._bucket.locate(key))["deployment"]
                when = (deployment.get("manifest") or {}).get("time") or ""
                stacks.append(
                    StackSummary(
                        name,
                        owner,
                        datetime.fromisoformat(when) if when and not when.startswith("0001-") else None,
                        len(deployment.get("resources") or ()),
                        (owner, name) in locks,
                    )
                )
        return stacks

    def exists(self, project: str, stack: str) -> bool:
        """Whether there is such a stack."""
        return self._find(project, stack) is not None

    def create_stack(self, project: str, stack: str) -> None:
        """Make an empty stack. Raises StackExistsError when there is one, EngineError when the name is not allowed."""
        _check_names(project, stack)
        with self.lock(project, stack, "stack init"):
            if self.exists(project, stack):
                raise StackExistsError(
                    f"The stack '{stack}' of project '{project}' exists already in {self.url}.",
                    remedy=f"Use it with --stack {stack}, or choose another name.",
                )
            if not self._has_meta:
                self._bucket.write(_META, b"version: 1\n")
                self._has_meta = True
            # One that a removal, cut short, left behind.
            self._bucket.delete_journal(_journal_key(project, stack))
            self._store(project, stack, _encode(project, stack, {"version": 3, "deployment": {}}))

    def remove_stack(self, project: str, stack: str, *, force: bool = False) -> None:
        """Remove a stack with its history; its last checkpoint stays as ``.bak``, and its backups stay.

        Raises StackNotEmptyError when it has resources, unless ``force``.
        """
        with self.lock(project, stack, "stack rm"):
            resources = [] if force else self.load(project, stack)["deployment"].get("resources") or []
            if resources and [resource["type"] for resource in resources] != [_ROOT_STACK_TYPE]:
                raise StackNotEmptyError(
                    f"The stack '{stack}' still has {len(resources)} resources.",
                    remedy=f"Delete them first with `destroy --stack {stack}`; --force only forgets them.",
                )
            key, data = self._read(project, stack)
            self._bucket.write(f"{key}.bak", data)
            self._bucket.delete(key)
            self._bucket.delete_journal(_journal_key(project, stack))
            self._bucket.delete(f"{_ROOT}stacks/{project}/{stack}.pulumi-tags")
            for entry in list(self._bucket.list(f"{_ROOT}history/{project}/{stack}/")):
                self._bucket.delete(entry.key)

    def load(self, project: str, stack: str) -> Json:
        """The stack's deployment, with the journal of an update that is under way, or was cut off, replayed.

        Raises StackNotFoundError; EngineError when the checkpoint is damaged or of a format that is not supported.
        """
        return self._load(project, stack)[0]

    def save(self, project: str, stack: str, deployment: Json) -> None:
        """Replace the stack's deployment (an import); the one before stays as ``.bak``."""
        with self.lock(project, stack, "state import"):
            self._fold(project, stack)
            self._store(project, stack, _encode(project, stack, deployment))

    @contextlib.contextmanager
    def lock(self, project: str, stack: str, operation: str) -> Iterator[None]:
        """Hold the stack's lock, which a `pulumi` on any host respects; it nests within one backend object.

        Raises StateLockedError naming the holder. A lock whose process, of this program on this running host, is gone
        is taken over with a warning.
        """
        place = (project, stack)
        if not self._held.get(place):
            _check_names(project, stack)
            self._acquire(project, stack, operation)
        self._held[place] = self._held.get(place, 0) + 1
        try:
            yield
        finally:
            self._held[place] -= 1
            if not self._held[place]:
                try:
                    self._bucket.delete(self._lock_key(project, stack))
                except StorageError as error:
                    # It must not hide the outcome of what ran under the lock.
                    _log.warning("The lock could not be released; run `state unlock` later. %s", error)

    def unlock(self, project: str, stack: str) -> list[LockHolder]:
        """Remove every lock of the stack, whoever holds it, and return who did."""
        _check_names(project, stack)
        holders = []
        for key, record in self._locks(project, stack):
            holders.append(self._holder(key, record))
            self._bucket.delete(key)
        return holders

    def lock_state(self, project: str, stack: str) -> Literal["free", "held", "abandoned"]:
        """Whether an update runs, or was cut off: then its lock is that of a process which is gone."""
        records = [record for _, record in self._locks(project, stack)]
        if not records:
            return "free"
        return "abandoned" if all(_is_dead(record) for record in records) else "held"

    def history(self, project: str, stack: str) -> list[Json]:
        """The updates of the stack, latest first, as the CLI's `stack history --json` has them."""
        if not self.exists(project, stack):
            raise self._not_found(project, stack)
        keys = [entry.key for entry in self._bucket.list(f"{_ROOT}history/{project}/{stack}/")]
        records = [key for key in keys if key.endswith(tuple(f".history{ending}" for ending in _ENDINGS))]
        return [_parse(self._bucket.read(key) or b"{}", key) for key in sorted(records, reverse=True)]

    def begin_update(
        self,
        project: str,
        stack: str,
        kind: str,
        *,
        message: str,
        environment: Mapping[str, str],
        config: Mapping[str, Any],
    ) -> Update:
        """Start an update of what :meth:`load` gives, under the lock, which the caller holds.

        ``kind`` is ``update``, ``refresh``, ``destroy`` or ``resource-import``. ``config`` goes into the history as it
        is, so secrets in it are to be encrypted: ``{"secure": "<ciphertext>"}``.
        """
        if not self._held.get((project, stack)):
            raise RuntimeError("an update needs the stack's lock")
        self._fold(project, stack)
        _, base = self._read(project, stack)
        started = int(time.time())
        journal = self._bucket.create_journal(
            _journal_key(project, stack), _line({_BEGIN: _digest(base), "kind": kind, "time": started})
        )
        info = {
            "kind": kind,
            "startTime": started,
            "message": message,
            "environment": dict(environment),
            "config": dict(config),
        }
        return Update(self, project, stack, journal, info)

    def _load(self, project: str, stack: str) -> tuple[Json, int]:
        """The deployment, and the length of the journal that is part of it, 0 without one."""
        while True:
            key, data = self._read(project, stack)
            journal = self._bucket.read_journal(_journal_key(project, stack))
            # Without the lock, an update may end between the two reads.
            if journal is None or self._bucket.read(key) == data:
                break
        deployment = _decode(data, self._bucket.locate(key))
        begin, entries, finished, length = _parse_journal(journal or b"")
        if not begin or _digest(data) in finished:
            return deployment, 0
        place = self._bucket.locate(_journal_key(project, stack))
        if begin[_BEGIN] != _digest(data):
            raise EngineError(
                f"The stack '{stack}' was changed by another program after an interrupted {begin['kind']}, so that the "
                f"record of it, '{place}', no longer fits.",
                remedy="Compare the resources in the record with the stack's, import into the stack what it lacks, "
                "then delete the record.",
            )
        from engine.snapshot import replay  # noqa: PLC0415 - it reads entries, this module only keeps them

        return replay(deployment, entries), length

    def _fold(self, project: str, stack: str) -> None:
        """Write what an interrupted update left in its journal into the checkpoint."""
        deployment, length = self._load(project, stack)
        key = _journal_key(project, stack)
        if length:
            data = _encode(project, stack, deployment)
            journal = self._bucket.resume_journal(key, length)
            try:
                journal.append(_line({_FINISH: _digest(data)}))
            finally:
                journal.close()
            self._store(project, stack, data)
        self._bucket.delete_journal(key)

    def _store(self, project: str, stack: str, data: bytes) -> None:
        old = self._find(project, stack)
        new = f"{_ROOT}stacks/{project}/{stack}.json" + (".gz" if data.startswith(b"\x1f\x8b") else "")
        if old and (previous := self._bucket.read(old)) is not None:
            self._bucket.write(f"{old}.bak", previous)
        self._bucket.write(new, data)
        if old and old != new:
            self._bucket.delete(old)

    def _record(self, project: str, stack: str, info: Json, data: bytes) -> None:
        ending = ".json.gz" if data.startswith(b"\x1f\x8b") else ".json"
        moment = time.time_ns()
        prefix = f"{_ROOT}history/{project}/{stack}/{stack}-{moment}"
        history = json.dumps(info, ensure_ascii=False, separators=(",", ":")).encode()
        self._bucket.write(f"{prefix}.history{ending}", _compress(history))
        self._bucket.write(f"{prefix}.checkpoint{ending}", data)
        if not _flag("PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS"):
            self._bucket.write(f"{_ROOT}backups/{project}/{stack}/{stack}.{moment}{ending}", data)

    def _find(self, project: str, stack: str) -> str | None:
        """The key of the checkpoint: of its compressed and plain variants the last written, as in the CLI."""
        _check_names(project, stack)
        plain = f"{_ROOT}stacks/{project}/{stack}.json"
        variants = {plain.removesuffix(".json") + ending for ending in _ENDINGS}
        found = [entry for entry in self._bucket.list(plain) if entry.key in variants]
        return max(found, key=lambda entry: (entry.modified, entry.key)).key if found else None

    def _read(self, project: str, stack: str) -> tuple[str, bytes]:
        key = self._find(project, stack)
        data = self._bucket.read(key) if key else None
        if key is None or data is None:
            raise self._not_found(project, stack)
        return key, data

    def _not_found(self, project: str, stack: str) -> StackNotFoundError:
        return StackNotFoundError(
            f"There is no stack '{stack}' of project '{project}' in {self.url}.",
            remedy=f"Create it with `stack init {stack}`, or see `stack ls`.",
        )

    def _check_layout(self) -> bool:
        meta = self._bucket.read(_META)
        if meta is None:
            stacks = (entry.key.removeprefix(f"{_ROOT}stacks/") for entry in self._bucket.list(f"{_ROOT}stacks/"))
            version = 0 if any("/" not in key and key.endswith(_ENDINGS) for key in stacks) else 1
        else:
            match = re.search(rb"^version:\s*(\d+)\s*$", meta, re.MULTILINE)
            version = int(match[1]) if match else -1
        if version != 1:
            raise EngineError(
                f"The state in {self.url} is of layout version {version if version >= 0 else 'unknown'}, not 1.",
                remedy="Upgrade it with `pulumi state upgrade`."
                if version == 0
                else f"Check '{self._bucket.locate(_META)}'; a newer Pulumi CLI may have written it.",
            )
        return meta is not None

    @retry(
        retry=retry_if_exception_type(_LockCollisionError),
        stop=stop_after_attempt(8),
        wait=wait_random(0, 0.4),
        reraise=True,
    )
    def _acquire(self, project: str, stack: str, operation: str) -> None:
        # The CLI's protocol: look, write, look again. Two that write at once see each other, and both give way.
        self._refuse_if_locked(project, stack)
        key = self._lock_key(project, stack)
        self._bucket.write(key, json.dumps(_lock_record(operation)).encode())
        try:
            self._refuse_if_locked(project, stack)
        except StateLockedError as error:
            self._bucket.delete(key)
            raise _LockCollisionError(str(error), error.holders, remedy=error.remedy) from None
        except BaseException:
            self._bucket.delete(key)
            raise

    def _refuse_if_locked(self, project: str, stack: str) -> None:
        holders = []
        for key, record in self._locks(project, stack):
            holder = self._holder(key, record)
            if key == self._lock_key(project, stack):
                continue
            if _is_dead(record):
                _log.warning("The lock of stack '%s' is taken over: its holder is gone: %s.", stack, holder)
                self._bucket.delete(key)
                continue
            holders.append(holder)
        if holders:
            raise StateLockedError(
                f"The stack '{stack}' is locked by " + " and by ".join(map(str, holders)) + ".",
                holders,
                remedy="Wait until it has ended. If it is gone for good, remove its lock with "
                f"`state unlock --stack {stack}` (or `pulumi cancel`): {', '.join(h.location for h in holders)}",
            )

    def _locks(self, project: str, stack: str) -> Iterator[tuple[str, Json]]:
        for entry in list(self._bucket.list(f"{_ROOT}locks/organization/{project}/{stack}/")):
            data = self._bucket.read(entry.key)
            if data is not None:
                try:
                    record = json.loads(data)
                except ValueError:
                    record = None
                yield entry.key, record if isinstance(record, dict) else {}

    def _holder(self, key: str, record: Json) -> LockHolder:
        pid = record.get("pid")
        return LockHolder(
            user=str(record.get("username") or "someone"),
            host=str(record.get("hostname") or "an unknown host"),
            pid=pid if isinstance(pid, int) else 0,
            operation=str(record.get("operation") or ""),
            since=str(record.get("timestamp") or "an unknown time"),
            location=self._bucket.locate(key),
        )

    def _lock_key(self, project: str, stack: str) -> str:
        return f"{_ROOT}locks/organization/{project}/{stack}/{self._lock_id}.json"


class Update:
    """An update under way: its journal, and in the end its checkpoint, backup and history. Use it from any thread."""

    def __init__(self, backend: Backend, project: str, stack: str, journal: Journal, info: Json) -> None:
        self._backend = backend
        self._project = project
        self._stack = stack
        self._journal = journal
        self._info = info
        self._queue: queue.SimpleQueue[tuple[bytes, Future[None]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def append(self, entry: Json) -> Future[None]:
        """Add ``entry`` to the journal; the future ends when it is durable.

        The future raises StorageError when it could not be written. The entry is then written with the next one, so
        that the journal never has a gap.
        """
        if not self._writer.is_alive():
            raise RuntimeError("the update has ended")
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        self._queue.put((_line(entry), future))
        return future

    def finish(self, deployment: Json, *, result: str, changes: Mapping[str, int]) -> None:
        """Write the checkpoint, drop the journal, add a backup and the history's record.

        ``result`` is ``succeeded``, ``failed`` or ``cancelled``. Raises StorageError: when the checkpoint could not be
        written, the journal stays, nothing is lost, and finish may be called again.
        """
        bucket, project, stack = self._backend._bucket, self._project, self._stack
        data = _encode(project, stack, deployment)
        self.append({_FINISH: _digest(data)}).result()
        self._backend._store(project, stack, data)
        self.close()
        bucket.delete_journal(_journal_key(project, stack))
        info = self._info | {
            "version": 0,
            # The CLI knows no third result.
            "result": "succeeded" if result == "succeeded" else "failed",
            "endTime": int(time.time()),
            "resourceChanges": dict(changes),
        }
        self._backend._record(project, stack, info, data)

    def close(self) -> None:
        """Write what is queued and stop; the journal stays for the next load, unless :meth:`finish` came before."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
            self._journal.close()

    def _write(self) -> None:
        backlog = b""
        stopping = False
        while not stopping:
            waiting = [self._queue.get()]
            # While one batch is made durable, the next one gathers.
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.append(self._queue.get_nowait())
            stopping = None in waiting
            batch = [item for item in waiting if item]
            backlog += b"".join(line for line, _ in batch)
            try:
                if backlog:
                    self._journal.append(backlog)
                backlog = b""
            except Exception as error:  # whoever waits must hear of it, whatever it is
                for _, future in batch:
                    future.set_exception(error)
            else:
                for _, future in batch:
                    future.set_result(None)


def _line(record: Json) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parse_journal(data: bytes) -> tuple[Json, list[Json], set[str], int]:
    """The first record, the entries, the digests of checkpoints that replace the journal, and the length of it all."""
    records: list[Json] = []
    length = 0
    *lines, _torn = data.split(b"\n")
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            # A crash of the machine may leave garbage in what was never acknowledged.
            _log.warning("The journal ends early: %d of its %d records can be read.", len(records), len(lines))
            break
        length += len(line) + 1
    if not records or _BEGIN not in records[0]:
        return {}, [], set(), 0
    finished = {record[_FINISH] for record in records if _FINISH in record}
    return records[0], [record for record in records[1:] if _FINISH not in record], finished, length


def _encode(project: str, stack: str, deployment: Json) -> bytes:
    checkpoint: Json = {"stack": f"organization/{project}/{stack}"}
    if deployment.get("deployment"):
        checkpoint["latest"] = deployment["deployment"]
    document: Json = {"version": deployment.get("version", 3)}
    if features := deployment.get("features"):
        document["features"] = features
    document["checkpoint"] = checkpoint
    return _compress(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _decode(data: bytes, place: str) -> Json:
    document = _parse(data, place)
    version = document.get("version", 0)
    checkpoint = document.get("checkpoint") or {}
    # The CLI writes version 0 for a stack that was never updated; with resources, 0 to 2 are formats of before 2019.
    if version not in {3, 4} and (version != 0 or "latest" in document or checkpoint.get("latest")):
        raise EngineError(
            f"'{place}' has the checkpoint format {version}, which is not supported.",
            remedy="Bring it up to date with the Pulumi CLI: `pulumi stack export | pulumi stack import`.",
        )
    deployment: Json = {"version": version or 3, "deployment": checkpoint.get("latest") or {}}
    if features := document.get("features"):
        deployment["features"] = features
    return deployment


def _parse(data: bytes, place: str) -> Json:
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        raise EngineError(
            f"'{place}' is compressed with zstd, which is not supported.",
            remedy="Write it plain: run any update with the Pulumi CLI and PULUMI_DIY_BACKEND_ZSTD unset.",
        )
    try:
        document = json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
        if isinstance(document, dict):
            return document
        problem = "it is not a JSON object"
    except (ValueError, OSError, EOFError) as error:
        problem = str(error)
    raise EngineError(
        f"'{place}' is damaged: {problem}.",
        remedy="Restore it from the copy next to it (.bak) or from .pulumi/backups.",
    )


def _compress(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0) if _flag("PULUMI_DIY_BACKEND_GZIP") else data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _flag(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in {"1", "true"}


def _journal_key(project: str, stack: str) -> str:
    return f"{_ROOT}stacks/{project}/{stack}.journal"


def _stack_of(key: str) -> tuple[str, str] | None:
    """The project and the stack whose checkpoint ``key`` is."""
    parts = key.removeprefix(f"{_ROOT}stacks/").split("/")
    ending = next((ending for ending in _ENDINGS if key.endswith(ending)), None)
    if len(parts) != 2 or ending is None:
        return None
    project, stack = parts[0], parts[1].removesuffix(ending)
    return (project, stack) if _NAME.fullmatch(project) and _NAME.fullmatch(stack) else None


def _check_names(project: str, stack: str) -> None:
    for kind, name in (("project", project), ("stack", stack)):
        if not _NAME.fullmatch(name) or name in {".", ".."}:
            raise EngineError(
                f"'{name}' cannot be the name of a {kind}.",
                remedy="Use at most 100 letters, digits, hyphens, underscores and periods.",
            )


def _lock_record(operation: str) -> Json:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    record: Json = {
        "pid": os.getpid(),
        "username": user,
        "hostname": socket.gethostname(),
        "timestamp": datetime.now().astimezone().isoformat(),
        "operation": operation,
    }
    return record | (_process(os.getpid()) or {})


def _is_dead(record: Json) -> bool:
    """Whether the holder surely is gone: this machine has been started anew since, or its process is not there.

    A PID alone proves nothing: it is reused, and other hosts and containers have their own. Locks of the Pulumi CLI do
    not say more than a PID, so they are always respected.
    """
    here = _process(os.getpid())
    if here is None:
        return False
    if record.get("bootId") != here["bootId"]:
        same_machine = record.get("machineId") == here["machineId"] != ""
        return same_machine and record.get("hostname") == socket.gethostname()
    if record.get("pidNamespace") != here["pidNamespace"]:
        return False
    holder = _process(record["pid"])
    return holder is None or holder["processStart"] != record.get("processStart")


def _process(pid: int) -> Json | None:
    """What tells one process from all others; None when it is not running, or this system has no /proc."""
    try:
        # The command, in brackets, may hold anything; after it come the state and, as the 22nd field, the start time.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    if stat[0] in {"Z", "X"}:
        return None
    machine = Path("/etc/machine-id")
    return {
        "bootId": boot,
        "machineId": machine.read_text(encoding="ascii").strip() if machine.is_file() else "",
        "pidNamespace": namespace,
        "processStart": int(stat[19]),
    }
