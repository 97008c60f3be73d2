"""Starts, queries and stops the namespaces in which devcloud runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcloud import DEFAULT_STATE
from devcloud.config import PROVIDER_BRIDGE
from devcloud.errors import DevcloudError
from devcloud.layout import Layout, write_secret
from devcloud.processes import TIED, identity, started_at, wait_for
from devcloud.services import INSIDE, write_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")
# Moves itself to each cgroup given, then executes the command after `--`.
ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'

# By default, a cgroup gets as much CPU time as one process beside it; this one holds a whole cloud with its instances.
# Eight times the default of cgroup v1 and v2 (Linux, cpu.shares and cpu.weight).
CPU_WEIGHTS = {"cpu.shares": 8192, "cpu.weight": 800}


@dataclass(frozen=True)
class ServiceStatus:
    """Status of a service, from the supervisor."""

    name: str
    state: str
    pid: int | None
    restarts: int
    ready_after: float | None
    last_error: str | None
    memory: int | None


@dataclass(frozen=True)
class Status:
    """Status of all services; `rest` is the memory (PSS, bytes) of others: DHCP servers, proxies, supervisor."""

    services: list[ServiceStatus]
    rest: int


class Control:
    """A devcloud's namespaces, and the supervisor inside them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        same = layout.state == DEFAULT_STATE
        # Two devclouds on one machine differ in state folder and subnet; so must interface and cgroup names.
        self.name = "devcloud" if same else f"devcloud-{zlib.crc32(str(layout.state).encode()) & 0xFFFF:04x}"
        self._record = layout.run / "process.json"

    # ---- lifecycle

    def first_process(self) -> int | None:
        """The supervisor's process ID on this machine; None if devcloud is not running."""
        outer = self._outer_process()
        if outer is None:
            return None
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0]) if children else None

    def _outer_process(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(self._record.read_text())
            if record == identity(record["pid"]):
                return int(record["pid"])
        return None

    def start(self) -> None:
        """Create the namespaces and start the supervisor; continue after an interrupted start.

        Raises:
            DevcloudError: the namespaces or their network could not be created.
        """
        log = self.layout.log / "supervisor.log"
        if self.first_process() is None:
            self.stop()  # what a crash left
            self._launch(log)
        try:
            wait_for(self.layout.socket.exists, 30, lambda: self._outer_process() is None)
        except (TimeoutError, ChildProcessError) as error:
            self.stop()
            printed = log.read_text(errors="replace").strip().splitlines() or [str(error)]
            raise DevcloudError(
                f"devcloud's namespaces could not be created: {printed[-1]}", remedy=f"see {log}"
            ) from error
        self._connect_machine()

    def _launch(self, log: Path) -> None:
        plan = write_plan(self.layout)
        self.layout.socket.unlink(missing_ok=True)
        with log.open("wb") as output:
            outer = subprocess.Popen(
                ["sh", "-c", ENTER_CGROUPS, "devcloud", *self._make_cgroups(), "--",
                 "unshare", *NAMESPACES, "--fork", "--kill-child=KILL", "--",
                 sys.executable, str(INSIDE / "init.py"), str(plan)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=ENVIRONMENT, cwd="/",
            )  # fmt: skip
        write_secret(self._record, json.dumps(identity(outer.pid)))

    def _make_cgroups(self) -> list[str]:
        """A cgroup of devcloud's own in each hierarchy; returns the files by which a process enters them."""
        files = []
        for mount in cgroup_mounts():
            cgroup = mount / self.name
            cgroup.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (cgroup / name).exists() and not (cgroup / name).read_text().strip():
                    (cgroup / name).write_text((mount / name).read_text())
            for name, weight in CPU_WEIGHTS.items():
                if (cgroup / name).exists():
                    (cgroup / name).write_text(str(weight))
            files.append(str(cgroup / "cgroup.procs"))
        return files

    def _connect_machine(self) -> None:
        """The one veth pair between this machine and the external network."""
        prefix = self.layout.settings.subnet.prefixlen
        commands = [
            f"ip address replace {self.layout.machine_address}/{prefix} dev {self.name}",
            f"ip link set {self.name} up",
        ]
        if not self._interface.exists():
            peer = f"peer name machine netns {self.first_process()}"
            commands.insert(0, f"ip link add {self.name} type veth {peer}")
        try:
            for command in commands:
                subprocess.run(command.split(), check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise DevcloudError(f"{error.cmd} failed: {error.stderr.strip()}") from error
        self.inside("ip", "link", "set", "machine", "master", PROVIDER_BRIDGE, "up")

    @property
    def _interface(self) -> Path:
        return Path("/sys/class/net", self.name)

    def stop(self) -> None:
        """Stop every service, then let the kernel take the namespaces back. Instances lose power.

        Raises:
            DevcloudError: something devcloud made could not be removed.
        """
        outer = self._outer_process()
        if outer is not None:
            with contextlib.suppress(DevcloudError, TimeoutError):
                self.call("shutdown")
                wait_for(lambda: started_at(outer) is None, 60)
        self._kill_all()
        if outer is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(outer, os.WNOHANG)
        self._record.unlink(missing_ok=True)
        try:
            wait_for(lambda: not self._interface.exists(), 30)
            self._detach_loops()
            wait_for(self._remove_cgroups, 30)
        except TimeoutError:
            raise DevcloudError(
                f"devcloud stopped, but its interface or cgroups named {self.name} still exist",
                remedy=f"see which process holds them: grep -l {self.name} /proc/*/cgroup",
            ) from None

    def _kill_all(self) -> None:
        """Kill all in devcloud's cgroups, those of a start that was interrupted before it was recorded too."""
        for mount in cgroup_mounts():
            for members in (mount / self.name).rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    for pid in members.read_text().split():
                        os.kill(int(pid), signal.SIGKILL)

    def _detach_loops(self) -> None:
        """Detach loop devices over files of ours, known by inode: their paths are those of namespaces now gone."""
        files = [path.stat() for path in self.layout.data.rglob("*") if path.is_file()]
        ours = {(f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}", found.st_ino) for found in files}
        listed = subprocess.run(
            ["losetup", "--list", "--json", "--output", "NAME,BACK-MAJ:MIN,BACK-INO"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        for device in json.loads(listed.stdout or '{"loopdevices": []}')["loopdevices"]:
            if (device["back-maj:min"].strip(), int(device["back-ino"])) in ours:
                subprocess.run(["losetup", "--detach", device["name"]], check=False, capture_output=True)

    def _remove_cgroups(self) -> bool:
        left = False
        for mount in cgroup_mounts():
            top = mount / self.name
            folders = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
            for folder in [*folders, top]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            left = left or top.exists()
        return not left

    # ---- the supervisor

    def call(self, operation: str, *names: str, memory: bool = False) -> Status:
        """Send a request to the supervisor. Returns the state of all services, with `memory` (PSS, bytes) if requested.

        Raises:
            DevcloudError: it does not answer.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(60)
                connection.connect(str(self.layout.socket))
                request = {"op": operation, "names": names, "memory": memory}
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(connection.makefile().readline())
        except (OSError, ValueError) as error:
            raise DevcloudError(
                f"devcloud's supervisor does not answer: {error}",
                remedy="restart it: lab devcloud down, then lab devcloud up",
            ) from error
        return Status([ServiceStatus(**entry) for entry in answer["services"]], answer["rest"])

    def inside(self, *command: str, text: str | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run a command in devcloud's namespaces, `text` as its input; return what it printed. It ends with its caller.

        Raises:
            DevcloudError: the command failed.
        """
        enter = [*TIED, "nsenter", "--target", str(self.first_process()), *NAMESPACES, "--", *TIED, *command]
        done = subprocess.run(
            enter,
            check=False,
            capture_output=True,
            text=True,
            input=text or "",
            env={**ENVIRONMENT, **(environment or {})},
        )
        if done.returncode:
            printed = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise DevcloudError(f"{command[0]} failed inside devcloud: {printed[-1]}", remedy="see lab devcloud status")
        return done.stdout


def cgroup_mounts() -> list[Path]:
    """Mount points of all cgroup hierarchies, versions 1 and 2."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(fields[4]) for fields in lines if fields[fields.index("-") + 1] in {"cgroup", "cgroup2"}]
