"""The lock of a stack, in the protocol of the Pulumi CLI: a file per process that says who holds it."""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from engine.backend.bucket import ABSENT, ConflictError, StorageError
from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.backend.bucket import Bucket

_log = logging.getLogger(__name__)

Json = dict[str, Any]
FOLDER = ".pulumi/locks/organization/"
_ONE_LOCK = "lab"
RENEW_SECONDS = 15.0
"""How often a CI job that holds a lock says that it is alive."""
LOOK_SECONDS = 2.0
SILENT_SECONDS = 120.0
"""A job that has said nothing for this long is dead."""


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


class StateLockedError(EngineError):
    """Another process holds the stack's lock; ``holders`` says who."""

    def __init__(self, message: str, holders: list[LockHolder], *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.holders = holders


class _LockCollisionError(StateLockedError):
    """Two processes asked for the lock at the same moment, and both backed off."""


class Locks:
    """The locks in a bucket. All of one object's locks have the same ID."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._id = str(uuid.uuid4())
        self._renewals: dict[tuple[str, str], tuple[threading.Event, threading.Thread]] = {}

    @retry(
        retry=retry_if_exception_type(_LockCollisionError),
        stop=stop_after_attempt(8),
        wait=wait_random(0, 0.4),
        reraise=True,
    )
    def acquire(self, project: str, stack: str, operation: str) -> None:
        """Take the lock. Raises StateLockedError naming the holder."""
        # The CLI's protocol: list, write, list again. Two that write at once see each other, and both back off. Where
        # the store creates a key only once, processes of this program use one key.
        self._refuse_if_locked(project, stack)
        key = self._key(project, stack)
        try:
            self._bucket.write(key, json.dumps(_record(operation) | {"id": self._id}).encode(), version=ABSENT)
        except ConflictError:
            self._refuse_if_locked(project, stack)
            raise _LockCollisionError(
                f"The lock of stack '{stack}' is being taken by several processes.",
                [],
                remedy="Run the command again.",
            ) from None
        try:
            self._refuse_if_locked(project, stack)
        except StateLockedError as error:
            self.release(project, stack)
            raise _LockCollisionError(str(error), error.holders, remedy=error.remedy) from None
        except BaseException:
            self.release(project, stack)
            raise
        if _job():
            ended = threading.Event()
            thread = threading.Thread(target=self._renew, args=(key, ended), daemon=True)
            self._renewals[project, stack] = ended, thread
            thread.start()

    def _renew(self, key: str, ended: threading.Event) -> None:
        number = 0
        while not ended.wait(RENEW_SECONDS):
            number += 1
            try:
                found = self._bucket.read_version(key)
                if found is None or _parse(found[0]).get("id") != self._id:
                    return
                self._bucket.write(key, json.dumps(_parse(found[0]) | {"renewed": number}).encode(), version=found[1])
            except StorageError as error:
                _log.debug("The lock %s could not be renewed: %s", key, error)

    def outlast(self, project: str, stack: str) -> None:
        """Wait while another job of this job's repository holds the lock; take over the lock of one that has died.

        In a pod or on a machine that is gone, nobody can see whether a process runs: a job renews its lock instead.
        """
        seen, since = "", time.monotonic()
        while locks := [lock for lock in self.records(project, stack) if lock[1].get("id") != self._id]:
            key, record, version = locks[0]
            of_another = not _job() or record.get("job") != _job()
            if len(locks) > 1 or of_another or is_dead(record, local=self._bucket.is_local):
                return
            if version != seen:
                seen, since = version, time.monotonic()
            elif time.monotonic() - since > SILENT_SECONDS:
                _log.warning(
                    "The lock of stack '%s' is taken over: its holder has said nothing for %.0f s: %s.",
                    stack, SILENT_SECONDS, self.holder(key, record),
                )  # fmt: skip
                self._bucket.delete(key, version=version)
                return
            time.sleep(LOOK_SECONDS)

    def release(self, project: str, stack: str) -> None:
        """Delete the lock, unless somebody has removed it and another process has taken it since."""
        if renewal := self._renewals.pop((project, stack), None):
            ended, thread = renewal
            ended.set()
            thread.join()
        key = self._key(project, stack)
        found = self._bucket.read_version(key)
        if found and _parse(found[0]).get("id") == self._id:
            self._bucket.delete(key, version=found[1])

    def _refuse_if_locked(self, project: str, stack: str) -> None:
        holders = []
        for key, record, version in self.records(project, stack):
            holder = self.holder(key, record)
            if record.get("id") == self._id:
                continue
            if is_dead(record, local=self._bucket.is_local):
                _log.warning("The lock of stack '%s' is taken over: its holder is gone: %s.", stack, holder)
                self._bucket.delete(key, version=version)
                continue
            holders.append(holder)
        if holders:
            raise StateLockedError(
                f"The stack '{stack}' is locked by " + " and by ".join(map(str, holders)) + ".",
                holders,
                remedy="Wait until it has ended. If it is gone for good, remove its lock with "
                f"`state unlock --stack {stack}` (or `pulumi cancel`): {', '.join(h.location for h in holders)}",
            )

    def records(self, project: str, stack: str) -> Iterator[tuple[str, Json, str]]:
        """(key, contents, version) of each lock of the stack."""
        for entry in list(self._bucket.list(f"{FOLDER}{project}/{stack}/")):
            if found := self._bucket.read_version(entry.key):
                yield entry.key, _parse(found[0]), found[1]

    def holder(self, key: str, record: Json) -> LockHolder:
        """Who holds a lock, by its contents."""
        pid = record.get("pid")
        return LockHolder(
            user=str(record.get("username") or "someone"),
            host=str(record.get("hostname") or "an unknown host"),
            pid=pid if isinstance(pid, int) else 0,
            operation=str(record.get("operation") or ""),
            since=str(record.get("timestamp") or "an unknown time"),
            location=self._bucket.locate(key),
        )

    def _key(self, project: str, stack: str) -> str:
        name = _ONE_LOCK if self._bucket.creates_once else self._id
        return f"{FOLDER}{project}/{stack}/{name}.json"


def _record(operation: str) -> Json:
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
        **({"job": _job()} if _job() else {}),
    }
    return record | (_process(os.getpid()) or {})


def _job() -> str:
    """The repository whose CI job this process is of; empty outside of one."""
    return os.environ.get("GITHUB_REPOSITORY", "") if os.environ.get("GITHUB_ACTIONS") == "true" else ""


def _parse(data: bytes) -> Json:
    try:
        record = json.loads(data)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {}


def is_dead(record: Json, *, local: bool) -> bool:
    """Whether the holder has certainly ended: the machine was restarted since, or the process is not running.

    A PID alone proves nothing: it is reused, and other hosts and containers have their own. Locks of the Pulumi CLI do
    not say more than a PID, so they are always respected. Where other machines reach the lock, machine ID and host name
    prove nothing either: cloned machines share both.
    """
    own = _process(os.getpid())
    if own is None:
        return False
    if record.get("bootId") != own["bootId"]:
        same_machine = record.get("machineId") == own["machineId"] != ""
        return local and same_machine and record.get("hostname") == socket.gethostname()
    if record.get("pidNamespace") != own["pidNamespace"] or not isinstance(record.get("pid"), int):
        return False
    holder = _process(record["pid"])
    return holder is None or holder["processStart"] != record.get("processStart")


def _process(pid: int) -> Json | None:
    """What identifies a process among all others; None when it is not running, or this system has no /proc."""
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
