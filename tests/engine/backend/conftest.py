"""Both kinds of backend: a folder, and a bucket of a real object store on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from engine.backend import open_backend
from engine.backend.s3 import connect
from tests.weed import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.backend import Backend

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a SeaweedFS server, as host and port."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    names = ("master", "volume", "filer", "s3")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name("weed"),
                "server",
                "-s3",
                f"-dir={folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-master.telemetry=false",
                "-volume.max=20",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                f"-s3.localSocket={folder}/s3.sock",
                f"-filer.localSocket={folder}/filer.sock",
                *(f"-{name}.port={port}" for name, port in ports.items()),
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        endpoint = f"127.0.0.1:{ports['s3']}"
        os.environ.update(_CREDENTIALS)
        _wait_until_writable(endpoint, process)
        yield endpoint
    finally:
        process.kill()
        process.wait()


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


def _wait_until_writable(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            url = f"s3://state?endpoint={endpoint}&disableSSL=true&s3ForcePathStyle=true"
            client = connect(url)
            client.create_bucket(Bucket="state")
            client.put_object(Bucket="state", Key="ready", Body=b"yes")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    pytest.fail("the object store did not start; its log is in the test's folder seaweedfs")
