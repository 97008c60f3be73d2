"""A SeaweedFS server of the tests' own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from engine.backend.s3 import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}

GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC this far above each port."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor on those for gRPC above them."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() * 16 % 20_000, 55_000):
        if len(found) == count:
            break
        if all(_is_free(each) for each in (port, port + GRPC_OFFSET)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def object_store_in(folder: Path, *options: str) -> Iterator[str]:
    """A server that keeps its data in a folder, with an empty bucket `state`: its host and port; more of its options.

    The variables of the environment that S3's clients read are set to its credentials.
    """
    names = ("master", "volume", "filer", "s3")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command: list[str | Path] = [
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
        *options,
    ]
    with (folder / "log").open("wb") as log:
        # Its log files are in the folder too.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "TMPDIR": str(folder)}
        )
    try:
        endpoint = f"127.0.0.1:{ports['s3']}"
        os.environ.update(_CREDENTIALS)
        _wait_until_writable(endpoint, process)
        yield endpoint
    finally:
        process.kill()
        process.wait()
        for name, port in ports.items():
            # Where it has them is fixed. S108: they are only deleted here.
            Path(f"/tmp/seaweedfs-{name}-grpc-{port + GRPC_OFFSET}.sock").unlink(missing_ok=True)  # noqa: S108


def _wait_until_writable(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client = connect(f"s3://state?endpoint={endpoint}&disableSSL=true&s3ForcePathStyle=true")
            client.create_bucket(Bucket="state")
            client.put_object(Bucket="state", Key="ready", Body=b"yes")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the object store did not start; its log is in the test's folder seaweedfs")
