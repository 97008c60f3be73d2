"""`lab ci`: the steps of the workflows in .github/workflows, which only define when to run them.

The preview of a pull request saves its plan in the backend, beside the state, under the pull request's number and with
its commit. The deployment after the merge makes a new plan from the present state, and fails unless the reviewed plan
allows every step; then it runs the new plan. So independent pull requests can be deployed one after the other, and a
killed job can be run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.session import ROOT
from infra.naming import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.forge import PullRequest
    from cli.session import Session
    from cli.stage_file import Stages

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Steps of CI jobs on GitHub, Gitea and Forgejo (docs/how-to/pull-request.md).",
)

ALLOWED = "destructive"
"""Label that allows a pull request to delete and replace resources with data."""
NO_PLAN: dict[str, Any] = {"manifest": {}, "resourcePlans": {}}
"""The plan without a review: it allows nothing."""
VIOLATIONS = ("is not allowed by the plan", "violates plan", "expected resource operations")
"""Parts of the messages of both engines for a step that the plan does not allow."""
CLOUDS = "CLOUDS_YAML"


@app.command()
def check(context: typer.Context) -> None:
    """Run linter and type checker; validate manifests, stages, and the settings and policy packs of all stacks."""
    from cli.development import PYTEST, STATIC_CHECKS

    stages = [*STATIC_CHECKS, ("manifests", [*PYTEST, "-q", "tests/k8s/test_tree.py"])]
    errors = [
        f"{name} failed: {' '.join(command[1:])}"
        for name, command in stages
        if subprocess.run(command, cwd=ROOT, check=False).returncode
    ]
    errors += check_all_settings(context.obj)
    try:
        _stages(context.obj)
    except LabError as error:
        errors.append(str(error))
    if errors:
        raise LabError("\n".join(errors))
    print("All checks passed.")


def check_all_settings(session: Session) -> list[str]:
    """Errors in the settings of all stacks, and in their policy packs, except for missing key files in home folders."""
    from cli.policies import declared_packs
    from engine.errors import EngineError
    from engine.project import StackConfig
    from infra.settings import SettingsError, load_settings

    errors = []
    pattern = session.project.stack_config_path("*")
    for path in sorted(pattern.parent.glob(pattern.name)):
        stack = path.stem.removeprefix("Pulumi.")
        try:
            config = StackConfig.load(session.project, stack)
            declared_packs(session.project, config)
            values = {key: value.value for key, value in config.items() if not value.secure}
            secret = [key for key, value in config.items() if value.secure]
            if session.project.name == PROJECT:
                load_settings(values, path, stack=stack, secret_keys=secret)
        except SettingsError as error:
            invalid = [setting for setting in error.invalid if not _has_key_file_in_home(str(setting))]
            errors += [f"{path.name}: {setting}" for setting in invalid]
        except EngineError as error:
            errors.append(str(error))
    return errors


def _stages(session: Session) -> dict[str, Stages]:
    """The stages of each model, of the files that are checked out.

    Raises:
        LabError: one of them is not valid.
    """
    from cli.stage_file import of_models, path_of

    root = session.project.root
    return of_models({str(path.relative_to(root)): path.read_text() for path in root.glob(path_of("*"))})


def _has_key_file_in_home(error: str) -> bool:
    return f"{PROJECT}:access.publicKeyFile" in error and '"~/' in error


@app.command()
def preview(context: typer.Context) -> None:
    """Preview the pull request: write a comment, and save the plan for `lab ci deploy`.

    Fails with status 10 if data or resources would be lost, unless the pull request has the label `destructive`.
    """
    from cli import plans
    from cli.forge import Forge, Job
    from cli.markdown import refused
    from cli.operations import operate
    from engine.errors import EngineError

    session: Session = context.obj
    job = Job.current()
    forge = Forge(job)
    proposed = job.pull_request()
    # Read the labels now: the event has those of its time, even if the job is run again.
    allowed = ALLOWED in forge.find_pull_request(proposed.number).labels
    with credentials(), tempfile.TemporaryDirectory() as folder:
        stack = session.stack()
        text, plan = Path(folder, "preview.md"), Path(folder, "plan.json")
        place = (session.project.name, stack, plan_name(proposed.number))
        # Remove the plan of an earlier commit.
        session.backend.plans.delete(*place)
        given = {"markdown": str(text), "save_plan": plan, "fail_on_destructive": not allowed}
        ended: EngineError | SystemExit | None = None
        try:
            operate(session, "preview", given)
        except (EngineError, SystemExit) as error:
            ended = error
        # A preview that could not start writes no text; replace the comment of an earlier one all the same.
        summary = text.read_text() if text.exists() else refused("preview", stack, str(ended))
        _summarize(summary)
        forge.put_comment(proposed.number, summary + _verdict(ended, proposed, allowed=allowed))
        if ended is not None:
            raise ended
        # One that was closed meanwhile has been put away already.
        if forge.find_pull_request(proposed.number).is_open:
            record = {"commit": proposed.head, "plan": plans.read(plan)}
            session.backend.plans.save(*place, json.dumps(record).encode())


def _verdict(ended: BaseException | None, proposed: PullRequest, *, allowed: bool) -> str:
    """The last line of the comment: the commit, and whether the pull request can be merged."""
    intro = f"Preview of {proposed.head[:12]}."
    if isinstance(ended, LabError) and ended.code == ExitCode.DESTRUCTIVE:
        return f"\n{intro} **Do not merge this:** if the losses are intended, add the label `{ALLOWED}`.\n"
    if ended is not None:
        return f"\n{intro} **It failed:** see the job's log.\n"
    losses = f" The label `{ALLOWED}` allows losses." if allowed else ""
    return f"\n{intro}{losses} The merge deploys this and no more.\n"


@app.command()
def deploy(context: typer.Context) -> None:
    """Deploy what the reviewed plan of the merged pull request allows, and no more."""
    from cli import plans
    from cli.forge import Forge, Job
    from cli.operations import UpdateFailedError, operate

    session: Session = context.obj
    job = Job.current()
    merged = Forge(job).find_merged(job.commit)
    with credentials(), tempfile.TemporaryDirectory() as folder:
        stack = session.stack()
        session.backend.outlast(session.project.name, stack)
        reviewed, plan = Path(folder, "reviewed.json"), Path(folder, "plan.json")
        record, reason = _reviewed(session, stack, merged, job.commit)
        plans.write(reviewed, record)
        try:
            if session.engine == "embedded":
                operate(session, "preview", {"plan": reviewed, "save_plan": plan})
            else:
                plan = reviewed
        except UpdateFailedError as failure:
            if not any(text in error for error in failure.errors for text in VIOLATIONS):
                raise
            raise LabError(
                f"this deployment is not what was reviewed{reason}; nothing was changed",
                remedy="open a pull request with the remaining changes, and have its preview reviewed",
            ) from None
        message = f"{merged.title} (#{merged.number})" if merged else f"commit {job.commit[:12]}"
        operate(session, "update", {"plan": plan, "yes": True, "skip_preview": True, "message": message})
        if merged:
            session.backend.plans.delete(session.project.name, stack, plan_name(merged.number))


def _reviewed(session: Session, stack: str, merged: PullRequest | None, commit: str) -> tuple[dict[str, Any], str]:
    """The reviewed plan; without one, `NO_PLAN` and the reason."""
    if merged is None:
        return NO_PLAN, f": commit {commit[:12]} is not the merge of a pull request"
    data = session.backend.plans.load(session.project.name, stack, plan_name(merged.number))
    if data is None:
        return NO_PLAN, f": there is no plan of pull request {merged.number}"
    record = json.loads(data)
    if record["commit"] != merged.head:
        return NO_PLAN, f": the plan of pull request {merged.number} is of commit {record['commit'][:12]}, not its last"
    return record["plan"], ""


@app.command()
def gate(context: typer.Context) -> None:
    """Comment on the pull request with what it has stages serve, where stages are set in Git.

    Fails if the promotion service would refuse a stage that the pull request changes.
    """
    from cli import stages
    from cli.forge import Forge, Job
    from cli.workloads import Platform

    session: Session = context.obj
    if not _stages_are_in_git(session):
        return
    job = Job.current()
    forge = Forge(job)
    # What changes no stage needs no cluster: it may be what mends one.
    if changes := stages.changed(job, forge, _stages(session)):
        stages.check(Platform.of(session), job, forge, changes)
    else:
        print("No stage is changed.")


@app.command("stages")
def settle(context: typer.Context) -> None:
    """Have the stages of all models as the main branch says, where stages are set in Git; wait until they serve."""
    from cli import stages
    from cli.forge import Forge, Job
    from cli.workloads import Platform

    session: Session = context.obj
    if _stages_are_in_git(session):
        job = Job.current()
        stages.settle(Platform.of(session), job, Forge(job))


def _stages_are_in_git(session: Session) -> bool:
    stack = session.stack()
    value = session.config(stack).get(f"{PROJECT}:platform")
    settings = json.loads(value.value) if value is not None and value.is_object else {}
    if session.project.name == PROJECT and settings.get("promotion") == "git":
        return True
    print(f"Stages of stack '{stack}' are not set in Git.")
    return False


@app.command()
def drift(context: typer.Context) -> None:
    """Check the stack for drift: open an issue with the differences, or close it if there are none.

    Fails with status 7 if something differs. Checks nothing while somebody updates the stack: then everything differs.
    """
    from cli.forge import Forge, Job
    from cli.markdown import marker
    from cli.operations import operate

    session: Session = context.obj
    forge = Forge(Job.current())
    with credentials(), tempfile.TemporaryDirectory() as folder:
        stack = session.stack()
        text = Path(folder, "drift.md")
        session.backend.outlast(session.project.name, stack)
        before = _updates(session, stack)
        differs: LabError | SystemExit | None = None
        if before is not None:
            try:
                operate(session, "refresh", {"preview_only": True, "expect_no_changes": True, "markdown": str(text)})
            except (LabError, SystemExit) as error:
                differs = error
        if before is None or _updates(session, stack) != before:
            print(f"Stack '{stack}' is being updated: the next run checks it.")
            return
        if differs is not None:
            if text.exists():
                _summarize(text.read_text())
                number = forge.put_issue(f"Drift of stack {stack}", text.read_text())
                print(f"The differences are in issue {number}.")
            raise differs
        closed = forge.close_issue(marker("drift", stack), "There is no drift any more.")
        print(f"There is no drift any more. Closed issue {closed}." if closed else "There is no drift.")


def _updates(session: Session, stack: str) -> int | None:
    """How many updates the stack has had; None during one."""
    place = (session.project.name, stack)
    return None if session.backend.lock_state(*place) == "held" else len(session.backend.history(*place))


@app.command()
def images(context: typer.Context) -> None:
    """Build, sign and push images whose sources have changed; have one pull request bring their digests to Git."""
    from cli import images as updates
    from cli.forge import Forge, Job

    session: Session = context.obj
    job = Job.current()
    with credentials():
        updates.update(session, session.stack(), job, Forge(job))


@app.command()
def models(context: typer.Context) -> None:
    """Test all models with the pull request's code: each one's pipeline to its gate, on the stack. Registers nothing.

    What has not changed is not trained again. Does nothing where the stack's profile has no pipelines.
    """
    from cli.own_models import names
    from cli.pipeline import judge_models

    with credentials():
        judge_models(context.obj, names())


@app.command()
def environment(context: typer.Context) -> None:
    """Bring up the pull request's own stack, where it has the label `environment`; destroy it where it has not."""
    from cli import environment as environments
    from cli.forge import Forge, Job

    session: Session = context.obj
    job = Job.current()
    forge = Forge(job)
    # An event keeps the labels of its time, however often the job is run again.
    proposed = forge.find_pull_request(job.pull_request().number)
    name = environments.stack_name(proposed.number)
    with credentials():
        if environments.LABEL in proposed.labels and proposed.is_open:
            environments.bring_up(session, forge, proposed)
        elif not environments.destroy(session, name):
            print(f"Pull request {proposed.number} has no label '{environments.LABEL}', and no stack '{name}'.")


@app.command("clean-up")
def clean_up(context: typer.Context) -> None:
    """Put away what pull requests have left.

    In a job of a closed pull request: its preview environment, and its plan where it was not merged. In any other job:
    every environment that is past its end.
    """
    from cli import environment as environments
    from cli.forge import Forge, Job
    from engine.backend.bucket import DeniedError

    session: Session = context.obj
    job = Job.current()
    with credentials():
        if not job.is_of_pull_request:
            _destroy_all(session, dict(environments.ended(session, Forge(job))))
            return
        closed = job.pull_request()
        name = environments.stack_name(closed.number)
        if not environments.destroy(session, name):
            print(f"There is no stack '{name}'.")
        if not closed.merged:
            for summary in session.backend.list_stacks(session.project.name):
                # Other stacks' plans are for jobs with keys of theirs.
                with contextlib.suppress(DeniedError):
                    session.backend.plans.delete(session.project.name, summary.name, plan_name(closed.number))


def _destroy_all(session: Session, reasons: dict[str, str]) -> None:
    """Destroy environments, one after the other: what one of them fails with does not keep the next."""
    from cli import environment as environments
    from engine.errors import EngineError

    if not reasons:
        print("No environment is past its end.")
    failed = []
    for name, reason in reasons.items():
        print(f"{name} is destroyed: {reason}.", flush=True)
        try:
            environments.destroy(session, name)
        except EngineError as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise LabError("\n".join(failed), remedy="the next run tries again")


@app.command()
def comment(
    context: typer.Context,  # noqa: ARG001
    file: Annotated[Path, typer.Argument(help="Markdown; its first line identifies the comment.")],
    number: Annotated[
        int | None, typer.Option("--pull-request", min=1, metavar="NUMBER", help="Default: from the job's event.")
    ] = None,
) -> None:
    """Comment on a pull request, or update the comment with the same first line."""
    from cli.forge import Forge, Job

    job = Job.current()
    try:
        text = file.read_text()
    except OSError as error:
        raise LabError(f"could not read {file}: {error.strerror}", code=ExitCode.CONFIGURATION) from None
    Forge(job).put_comment(number or job.pull_request().number, text)


def plan_name(number: int) -> str:
    """Name of a pull request's plan in the backend."""
    return f"pull-request-{number}"


@contextlib.contextmanager
def credentials() -> Iterator[None]:
    """Write the clouds.yaml in the variable CLOUDS_YAML to a temporary file for OpenStack clients.

    The variable is removed, because programs that are started later do not need it.
    """
    content = os.environ.pop(CLOUDS, "")
    if not content:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clouds.yaml")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(path)
        try:
            yield
        finally:
            os.environ.pop("OS_CLIENT_CONFIG_FILE", None)


def _summarize(text: str) -> None:
    """Add the text to the job's summary page, if the forge has one."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a") as file:
            file.write(text)
