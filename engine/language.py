"""Running the user's program: the part of Pulumi's Python language host that this engine needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import EngineError
from .plugins import default_python
from .processes import spawn, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .project import Project

SHIM = Path(__file__).with_name("_program.py")
EXIT_ERROR_SHOWN = 32


class Program:
    """The project's Python program as a child process."""

    def __init__(self, project: Project) -> None:
        if project.runtime_name != "python":
            raise EngineError(
                f"this engine runs Python programs; {project.file} says runtime {project.runtime_name!r}",
                remedy="use the Pulumi CLI for other languages",
            )
        self.folder = project.program_folder
        self.entry = project.main
        self.python = default_python(project.virtualenv)
        if not Path(self.python).exists():
            raise EngineError(
                f"the project's virtual environment has no interpreter: {self.python} does not exist",
                remedy="create it first, for instance with `uv sync`",
            )
        if not (self.entry.is_file() or (self.entry / "__main__.py").is_file()):
            raise EngineError(f"there is no program: {self.entry / '__main__.py'} does not exist")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start the interpreter; loading the SDK takes it longer than the engine needs to get ready."""
        self._process = await spawn([self.python, "-u", str(SHIM)], cwd=self.folder, env=environment, stdin=True)

    async def run(self, settings: Mapping[str, object], output: Callable[[str, str], None]) -> int:
        """Run the program; ``output`` gets each printed line, with ``info`` or ``info#err``. Returns the exit code."""
        process = self._process
        if process is None or process.stdin is None:
            raise AssertionError
        payload = {**settings, "program": str(self.entry), "pwd": str(self.folder)}
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(payload).encode())
            await process.stdin.drain()
        process.stdin.close()

        async def follow(stream: asyncio.StreamReader | None, severity: str) -> None:
            if stream is not None:
                async for line in stream:
                    output(severity, line.decode(errors="replace").rstrip("\n"))

        await asyncio.gather(follow(process.stdout, "info"), follow(process.stderr, "info#err"))
        return await process.wait()

    async def stop(self) -> None:
        """Stop the program if it still runs."""
        if self._process is not None:
            await stop(self._process)
