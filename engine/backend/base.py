"""Stacks in a bucket, laid out as the Pulumi CLI's own file and bucket backends do it, and the journal of an update.

While an update runs, each step is appended to a journal next to the checkpoint, so that n steps cost n small writes
and not n checkpoints. At the end the journal is folded into the checkpoint; after a crash, the next load replays it.
The journal's first record names the checkpoint it belongs to by digest, its last one the checkpoint that replaces it:
whichever of the two is found decides whether to replay.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from engine.backend.bucket import ABSENT, ConflictError, DeniedError, StorageError
from engine.backend.checkpoints import ENDINGS, GZIP_MAGIC, compress, decode, digest, encode, flag, parse_json
from engine.backend.journal import BEGIN, FINISH, Update, line, parse_journal
from engine.backend.locks import FOLDER as LOCKS
from engine.backend.locks import Locks, is_dead
from engine.backend.plans import Plans
from engine.errors import EngineError, StackExistsError, StackNotEmptyError, StackNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.backend.bucket import Bucket
    from engine.backend.locks import LockHolder

_log = logging.getLogger(__name__)

Json = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_ROOT = ".pulumi/"
META = f"{_ROOT}meta.yaml"
"""The version of the layout; it exists as soon as a stack does."""
_ROOT_STACK_TYPE = "pulumi:pulumi:Stack"
_FOLD_ATTEMPTS = 5


@dataclass(frozen=True)
class StackSummary:
    """A stack in a list. ``last_update`` is None before the first update.

    Of a stack whose state the credentials may not read, ``resource_count`` is None too.
    """

    name: str
    project: str
    last_update: datetime | None
    resource_count: int | None
    locked: bool


class Backend:
    """Stacks and their state. Deployments are untyped: ``{"version": 3, "deployment": {...}}``, as `stack export`'s."""

    def __init__(self, url: str, bucket: Bucket) -> None:
        """Use ``bucket``. Raises EngineError when it holds state in a layout that is not supported."""
        self.url = url
        self._bucket = bucket
        self.plans = Plans(bucket)
        self._locks = Locks(bucket)
        self._held: dict[tuple[str, str], int] = {}
        self._has_meta = self._check_layout()

    def list_stacks(self, project: str | None = None) -> list[StackSummary]:
        """The stacks of ``project``, or of all projects."""
        prefix = f"{_ROOT}stacks/{project}/" if project else f"{_ROOT}stacks/"
        found = {place for entry in self._bucket.list(prefix) if (place := _stack_of(entry.key))}
        locks = {tuple(entry.key.split("/")[3:5]) for entry in self._bucket.list(LOCKS)}
        stacks = []
        for owner, name in sorted(found):
            with contextlib.suppress(StackNotFoundError):
                try:
                    key, data = self._read(owner, name)
                except DeniedError:
                    stacks.append(StackSummary(name, owner, None, None, (owner, name) in locks))
                    continue
                deployment = decode(data, self._bucket.locate(key))["deployment"]
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
                self._bucket.write(META, b"version: 1\n")
                self._has_meta = True
            # An interrupted removal may have left one.
            self._bucket.delete_journal(_journal_key(project, stack))
            self._store(project, stack, encode(project, stack, {"version": 3, "deployment": {}}), ABSENT)

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
            self.plans.delete_all(project, stack)

    def load(self, project: str, stack: str) -> Json:
        """The stack's deployment, with the journal of a running or interrupted update replayed.

        Raises StackNotFoundError; EngineError when the checkpoint is damaged or of a format that is not supported.
        """
        return self._load(project, stack)[0]

    def save(self, project: str, stack: str, deployment: Json, *, check: bool = True) -> None:
        """Replace the stack's deployment (an import); the one before, damaged or not, stays as ``.bak``.

        Raises StateIntegrityError for a damaged one, unless ``check`` is false.
        """
        with self.lock(project, stack, "state import"):
            self._fold(project, stack, check=False)
            base = digest(self._read(project, stack)[1])
            self._store(project, stack, encode(project, stack, deployment, check=check), base)

    @contextlib.contextmanager
    def lock(self, project: str, stack: str, operation: str) -> Iterator[None]:
        """Hold the stack's lock, which a `pulumi` on any host respects; it nests within one backend object.

        Raises StateLockedError naming the holder. A lock whose process, of this program on this host since its start,
        has ended is taken over with a warning.
        """
        place = (project, stack)
        if not self._held.get(place):
            _check_names(project, stack)
            self._locks.acquire(project, stack, operation)
        self._held[place] = self._held.get(place, 0) + 1
        try:
            yield
        finally:
            self._held[place] -= 1
            if not self._held[place]:
                try:
                    self._locks.release(project, stack)
                except StorageError as error:
                    # It must not hide the outcome of what ran under the lock.
                    _log.warning("The lock could not be released; run `state unlock` later. %s", error)

    def outlast(self, project: str, stack: str) -> None:
        """In a CI job: wait while another job of its repository holds the lock, or until that is known to be dead."""
        _check_names(project, stack)
        self._locks.outlast(project, stack)

    def unlock(self, project: str, stack: str) -> list[LockHolder]:
        """Remove every lock of the stack; returns the holders."""
        _check_names(project, stack)
        holders = []
        for key, record, _ in self._locks.records(project, stack):
            holders.append(self._locks.holder(key, record))
            self._bucket.delete(key)
        return holders

    def lock_state(self, project: str, stack: str) -> Literal["free", "held", "abandoned"]:
        """Whether an update runs (``held``), or was interrupted and left its lock (``abandoned``)."""
        records = [record for _, record, _ in self._locks.records(project, stack)]
        if not records:
            return "free"
        return "abandoned" if all(is_dead(record, local=self._bucket.is_local) for record in records) else "held"

    def history(self, project: str, stack: str) -> list[Json]:
        """The updates of the stack, latest first, as the CLI's `stack history --json` has them."""
        if not self.exists(project, stack):
            raise self._not_found(project, stack)
        keys = [entry.key for entry in self._bucket.list(f"{_ROOT}history/{project}/{stack}/")]
        records = [key for key in keys if key.endswith(tuple(f".history{ending}" for ending in ENDINGS))]
        return [parse_json(self._bucket.read(key) or b"{}", key) for key in sorted(records, reverse=True)]

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
        """Start an update of what :meth:`load` returns; the caller holds the lock.

        ``kind`` is ``update``, ``refresh``, ``destroy`` or ``resource-import``. ``config`` goes into the history as it
        is, so secrets in it are to be encrypted: ``{"secure": "<ciphertext>"}``.
        """
        if not self._held.get((project, stack)):
            raise RuntimeError("an update needs the stack's lock")
        self._fold(project, stack)
        _, base = self._read(project, stack)
        started = int(time.time())
        journal = self._bucket.create_journal(
            _journal_key(project, stack), line({BEGIN: digest(base), "kind": kind, "time": started})
        )
        if self._read(project, stack)[1] != base:
            journal.close()
            journal.remove()
            raise ConflictError(self._bucket.locate(_journal_key(project, stack)))
        info = {
            "kind": kind,
            "startTime": started,
            "message": message,
            "environment": dict(environment),
            "config": dict(config),
        }
        return Update(
            project,
            stack,
            journal,
            info,
            store=lambda data: self._store(project, stack, data, digest(base)),
            record=lambda about, data: self._record(project, stack, about, data),
        )

    def _load(self, project: str, stack: str) -> tuple[Json, int]:
        """The deployment, and the length of the journal that is part of it, 0 without one."""
        while True:
            key, data = self._read(project, stack)
            journal = self._bucket.read_journal(_journal_key(project, stack))
            # Without the lock, an update may end between the two reads.
            if journal is None or self._bucket.read(key) == data:
                break
        deployment = decode(data, self._bucket.locate(key))
        begin, entries, finished, length = parse_journal(journal or b"")
        if not begin or digest(data) in finished:
            return deployment, 0
        place = self._bucket.locate(_journal_key(project, stack))
        if begin[BEGIN] != digest(data):
            raise EngineError(
                f"The stack '{stack}' was changed by another program after an interrupted {begin['kind']}, so that the "
                f"record of it, '{place}', no longer fits.",
                remedy="Compare the resources in the record with the stack's, import into the stack what it lacks, "
                "then delete the record.",
            )
        from engine.snapshot import replay  # noqa: PLC0415 - only an interrupted update needs it

        return replay(deployment, entries), length

    def _fold(self, project: str, stack: str, *, check: bool = True) -> None:
        """Write what an interrupted update left in its journal into the checkpoint.

        If the process of that update still runs, because somebody removed its lock, what it records meanwhile is
        included; once the journal has its last record, its writes fail.
        """
        for attempt in range(_FOLD_ATTEMPTS):
            try:
                return self._fold_once(project, stack, check=check)
            except ConflictError:
                if attempt == _FOLD_ATTEMPTS - 1:
                    raise
        return None

    def _fold_once(self, project: str, stack: str, *, check: bool) -> None:
        base = digest(self._read(project, stack)[1])
        deployment, length = self._load(project, stack)
        key = _journal_key(project, stack)
        if length:
            data = encode(project, stack, deployment, check=check)
            journal = self._bucket.resume_journal(key, length)
            try:
                journal.append(line({FINISH: digest(data)}))
            finally:
                journal.close()
            self._store(project, stack, data, base)
        self._bucket.delete_journal(key)

    def _store(self, project: str, stack: str, data: bytes, base: str) -> None:
        """Write the checkpoint in place of the one with the digest ``base``, ABSENT for none.

        Raises ConflictError when another one is there.
        """
        old = self._find(project, stack)
        new = f"{_ROOT}stacks/{project}/{stack}.json" + (".gz" if data.startswith(GZIP_MAGIC) else "")
        found = self._bucket.read_version(old) if old else None
        if (digest(found[0]) if found else ABSENT) != base:
            if found and found[0] == data:
                # An earlier attempt succeeded, and only its response was lost.
                return
            raise ConflictError(self._bucket.locate(old or new))
        if old and found:
            self._bucket.write(f"{old}.bak", found[0])
        self._bucket.write(new, data, version=(found[1] if found else ABSENT) if old in {None, new} else None)
        if old and old != new:
            self._bucket.delete(old)

    def _record(self, project: str, stack: str, info: Json, data: bytes) -> None:
        ending = ".json.gz" if data.startswith(GZIP_MAGIC) else ".json"
        moment = time.time_ns()
        prefix = f"{_ROOT}history/{project}/{stack}/{stack}-{moment}"
        history = json.dumps(info, ensure_ascii=False, separators=(",", ":")).encode()
        self._bucket.write(f"{prefix}.history{ending}", compress(history))
        self._bucket.write(f"{prefix}.checkpoint{ending}", data)
        if not flag("PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS"):
            self._bucket.write(f"{_ROOT}backups/{project}/{stack}/{stack}.{moment}{ending}", data)

    def _find(self, project: str, stack: str) -> str | None:
        """The key of the checkpoint: of its compressed and plain variants the last written, as in the CLI."""
        _check_names(project, stack)
        plain = f"{_ROOT}stacks/{project}/{stack}.json"
        variants = {plain.removesuffix(".json") + ending for ending in ENDINGS}
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
        meta = self._bucket.read(META)
        if meta is None:
            stacks = (entry.key.removeprefix(f"{_ROOT}stacks/") for entry in self._bucket.list(f"{_ROOT}stacks/"))
            version = 0 if any("/" not in key and key.endswith(ENDINGS) for key in stacks) else 1
        else:
            match = re.search(rb"^version:\s*(\d+)\s*$", meta, re.MULTILINE)
            version = int(match[1]) if match else -1
        if version != 1:
            raise EngineError(
                f"The state in {self.url} is of layout version {version if version >= 0 else 'unknown'}, not 1.",
                remedy="Upgrade it with `pulumi state upgrade`."
                if version == 0
                else f"Check '{self._bucket.locate(META)}'; a newer Pulumi CLI may have written it.",
            )
        return meta is not None


def _journal_key(project: str, stack: str) -> str:
    return f"{_ROOT}stacks/{project}/{stack}.journal"


def _stack_of(key: str) -> tuple[str, str] | None:
    """The project and the stack whose checkpoint ``key`` is."""
    parts = key.removeprefix(f"{_ROOT}stacks/").split("/")
    ending = next((ending for ending in ENDINGS if key.endswith(ending)), None)
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
