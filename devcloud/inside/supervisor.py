"""Process 1 of devcloud: starts the services of the plan, restarts those that exit, answers on a Unix socket.

Runs under Debian's Python inside the namespaces, with only the standard library. A connection carries one line of JSON
each way:
``{"op": "status"}``, ``{"op": "start", "names": [...]}``, ``{"op": "stop", "names": [...]}``, ``{"op": "shutdown"}``.
An empty list of names means all services.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK = 0.1
STABLE_AFTER = 60.0
MAX_BACKOFF = 30.0


@dataclass
class Service:
    """One supervised daemon."""

    name: str
    command: list[str]
    needs: list[str]
    environment: dict[str, str]
    ready: list[str | int] | None  # ["tcp", address, port], ["file", path]; None: ready after a second
    stop_seconds: float
    log: Path
    parent: str | None = None  # socket of the fork server that starts this daemon; None: it is executed
    namespaces: str | None = None  # file with the ID of a process whose namespaces a forked daemon enters
    wanted: bool = False
    state: str = "stopped"
    pid: int | None = None
    pending: socket.socket | None = None  # connection to the fork server, until it answers
    started: float = 0.0
    restarts: int = 0
    failures: int = 0
    retry_at: float = 0.0
    kill_at: float = 0.0
    last_error: str | None = None
    ready_after: float | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether there is no process, and none is starting."""
        return self.pid is None and self.pending is None

    def spawn(self) -> None:
        """Start the daemon in a new session, with its output in its log.

        Raises:
            OSError: it could not be started.
        """
        if self.parent:
            self.request_fork(self.parent)
        else:
            self.pid = self.execute()
        self.state, self.started, self.ready_after = "starting", time.monotonic(), None

    def execute(self) -> int:
        """Execute the command. Returns its process ID."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        process.returncode = 0  # process 1 reaps every child itself; Popen must not wait for it
        return process.pid

    def request_fork(self, parent: str) -> None:
        """Ask the family's fork server to start the daemon. Its answer, the process ID, comes later (`collect`)."""
        request = {
            "command": self.command,
            "environment": self.environment,
            "log": str(self.log),
            "namespaces": int(Path(self.namespaces).read_text()) if self.namespaces else None,
        }
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            server.setblocking(False)
            server.connect(parent)
            server.send(json.dumps(request).encode())
        except OSError:
            server.close()
            raise
        self.pending = server

    def is_ready(self) -> bool:
        """Whether the readiness check passes."""
        if self.ready is None:
            return time.monotonic() - self.started > 1
        kind, *where = self.ready
        if kind == "file":
            return Path(str(where[0])).exists()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            with contextlib.suppress(OSError):
                probe.connect(tuple(where))
                return True
        return False

    def signal(self, number: int) -> None:
        """Send a signal to the daemon; SIGKILL goes to its whole session."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)


@dataclass
class Supervisor:
    """The services, and the loop that keeps them in their wanted state."""

    services: dict[str, Service]
    listener: socket.socket
    stopping: bool = False

    def loop(self) -> None:
        """Run until a shutdown is requested and every service has stopped."""
        poller = select.poll()
        poller.register(self.listener, select.POLLIN)
        while not (self.stopping and all(service.is_stopped for service in self.services.values())):
            for number, _ in poller.poll(TICK * 1000):
                if number == self.listener.fileno():
                    connection, _ = self.listener.accept()
                    self.serve(connection)
            self.collect()
            self.reap()
            for service in self.services.values():
                self.reconcile(service)

    def serve(self, connection: socket.socket) -> None:
        """Answer one request; ignore one that is not valid."""
        with connection, contextlib.suppress(OSError, ValueError, KeyError):
            connection.settimeout(2)
            request = json.loads(connection.makefile("r").readline())
            connection.sendall(json.dumps(self.answer(request)).encode() + b"\n")

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out a request. Returns the state of all services."""
        names = request.get("names") or list(self.services)
        if request["op"] == "start":
            for name in names:
                self.services[name].wanted = True
                self.services[name].retry_at = 0
        elif request["op"] == "stop":
            for name in names:
                self.stop(self.services[name])
        elif request["op"] == "shutdown":
            self.stopping = True
            for service in self.services.values():
                self.stop(service)
        memory = memory_by_session() if request.get("memory") else {}
        named = {service.pid for service in self.services.values()}
        rest = sum(size for session, size in memory.items() if session not in named)
        return {"services": [self.describe(service, memory) for service in self.services.values()], "rest": rest}

    @staticmethod
    def describe(service: Service, memory: dict[int, int]) -> dict[str, Any]:
        """A service's entry in the answer."""
        return {
            "name": service.name,
            "state": service.state,
            "pid": service.pid,
            "restarts": service.restarts,
            "ready_after": service.ready_after,
            "last_error": service.last_error,
            "memory": memory.get(service.pid) if service.pid else None,
        }

    @staticmethod
    def stop(service: Service) -> None:
        """Send SIGTERM; after `stop_seconds`, `reconcile` sends SIGKILL."""
        service.wanted = False
        if service.is_stopped:
            service.state = "stopped"
        elif service.state != "stopping":
            service.state, service.kill_at = "stopping", time.monotonic() + service.stop_seconds
            service.signal(signal.SIGTERM)

    def collect(self) -> None:
        """Read the answers of fork servers that have arrived."""
        for service in self.services.values():
            if service.pending is None:
                continue
            try:
                answer = service.pending.recv(16)
            except BlockingIOError:
                continue
            except OSError:
                answer = b""
            service.pending.close()
            service.pending = None
            if answer:
                service.pid = int(answer)
                if not service.wanted:
                    service.signal(signal.SIGTERM)
            elif service.wanted:
                self.failed(service, "its fork server could not start it")
            else:
                service.state = "stopped"

    def reap(self) -> None:
        """Reap children that have exited: services, and orphans that process 1 adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.collect()  # a daemon's process ID is sent before the daemon can exit
            for service in self.services.values():
                if service.pid == pid:
                    self.exited(service, os.waitstatus_to_exitcode(status))

    def exited(self, service: Service, code: int) -> None:
        """Note the end of a service; plan its restart unless it was to stop."""
        service.signal(signal.SIGKILL)  # remaining processes of its session would hold its ports
        service.pid = None
        if service.wanted:
            cause = f"signal {-code}" if code < 0 else f"exit {code}"
            self.failed(service, f"{cause}: {last_line(service.log)}")
        else:
            service.state = "stopped"

    @staticmethod
    def failed(service: Service, error: str) -> None:
        """Plan a restart, with exponential backoff."""
        lived = time.monotonic() - service.started
        service.failures = 0 if lived > STABLE_AFTER else service.failures + 1
        service.restarts += 1
        service.state, service.last_error = "backing off", error
        service.retry_at = time.monotonic() + min(MAX_BACKOFF, 2.0 ** min(service.failures, 6) / 2)

    def reconcile(self, service: Service) -> None:
        """Move a service one step towards its wanted state."""
        now = time.monotonic()
        if service.state == "starting" and service.pid and service.is_ready():
            service.state, service.ready_after = "running", round(now - service.started, 1)
        elif service.state == "stopping" and now > service.kill_at:
            service.signal(signal.SIGKILL)
        elif service.wanted and service.is_stopped and now >= service.retry_at:
            if all(self.services[name].state == "running" for name in service.needs):
                try:
                    service.spawn()
                except (OSError, ValueError) as error:
                    self.failed(service, str(error))
            else:
                service.state = "waiting"


def memory_by_session() -> dict[int, int]:
    """Memory (PSS, bytes) of devcloud's own processes by session, without those of instances."""
    sizes: dict[int, int] = {}
    own = Path("/proc/self/ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if (process / "ns/pid").readlink() != own or (process / "comm").read_text().startswith("qemu-system"):
                continue
            session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
            lines = (process / "smaps_rollup").read_text().splitlines()
            size = next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
            sizes[session] = sizes.get(session, 0) + size
    return sizes


def last_line(log: Path) -> str:
    """The last line of a log that is not blank."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def main() -> None:
    """Create the control socket, then supervise the services."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    services = {entry["name"]: Service(**{**entry, "log": Path(entry["log"])}) for entry in plan["services"]}
    path = Path(plan["socket"])
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(8)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the daemons would inherit
    Supervisor(services, listener).loop()


if __name__ == "__main__":
    main()
