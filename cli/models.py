"""train, promote, rollback, withdraw, predict: the lifecycle of a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.box import ADMIN
from cli.errors import ExitCode, LabError
from cli.jobs import MANAGER, follow_job, rendered, start_job
from cli.model_code import pack, put, settings_of
from cli.promotion import Model, decide, in_git
from cli.rollout import await_down, await_rollout, deployment_of, promote_model, split
from cli.session import confirm
from cli.workloads import TRAINING, Object, Platform, Stage, report_cluster_errors, served_version

if TYPE_CHECKING:
    from cli.model_code import Code
    from cli.session import Session
    from services.training.settings import Model as Settings

REFUSED = 3
"""Exit status of training if the gate refuses the model (services/training/README.md)."""


Incident = Annotated[
    str | None,
    typer.Option("--incident", help="The incident that this resolves, for `lab dora`.", metavar="NAME"),
]
User = Annotated[
    str,
    typer.Option("--as", help="User of the forge on the cluster who opens the pull request.", metavar="USER"),
]


def training_job(session: Session, settings: Settings, code: Code, variant: str | None = None) -> list[Object]:
    """The manifests of a training run of a model: the generic ones of k8s/platform/training/run, filled in.

    Raises:
        LabError: there is no such variant, or no kubectl to render them.
    """
    from services.pipelines.jobs import filled
    from services.pipelines.settings import Takes

    if variant is not None and variant not in settings.variants:
        known = f"choose one of: {', '.join(settings.variants)}, or none" if settings.variants else "it has none"
        raise LabError(f"{settings.name} has no variant '{variant}'", remedy=known)
    workers = settings.variants[variant].workers if variant else 1
    objects = rendered(session, f"platform/training/run/{'workers' if workers > 1 else 'base'}")
    takes = Takes(**settings.resources(variant).model_dump(), workers=workers)
    made = [filled(one, settings.name, code, takes) if one["kind"] == "Job" else one for one in objects]
    (job,) = [one for one in made if one["kind"] == "Job"]
    job["spec"]["template"]["spec"]["containers"][0]["args"] += [f"--variant={variant}"] if variant else []
    return made


def run_job(platform: Platform, objects: list[Object], name: str, arguments: list[str] | None = None) -> Object:
    """Create a Job from a run's manifests, print its output, and return its result.

    `arguments` replace those of the manifests. The result has the exit status in `exit`.

    Raises:
        LabError: the Job could not be created, or did not end.
    """
    from providers.kubernetes.objects import Identity

    cluster = platform.cluster
    job: Object = {}
    for one in sorted(objects, key=lambda manifest: manifest["kind"] == "Job"):
        if one["kind"] != "Job":
            target = Identity(one["apiVersion"], one["kind"], one["metadata"]["namespace"], one["metadata"]["name"])
            cluster.apply(target, one, MANAGER, force=True)
            continue
        job = json.loads(json.dumps(one))
        if arguments is not None:
            job["spec"]["template"]["spec"]["containers"][0]["args"] = arguments
    return follow_job(platform, start_job(platform, job, name, TRAINING), TRAINING)


def train_model(
    session: Session,
    platform: Platform,
    model: str,
    variant: str | None = None,
    *,
    seed: int | None = None,
    data_version: str | None = None,
    promote: Stage | None = None,
) -> Object:
    """Train a model and, if it passes the gate, promote it; return the result. The stage may not serve it yet.

    Raises:
        LabError: there is no such model or variant; its settings or its files are refused; the Job did not end.
    """
    from cli.own_models import folder_of

    folder = folder_of(model)
    settings, code = settings_of(folder), pack(folder)
    objects = training_job(session, settings, code, variant)
    (job,) = [one for one in objects if one["kind"] == "Job"]
    if code.dirty:
        where = f"commit {code.commit[:12]}" if code.commit != "none" else "any commit: there is no Git repository"
        print(f"warning: models/{model} differs from {where}; the lineage says so.", file=sys.stderr)
    sent = "sent" if put(platform, code) else "there already"
    print(f"Code: {len(code.files)} files of models/{model}, {len(code.content)} bytes, {code.digest[:12]} ({sent})")
    given = job["spec"]["template"]["spec"]["containers"][0].get("args", [])
    options = [f"--seed={seed}"] if seed is not None else []
    options += [f"--data-version={data_version}"] if data_version else []
    options += [f"--promote={promote.value}"] if promote else []
    return run_job(platform, objects, f"{model}-{variant or 'train'}", [*given, *options])


@report_cluster_errors
def promote(
    context: typer.Context,
    model: Model,
    to: Annotated[Stage, typer.Option("--to", help="The stage to promote it to.")],
    version: Annotated[str | None, typer.Option("--version", help="Default: the newest.", show_default=False)] = None,
    share: Annotated[
        int | None,
        typer.Option("--share", min=0, max=100, help="With --to canary: percent of production's requests."),
    ] = None,
    incident: Incident = None,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Where stages are set in Git: propose it there, by pull request.")
    ] = False,
    user: User = ADMIN,
) -> None:
    """Promote a version of a model to a stage, and wait until the stage serves it.

    `--to canary --share 10` sends 10 % of production's requests to the canary, until the next promotion to production.
    With --pull-request, it opens a pull request with the gate's figures instead; its merge promotes the version.
    """
    if share is not None and to is not Stage.canary:
        raise LabError("--share can only be used with --to canary", code=ExitCode.CONFIGURATION)
    platform = Platform.of(context.obj)
    if pull_request:
        from cli.stages import propose

        if incident:
            raise LabError("--incident cannot be used with --pull-request", code=ExitCode.CONFIGURATION)
        propose(platform, model, to, version, share, user)
        return
    promote_model(platform, model, to, version, share, incident)


@report_cluster_errors
def rollback(
    context: typer.Context,
    model: Model,
    stage: Annotated[Stage, typer.Option("--stage", help="The stage.")] = Stage.production,
    incident: Incident = None,
    user: User = ADMIN,
) -> None:
    """Return a stage to the version before its last promotion, and wait until all its pods serve it.

    Production answers with it within seconds if it is still warm: see `lab stages`. Deleted versions are skipped.
    Where stages are set in Git, this also opens a pull request that reverts the change there.
    """
    platform = Platform.of(context.obj)
    if (git := in_git(platform, model)) is not None:
        from cli.stages import roll_back

        roll_back(platform, model, stage, git, incident, user)
        return
    if stage is Stage.canary:
        split(platform, model, 0)
    await_rollout(platform, model, stage, decide(platform, model, stage, "rollback", incident=incident))


@report_cluster_errors
def withdraw(
    context: typer.Context,
    model: Model,
    stage: Annotated[Stage, typer.Option("--stage", help="The stage.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take down a stage of a model, and wait until it has no pods.

    The stage serves again after a promotion or a rollback. Deleting its version or alias in the registry does not take
    a stage down.
    """
    session: Session = context.obj
    platform = Platform.of(session)
    version = served_version(deployment_of(platform, model, stage))
    if version is None:
        print(f"{stage} of {model} is not serving.")
        return
    confirm(session, yes, f"This stops {stage} of {model}, which serves version {version}.")
    if stage is Stage.canary:
        split(platform, model, 0)
    decide(platform, model, stage, "withdraw", version)

    await_down(platform, model, stage)


@report_cluster_errors
def predict(
    context: typer.Context,
    model: Model,
    sample: Annotated[
        Path, typer.Argument(help="JSON: a V2 request, or rows of numbers.", exists=True, dir_okay=False)
    ],
    stage: Annotated[Stage, typer.Option("--stage", help="Production's requests, or staging's.")] = Stage.production,
) -> None:
    """Get a prediction from a model through the gateway (Open Inference Protocol)."""
    session: Session = context.obj
    print(json.dumps(ask_model(Platform.of(session), model, sample, stage.value), indent=1))


def ask_model(platform: Platform, model: str, sample: Path, stage: str = "production") -> Any:
    """The prediction of a model for a sample.

    Raises:
        LabError: the sample is not JSON, or the model does not answer.
    """
    try:
        content = json.loads(sample.read_text())
    except ValueError as error:
        raise LabError(f"{sample} is not JSON: {error}") from None
    host = model if stage == Stage.production else f"{model}-{stage}"
    if isinstance(content, list):
        rows = content if isinstance(content[0], list) else [content]
        data = [value for row in rows for value in row]
        tensor = {
            "name": _input_name(platform, host, model),
            "shape": [len(rows), len(rows[0])],
            "datatype": "FP64",
            "data": data,
        }
        content = {"inputs": [tensor]}
    return platform.ask(host, "POST", f"/v2/models/{model}/infer", content)


def _input_name(platform: Platform, host: str, model: str) -> str:
    """The name of a model's input; model servers without a schema accept any name."""
    inputs = platform.ask(host, "GET", f"/v2/models/{model}").get("inputs")
    return str(inputs[0]["name"]) if inputs else "input"
