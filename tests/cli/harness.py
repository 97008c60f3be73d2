"""Runs ./lab as users do: as a process, in a project and a home of its own, with or without a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.warm import launchers

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
LAB = ROOT / "lab"
PROJECT = "demo"
PATIENCE_SECONDS = 120.0
CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Outcome:
    """What a user sees of a command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self.text = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def expect(self, text: str) -> None:
        """Wait until `text` was shown since the last answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.text:
            assert self._read(deadline), f"{text!r} was not shown, but:\n{self.text}"

    def expect_hidden(self, text: str) -> None:
        """Wait until `text` was shown and what is typed is not: what is typed before that is thrown away."""
        self.expect(text)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while termios.tcgetattr(self._master)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "what is typed is still shown"
            time.sleep(0.01)

    def answer(self, text: str) -> None:
        """Type `text` and enter."""
        self.text = ""
        os.write(self._master, f"{text}\n".encode())

    def end(self) -> int:
        """Wait for the end; the exit status."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux answers EIO once the other side is closed
            return False
        self.text += CONTROL_SEQUENCE.sub("", data.decode(errors="replace")).replace("\r\n", "\n")
        return bool(data)


class Lab:
    """A project `demo` with a backend, a home and a Pulumi home of its own."""

    patience_seconds = PATIENCE_SECONDS

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.home = folder / "home"
        self.backend = folder / "backend"
        for made in (self.project, self.home, self.backend):
            made.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "OS_", "XDG_")) and k != "CI"}
        self.env = {**inherited, "HOME": str(self.home), "PULUMI_BACKEND_URL": f"file://{self.backend}"}
        self.engine = "embedded"

    def write(self, program: str = "", settings: str = "") -> None:
        """Write the project's files."""
        options = f"    toolchain: uv\n    virtualenv: {launchers().virtualenv}\n"
        header = f"name: {PROJECT}\nruntime:\n  name: python\n  options:\n{options}"
        (self.project / "Pulumi.yaml").write_text(header + settings)
        (self.project / "uv.lock").write_text('version = 1\nrequires-python = ">=3.11"\n')
        (self.project / "__main__.py").write_text("import pulumi\n" + program)

    def write_program(self) -> None:
        """Write this repository's program in place of a project `demo`."""
        for name in ("Pulumi.yaml", "__main__.py", "Pulumi.dev.yaml"):
            shutil.copy(ROOT / name, self.project)
        for package in ("infra", "kubeyaml"):
            shutil.copytree(ROOT / package, self.project / package, ignore=shutil.ignore_patterns("__pycache__"))
        (self.project / ".venv").symlink_to(Path(sys.executable).parents[1])

    def command(self, *arguments: str) -> list[str]:
        return [str(LAB), "--cwd", str(self.project), "--engine", self.engine, *arguments]

    def run(
        self, *arguments: str, stdin: str = "", status: int | None = 0, env: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run a command without a terminal; its exit status must be `status`, and it never shows a traceback."""
        process = subprocess.run(
            [str(launchers().lab), str(ROOT / "cli/__main__.py"), *self.command(*arguments)[1:]],
            input=stdin,
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=self.patience_seconds,
        )
        outcome = Outcome(process.returncode, process.stdout, process.stderr)
        assert status in {None, outcome.status}, f"{arguments}: {outcome}"
        assert "Traceback" not in outcome.stderr, outcome.stderr
        return outcome

    def refuse(
        self, *arguments: str, status: int, saying: str, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        """The command must fail with `status`, saying so in one block on standard error."""
        outcome = self.run(*arguments, status=status, stdin=stdin, env=env)
        assert saying in outcome.stderr, outcome
        assert outcome.stderr.count("error: ") == 1, outcome.stderr

    def terminal(self, *arguments: str) -> Terminal:
        """Start a command on a terminal."""
        return Terminal(self.command(*arguments), self.env)
