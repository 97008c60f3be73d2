"""A disk that is full, or refuses: an error that says so, nothing lost, and all well once there is space again."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING

import pytest

from engine.backend import open_backend
from engine.backend.bucket import StorageError
from tests.engine.backend.forking import fork
from tests.engine.backend.test_backend import BASE, STACK, begin, deployment, entry, record, update, urns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small file system needs root; the limit on file sizes below stands in for it")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> Path:
    """Leave no space."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError:
                return filler


def test_a_full_disk_during_an_update(small_disk: Path) -> None:
    backend = open_backend(f"file://{small_disk}")
    backend.create_stack("sample", "dev")
    with backend.lock("sample", "dev", "up"), begin(backend) as started:
        started.append(BASE).result()
        filler = fill(small_disk)
        # What fits into the last page of the journal is still taken.
        number = 0
        while (error := started.append(entry(number)).exception()) is None:
            number += 1
        assert isinstance(error, StorageError)
        assert "dev.journal' cannot be written: No space left on device" in str(error)
        assert "Free space" in str(error.remedy)
        with pytest.raises(StorageError, match="No space left"):
            started.append(entry(number + 1)).result()
        with pytest.raises(StorageError, match="No space left"):
            started.finish(deployment(STACK), result="failed", changes={})
        assert urns(backend) == [record(each)["urn"] for each in range(number)], "what was acknowledged is there"
        filler.unlink()
        started.append(entry(number + 2)).result()
        made = [record(each)["urn"] for each in range(number + 3)]
        assert urns(backend) == made, "what had failed is there too, in its place"
        started.finish(deployment(STACK, record(0)), result="succeeded", changes={})
    assert urns(backend) == [STACK["urn"], record(0)["urn"]]


def test_a_full_disk_at_the_end_of_an_update(small_disk: Path) -> None:
    backend = open_backend(f"file://{small_disk}")
    backend.create_stack("sample", "dev")
    with backend.lock("sample", "dev", "up"), begin(backend) as started:
        for each in (BASE, entry(1)):
            started.append(each).result()
        filler = fill(small_disk)
        with pytest.raises(StorageError, match="No space left"):
            started.finish(deployment(*map(record, range(500))), result="succeeded", changes={})
    assert urns(backend) == [record(1)["urn"]]
    filler.unlink()
    update(backend, STACK)
    assert urns(backend) == [STACK["urn"]]
    assert not list(small_disk.rglob("*.tmp")), "no half-written file is left"


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """As on a full disk, where no small disk can be mounted: the kernel refuses writes beyond a size."""
    backend = open_backend(f"file://{tmp_path}")
    backend.create_stack("sample", "dev")
    child = fork()
    if not child:
        code = 1
        try:
            with backend.lock("sample", "dev", "up"), begin(backend) as started:
                started.append(BASE).result()
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
                refused = [started.append(entry(number)).exception() for number in range(100)]
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                assert isinstance(refused[-1], StorageError)
                assert "dev.journal" in str(refused[-1])
                started.append(entry(100)).result()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    # The child's lock is gone with it; its journal has all entries, of which the refused ones came late.
    assert urns(backend) == [record(number)["urn"] for number in range(101)]


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    if not os.geteuid():
        # Root may write anywhere, save into a folder that is no folder.
        (tmp_path / ".pulumi").write_text("in the way")
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match=str(tmp_path)) as caught:
        open_backend(f"file://{tmp_path}").create_stack("sample", "dev")
    assert "permissions" in str(caught.value.remedy)
