"""``kill -9`` before, within and after every call with which an update changes its storage."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.client import BaseClient  # type: ignore[import-untyped]

from engine.backend import open_backend
from tests.engine.backend.forking import fork
from tests.engine.backend.test_backend import BASE, STACK, begin, deployment, entry, keys, record, urns

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = 3
READS = {"GetObject", "HeadBucket", "HeadObject", "ListObjectsV2"}
FINISHED = [STACK["urn"], *(record(number)["urn"] for number in range(ENTRIES))]


class Fuse:
    """Kills the process at the n-th moment around the calls that it guards."""

    def __init__(self, moment: int) -> None:
        self._left = moment

    def burn(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def guard(self, owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def guarded(*arguments: Any, **options: Any) -> Any:
            self.burn()
            result = call(*arguments, **options)
            self.burn()
            return result

        setattr(owner, name, guarded)

    def guard_store(self) -> None:
        """Burn before each call that changes an object store: what a kill before a read leaves, the next one shows."""
        call = BaseClient._make_api_call

        def guarded(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
            if operation not in READS:
                self.burn()
            return call(client, operation, parameters)

        BaseClient._make_api_call = guarded

    def guard_write(self) -> None:
        write = os.write

        def guarded(descriptor: int, data: memoryview) -> int:
            self.burn()
            half = write(descriptor, data[: len(data) // 2])
            self.burn()
            return half + write(descriptor, data[half:])

        os.write = guarded  # type: ignore[assignment]


def killed_at(moment: int, act: Callable[[], None]) -> bool:
    """Run ``act`` in a process that is killed at ``moment``; False when it ended before."""
    child = fork()
    if not child:
        fuse = Fuse(moment)
        for name in ("open", "fsync", "fdatasync", "replace", "unlink", "mkdir"):
            fuse.guard(os, name)
        fuse.guard_write()
        fuse.guard_store()
        code = 1
        try:
            act()
            fuse.burn()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the update failed by itself"
    return os.WIFSIGNALED(status)


def run_update(url: str, acknowledged: Path, attempt: int) -> None:
    """What it makes is new to the state, as an update that goes on makes what is missing."""
    backend = open_backend(url)
    with backend.lock("sample", "dev", "up"), begin(backend) as update, acknowledged.open("ab", buffering=0) as log:
        update.append(BASE).result()
        for number in range(ENTRIES):
            update.append(entry(attempt * ENTRIES + number)).result()
            # Not os.write, which is guarded: what this says must be true.
            log.write(b".")
        update.finish(deployment(STACK, *map(record, range(ENTRIES))), result="succeeded", changes={})
        log.write(b"!")


def test_nothing_acknowledged_is_lost_at_any_moment(url: str, record_property: Callable[[str, object], None]) -> None:
    """First a killed update of an empty stack, then a killed update of what that left, then one that goes through."""
    moment = 0
    alive = True
    while alive:
        moment += 1
        with tempfile.TemporaryDirectory() as folder:
            place, _, options = url.partition("?")
            here = f"{place}/{moment}?{options or 'create_dir=true'}"
            backend = open_backend(here)
            backend.create_stack("sample", "dev")
            alive = False
            before: list[str] = []
            for attempt in range(2):
                acknowledged = Path(folder, str(attempt))
                alive |= killed_at(moment, lambda here=here, log=acknowledged, n=attempt: run_update(here, log, n))  # type: ignore[misc]
                log = acknowledged.read_bytes() if acknowledged.exists() else b""
                found = urns(backend)
                if found != FINISHED:
                    assert b"!" not in log, f"moment {moment}: an update that had ended is gone"
                    made = found[: len(found) - len(before)]
                    assert found[len(made) :] == before, f"moment {moment}: the state before is gone"
                    wanted = [record(attempt * ENTRIES + number)["urn"] for number in range(len(made))]
                    assert made == wanted, f"moment {moment}"
                    assert len(made) >= log.count(b"."), f"moment {moment}: an acknowledged entry is gone"
                before = found
            run_update(here, Path(folder, "last"), 2)
            assert urns(backend) == FINISHED, f"moment {moment}"
            assert not [key for key in keys(backend) if ".journal" in key or "/locks/" in key], f"moment {moment}"
            assert backend.history("sample", "dev")[0]["result"] == "succeeded"
    assert moment > (30 if url.startswith("file:") else 15), "the fuse must have been in the way of the update"
    record_property("crash points", moment - 1)
    print(f"{moment - 1} crash points, nothing lost")


def test_a_removal_cut_short_leaves_a_stack_or_none(url: str) -> None:
    moment, alive = 0, True
    while alive:
        moment += 1
        place, _, options = url.partition("?")
        here = f"{place}/{moment}?{options or 'create_dir=true'}"
        backend = open_backend(here)
        backend.create_stack("sample", "dev")
        with backend.lock("sample", "dev", "up"), begin(backend) as update:
            update.append(BASE).result()
        alive = killed_at(moment, lambda here=here: open_backend(here).remove_stack("sample", "dev"))  # type: ignore[misc]
        if backend.exists("sample", "dev"):
            assert urns(backend) == []
            backend.remove_stack("sample", "dev")
        backend.create_stack("sample", "dev")
        assert urns(backend) == []
    assert moment > 5


@pytest.mark.parametrize("interrupted", [0, 1, ENTRIES])
def test_a_kill_while_entries_are_written_in_bulk(url: str, interrupted: int, tmp_path: Path) -> None:
    """Batches of many entries: whatever was acknowledged is there, and what is there is in order."""
    backend = open_backend(url)
    backend.create_stack("sample", "dev")
    log = tmp_path / "log"

    def append_forever() -> None:
        mine = open_backend(url)
        with mine.lock("sample", "dev", "up"), begin(mine) as update, log.open("ab", buffering=0) as file:
            update.append(BASE)
            for start in range(0, 10_000_000, 100):
                futures = [update.append(entry(number)) for number in range(start, start + 100)]
                for future in futures[: 100 - interrupted]:
                    future.result()
                file.write(b".")

    child = fork()
    if not child:
        try:
            append_forever()
        finally:
            os._exit(1)
    while not log.exists() or log.stat().st_size < 5:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the writer ended by itself"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = urns(backend)
    assert found == [record(number)["urn"] for number in range(len(found))]
    assert len(found) >= log.stat().st_size * 100 - interrupted
