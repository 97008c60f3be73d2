"""The real program as a stack of its own, run as a user runs it, and killed as nobody should."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from cli.sweep import Scope, find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud

ROOT = Path(__file__).parents[2]
LONGEST_RUN_SECONDS = 900.0
WHOLE = {
    "lease": 1, "network": 1, "subnet": 1, "router": 1, "security group": 2, "port": 1, "floating IP": 1, "keypair": 1,
    "server group": 1, "server": 1, "volume": 1,
}  # fmt: skip
"""What `up` makes, by kind, with the settings of the fixture `stack`."""


@dataclass(frozen=True)
class Outcome:
    """A run that has ended."""

    status: int
    output: str
    seconds: float


class Run:
    """A run under way."""

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.killed = False
        self.process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End the command, the program and every provider with SIGKILL; nobody gets to say a last word."""
        with self._lock:
            if self.killed or self.process.poll() is not None:
                return
            self.killed = True
            for pid in family(self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> Outcome:
        """Wait for the end."""
        try:
            output, _ = self.process.communicate(timeout=LONGEST_RUN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            output, _ = self.process.communicate()
            raise AssertionError(f"still running after {LONGEST_RUN_SECONDS:.0f} s:\n{output}") from None
        return Outcome(self.process.returncode, output, time.monotonic() - self._began)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


class Stack:
    """A stack of this repository's program, in a project folder of its own whose parts are those of the repository."""

    def __init__(self, name: str, folder: Path, clouds: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self.name = name
        self.project = folder / "project"
        home, backend = folder / "home", folder / "backend"
        for made in (self.project, home, backend):
            made.mkdir(parents=True)
        for part in ("__main__.py", "infra", ".venv"):
            (self.project / part).symlink_to(ROOT / part)
        shutil.copy(ROOT / "Pulumi.yaml", self.project)
        yaml = YAML()
        self._clouds = folder / "clouds.yaml"
        self._clouds.touch(0o600)
        yaml.dump(dict(clouds), self._clouds)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "OS_", "XDG_")) and k != "CI"}
        self.env = {
            **inherited,
            "HOME": str(home),
            "OS_CLIENT_CONFIG_FILE": str(self._clouds),
            "PULUMI_BACKEND_URL": f"file://{backend}",
            "PULUMI_CONFIG_PASSPHRASE": "of no worth",
        }
        self.run("stack", "init")
        file = self.project / f"Pulumi.{name}.yaml"
        document = yaml.load(file)
        document["config"] = {f"ml-cluster:{key}": value for key, value in settings.items()}
        yaml.dump(document, file)

    def start(self, *arguments: str) -> Run:
        """Start `lab` on the stack."""
        command = [str(ROOT / "lab"), "--cwd", str(self.project), "--engine", "embedded", "--non-interactive"]
        return Run([*command, "--stack", self.name, *arguments], self.env)

    def attempt(self, *arguments: str) -> Outcome:
        """Run `lab` on the stack, come what may; a user never sees a traceback."""
        outcome = self.start(*arguments).end()
        assert "Traceback" not in outcome.output, outcome.output
        return outcome

    def run(self, *arguments: str) -> Outcome:
        """Run `lab` on the stack; it must succeed."""
        outcome = self.attempt(*arguments)
        assert outcome.status == 0, outcome.output
        return outcome


def found(cloud: Connection, stack: str) -> Counter[tuple[str, str]]:
    """What the cloud has of a stack, by kind and name: with its tag, its name, or in its network, as `lab sweep`."""
    return Counter((item.kind, item.name) for item in find(cloud, Scope(stack, {stack})))


NAMES = {
    "nova": {"instances": "display_name"},
    "nova_api": {"key_pairs": "name", "instance_groups": "name"},
    "neutron": dict.fromkeys(("networks", "subnets", "routers", "ports", "securitygroups"), "name")
    | {"standardattributes": "description"},
    "cinder": {"volumes": "display_name"},
    "blazar": {"leases": "name"},
}
"""Tables of the services, and the column that holds what the program calls a resource."""


def left_in_databases(devcloud: Devcloud, stack: str) -> int:
    """How many rows of what a stack has made are left, behind the APIs."""
    control = devcloud.control
    rows = 0
    for database, tables in NAMES.items():
        kept = "and deleted = 0" if database in {"nova", "cinder"} else ""  # the others delete their rows
        for table, column in tables.items():
            query = f"select count(*) from {database}.{table} where {column} like '{stack}-%' {kept}"  # noqa: S608
            socket = f"--socket={control.layout.run}/mysql.sock"
            rows += int(control.inside("mariadb", "--skip-column-names", "-uroot", socket, text=query))
    return rows
