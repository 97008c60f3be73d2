"""A supervisor as devcloud has it, over small processes; and an exporter of what they are and say."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tenacity import retry, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from devcloud.services import EXPORTER, INSIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SLEEPER = ["sleep", "1000"]
# Orphans come to the supervisor (PR_SET_CHILD_SUBREAPER), as they come to process 1.
ADOPT = """import ctypes, runpy, sys
ctypes.CDLL(None).prctl(36, 1)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def entry(name: str, command: list[str], log: Path, **options: Any) -> dict[str, Any]:
    """One service of a plan."""
    defaults: dict[str, Any] = {"needs": [], "environment": {}, "ready": None, "stop_seconds": 1}
    return {"name": name, "command": command, "log": str(log), **defaults, **options}


class Client:
    """Talks to a supervisor as `devcloud.control` does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @retry(retry=retry_if_exception_type(OSError), stop=stop_after_delay(10), wait=wait_fixed(0.05))
    def call(self, operation: str, *names: str) -> dict[str, dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path))
            connection.sendall(json.dumps({"op": operation, "names": names}).encode() + b"\n")
            answer = json.loads(connection.makefile().readline())
        return {service["name"]: service for service in answer["services"]}

    def wait(self, name: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a service's status meets the condition."""
        asking = retry(
            retry=retry_if_result(lambda found: not condition(found)), stop=stop_after_delay(20), wait=wait_fixed(0.05)
        )
        return asking(lambda: self.call("status")[name])()


@contextmanager
def supervised(folder: Path, services: list[dict[str, Any]]) -> Iterator[Client]:
    """A supervisor over services. They end with it."""
    plan, path = folder / "plan.json", folder / "socket"
    plan.write_text(json.dumps({"socket": str(path), "services": services}))
    with subprocess.Popen([sys.executable, "-c", ADOPT, str(INSIDE / "supervisor.py"), str(plan)]) as process:
        client = Client(path)
        yield client
        client.call("shutdown")
        assert process.wait(20) == 0


def exporter(folder: Path, address: str, port: int) -> dict[str, Any]:
    """The exporter as a service of a supervisor in a folder, whose file `passwords` has the cloud's passwords."""
    command = [
        sys.executable, str(INSIDE / "exporter.py"), str(folder / "plan.json"), address, str(port),
        str(folder / "passwords"),
    ]  # fmt: skip
    return entry(EXPORTER, command, folder / "exporter.log", ready=["tcp", address, port])


def is_running(service: dict[str, Any]) -> bool:
    """Whether a service's status says so."""
    return bool(service["state"] == "running")
