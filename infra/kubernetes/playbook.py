"""Runs a playbook of `ansible/` with ansible-runner, in a process of its own: ``python -m infra.kubernetes.playbook``.

A separate process for two reasons. ansible-runner writes its environment to its artifacts, and that of a Pulumi
provider contains secrets. And a playbook must end if its provider is killed: the job comes through standard input, and
the playbook is cancelled when that is closed. The private key is passed to an ssh-agent, not to a file.
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
# Environment variables for playbooks; others may contain secrets.
ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SSH_AUTH_SOCK", "TMPDIR", "TZ", "USER")
UNREACHABLE_REMEDY = "likely reasons are a security group without SSH, a wrong key, or cloud-init that has not finished"


class PlaybookError(Exception):
    """A playbook failed. The text has the hosts, the task, the reason, and what to do."""


class Job(BaseModel):
    """A playbook to run."""

    playbook: str = Field(description="File below playbooks.")
    project: Path = Field(default=ANSIBLE, description="Folder of ansible.cfg, playbooks and roles.")
    inventory: dict[str, Any] = Field(description="Inventory in the format of Ansible's YAML plugin.")
    extra: str | None = Field(default=None, description="A variable that overrides all others, as name=value.")
    private_key: str | None = Field(description="Key that logs in to the hosts; None: the user's ssh-agent.")
    artifacts: Path = Field(description="Folder of runs; each run has a folder with its output and events.")


class Result(BaseModel):
    """Result of a playbook."""

    status: str
    artifacts: Path
    failures: list[str] = []
    seconds: dict[str, float] = Field(default={}, description="Seconds by play and role, in the order of execution.")
    changed: int = Field(default=0, description="Tasks that changed a host.")

    def table(self) -> str:
        """A table of the stages with their durations."""
        rows = [*self.seconds.items(), ("Total", sum(self.seconds.values()))]
        return "\n".join(f"{stage:<45}{seconds:>7.1f} s" for stage, seconds in rows)


def run(job: Job) -> Result:
    """Run a job. Progress goes to standard error: a line per task, and at the end the duration of each stage.

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
            f"{job.playbook} failed:\n{failures}\nRun `lab up` to continue. Full output: {result.artifacts}/stdout"
        )
    return result


class EventHandler:
    """Reports the events of a run, and collects durations and failures."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._stage: str | None = None
        self._stage_start = self._start
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.failures: list[str] = []

    def __call__(self, event: dict[str, Any]) -> bool:
        data = event.get("event_data", {})
        match event["event"]:
            case "playbook_on_task_start":
                stage = [data[key] for key in ("play", "role") if data.get(key)]
                self._enter(", ".join(stage))
                # The name of a role's task begins with the role's name.
                name = str(data.get("name") or data.get("task")).removeprefix(f"{data.get('role')} : ")
                self._print(f"{stage[-1]}: {name}")
            case "runner_on_failed" if not data.get("ignore_errors"):
                self._fail(data, str(data.get("res", {}).get("msg", "")) or "failed")
            case "runner_on_unreachable":
                message = str(data.get("res", {}).get("msg", "")).strip()
                self._fail(data, f"cannot be reached: {message}; {UNREACHABLE_REMEDY}")
            case "playbook_on_stats":
                self._enter(None)
        return True

    def _enter(self, stage: str | None) -> None:
        now = time.monotonic()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._stage_start
        self._stage, self._stage_start = stage, now

    def _fail(self, data: dict[str, Any], reason: str) -> None:
        failure = f"{data.get('host')}, {data.get('task')}: {reason}"
        self.failures.append(failure)
        self._print(failure)

    def _print(self, line: str) -> None:
        sys.stderr.write(f"{line} ({time.monotonic() - self._start:.0f} s)\n")
        sys.stderr.flush()


class Cancellation:
    """Whether to cancel: the parent process has ended, which closes standard input, or has sent SIGTERM."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._cancelled.set())
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        sys.stdin.read()
        self._cancelled.set()

    def __call__(self) -> bool:
        if self._cancelled.is_set():
            # ansible-runner kills a process group, but Ansible's workers are not in it.
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        return self._cancelled.is_set()


def main() -> None:
    """Read a job, run it, print its result."""
    import ansible_runner  # type: ignore[import-untyped]  # noqa: PLC0415

    job = Job.model_validate_json(sys.stdin.readline())
    handler = EventHandler()
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
        # Otherwise the key would be written to a file.
        suppress_env_files=True,
        quiet=True,
        event_handler=handler,
        cancel_callback=Cancellation(),
    )
    result = Result(
        status=outcome.status,
        artifacts=job.artifacts / "runs" / ident,
        failures=handler.failures,
        seconds={stage: round(seconds, 1) for stage, seconds in handler.seconds.items()},
        changed=sum((outcome.stats or {}).get("changed", {}).values()),
    )
    sys.stderr.write(result.table() + "\n")
    print(result.model_dump_json())


if __name__ == "__main__":
    main()
