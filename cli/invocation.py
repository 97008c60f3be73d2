"""One invocation of preview, up, refresh or destroy: its flags, and what the runners of both engines share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from cli.errors import ExitCode, LabError
from cli.policies import given_packs
from cli.session import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from cli.session import Session
    from engine.goal import UpdateOptions
    from engine.operations import UpdateResult
    from engine.policypack import PolicyPack

Kind = Literal["preview", "update", "refresh", "destroy"]
Event = dict[str, Any]

PLUGIN_DIRS = (ROOT / "providers" / "bin",)
LISTS = {"targets", "replace", "target_replace", "config", "policy_pack", "policy_pack_config"}


class Cancellable(Protocol):
    """Receives Ctrl-C: the first call finishes operations in progress, the second cancels them."""

    def cancel(self) -> None:
        """Ask to stop."""


@dataclass(frozen=True)
class Previewed:
    """A preview: how it ended, and its events."""

    result: UpdateResult
    events: list[Event]


class Runner(Protocol):
    """Runs one update or its preview on an engine, and passes on its events."""

    def __call__(
        self, *, dry_run: bool, emit: Callable[[Event], None], previewed: Previewed | None = None
    ) -> UpdateResult:
        """Run; blocks until it ends. After a preview that found nothing to do, an update need not run the program."""


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
    save_plan: Path | None = None
    plan: Path | None = None
    markdown: str = ""
    fail_on_destructive: bool = False
    delete_data: bool = False
    unprotect: tuple[str, ...] = ()
    """URNs of protected resources that may be deleted, because the user has confirmed or this is a preview."""

    @property
    def out(self) -> TextIO:
        """Stream for the display: not the one for Markdown."""
        return sys.stderr if self.markdown == "-" else sys.stdout

    policy_packs: tuple[PolicyPack, ...] = ()

    @classmethod
    def parse(cls, session: Session, kind: Kind, given: dict[str, Any]) -> Operation:
        """Create an operation from flags.

        Raises:
            LabError: flags that cannot be used together.
            ConfigError: policy packs are invalid.
        """
        from engine.goal import UpdateOptions

        given = {name: tuple(value or ()) if name in LISTS else value for name, value in given.items()}
        target_replace = given.pop("target_replace", ())
        for name in ("targets", "replace"):
            if name in given:
                given[name] += target_replace
        for one, other in (("yes", "preview_only"), ("skip_preview", "preview_only"), ("skip_preview", "markdown")):
            if given.get(one) and given.get(other):
                flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
                raise LabError(f"{flags[0]} and {flags[1]} cannot be used together", code=ExitCode.CONFIGURATION)
        if given.get("markdown") == "-" and given.get("json"):
            raise LabError("--json and --markdown - cannot be used together", code=ExitCode.CONFIGURATION)
        folders, configs = given.pop("policy_pack", ()), given.pop("policy_pack_config", ())
        if folders or configs:
            given["policy_packs"] = given_packs(session, folders, configs)
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
        # On a thread, because the interrupted main thread may hold any lock.
        threading.Thread(target=cancellation.cancel).start()
        os.write(
            sys.stderr.fileno(),
            b"\nFinishing operations in progress; press ^C again to cancel them (resources may be left incomplete).\n"
            if received == 1
            else b"\nCancelling operations in progress.\n",
        )

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def runs_program(kind: Kind) -> bool:
    """Whether an operation runs the program and policy packs."""
    return kind in {"preview", "update"}
