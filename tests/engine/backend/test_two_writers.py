"""Two processes on one bucket of a real object store, killed or held up at every step: nothing recorded is lost."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.client import BaseClient  # type: ignore[import-untyped]

from engine.backend import StateLockedError, open_backend
from engine.backend.bucket import ConflictError, StorageError
from engine.backend.s3 import S3Journal
from tests.engine.backend.forking import fork
from tests.engine.backend.test_backend import BASE, STACK, begin, bucket_of, deployment, keys, plant_lock, record, urns
from tests.engine.backend.test_crash import READS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAILED = 3
MINE, THEIRS = (1, 2), (11, 12)


@pytest.fixture
def store(object_store: str) -> str:
    """The URL of an empty backend in the object store, to be completed."""
    return f"s3://state/{time.time_ns()}{{}}?endpoint={object_store}&disableSSL=true&s3ForcePathStyle=true"


def add(url: str, numbers: tuple[int, ...], log: Path) -> None:
    """Update a stack by some resources, and say of each, and of the end, that it is recorded."""
    backend = open_backend(url)
    with log.open("a", buffering=1) as file:
        while True:
            try:
                with backend.lock("sample", "dev", "up"), begin(backend) as update:
                    before = backend.load("sample", "dev")["deployment"].get("resources") or [STACK]
                    update.append(BASE).result()
                    for number in numbers:
                        update.append({"t": "end", "add": [f"n{number}", record(number)]}).result()
                        file.write(f"{number} ")
                    new = [record(number) for number in numbers]
                    update.finish(deployment(*before, *new), result="succeeded", changes={})
                    file.write("end ")
                    return
            except StateLockedError:
                continue


def start(act: Callable[[], None], *, moment: int = 0, number: signal.Signals = signal.SIGKILL) -> int:
    """Run ``act`` in a process that gets a signal after its call to the store of that number.

    SIGKILL counts only calls that change the store: what a kill after a read leaves, the one before it left.
    """
    child = fork()
    if child:
        return child
    call = BaseClient._make_api_call
    left = moment

    def counted(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        nonlocal left
        try:
            return call(client, operation, parameters)
        finally:
            if number != signal.SIGKILL or operation not in READS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), number)

    BaseClient._make_api_call = counted
    code = FAILED
    try:
        act()
        code = 0
    except StorageError:
        pass
    finally:
        os._exit(code)


def noted(log: Path) -> set[str]:
    recorded = set(log.read_text().split()) if log.exists() else set()
    return {record(int(number))["urn"] for number in recorded - {"end"}}


def test_a_killed_process_and_another_lose_nothing(
    store: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    moment, alive = 0, True
    while alive:
        moment += 1
        url, mine, theirs = store.format(f"-k{moment}"), tmp_path / f"{moment}.mine", tmp_path / f"{moment}.theirs"
        open_backend(url).create_stack("sample", "dev")
        first = start(lambda url=url, log=mine: add(url, MINE, log), moment=moment)  # type: ignore[misc]
        second = start(lambda url=url, log=theirs: add(url, THEIRS, log))  # type: ignore[misc]
        status = os.waitpid(first, 0)[1]
        alive = os.WIFSIGNALED(status)
        assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 0, f"moment {moment}"
        assert "end" in theirs.read_text()
        backend = open_backend(url)
        backend.save("sample", "dev", backend.load("sample", "dev"))
        found = urns(backend)
        assert set(found) >= noted(mine) | noted(theirs), f"moment {moment}: something recorded is gone"
        assert len(found) == len(set(found)), f"moment {moment}"
        assert not [key for key in keys(backend) if ".journal" in key or "/locks/" in key], f"moment {moment}"
    assert moment > 12
    record_property("figures", f"two writers, one killed: {moment - 1} moments, nothing lost")


def test_a_process_that_lost_its_lock_is_stopped(
    store: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """It is held up at every step in turn, somebody removes its lock, another process does its work, it wakes up."""
    moment, ended, stopped = 0, False, 0
    while not ended:
        moment += 1
        url, mine, theirs = store.format(f"-s{moment}"), tmp_path / f"{moment}.mine", tmp_path / f"{moment}.theirs"
        open_backend(url).create_stack("sample", "dev")
        first = start(lambda url=url, log=mine: add(url, MINE, log), moment=moment, number=signal.SIGSTOP)  # type: ignore[misc]
        status = os.waitpid(first, os.WUNTRACED)[1]
        ended = not os.WIFSTOPPED(status)
        if ended:
            break
        open_backend(url).unlock("sample", "dev")
        second = start(lambda url=url, log=theirs: add(url, THEIRS, log))  # type: ignore[misc]
        assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 0, f"moment {moment}"
        os.kill(first, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        assert code in {0, FAILED}, f"moment {moment}"
        stopped += code == FAILED
        backend = open_backend(url)
        backend.unlock("sample", "dev")
        backend.save("sample", "dev", backend.load("sample", "dev"))
        assert set(urns(backend)) >= noted(mine) | noted(theirs), f"moment {moment}: something recorded is gone"
        assert ("end" in mine.read_text()) == (code == 0), f"moment {moment}"
    assert stopped > 5
    record_property("figures", f"two writers, one held up: {moment - 1} moments, {stopped} stopped, nothing lost")


def test_the_end_of_an_update_spares_the_journal_of_the_next(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.format("")
    open_backend(url).create_stack("sample", "dev")
    one, other = open_backend(url), open_backend(url)
    remove = S3Journal.remove
    begun = []

    def begin_meanwhile(journal: S3Journal) -> None:
        monkeypatch.setattr(S3Journal, "remove", remove)
        other.unlock("sample", "dev")
        with other.lock("sample", "dev", "up"):
            begun.append(begin(other))
            begun[0].append(BASE).result()
        remove(journal)

    monkeypatch.setattr(S3Journal, "remove", begin_meanwhile)
    with one.lock("sample", "dev", "up"), begin(one) as update:
        update.finish(deployment(STACK, record(1)), result="succeeded", changes={})
    begun[0].append({"t": "end", "add": ["n2", record(2)]}).result()
    begun[0].close()
    assert urns(other) == [record(2)["urn"], STACK["urn"], record(1)["urn"]]


def test_a_checkpoint_that_another_has_written_stays(store: str) -> None:
    url = store.format("")
    open_backend(url).create_stack("sample", "dev")
    backend = open_backend(url)
    with backend.lock("sample", "dev", "up"), begin(backend) as update:
        (checkpoint,) = (key for key in keys(backend) if key.endswith("/dev.json"))
        other = b'{"version":3,"checkpoint":{"stack":"organization/sample/dev","latest":{"resources":[]}}}'
        bucket_of(backend).write(checkpoint, other)
        with pytest.raises(ConflictError, match="another process"):
            update.finish(deployment(STACK), result="succeeded", changes={})
        assert bucket_of(backend).read(checkpoint) == other


def test_the_lock_of_a_copy_of_this_machine_is_respected(store: str) -> None:
    """Copies of one runner share machine ID and host name: only of a process of this very system is the end known."""
    url = store.format("")
    open_backend(url).create_stack("sample", "dev")
    plant_lock(open_backend(url), bootId="another")
    with pytest.raises(StateLockedError), open_backend(url).lock("sample", "dev", "up"):
        pass


def test_a_refused_deletion_of_a_part_is_an_error(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.format("")
    open_backend(url).create_stack("sample", "dev")
    backend = open_backend(url)
    with backend.lock("sample", "dev", "up"), begin(backend) as update:
        update.append(BASE).result()
    call = BaseClient._make_api_call

    def refuse(client: Any, operation: str, parameters: Any) -> Any:
        if operation == "DeleteObjects":
            key = parameters["Delete"]["Objects"][0]["Key"]
            return {"Errors": [{"Key": key, "Code": "AccessDenied", "Message": "Access Denied"}]}
        return call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    with pytest.raises(StorageError, match="AccessDenied"), backend.lock("sample", "dev", "up"):
        begin(backend)
