"""A small stack that reaches its cloud through a proxy, and whose commands are killed as nobody should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.sweep import Scope, find
from tests.e2e.harness import Cloud, Deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_RUN_SECONDS: Final = 1800.0
NODES: Final = {"control": {"role": "control-plane", "count": 1, "flavor": "m1.tiny"}}
VOLUMES: Final = {"data": {"sizeGb": 1, "attachTo": "control-0"}}
WHOLE: Final = {
    "lease": 1, "network": 1, "subnet": 1, "router": 1, "security group": 2, "port": 1, "floating IP": 1, "keypair": 1,
    "server group": 1, "server": 1, "volume": 1,
}  # fmt: skip
"""What `up` makes of these settings, by kind."""


@dataclass(frozen=True)
class Outcome:
    """A run that has ended."""

    status: int
    output: str
    seconds: float

    @property
    def diagnostics(self) -> str:
        """What was told of single resources."""
        return self.output[max(0, self.output.find("Diagnostics:")) :]

    @property
    def messages(self) -> str:
        """What a run with --json told, without its other events."""
        events = (json.loads(line) for line in self.output.splitlines() if line.startswith("{"))
        told = [event["diagnosticEvent"] for event in events if "diagnosticEvent" in event]
        return "\n".join(f"{one.get('urn', '')} {one['severity']}: {one['message'].strip()}" for one in told)


class Run:
    """A run under way; `heard` gets each line that it says."""

    def __init__(
        self, command: list[str], env: Mapping[str, str], heard: Callable[[str], None] = lambda _line: None
    ) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._killed = False
        self._heard = heard
        self._output: list[str] = []
        self._process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output.append(line)
            self._heard(line)

    def kill(self) -> None:
        """End the command, the program and every provider with SIGKILL; nobody gets to say a last word."""
        with self._lock:
            if self._killed or self._process.poll() is not None:
                return
            self._killed = True
            for pid in family(self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> Outcome:
        """Wait for the end. A user never sees a traceback."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LONGEST_RUN_SECONDS)
        late = self._process.poll() is None
        self.kill()
        self._reader.join()
        output = "".join(self._output)
        assert not late, f"still running after {LONGEST_RUN_SECONDS:.0f} s:\n{output}"
        assert "Traceback" not in output, output
        return Outcome(self._process.returncode, output, time.monotonic() - self._began)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


class Victim(Deployment):
    """One reserved node with a floating IP and a volume: every kind of resource that the program makes, once.

    `identity` is the identity service's URL as its clients are to see it; `options` go into their clouds.yaml.
    """

    def __init__(self, folder: Path, cloud: Cloud, stack: str, identity: str, **options: Any) -> None:
        super().__init__(folder, cloud, stack)
        self.reach(identity, **options)
        self.change(lease__hours=1, nodes__groups=NODES, storage__volumes=VOLUMES)
        self.run("sweep", "--yes")  # what a test that failed has left

    def start(self, *arguments: str) -> Run:
        """Start `lab`."""
        return Run(self.command("--non-interactive", *arguments), self.env)

    def attempt(self, verb: str) -> Outcome:
        """Run a verb to its end, be it good or bad."""
        return self.start(verb, "--yes", "--skip-preview").end()

    def made(self) -> Counter[str]:
        """How many of each kind the cloud has of the stack: with its tag, its name, or in its network."""
        return Counter(item.kind for item in find(self.cloud.student, Scope(self.stack, {self.stack})))

    def assert_whole(self) -> None:
        """Everything is there, nothing is twice, and `lab` agrees."""
        assert self.made() == WHOLE
        self.run("preview", "--expect-no-changes")

    def left(self) -> list[str]:
        """What is left of the stack, by the client, by `sweep` and in the databases."""
        swept = self.run("sweep", "--json").json
        listed = [f"{count} x {kind}" for kind, count in self.made().items()]
        rows = [row for row in self.cloud.rows(self.stack) if not row.startswith("orphan ")]  # those may be others'
        return [*listed, *(f"swept: {item['kind']} {item['name']}" for item in swept), *rows]
