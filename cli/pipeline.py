"""`lab pipeline`: starts a model's pipeline on the cluster, lists runs, shows how one is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import LabError
from cli.model_code import pack, put
from cli.promotion import Model  # noqa: TC001 - Typer reads it
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import as_json, table
from cli.workloads import Platform, report_cluster_errors

if TYPE_CHECKING:
    from cli.session import Session
    from cli.workloads import Object

app = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, test, promote and watch a model in one go; on the cluster, again and again.",
)
SERVICE = "pipelines"
ENDED = {"SUCCESS": "done", "FAILURE": "failed", "CANCELED": "ended by hand"}
WORDS = {**ENDED, "NOT_STARTED": "waiting", "QUEUED": "waiting", "STARTING": "starting", "STARTED": "running",
         "CANCELING": "ending", "IN_PROGRESS": "running", "SKIPPED": "not asked for"}  # fmt: skip
SHOWN = 20
CAUSE, DATA = "ml-cluster/cause", "ml-cluster/data-version"
SECONDS_BETWEEN, FOLLOW_SECONDS = 2.0, 6 * 3600

LAUNCH = """mutation($job: String!, $config: RunConfigData, $tags: [ExecutionTag!]) { launchRun(executionParams: {
 selector: {repositoryLocationName: "pipelines", repositoryName: "__repository__", jobName: $job},
 runConfigData: $config, executionMetadata: {tags: $tags}}) { __typename
 ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on PipelineNotFoundError { message }
 ... on RunConfigValidationInvalid { errors { message } } } }"""
RUNS = """query($filter: RunsFilter, $limit: Int) { runsOrError(filter: $filter, limit: $limit) { ... on Runs {
 results { runId jobName status startTime endTime tags { key value } } } } }"""
STEPS = """query($id: ID!) { runOrError(runId: $id) { __typename ... on Run { runId jobName status startTime endTime
 tags { key value } stepStats { stepKey status startTime endTime } } } }"""
FAULTS = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { __typename
 ... on ExecutionStepFailureEvent { stepKey error { message } failureMetadata { description } }
 ... on RunFailureEvent { message } } } } }"""
PIPELINES = """{ repositoriesOrError { ... on RepositoryConnection { nodes { jobs { name description }
 schedules { name cronSchedule scheduleState { status } } sensors { name sensorState { status } } } } } }"""


class Goal(StrEnum):
    """How far a pipeline goes."""

    gate = "gate"
    registry = "registry"
    staging = "staging"
    production = "production"


@app.command("run")
@report_cluster_errors
def run(
    context: typer.Context,
    model: Model,
    data_version: Annotated[
        str | None, typer.Option("--data-version", help="Version of the dataset. Default: what is ingested now.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Random seed. Default: as the model's pipeline.yaml says.")
    ] = None,
    to: Annotated[
        Goal | None, typer.Option("--to", help="How far it goes. Default: as the model's pipeline.yaml says.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="If the stack must be updated first, do so without asking.")
    ] = False,
) -> None:
    """Start a model's pipeline with the model's code as it is now.

    Sends the code to the stack's object store, as `lab train` does. Fails if the pipeline fails.
    """
    platform = _platform(context.obj)
    identifier = _start(
        context.obj, platform, model, cause="hand", data_version=data_version, seed=seed, to=to, yes=yes
    )
    if wait:
        _follow(platform, identifier)


def judge_models(session: Session, models: list[str]) -> None:
    """Have the cluster say whether the gate would pass each model, with its code as it is; nothing is registered.

    Raises:
        LabError: one is refused, or could not be tested; the text has all reasons.
    """
    try:
        platform = _platform(session)
    except LabError as error:
        print(f"No model is tested: {error}.")
        return
    runs = {
        model: _start(
            session, platform, model, cause="pull request", data_version=None, seed=None, to=Goal.gate, yes=False
        )
        for model in models
    }
    reasons = []
    for model, run in runs.items():
        print(f"{model}:")
        try:
            _follow(platform, run)
        except LabError as error:
            reasons.append(f"{model}: {error}")
    if reasons:
        raise LabError("\n".join(reasons), remedy=f"`lab pipeline ls`; {platform.url(SERVICE)} has each step's log")


def _start(
    session: Session, platform: Platform, model: str, *,
    cause: str, data_version: str | None, seed: int | None, to: Goal | None, yes: bool,
) -> str:  # fmt: skip
    """Start a run of a model's pipeline with the code as it is in its folder; the run's id.

    Raises:
        LabError: the model is refused, or the stack lacks it; the service does not answer, or refuses.
    """
    from cli.own_models import folder_of
    from cli.train import require_on_cluster

    require_on_cluster(session, platform, model, yes=yes)
    code = pack(folder_of(model))
    sent = "sent" if put(platform, code) else "there already"
    print(f"Code: {len(code.files)} files of models/{model}, {code.digest[:12]} ({sent})")
    asked: Object = {
        "archive": code.digest, "version": code.version, "commit": code.commit, "dirty": code.dirty,
        **({"data_version": data_version} if data_version else {}), **({"to": to.value} if to else {}),
        **({"seed": seed} if seed is not None else {}),
    }  # fmt: skip
    found = _ask(
        platform, LAUNCH, job=_job(model), config={"ops": {"code": {"config": asked}}},
        tags=[{"key": CAUSE, "value": cause}],
    )["launchRun"]  # fmt: skip
    if found["__typename"] != "LaunchRunSuccess":
        told = found.get("message") or "; ".join(one["message"] for one in found.get("errors", ()))
        raise LabError(f"the pipeline of {model} was not started: {told or found['__typename']}")
    identifier: str = found["run"]["runId"]
    print(f"Run {identifier}: {platform.url(SERVICE)}/runs/{identifier}")
    return identifier


@app.command("ls")
@report_cluster_errors
def list_runs(context: typer.Context, json: Json = False) -> None:
    """List all pipelines with what starts them, and their last runs."""
    platform = _platform(context.obj)
    (repository,) = _ask(platform, PIPELINES)["repositoriesOrError"]["nodes"] or [{}]
    runs = _ask(platform, RUNS, limit=SHOWN)["runsOrError"]["results"]
    pipelines = [{"name": job["name"], "starts": _starts(repository, job["name"])} for job in repository["jobs"]]
    if json:
        print(as_json({"pipelines": pipelines, "runs": [_told(one) for one in runs]}))
        return
    print(table(("PIPELINE", "STARTED BY"), [(one["name"], ", ".join([*one["starts"], "hand"])) for one in pipelines]))
    if runs:
        rows = [tuple(_told(one).values()) for one in runs]
        print("\n" + table(("RUN", "PIPELINE", "HOW IT IS", "STARTED", "SECONDS", "BY", "DATA"), rows))


@app.command("status")
@report_cluster_errors
def status(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run, or a model: its last run.", metavar="RUN|MODEL")],
    json: Json = False,
) -> None:
    """Show how a run is: each step, and why it failed."""
    platform = _platform(context.obj)
    found = _found(platform, run)
    steps = [
        {"step": one["stepKey"], "status": WORDS.get(one["status"], one["status"]), "seconds": _seconds(one)}
        for one in found["stepStats"]
    ]
    faults = _faults(platform, found["runId"]) if found["status"] == "FAILURE" else []
    if json:
        print(as_json({**_told(found), "steps": steps, "faults": faults}))
        return
    print(table(("RUN", ""), [(key, value) for key, value in _told(found).items() if value]))
    print("\n" + table(("STEP", "HOW IT IS", "SECONDS"), [tuple(one.values()) for one in steps]))
    for fault in faults:
        print(f"Failed: {fault}")


def _platform(session: Session) -> Platform:
    """The stack's platform.

    Raises:
        LabError: it has no pipelines.
    """
    platform = Platform.of(session)
    if SERVICE not in platform.credentials:
        remedy = "use the profile lab or production, then `lab up`; `lab train` needs no pipelines"
        raise LabError(f"the profile {platform.profile} has no pipelines", remedy=remedy)
    return platform


def _ask(platform: Platform, query: str, **variables: Any) -> Any:
    """What the service answers to a query.

    Raises:
        LabError: it does not answer, or refuses.
    """
    found = platform.ask(SERVICE, "POST", "/graphql", {"query": query, "variables": variables})
    if "errors" in found:
        raise LabError(f"{platform.url(SERVICE)} answers: {'; '.join(one['message'] for one in found['errors'])}")
    return found["data"]


def _job(model: str) -> str:
    """The name of a model's pipeline."""
    return model.replace("-", "_")


def _starts(repository: Object, job: str) -> list[str]:
    """What starts a pipeline."""
    found = [
        f"schedule {one['cronSchedule']}" + ("" if one["scheduleState"]["status"] == "RUNNING" else " (off)")
        for one in repository["schedules"]
        if one["name"] == f"{job}_schedule"
    ]
    for one in repository["sensors"]:
        pipeline, _, what = one["name"].rpartition("_")
        if pipeline == job:
            found.append(what + ("" if one["sensorState"]["status"] == "RUNNING" else " (off)"))
    return found


def _found(platform: Platform, run: str) -> Object:
    """A run, or the last one of a model.

    Raises:
        LabError: there is none.
    """
    found: Object = _ask(platform, STEPS, id=run)["runOrError"]
    if found["__typename"] == "Run":
        return found
    last = _ask(platform, RUNS, filter={"pipelineName": _job(run)}, limit=1)["runsOrError"]["results"]
    if not last:
        raise LabError(
            f"there is no run {run}, nor one of a model {run}", remedy="`lab pipeline ls` lists the last runs"
        )
    return dict(_ask(platform, STEPS, id=last[0]["runId"])["runOrError"])


def _told(run: Object) -> dict[str, str]:
    """What there is to say of a run."""
    tags = {one["key"]: one["value"] for one in run["tags"]}
    began = datetime.fromtimestamp(run["startTime"], UTC).isoformat(timespec="seconds") if run["startTime"] else ""
    return {
        "run": run["runId"], "pipeline": run["jobName"], "status": WORDS.get(run["status"], run["status"]),
        "started": began.replace("+00:00", "Z"), "seconds": _seconds(run), "by": tags.get(CAUSE, "hand"),
        "data": tags.get(DATA, "")[:12],
    }  # fmt: skip


def _seconds(timed: Object) -> str:
    if not timed["startTime"]:
        return ""
    return f"{(timed['endTime'] or time.time()) - timed['startTime']:.0f}"


def _faults(platform: Platform, run: str) -> list[str]:
    """Why a run failed."""
    events = _ask(platform, FAULTS, id=run)["logsForRun"]["events"]
    found = []
    for one in events:
        if one["__typename"] == "ExecutionStepFailureEvent":
            told = (
                (one.get("failureMetadata") or {}).get("description") or (one.get("error") or {}).get("message") or ""
            )
            found.append(f"{one['stepKey']}: {told.strip().splitlines()[0] if told.strip() else 'see its log'}")
        elif one["__typename"] == "RunFailureEvent" and not found:
            found.append(one["message"])
    return found


def _follow(platform: Platform, run: str) -> None:
    """Print the steps of a run as they change, until it ends.

    Raises:
        LabError: it failed, or has not ended in six hours.
    """
    printed: dict[str, str] = {}
    deadline = time.monotonic() + FOLLOW_SECONDS
    while True:
        found = _ask(platform, STEPS, id=run)["runOrError"]
        for one in found["stepStats"]:
            if one["status"] != printed.get(one["stepKey"]):
                printed[one["stepKey"]] = one["status"]
                took = f" ({_seconds(one)} s)" if one["endTime"] else ""
                print(f"  {one['stepKey']}: {WORDS.get(one['status'], one['status'])}{took}", flush=True)
        if found["status"] in ENDED:
            break
        if time.monotonic() > deadline:
            raise LabError(f"run {run} has not ended after {FOLLOW_SECONDS} s", remedy=f"`lab pipeline status {run}`")
        time.sleep(SECONDS_BETWEEN)
    if found["status"] != "SUCCESS":
        remedy = f"`lab pipeline status {run}`; its page has each step's log"
        reasons = "; ".join(_faults(platform, run)) or ENDED[found["status"]]
        raise LabError(f"run {run}: {reasons}", remedy=remedy)
    print(f"Run {run} is done.")
