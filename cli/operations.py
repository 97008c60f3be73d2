"""up, preview, refresh and destroy: preview, confirm, run, as the Pulumi CLI does, on either engine."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import protection
from cli.data_loss import data_deleted
from cli.default_cloud import prepare
from cli.errors import ExitCode, LabError
from cli.invocation import PLUGIN_DIRS, Event, Kind, Operation, Previewed, Runner, interruptible, runs_program
from cli.policies import packs_for
from cli.provision import has_platform, provide_bundle
from cli.session import Session, choose, confirmations_skipped
from cli.stack import remove_stack
from cli.text import table
from infra.naming import PROJECT
from terminal.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.operations import UpdateResult


UNCHANGED = {"same", "read", "read-discard", "read-replacement"}
NOUNS: dict[Kind, str] = {"preview": "update", "update": "update", "refresh": "refresh", "destroy": "destroy"}


class Timings:
    """Durations of the stages of a command."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the duration of a block."""
        start = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - start

    def __str__(self) -> str:
        rows = [*self._seconds.items(), ("total", sum(self._seconds.values()))]
        return table(("STAGE", "TIME"), [(name, duration(seconds)) for name, seconds in rows])


class UpdateFailedError(SystemExit):
    """An update failed and its display has shown the `errors`."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(ExitCode.ERROR)
        self.errors = errors


def embedded_runner(session: Session, stack: str, operation: Operation) -> Runner:
    """A runner on the embedded engine.

    Raises:
        EngineError: the configuration is not valid, or its secrets cannot be decrypted.
    """
    from cli import plans
    from cli.origin import made_of
    from engine.operations import Cancellation, UpdateRequest, record_unchanged, run_update
    from engine.project import config_for_history

    # As in the CLI, a stack with an invalid configuration can be destroyed and refreshed.
    config = session.config(stack)
    manager = session.secrets(stack, config)
    values, secret_keys = config.decrypt_all(manager, validate=runs_program(operation.kind))
    record = config_for_history(values, secret_keys, manager)
    plan = plans.decode(plans.read(operation.plan), manager) if operation.plan else None
    options = operation.options
    if plan is not None and plan.base.get("refresh"):
        # The preview was made after a refresh, so the update must be too.
        options = replace(options, refresh=True)

    def run(*, dry_run: bool, emit: Callable[[Event], None], previewed: Previewed | None = None) -> UpdateResult:
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
            options=options,
            plugin_dirs=PLUGIN_DIRS,
            message=operation.message,
            made_of={} if dry_run else made_of(session.project.root),
            config_record=record,
            plan=plan,
            plan_of_former_state=operation.kind == "preview",
            record_plan=dry_run and operation.save_plan is not None,
            policy_packs=operation.policy_packs,
            unprotect=frozenset(operation.unprotect),
        )
        if previewed is not None and (recorded := record_unchanged(request, previewed.result)) is not None:
            for event in previewed.events:
                emit(_performed(event))
            return recorded
        with interruptible(cancellation):
            result = run_update(request, emit, cancellation)
        if operation.save_plan and result.plan:
            plans.write(operation.save_plan, plans.encode(result.plan, manager))
        return result

    return run


def _performed(event: Event) -> Event:
    """An event of a preview as the update has it that changes nothing."""
    return {
        key: {name: False if name == "isPreview" else part for name, part in value.items() if name != "planning"}
        if isinstance(value, dict)
        else value
        for key, value in event.items()
    }


def _runner(session: Session, stack: str, operation: Operation) -> Runner:
    """A runner on the session's engine, with the policy packs of the flags and the stack.

    Raises:
        EngineError: the configuration is not valid, its secrets cannot be decrypted, or a policy pack is invalid.
    """
    if runs_program(operation.kind):
        operation = replace(operation, policy_packs=packs_for(session, stack, operation.policy_packs))
    if session.engine == "pulumi":
        from cli.pulumi_cli import pulumi_runner

        return pulumi_runner(session, stack, operation)
    return embedded_runner(session, stack, operation)


def operate(session: Session, kind: Kind, given: dict[str, Any]) -> None:
    """Run an operation with the flags `given` on the selected stack.

    Raises:
        EngineError: it was refused, declined, failed or cancelled, with the CLI's exit codes.
    """
    operation = Operation.parse(session, kind, given)
    assume_yes = operation.yes or operation.skip_preview or confirmations_skipped()
    dry_only = kind == "preview" or operation.preview_only
    if not (session.interactive or assume_yes or dry_only):
        raise LabError(
            "--yes or --skip-preview or --preview-only must be passed in to proceed in non-interactive mode",
            code=ExitCode.CONFIGURATION,
        )
    timings = Timings()
    with timings.stage("cloud"):
        agreed = prepare(session, kind, yes=assume_yes, deploys=kind == "update" and not dry_only)
    stack = session.stack(offer_new=kind != "destroy")
    if operation.config:
        from cli.configuration import save_arguments

        save_arguments(session, stack, operation.config, path=operation.config_path)
    guarded = protection.protected(session, stack, operation)
    if guarded and assume_yes and not operation.delete_data:
        raise protection.refusal(guarded)
    operation = replace(operation, unprotect=tuple(guarded))
    run = _runner(session, stack, operation)
    # An existing platform cannot be previewed without the bundle, which has its images and manifests.
    has_existing_platform = kind == "update" and not dry_only and has_platform(session, stack)
    if has_existing_platform:
        with timings.stage("programs and images"):
            provide_bundle(session, stack)
    previewed: Previewed | None = None
    if dry_only or not operation.skip_preview:
        events: list[Event] = []
        with timings.stage("preview"):
            result = _preview(session, stack, operation, run, events)
        if dry_only:
            _finish_preview(operation, result, events)
            return
        previewed = _whole_preview(session, operation, result, events)
        if not (assume_yes or (agreed and creates_only(result))):
            _confirm(session, stack, operation, events)
        if guarded and not operation.delete_data:
            protection.ask(stack, guarded)
    if kind == "update" and not has_existing_platform:
        with timings.stage("programs and images"):
            provide_bundle(session, stack)
    with timings.stage("deployment"):
        result = _perform(session, stack, operation, run, dry_run=False, previewed=previewed)
    _check_unchanged(operation, result)
    if kind == "update" and not operation.options.targets and not operation.json and session.project.name == PROJECT:
        from cli.services import finish_up

        with timings.stage("model"):
            served = finish_up(session, stack)
        if served:
            print(timings)
    if kind == "destroy" and not operation.options.targets:
        _finish_destroy(session, stack, operation)


def _whole_preview(
    session: Session, operation: Operation, result: UpdateResult, events: list[Event]
) -> Previewed | None:
    """A preview that shows all that the update does; None where it may leave something out.

    Other programs than this project's may do in an update what they do not in a preview.
    """
    whole = operation.kind == "update" and session.project.name == PROJECT and not operation.plan
    return Previewed(result, events) if whole else None


def _preview(session: Session, stack: str, operation: Operation, run: Runner, events: list[Event]) -> UpdateResult:
    """Preview, append the events to `events`, and write the Markdown, also after a failure."""
    try:
        return _perform(session, stack, operation, run, dry_run=True, events=events)
    finally:
        if operation.markdown:
            _write_markdown(session, stack, operation, events)


def _write_markdown(session: Session, stack: str, operation: Operation, events: list[Event]) -> None:
    from cli.markdown import render
    from cli.review import Review

    text = render(Review(events, operation.kind), events, stack=stack, project=session.project.name)
    if operation.markdown == "-":
        sys.stdout.write(text)
        return
    try:
        Path(operation.markdown).write_text(text)
    except OSError as error:
        raise LabError(f"--markdown: could not write {operation.markdown}: {error.strerror}") from None


def _finish_preview(operation: Operation, result: UpdateResult, events: list[Event]) -> None:
    _check_unchanged(operation, result)
    if operation.save_plan and not operation.json:
        print(
            f"Update plan written to '{operation.save_plan}'\nRun `lab up --plan='{operation.save_plan}'` to "
            "constrain the update to the operations planned by this preview",
            file=operation.out,
        )
    if operation.fail_on_destructive:
        from cli.review import Review

        if losses := Review(events, operation.kind).destructive:
            raise LabError(
                "this would be destructive:\n" + "\n".join(f"  {sentence}" for sentence in losses),
                remedy="if that is intended, leave out --fail-on-destructive",
                code=ExitCode.DESTRUCTIVE,
            )


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
        out=operation.out,
    )


def _perform(
    session: Session,
    stack: str,
    operation: Operation,
    run: Runner,
    *,
    dry_run: bool,
    events: list[Event] | None = None,
    previewed: Previewed | None = None,
) -> UpdateResult:
    display = _display(session, stack, operation, dry_run=dry_run, diff=operation.diff)

    def emit(event: Event) -> None:
        if events is not None:
            events.append(event)
        display(event)

    result: UpdateResult | None = None
    try:
        result = run(dry_run=dry_run, emit=emit, previewed=previewed)
    finally:
        display.close(result)
    noun = NOUNS[operation.kind]
    if result.outcome == "cancelled":
        raise LabError(f"{noun} cancelled", code=ExitCode.CANCELLED)
    if result.outcome == "failed":
        if session.project.name == PROJECT and any("protect" in error for error in result.errors):
            print(f"remedy: {protection.REMEDY}", file=sys.stderr)
        raise UpdateFailedError(result.errors)
    if events and not operation.json:
        print(data_deleted(events), end="")
    return result


def creates_only(result: UpdateResult) -> bool:
    """Whether an update only creates resources."""
    return "create" in result.changes and result.changes.keys() <= {"create", *UNCHANGED}


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
