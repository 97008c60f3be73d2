"""up, preview, refresh and destroy: preview, ask, perform, as the Pulumi CLI does, on either engine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cli.default_cloud import prepare
from cli.errors import ExitCode, LabError
from cli.provision import has_platform, provide_bundle
from cli.session import ROOT, Session, choose, confirmations_skipped
from cli.stack import remove_stack
from cli.text import table
from infra.naming import PROJECT
from terminal.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from engine.goal import UpdateOptions
    from engine.operations import UpdateResult

Kind = Literal["preview", "update", "refresh", "destroy"]
Event = dict[str, Any]

PLUGIN_DIRS = (ROOT / "providers" / "bin",)
UNCHANGED = {"same", "read", "read-discard", "read-replacement"}
LISTS = {"targets", "replace", "target_replace", "config"}
NOUNS: dict[Kind, str] = {"preview": "update", "update": "update", "refresh": "refresh", "destroy": "destroy"}


class Took:
    """How long each stage of a command took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of what is done meanwhile; not that of questions to the user."""
        began = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - began

    def __str__(self) -> str:
        rows = [*self._seconds.items(), ("total", sum(self._seconds.values()))]
        return table(("STAGE", "TIME"), [(name, duration(seconds)) for name, seconds in rows])


class UpdateFailedError(SystemExit):
    """An update that failed, of which the display has told all; `errors` are what it said."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(ExitCode.ERROR)
        self.errors = errors


class Cancellable(Protocol):
    """What Ctrl-C acts on: the first call finishes what is under way, the second stops it."""

    def cancel(self) -> None:
        """Ask to stop."""


class Runner(Protocol):
    """Performs one update or its dry run on an engine, passing on its events."""

    def __call__(self, *, dry_run: bool, emit: Callable[[Event], None]) -> UpdateResult:
        """Run; blocks until it ends."""


@dataclass(frozen=True)
class Operation:
    """One invocation of a verb that runs the engine."""

    kind: Kind
    options: UpdateOptions
    yes: bool = False
    skip_preview: bool = False
    preview_only: bool = False
    remove: bool = False
    message: str = ""
    config: tuple[str, ...] = ()
    config_path: bool = False
    json: bool = False
    diff: bool = False
    show_sames: bool = False
    expect_no_changes: bool = False

    @classmethod
    def parse(cls, session: Session, kind: Kind, given: dict[str, Any]) -> Operation:
        """An operation from the flags that were given.

        Raises:
            LabError: flags that cannot be used together.
        """
        from engine.goal import UpdateOptions

        given = {name: tuple(value or ()) if name in LISTS else value for name, value in given.items()}
        both = given.pop("target_replace", ())
        for name in ("targets", "replace"):
            if name in given:
                given[name] += both
        for one, other in (("yes", "preview_only"), ("skip_preview", "preview_only")):
            if given.get(one) and given.get(other):
                flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
                raise LabError(f"{flags[0]} and {flags[1]} cannot be used together", code=ExitCode.CONFIGURATION)
        own = {f.name for f in fields(cls)}
        if session.project.refresh_always and kind != "refresh":
            given["refresh"] = True
        options = UpdateOptions(**{name: value for name, value in given.items() if name not in own})
        return cls(kind, options, **{name: value for name, value in given.items() if name in own})


@contextmanager
def interruptible(cancellation: Cancellable) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `cancellation.cancel()`; a third signal kills the process."""
    received = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received > 2:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        # A handler runs between two instructions of the main thread, which may hold any lock.
        threading.Thread(target=cancellation.cancel).start()
        os.write(
            sys.stderr.fileno(),
            b"\nFinishing what is under way; press ^C again to cancel it (resources may be left half-made).\n"
            if received == 1
            else b"\nCancelling what is under way.\n",
        )

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def embedded_runner(session: Session, stack: str, operation: Operation) -> Runner:
    """A runner on the project's own engine.

    Raises:
        EngineError: the configuration is not valid, or its secrets cannot be decrypted.
    """
    from engine.operations import Cancellation, UpdateRequest, run_update
    from engine.project import config_for_history

    # As in the CLI, a stack can be destroyed and refreshed though its configuration is not valid any more.
    runs_program = operation.kind in {"preview", "update"}
    config = session.config(stack)
    manager = session.secrets(stack, config)
    values, secret_keys = config.decrypt_all(manager, validate=runs_program)
    record = config_for_history(values, secret_keys, manager)

    def run(*, dry_run: bool, emit: Callable[[Event], None]) -> UpdateResult:
        cancellation = Cancellation()
        request = UpdateRequest(
            kind="update" if operation.kind == "preview" else operation.kind,
            dry_run=dry_run,
            project=session.project,
            stack=stack,
            config=values,
            config_secret_keys=secret_keys,
            backend=session.backend,
            secrets=manager,
            options=operation.options,
            plugin_dirs=PLUGIN_DIRS,
            message=operation.message,
            config_record=record,
        )
        with interruptible(cancellation):
            return run_update(request, emit, cancellation)

    return run


def operate(session: Session, kind: Kind, given: dict[str, Any]) -> None:
    """Perform a verb, with the flags `given`, on the selected stack.

    Raises:
        EngineError: it was refused, declined, failed or cancelled; the exit codes are the CLI's.
    """
    operation = Operation.parse(session, kind, given)
    assume_yes = operation.yes or operation.skip_preview or confirmations_skipped()
    dry_only = kind == "preview" or operation.preview_only
    if not (session.interactive or assume_yes or dry_only):
        raise LabError(
            "--yes or --skip-preview or --preview-only must be passed in to proceed in non-interactive mode",
            code=ExitCode.CONFIGURATION,
        )
    took = Took()
    with took.stage("cloud"):
        prepare(session, kind, yes=assume_yes)
    stack = session.stack(offer_new=kind != "destroy")
    if operation.config:
        from cli.configuration import save_arguments

        save_arguments(session, stack, operation.config, path=operation.config_path)
    if session.engine == "pulumi":
        from cli.pulumi_cli import pulumi_runner

        run = pulumi_runner(session, stack, operation)
    else:
        run = embedded_runner(session, stack, operation)
    # What a platform is made of is read from the bundle: no preview can tell without it what becomes of one there is.
    at_once = kind == "update" and not dry_only and has_platform(session, stack)
    if at_once:
        with took.stage("programs and images"):
            provide_bundle(session, stack)
    if dry_only or not operation.skip_preview:
        events: list[Event] = []
        with took.stage("preview"):
            result = _perform(session, stack, operation, run, dry_run=True, events=events)
        if dry_only:
            _check_unchanged(operation, result)
            return
        if not assume_yes:
            _confirm(session, stack, operation, events)
    if kind == "update" and not at_once:
        with took.stage("programs and images"):
            provide_bundle(session, stack)
    with took.stage("deployment"):
        result = _perform(session, stack, operation, run, dry_run=False)
    _check_unchanged(operation, result)
    if kind == "update" and not operation.options.targets and not operation.json and session.project.name == PROJECT:
        from cli.services import finish_up

        with took.stage("model"):
            served = finish_up(session, stack)
        if served:
            print(took)
    if kind == "destroy" and not operation.options.targets:
        _finish_destroy(session, stack, operation)


def _finish_destroy(session: Session, stack: str, operation: Operation) -> None:
    if operation.remove:
        remove_stack(session, stack)
        message = "The resources in the stack have been deleted, and the history and configuration removed."
    else:
        message = (
            "The resources in the stack have been deleted, but the history and configuration associated with the stack "
            f"are still maintained.\nIf you want to remove the stack completely, run `lab stack rm {stack}`."
        )
    if not operation.json:
        print(message)


def _display(session: Session, stack: str, operation: Operation, *, dry_run: bool, diff: bool) -> Any:
    from cli.display import make_display

    return make_display(
        operation.kind,
        json=operation.json,
        interactive=None if session.interactive else False,
        diff=diff,
        color=session.color,
        show_sames=operation.show_sames,
        stack=stack,
        project=session.project.name,
        dry_run=dry_run,
    )


def _perform(
    session: Session,
    stack: str,
    operation: Operation,
    run: Runner,
    *,
    dry_run: bool,
    events: list[Event] | None = None,
) -> UpdateResult:
    display = _display(session, stack, operation, dry_run=dry_run, diff=operation.diff)

    def emit(event: Event) -> None:
        if events is not None:
            events.append(event)
        display(event)

    result: UpdateResult | None = None
    try:
        result = run(dry_run=dry_run, emit=emit)
    finally:
        display.close(result)
    noun = NOUNS[operation.kind]
    if result.outcome == "cancelled":
        raise LabError(f"{noun} cancelled", code=ExitCode.CANCELLED)
    if result.outcome == "failed":
        raise UpdateFailedError(result.errors)
    return result


def _check_unchanged(operation: Operation, result: UpdateResult) -> None:
    if operation.expect_no_changes and any(n for op, n in result.changes.items() if op not in UNCHANGED):
        noun = NOUNS[operation.kind]
        raise LabError(f"no changes were expected for {noun} but changes were proposed", code=ExitCode.NO_CHANGES)


def _confirm(session: Session, stack: str, operation: Operation, events: list[Event]) -> None:
    noun = NOUNS[operation.kind]
    question = f"Do you want to perform this {noun}?"
    if operation.kind == "refresh":
        question += "\nNo resources will be modified as part of this refresh; just your stack's state will be.\n"
    while True:
        answer = choose(question, ["yes", "no", "details"], default="no")
        if answer == "yes":
            return
        if answer == "no":
            print(f"confirmation declined, not proceeding with the {operation.kind}")
            raise SystemExit(ExitCode.ERROR)
        details = _display(session, stack, operation, dry_run=True, diff=True)
        for event in events:
            details(event)
        details.close(None)
