"""Runs an operation on many stacks: one process per stack, several at a time, with a result and a log for each.

Loading the engine takes over a second of processor time. So on Linux the command loads it once and forks: loaded code
is shared, and each row costs only what its program, provider and cloud take. A row cannot affect another one, and its
memory is freed when it ends. The command must have no threads when it forks.
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

    from cli.invocation import Kind
    from cli.session import Session

PRELOADED = ("cli.display", "engine.backend.file", "engine.operations")
"""Modules that the processes of the rows share."""
NOT_STARTED = "not started"


@dataclass(frozen=True)
class Result:
    """Result of an operation on one stack."""

    id: str
    result: str
    """``done``, ``failed``, ``cancelled``, ``unchanged`` or ``not started``."""
    seconds: float = 0.0
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether the operation succeeded, or was not necessary."""
        return self.result in {"done", "unchanged"}


@dataclass
class _Running:
    stack: str
    process: BaseProcess
    start: float


class Rows:
    """The processes of one command. Ctrl-C calls `cancel`: no new process starts, and running ones are interrupted."""

    def __init__(self, session: Session, folder: Path, parallel: int, print_line: Callable[[str], None]) -> None:
        self._session = session
        self._folder = folder
        self._parallel = parallel
        self._print = print_line
        self._context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._running: dict[Connection, _Running] = {}
        self.cancelled = False

    def cancel(self) -> None:
        """Pass Ctrl-C on to every running process."""
        self.cancelled = True
        for running in list(self._running.values()):
            if running.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(running.process.pid, signal.SIGINT)

    def run(
        self, kind: Kind, stacks: Sequence[str], given: dict[str, Any], ended: Callable[[Result], None]
    ) -> list[Result]:
        """Run `kind` on each of `stacks`; call `ended` with each result."""
        start = time.monotonic()
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
                self._print(self._line(result, results, len(stacks), time.monotonic() - start))
        return results + [Result(stack, NOT_STARTED) for stack in waiting]

    def _start(self, kind: Kind, stack: str, given: dict[str, Any]) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        arguments = (self._session, stack, kind, given, self._folder / f"{stack}.log", sender)
        process = self._context.Process(target=_work, args=arguments, name=f"lab {stack}")  # type: ignore[attr-defined]
        process.start()
        sender.close()
        self._running[receiver] = _Running(stack, process, time.monotonic())

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
            error = f"its process was terminated {ending}; run the command again to continue"
        names = {ExitCode.OK: "done", ExitCode.CANCELLED: "cancelled"}
        return Result(running.stack, names.get(status, "failed"), time.monotonic() - running.start, error)

    def _line(self, result: Result, results: list[Result], total: int, elapsed: float) -> str:
        failed = sum(not each.good for each in results)
        # Running rows count as half done.
        left = elapsed * (total - len(results)) / (len(results) + len(self._running) / 2)
        summary = [f"{len(results)}/{total}", *([f"{failed} failed"] if failed else []), f"{duration(elapsed)} so far"]
        if left:
            summary.append(f"about {duration(left)} left")
        error = f": {result.error.splitlines()[0]}" if result.error else ""
        return f"{result.id:<12} {result.result:<9} {result.seconds:6.1f} s  [{', '.join(summary)}]{error}"


def _work(session: Session, stack: str, kind: Kind, given: dict[str, Any], log: Path, connection: Connection) -> None:
    """The process of a row: runs the operation as `lab --stack STACK` does, with all output in `log`."""
    from cli.operations import UpdateFailedError, operate
    from engine.processes import bind_to_parent

    bind_to_parent()
    # Not the parent's handlers, which would cancel the other rows.
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
