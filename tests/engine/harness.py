"""Runs real programs against a real engine, in folders of their own.

The engine is ``./lab --engine embedded``. With ``LAB_TEST_ENGINE=pulumi`` every command goes to the Pulumi CLI on PATH
instead, which proves the tests' expectations: a conformance test that the CLI fails is wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.warm import launchers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Json: TypeAlias = Any

REPOSITORY = Path(__file__).parents[2]
TESTBED = Path(__file__).parent / "testbed"
ENGINE = os.environ.get("LAB_TEST_ENGINE", "embedded")
STACK = "dev"
PROJECT = "conformance"
PASSPHRASE = "correct horse battery staple"  # noqa: S105
STEP_TIMEOUT_SECONDS = 300.0

PREAMBLE = """\
import pulumi
from pulumi import *
from pulumi_testbed import *
"""


def virtualenv() -> str:
    """The virtual environment of programs, policy packs and providers as source."""
    return str(Path(sys.executable).parents[1] if ENGINE == "pulumi" else launchers().virtualenv)


def name_of(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.01)


@dataclass(frozen=True)
class Outcome:
    """What a user sees of one command."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return f"{self.stdout}\n{self.stderr}"

    @cached_property
    def events(self) -> list[dict[str, Json]]:
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    def of_kind(self, kind: str) -> list[dict[str, Json]]:
        return [event[kind] for event in self.events if event.get(kind) is not None]

    @cached_property
    def planned(self) -> list[tuple[str, str]]:
        """(operation, logical name) of each step begun, in order, without those of the stack and of providers."""
        return self.steps("resourcePreEvent")

    @cached_property
    def done(self) -> list[tuple[str, str]]:
        """(operation, logical name) of each step completed, in order."""
        return self.steps("resOutputsEvent")

    def steps(self, kind: str) -> list[tuple[str, str]]:
        metadata = [event["metadata"] for event in self.of_kind(kind)]
        return [
            (m["op"], name_of(m["urn"]))
            for m in metadata
            if m["type"] != "pulumi:pulumi:Stack" and not m["type"].startswith("pulumi:providers:")
        ]

    def step(self, operation: str, name: str) -> dict[str, Json]:
        """The metadata of the one step so described."""
        found = [
            event["metadata"]
            for event in self.of_kind("resourcePreEvent")
            if (event["metadata"]["op"], name_of(event["metadata"]["urn"])) == (operation, name)
        ]
        assert len(found) == 1, f"{len(found)} steps {operation} {name}\n{self.text}"
        return dict(found[0])

    @property
    def changes(self) -> dict[str, int]:
        (summary,) = self.of_kind("summaryEvent")
        return {op: n for op, n in summary["resourceChanges"].items() if n}

    @property
    def messages(self) -> str:
        """The messages that the user sees, without those for debugging."""
        diagnostics = [event for event in self.of_kind("diagnosticEvent") if event["severity"] != "debug"]
        return "\n".join(event["message"] for event in diagnostics) + self.stderr


@dataclass(frozen=True)
class Running:
    """A command under way."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self.stdout.read_text() + self.stderr.read_text()

    def signal(self, number: signal.Signals) -> None:
        """To its whole process group, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, number)


class Stack:
    """One project with one stack, its own backend, and a testbed world."""

    def __init__(self, folder: Path, template: Path | None = None) -> None:
        self.folder = folder / "project"
        self.world = folder / "world"
        self.backend = folder / "backend"
        self.home = folder / "home"
        self.commands = 0
        if template is None:
            self.folder.mkdir(parents=True)
            self.backend.mkdir()
        else:
            shutil.copytree(template / "project", self.folder)
            shutil.copytree(template / "backend", self.backend)
        for part in ("resources", "held", "release"):
            (self.world / part).mkdir(parents=True)
        self.home.mkdir()
        binaries = folder / "bin"
        binaries.mkdir()
        self.install_plugin(binaries / "pulumi-resource-testbed")
        self.env: dict[str, str] = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")},
            "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(TESTBED / "sdk"),
            "TESTBED_WORLD": str(self.world),
            "PULUMI_HOME": str(self.home),
            "PULUMI_BACKEND_URL": f"file://{self.backend}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true",
        }

    @staticmethod
    def install_plugin(path: Path, **env: str) -> None:
        """Put the test provider at *path*; *env* is set in it."""
        exports = "".join(f"export {key}={value}\n" for key, value in env.items())
        path.write_text(f'#!/bin/sh\n{exports}exec "{launchers().python}" "{TESTBED / "provider.py"}" "$@"\n')
        path.chmod(0o755)

    def project_file(self, text: str = "") -> None:
        options = f"    toolchain: uv\n    virtualenv: {virtualenv()}\n"
        header = f"name: {PROJECT}\nruntime:\n  name: python\n  options:\n{options}"
        (self.folder / "Pulumi.yaml").write_text(header + textwrap.dedent(text))
        # The CLI's `pip` toolchain wants pip in the virtual environment, its `uv` toolchain a lock file by the program.
        (self.folder / "uv.lock").write_text('version = 1\nrequires-python = ">=3.11"\n')

    def program(self, text: str) -> None:
        (self.folder / "__main__.py").write_text(PREAMBLE + textwrap.dedent(text))

    # Commands.

    def command(self, *arguments: str) -> list[str]:
        if ENGINE == "pulumi":
            return ["pulumi", "-C", str(self.folder), "--non-interactive", *arguments]
        lab = [str(launchers().lab), str(REPOSITORY / "cli/__main__.py")]
        return [*lab, "--cwd", str(self.folder), "--engine", ENGINE, *arguments]

    def start(self, *arguments: str) -> Running:
        """In a process group of its own, as a shell starts a job."""
        self.commands += 1
        stdout, stderr = (self.folder.parent / f"{self.commands}.{stream}" for stream in ("stdout", "stderr"))
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                self.command(*arguments),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,
            )
        return Running(process, stdout, stderr)

    @staticmethod
    def finish(running: Running) -> Outcome:
        try:
            running.process.wait(timeout=STEP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(running.process.pid, signal.SIGKILL)
            raise AssertionError(f"no end after {STEP_TIMEOUT_SECONDS} s\n{running.output}") from None
        return Outcome(running.process.returncode, running.stdout.read_text(), running.stderr.read_text())

    def run(self, *arguments: str, ok: bool | None = True) -> Outcome:
        """Run a command; *ok* says whether it must succeed (None: either)."""
        outcome = self.finish(self.start(*arguments))
        if ok is not None:
            assert (outcome.exit_code == 0) is ok, f"{' '.join(arguments)}: exit {outcome.exit_code}\n{outcome.text}"
        return outcome

    def operation(self, verb: str, *flags: str) -> list[str]:
        arguments = [verb, "--stack", STACK, "--json", *flags]
        if verb != "preview" and "--preview-only" not in flags:
            arguments += ["--yes", "--skip-preview"]
        if ENGINE == "pulumi" and verb in {"up", "destroy"}:
            arguments.append("--continue-on-error")
        return arguments

    def up(self, *flags: str, ok: bool | None = True) -> Outcome:
        return self.run(*self.operation("up", *flags), ok=ok)

    def preview(self, *flags: str, ok: bool | None = True) -> Outcome:
        return self.run(*self.operation("preview", *flags), ok=ok)

    def destroy(self, *flags: str, ok: bool | None = True) -> Outcome:
        return self.run(*self.operation("destroy", *flags), ok=ok)

    def refresh(self, *flags: str, ok: bool | None = True) -> Outcome:
        return self.run(*self.operation("refresh", *flags), ok=ok)

    def init(self) -> None:
        self.run("stack", "init", STACK)

    def config(self, key: str, value: str, *flags: str) -> None:
        self.run("config", "set", "--stack", STACK, key, value, *flags)

    def outputs(self, *flags: str) -> dict[str, Json]:
        return dict(json.loads(self.run("stack", "output", "--stack", STACK, "--json", *flags).stdout))

    # State.

    def export(self) -> dict[str, Json]:
        group = "stack" if ENGINE == "pulumi" else "state"
        return dict(json.loads(self.run(group, "export", "--stack", STACK).stdout))

    def import_(self, deployment: Mapping[str, Json], *flags: str, ok: bool | None = True) -> Outcome:
        path = self.folder.parent / "import.json"
        path.write_text(json.dumps(deployment))
        group = "stack" if ENGINE == "pulumi" else "state"
        return self.run(group, "import", "--stack", STACK, "--file", str(path), *flags, ok=ok)

    @property
    def checkpoint_path(self) -> Path:
        return self.backend / ".pulumi" / "stacks" / PROJECT / f"{STACK}.json"

    def state(self) -> dict[str, dict[str, Json]]:
        """Resources of the stack's state by logical name; those pending deletion and the stack itself left out."""
        resources = self.export()["deployment"].get("resources", [])
        return {name_of(r["urn"]): r for r in resources if not r.get("delete") and r["type"] != "pulumi:pulumi:Stack"}

    # The world.

    def control(self, **orders: Mapping[str, object]) -> None:
        (self.world / "control.json").write_text(json.dumps(orders))

    def existing(self) -> dict[str, dict[str, Json]]:
        """What exists, by logical name; two of one name are an error of the test or the engine."""
        records = [json.loads(path.read_text()) for path in (self.world / "resources").glob("*.json")]
        by_name = {record["name"]: record for record in records}
        assert len(by_name) == len(records), [record["id"] for record in records]
        return by_name

    def drift(self, name: str, **inputs: Json) -> None:
        """Change a resource behind the engine's back."""
        record = self.existing()[name]
        record["inputs"].update(inputs)
        (self.world / "resources" / f"{record['id']}.json").write_text(json.dumps(record))

    def vanish(self, name: str) -> None:
        (self.world / "resources" / f"{self.existing()[name]['id']}.json").unlink()

    def plant(self, id_: str, logical_name: str, /, **inputs: Json) -> None:
        """Make a resource that no engine knows."""
        record = {"id": id_, "name": logical_name, "type": "testbed:index:Thing", "serial": 1, "inputs": inputs}
        (self.world / "resources" / f"{id_}.json").write_text(json.dumps(record))

    def held(self, call: str) -> bool:
        return (self.world / "held" / call).exists()

    def release(self, *calls: str) -> None:
        for call in calls:
            (self.world / "release" / call).touch()

    def calls(self, method: str | None = None, name: str | None = None, event: str = "begin") -> list[dict[str, Json]]:
        log = self.world / "calls.jsonl"
        entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [
            entry
            for entry in entries
            if (
                event in {entry["event"], "any"} and method in {entry["method"], None} and name in {entry["name"], None}
            )
        ]

    def call(self, method: str, name: str) -> dict[str, Json]:
        """The last such call."""
        calls = self.calls(method, name)
        assert calls, f"no {method} of {name}: {[(c['method'], c['name']) for c in self.calls()]}"
        return calls[-1]

    def forget_calls(self) -> None:
        (self.world / "calls.jsonl").unlink(missing_ok=True)

    def order(self, *methods: str) -> list[tuple[str, str]]:
        """(method, name) of all calls that were carried out, in order of their end, previews left out."""
        return [
            (call["method"], call["name"])
            for call in self.calls(event="end")
            if call["method"] in methods and call["ok"] and not call.get("preview")
        ]
