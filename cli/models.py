"""train, promote, rollback, withdraw, predict: the lifecycle of a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.jobs import MANAGER, follow_job, rendered, start_job
from cli.model_code import pack, put, settings_of
from cli.promotion import Model, decide
from cli.session import confirm
from cli.workloads import (
    SERVING,
    TRAINING,
    Object,
    Platform,
    Stage,
    answers_early,
    report_cluster_errors,
    rolled_out,
    served_version,
    wait,
)

if TYPE_CHECKING:
    from cli.model_code import Code
    from cli.session import Session
    from services.training.settings import Model as Settings

ROLLOUT_SECONDS = 600
REFUSED = 3
"""Exit status of training if the gate refuses the model (services/training/README.md)."""
ROUTE_API = "gateway.networking.k8s.io/v1"


Incident = Annotated[
    str | None,
    typer.Option("--incident", help="The incident that this resolves, for `lab dora`.", metavar="NAME"),
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
) -> None:
    """Promote a version of a model to a stage, and wait until the stage serves it.

    `--to canary --share 10` sends 10 % of production's requests to the canary, until the next promotion to production.
    """
    if share is not None and to is not Stage.canary:
        raise LabError("--share can only be used with --to canary", code=ExitCode.CONFIGURATION)
    platform = Platform.of(context.obj)
    promote_model(platform, model, to, version, share, incident)


def promote_model(
    platform: Platform,
    model: str,
    stage: Stage,
    version: str | None = None,
    share: int | None = None,
    incident: str | None = None,
) -> None:
    """Promote a version, by default the newest, and wait until the stage serves it."""
    finish_promotion(platform, model, stage, decide(platform, model, stage, "promote", version, incident), share)


def finish_promotion(platform: Platform, model: str, stage: Stage, version: str, share: int | None = None) -> None:
    """Wait until a stage serves the promoted version, and set the canary's share."""
    _await_rollout(platform, model, stage, version)
    if stage is Stage.canary:
        split(platform, model, share or 0)
        print(f"The canary of {model} gets {share or 0} % of production's requests.")
    elif stage is Stage.production and split(platform, model, 0):
        print(f"The canary of {model} no longer gets requests.")


@report_cluster_errors
def rollback(
    context: typer.Context,
    model: Model,
    stage: Annotated[Stage, typer.Option("--stage", help="The stage.")] = Stage.production,
    incident: Incident = None,
) -> None:
    """Return a stage to the version before its last promotion, and wait until all its pods serve it.

    Production answers with it within seconds if it is still warm: see `lab stages`. Deleted versions are skipped.
    """
    platform = Platform.of(context.obj)
    if stage is Stage.canary:
        split(platform, model, 0)
    _await_rollout(platform, model, stage, decide(platform, model, stage, "rollback", incident=incident))


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
    version = served_version(_deployment(platform, model, stage))
    if version is None:
        print(f"{stage} of {model} is not serving.")
        return
    confirm(session, yes, f"This stops {stage} of {model}, which serves version {version}.")
    if stage is Stage.canary:
        split(platform, model, 0)
    decide(platform, model, stage, "withdraw", version)

    def down() -> bool:
        live = _deployment(platform, model, stage)
        return live["spec"].get("replicas") == 0 and rolled_out(live)

    wait(down, ROLLOUT_SECONDS, lambda: f"waiting until {stage} has no pods")
    print(f"{stage} of {model} has been taken down.")


def _deployment(platform: Platform, model: str, stage: Stage) -> Object:
    deployment = platform.deployments(model).get(stage)
    if deployment is None:
        raise LabError(f"{model} has no Deployment for {stage}", remedy=f"`lab up` makes them, of k8s/models/{model}")
    return deployment


def _await_rollout(platform: Platform, model: str, stage: Stage, version: str) -> None:
    def served() -> bool:
        live = _deployment(platform, model, stage)
        return served_version(live) == version and rolled_out(live)

    def missing() -> str:
        live = _deployment(platform, model, stage)
        if served_version(live) != version:
            return f"waiting for the rollout of version {version} to {stage}"
        ready = live["status"].get("updatedReplicas", 0)
        if answers_early(live, version):
            return f"{stage} answers with version {version}, which was warm; {ready} pods of its own have followed"
        return f"rolling out version {version} to {stage}: {ready} of {live['spec'].get('replicas', 1)} pods updated"

    wait(served, ROLLOUT_SECONDS, missing)
    print(f"{stage} serves version {version} of {model}.")


def split(platform: Platform, model: str, share: int) -> bool:
    """Send a percentage of production's requests to the canary; return whether that changed anything.

    This creates a separate route, more specific than production's, which Git or the stack owns. The rollout controller
    finds it by its labels, and sends the canary no requests while it has no pods.
    """
    from providers.kubernetes.objects import Identity
    from services.pipelines.stages import shared_route

    target = Identity(ROUTE_API, "HTTPRoute", SERVING, f"{model}-canary")
    if not share:
        return platform.cluster.delete(target, "Background")
    live = platform.cluster.find(Identity(ROUTE_API, "HTTPRoute", SERVING, model))
    if live is None:
        raise LabError(f"{model} has no route", remedy=f"`lab up` makes it, of k8s/models/{model}")
    platform.cluster.apply(target, shared_route(model, share, live), MANAGER, force=True)
    return True


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
