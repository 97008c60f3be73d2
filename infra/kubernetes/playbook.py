"""Runs a playbook of `ansible/` with ansible-runner, in a process of its own: ``python -m infra.kubernetes.playbook``.

A process of its own, because ansible-runner writes the environment that it runs in into its artifacts, and that of a
Pulumi provider holds secrets; and because a provider that is killed takes its playbook with it: the job comes through
standard input, and the playbook is cancelled when that is closed. The private key goes to an ssh-agent, not to a file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, Field

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
RUNS_KEPT = 10
# What a playbook needs of the environment; the rest may hold secrets.
ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SSH_AUTH_SOCK", "TMPDIR", "TZ", "USER")
UNREACHABLE_REMEDY = "a security group without SSH, another key, or cloud-init still at work are likely reasons"


class PlaybookError(Exception):
    """A playbook failed. The text says on which hosts, in which task, why, and what to do."""


class Job(BaseModel):
    """A playbook to run."""

    playbook: str = Field(description="File below playbooks.")
    project: Path = Field(default=ANSIBLE, description="Folder of ansible.cfg, playbooks and roles.")
    inventory: dict[str, Any] = Field(description="Inventory, as ansible's YAML plugin takes it.")
    extra: str | None = Field(default=None, description="A variable that goes before all others, as name=value.")
    private_key: str | None = Field(description="Key that logs in to the hosts; None: the user's own ssh-agent.")
    artifacts: Path = Field(description="Folder of runs; a run's folder has its output and its events.")


class Result(BaseModel):
    """How it went."""

    status: str
    artifacts: Path
    failures: list[str] = []
    seconds: dict[str, float] = Field(default={}, description="Seconds by play and role, in the order of first tasks.")
    changed: int = Field(default=0, description="Tasks that changed a host.")

    def table(self) -> str:
        """The stages and how long they took."""
        rows = [*self.seconds.items(), ("Total", sum(self.seconds.values()))]
        return "\n".join(f"{stage:<45}{seconds:>7.1f} s" for stage, seconds in rows)


def run(job: Job) -> Result:
    """Run a job; progress goes to standard error: a line a task, and at the end how long each stage took.

    Raises:
        PlaybookError: it failed.
    """
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    with subprocess.Popen(
        [sys.executable, "-m", "infra.kubernetes.playbook"],
        cwd=ANSIBLE.parent, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
            answer = process.stdout.read()
        finally:
            process.stdin.close()
    if process.returncode or not answer:
        raise PlaybookError(
            f"{job.playbook} did not run (status {process.returncode}). `lab doctor` looks for reasons."
        )
    result = Result.model_validate_json(answer)
    if result.status != "successful":
        failures = "\n".join(f"  {failure}" for failure in result.failures) or f"  ansible-runner says: {result.status}"
        raise PlaybookError(
            f"{job.playbook} failed:\n{failures}\n`lab up` goes on from there. All it said: {result.artifacts}/stdout"
        )
    return result


class Watch:
    """Follows the events of a run."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._stage: str | None = None
        self._stage_began = self._began
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.failures: list[str] = []

    def __call__(self, event: dict[str, Any]) -> bool:
        data = event.get("event_data", {})
        match event["event"]:
            case "playbook_on_task_start":
                where = [data[what] for what in ("play", "role") if data.get(what)]
                self._enter(", ".join(where))
                self._say(f"{where[-1]}: {data.get('name') or data.get('task')}")
            case "runner_on_failed" if not data.get("ignore_errors"):
                self._fail(data, str(data.get("res", {}).get("msg", "")) or "failed")
            case "runner_on_unreachable":
                said = str(data.get("res", {}).get("msg", "")).strip()
                self._fail(data, f"cannot be reached: {said}; {UNREACHABLE_REMEDY}")
            case "playbook_on_stats":
                self._enter(None)
        return True

    def _enter(self, stage: str | None) -> None:
        now = time.monotonic()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._stage_began
        self._stage, self._stage_began = stage, now

    def _fail(self, data: dict[str, Any], why: str) -> None:
        failure = f"{data.get('host')}, {data.get('task')}: {why}"
        self.failures.append(failure)
        self._say(failure)

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{line} ({time.monotonic() - self._began:.0f} s)\n")
        sys.stderr.flush()


class Cancellation:
    """Whether whoever started this process is gone, its end of standard input closed, or has told it to end."""

    def __init__(self) -> None:
        self._gone = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._gone.set())
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        sys.stdin.read()
        self._gone.set()

    def __call__(self) -> bool:
        if self._gone.is_set():
            # ansible-runner ends a process group; Ansible's workers are not in it.
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        return self._gone.is_set()


def main() -> None:
    """Read a job, run it, print its result."""
    import ansible_runner  # type: ignore[import-untyped]  # noqa: PLC0415

    job = Job.model_validate_json(sys.stdin.readline())
    watch = Watch()
    ident = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{Path(job.playbook).stem}"
    job.artifacts.mkdir(mode=0o700, parents=True, exist_ok=True)
    inventory = job.artifacts / "inventory.json"
    inventory.touch(0o600)
    inventory.write_text(json.dumps(job.inventory, indent=1))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    outcome = ansible_runner.run(
        private_data_dir=str(job.artifacts),
        project_dir=str(job.project),
        playbook=f"playbooks/{job.playbook}",
        inventory=str(inventory),
        ssh_key=job.private_key,
        cmdline=f"--extra-vars {job.extra}" if job.extra else None,
        artifact_dir=str(job.artifacts / "runs"),
        rotate_artifacts=RUNS_KEPT,
        ident=ident,
        envvars={"ANSIBLE_CONFIG": str(job.project / "ansible.cfg"), "PATH": path},
        # Without it, the key would be kept in a file.
        suppress_env_files=True,
        quiet=True,
        event_handler=watch,
        cancel_callback=Cancellation(),
    )
    result = Result(
        status=outcome.status,
        artifacts=job.artifacts / "runs" / ident,
        failures=watch.failures,
        seconds={stage: round(seconds, 1) for stage, seconds in watch.seconds.items()},
        changed=sum((outcome.stats or {}).get("changed", {}).values()),
    )
    sys.stderr.write(result.table() + "\n")
    print(result.model_dump_json())


if __name__ == "__main__":
    main()
