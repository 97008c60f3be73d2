"""Runs a verb on many stacks: a process a stack, several at a time, a result and a log for each.

A process of `./lab` takes over a second of a core to load the engine before it does anything. So on Linux the command
loads it once and forks: what was loaded is shared, and each row costs what its own program, provider and cloud take.
What a row does cannot harm another one, and its memory goes back to the system with it. For that the command itself
must have no threads when it forks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from cli.errors import ExitCode, exit_code, report, report_unexpected
from engine.errors import EngineError
from terminal.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from cli.operations import Kind
    from cli.session import Session

PRELOADED = ("cli.display", "engine.backend.file", "engine.operations")
"""What the processes of the rows share."""
NOT_STARTED = "not started"


@dataclass(frozen=True)
class Result:
    """How a verb ended for one stack."""

    id: str
    result: str
    """``done``, ``failed``, ``cancelled``, ``unchanged`` or ``not started``."""
    seconds: float = 0.0
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether the stack is as it should be."""
        return self.result in {"done", "unchanged"}


@dataclass
class _Running:
    stack: str
    process: BaseProcess
    began: float


class Rows:
    """The processes of one invocation. `cancel` is what Ctrl-C does: nothing new starts, what runs is asked to end."""

    def __init__(self, session: Session, folder: Path, parallel: int, say: Callable[[str], None]) -> None:
        self._session = session
        self._folder = folder
        self._parallel = parallel
        self._say = say
        self._context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._running: dict[Connection, _Running] = {}
        self.cancelled = False

    def cancel(self) -> None:
        """Pass Ctrl-C on to every row under way."""
        self.cancelled = True
        for running in list(self._running.values()):
            if running.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(running.process.pid, signal.SIGINT)

    def run(
        self, kind: Kind, stacks: Sequence[str], given: dict[str, Any], ended: Callable[[Result], None]
    ) -> list[Result]:
        """Perform `kind` on each of `stacks`; `ended` is told of each as it ends."""
        began = time.monotonic()
        waiting = deque(stacks)
        results: list[Result] = []
        while self._running or (waiting and not self.cancelled):
            while waiting and len(self._running) < self._parallel and not self.cancelled:
                self._start(kind, waiting.popleft(), given)
            for connection in wait(list(self._running), timeout=1.0):
                assert isinstance(connection, Connection)
                result = self._collect(connection)
                ended(result)
                results.append(result)
                self._say(self._line(result, results, len(stacks), time.monotonic() - began))
        return results + [Result(stack, NOT_STARTED) for stack in waiting]

    def _start(self, kind: Kind, stack: str, given: dict[str, Any]) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        arguments = (self._session, stack, kind, given, self._folder / f"{stack}.log", theirs)
        process = self._context.Process(target=_work, args=arguments, name=f"lab {stack}")  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._running[ours] = _Running(stack, process, time.monotonic())

    def _collect(self, connection: Connection) -> Result:
        running = self._running.pop(connection)
        try:
            status, error = connection.recv()
        except EOFError:
            status, error = None, ""
        connection.close()
        running.process.join()
        if status is None:
            code = running.process.exitcode or 0
            ending = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
            error = f"its process was ended {ending}; run the command again, it goes on"
        names = {ExitCode.OK: "done", ExitCode.CANCELLED: "cancelled"}
        return Result(running.stack, names.get(status, "failed"), time.monotonic() - running.began, error)

    def _line(self, result: Result, results: list[Result], total: int, elapsed: float) -> str:
        failed = sum(not each.good for each in results)
        # What is under way counts by half.
        left = elapsed * (total - len(results)) / (len(results) + len(self._running) / 2)
        summary = [f"{len(results)}/{total}", *([f"{failed} failed"] if failed else []), f"{duration(elapsed)} so far"]
        if left:
            summary.append(f"about {duration(left)} left")
        error = f": {result.error.splitlines()[0]}" if result.error else ""
        return f"{result.id:<12} {result.result:<9} {result.seconds:6.1f} s  [{', '.join(summary)}]{error}"


def _work(session: Session, stack: str, kind: Kind, given: dict[str, Any], log: Path, connection: Connection) -> None:
    """A row's own process: the verb as `lab --stack STACK` performs it, everything that it shows going to `log`."""
    from cli.operations import UpdateFailedError, operate
    from engine.processes import bind_to_parent

    bind_to_parent()
    # Not the command's own handlers, which would end the other rows.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        path = log if descriptor else os.devnull
        os.dup2(os.open(path, flags | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    print(f"== {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {kind} of {stack}", flush=True)
    status: int = ExitCode.OK
    error = ""
    try:
        own = session.on(stack)
        if kind == "update" and not own.backend.exists(own.project.name, stack):
            own.create_stack(stack)
        operate(own, kind, given)
    except UpdateFailedError as failure:
        status, error = ExitCode.ERROR, "\n".join(failure.errors)
    except EngineError as failure:
        report(failure)
        status, error = exit_code(failure), str(failure)
    except KeyboardInterrupt:
        status = ExitCode.CANCELLED
    except Exception as failure:
        report_unexpected(failure)
        status, error = 255, f"{type(failure).__name__}: {failure}"
    connection.send((status, error))
