"""Both kinds of backend: a folder, and a bucket of a real object store on loopback."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.backend import open_backend
from tests.weed import object_store_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.backend import Backend


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a SeaweedFS server, as host and port."""
    with object_store_in(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty backend."""
    if request.param == "s3":
        endpoint = request.getfixturevalue("object_store")
        yield f"s3://state/{tmp_path.name}-{time.time_ns()}?endpoint={endpoint}&disableSSL=true&s3ForcePathStyle=true"
    else:
        # In memory where there is such a folder: processes are killed here, not machines.
        memory = Path("/dev/shm")  # noqa: S108
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            yield f"file://{folder}"


@pytest.fixture
def backend(url: str) -> Backend:
    """A backend with the empty stack ``dev`` of the project ``sample``."""
    backend = open_backend(url)
    backend.create_stack("sample", "dev")
    return backend
