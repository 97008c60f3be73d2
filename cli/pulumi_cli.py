"""Runs an update on the Pulumi CLI and passes on its engine events, as the SDK's Automation API does.

The Automation API's classes drop unknown parts of events, and cannot forward signals. So this starts the CLI with the
same flags (`--event-log tcp://`, CLI 3.206 and later) and passes its events on unchanged.
"""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto.events_pb2_grpc import EventsServicer, add_EventsServicer_to_server

from cli import plans
from cli.errors import ExitCode, LabError
from cli.invocation import PLUGIN_DIRS, Event, Operation, Previewed, Runner, interruptible
from cli.protection import lifted
from cli.session import ROOT, Session
from engine.operations import UpdateResult
from terminal.text import plain

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pulumi.runtime.proto.events_pb2 import EventRequest

VERBS = {"preview": "preview", "update": "up", "refresh": "refresh", "destroy": "destroy"}


class _Events(EventsServicer):
    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self.summary: dict[str, Any] = {}
        self.errors: list[str] = []

    def StreamEvents(self, request_iterator: Iterator[EventRequest], context: grpc.ServicerContext) -> Empty:  # noqa: N802
        """Receive the events of one run."""
        del context
        for request in request_iterator:
            event = json.loads(request.event)
            self.summary = event.get("summaryEvent") or self.summary
            diagnostic = event.get("diagnosticEvent") or {}
            if diagnostic.get("severity") == "error":
                self.errors.append(diagnostic["message"])
            violation = event.get("policyEvent") or {}
            if violation.get("enforcementLevel") == "mandatory":
                self.errors.append(f"{violation['policyName']}: {plain(violation['message'])}")
            self._emit(event)
        return Empty()


class _Process:
    """Forwards Ctrl-C to the CLI: the first finishes operations in progress, the second cancels them."""

    def __init__(self, process: subprocess.Popen[str], number: signal.Signals) -> None:
        self._process, self._number = process, number
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self._process.send_signal(self._number)


def environment(session: Session) -> dict[str, str]:
    """Environment of the CLI: backend, passphrase, providers, and uv, which it needs for the program's packages."""
    session.offer_passphrase_file()
    own = [str(folder) for folder in PLUGIN_DIRS]
    return os.environ | {
        "PULUMI_BACKEND_URL": session.resolved_backend_url,
        "PULUMI_DEBUG_COMMANDS": "true",  # enables --event-log
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PATH": os.pathsep.join([*own, os.environ["PATH"], str(ROOT / ".venv" / "bin")]),
    }


def pulumi_runner(session: Session, stack: str, operation: Operation) -> Runner:
    """A runner on the Pulumi CLI.

    Raises:
        LabError: the CLI has no such option.
    """
    if operation.kind == "preview" and operation.plan:
        raise LabError("the Pulumi CLI cannot check a preview against a plan", remedy="use --engine embedded")

    def run(
        *,
        dry_run: bool,
        emit: Callable[[Event], None],
        previewed: Previewed | None = None,  # noqa: ARG001 - the CLI runs the program each time
    ) -> UpdateResult:
        with lifted(session, stack, operation.unprotect):
            return perform(dry_run=dry_run, emit=emit)

    def perform(*, dry_run: bool, emit: Callable[[Event], None]) -> UpdateResult:
        from signal import SIGINT

        base = _check_base(session, stack, operation)
        events = _Events(emit)
        server = grpc.server(ThreadPoolExecutor(max_workers=1), options=[("grpc.max_receive_message_length", -1)])
        add_EventsServicer_to_server(events, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        command = _command(operation, stack, dry_run=dry_run, address=f"tcp://127.0.0.1:{port}")
        process = subprocess.Popen(
            command,
            cwd=session.project.root,
            env=environment(session),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        cancellation = _Process(process, SIGINT)
        with interruptible(cancellation):
            _, stderr = process.communicate()
        server.stop(grace=5).wait()
        status = process.returncode
        if operation.save_plan and status == 0:
            plans.write(operation.save_plan, plans.read(operation.save_plan) | {"base": base})
        # The CLI's status for an interrupted update is that of any failure.
        cancelled = cancellation.cancelled or status == ExitCode.CANCELLED
        if status != 0 and not cancelled and not events.summary and not events.errors:
            code = ExitCode(status) if status in set(ExitCode) else ExitCode.ERROR
            raise LabError(stderr.strip().removeprefix("error: ") or f"pulumi ended with status {status}", code=code)
        return UpdateResult(
            outcome="succeeded" if status == 0 else "cancelled" if cancelled else "failed",
            changes=events.summary.get("resourceChanges") or {},
            outputs={},
            duration_seconds=float(events.summary.get("durationSeconds", 0)),
            errors=events.errors,
        )

    return run


def _check_base(session: Session, stack: str, operation: Operation) -> dict[str, Any]:
    """The base state to record in a plan, which the CLI does not record. Check that a given plan fits the state."""
    from engine.plan import Plan, fingerprints

    if not operation.plan and not operation.save_plan:
        return {}
    project = session.project.name
    deployment = session.backend.load(project, stack)
    if operation.plan:
        Plan(base=plans.read(operation.plan).get("base") or {}).check_base(project, stack, deployment)
    if operation.save_plan:
        # Create the file first: the CLI keeps its mode.
        plans.write(operation.save_plan, {})
    base = {"project": project, "stack": stack, "refresh": operation.options.refresh}
    return base | {"resources": fingerprints(deployment)}


def _command(operation: Operation, stack: str, *, dry_run: bool, address: str) -> list[str]:
    kind, options = operation.kind, operation.options
    # `up` has no --preview-only: its dry run is `preview`.
    verb = "preview" if dry_run and kind == "update" else VERBS[kind]
    command = ["pulumi", verb, "--stack", stack, "--event-log", address, "--non-interactive", "--color", "never"]
    command += ["--parallel", str(options.parallel)]
    if verb != "preview":
        command.append("--preview-only" if dry_run else "--skip-preview")
        command += ["--continue-on-error"] if options.continue_on_error and verb != "refresh" else []
    if operation.save_plan:
        command += ["--save-plan", str(operation.save_plan.absolute())]
    if operation.plan and verb == "up":
        command += ["--plan", str(operation.plan.absolute())]
    if operation.message:
        command += ["--message", operation.message]
    for flag, urns in (("--target", options.targets), ("--replace", options.replace)):
        for urn in urns:
            command += [flag, urn]
    for pack in operation.policy_packs:
        # The CLI parses the value as CSV, and needs no configurations or one for each pack.
        command += ["--policy-pack", _quoted(pack.folder)]
        if any(one.config for one in operation.policy_packs):
            command += ["--policy-pack-config", _quoted(pack.config or os.devnull)]
    for flag, enabled in (
        ("--target-dependents", options.target_dependents),
        ("--refresh", options.refresh and kind != "refresh"),
        ("--show-sames", operation.show_sames),
    ):
        command += [flag] if enabled else []
    return command


def _quoted(path: Path | str) -> str:
    text = str(path)
    return '"' + text.replace('"', '""') + '"' if set(text) & {",", '"', "\n"} else text
