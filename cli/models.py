"""train, promote, rollback, predict: a model's way from a Job to whoever asks it."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.text import table
from cli.workloads import SERVING, TRAINING, Object, Platform, reported, rolled_out, served_version, wait

if TYPE_CHECKING:
    from cli.session import Session

JOB_SECONDS = 3600
ROLLOUT_SECONDS = 600
MANAGER = "lab"
CANARY_PATH = "/v2"
REFUSED = 3
"""What a model's program exits with where its gate refuses (models/digits/README.md)."""
ROUTE_API = "gateway.networking.k8s.io/v1"


class Stage(StrEnum):
    """Where a version of a model can serve."""

    staging = "staging"
    canary = "canary"
    production = "production"


Model = Annotated[str, typer.Argument(help="A model: a folder of k8s/models.", metavar="MODEL")]


def manifests(session: Session, model: str, variant: str | None = None) -> list[Object]:
    """What a run of a model is made of.

    Raises:
        LabError: there is no such model or variant, or no kubectl to render it.
    """
    from infra.bundle import InventoryError, image_digests
    from infra.manifests import TREE, ManifestError, kubectl, render
    from infra.naming import PROJECT
    from infra.settings import Cluster

    folder = TREE / "models" / model / "training"
    if not (folder / "base").is_dir():
        known = sorted(path.parent.name for path in TREE.glob("models/*/training"))
        raise LabError(f"there is no model '{model}'", remedy=f"choose one of: {', '.join(known)}")
    part = f"overlays/{variant}" if variant else "base"
    if not (folder / part).is_dir():
        known = sorted(path.name for path in folder.glob("overlays/*"))
        raise LabError(f"{model} has no variant '{variant}'", remedy=f"choose one of: {', '.join(known)}, or none")
    given = session.config(session.stack()).get(f"{PROJECT}:cluster")
    cluster = Cluster.model_validate(json.loads(given.value)) if given and given.is_object else Cluster()
    program = kubectl(cluster.bundle, cluster.kubernetes_version)
    if program is None:
        raise LabError("there is no kubectl", remedy="`lab bundle build` makes one")
    try:
        return render(f"models/{model}/training/{part}", program, image_digests(cluster.bundle))
    except (InventoryError, ManifestError) as error:
        raise LabError(str(error)) from None


def run_job(platform: Platform, objects: list[Object], name: str, arguments: list[str] | None = None) -> Object:
    """Make a Job of its own of a run's manifests, show what it prints, and give what it ends with.

    `arguments` take the place of the run's. The result has `exit` beside what the program said.

    Raises:
        LabError: it could not run, or did not end.
    """
    from providers.kubernetes.objects import Identity

    cluster = platform.cluster
    made: Object = {}
    for one in sorted(objects, key=lambda manifest: manifest["kind"] == "Job"):
        target = Identity(one["apiVersion"], one["kind"], one["metadata"]["namespace"], one["metadata"]["name"])
        if one["kind"] != "Job":
            cluster.apply(target, one, MANAGER, force=True)
            continue
        job = json.loads(json.dumps(one))
        job["metadata"]["generateName"] = f"{name}-"
        del job["metadata"]["name"]
        if arguments is not None:
            job["spec"]["template"]["spec"]["containers"][0]["args"] = arguments
        every = Identity(target.api_version, "Job", TRAINING, "")
        made = cluster.request(f"making a Job of {name}", "POST", cluster.path(every), job, fieldManager=MANAGER)
    called = made["metadata"]["name"]
    print(f"Job {TRAINING}/{called}", flush=True)
    return _followed(platform, called)


def _followed(platform: Platform, job: str) -> Object:
    from providers.kubernetes.client import ClusterError
    from providers.kubernetes.objects import Identity

    cluster, target = platform.cluster, Identity("batch/v1", "Job", TRAINING, job)
    shown: dict[str, int] = {}
    began, waiting, told = time.monotonic(), "", 0.0
    while True:
        live = cluster.find(target)
        if live is None:
            raise LabError(f"Job {job} is gone")
        pods = cluster.items("v1", "Pod", TRAINING, labelSelector=f"batch.kubernetes.io/job-name={job}")
        pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        for pod in pods:
            name = pod["metadata"]["name"]
            try:
                path = f"{cluster.path(Identity('v1', 'Pod', TRAINING, name))}/log"
                text = str(cluster.request(f"log of {name}", "GET", path))
            except ClusterError:
                continue  # it has not begun
            for line in text[shown.get(name, 0) :].splitlines():
                print(f"  {name.removeprefix(f'{job}-')} | {line}", flush=True)
            shown[name] = len(text)
        ended = {one["type"] for one in live["status"].get("conditions", ()) if one["status"] == "True"}
        if ended & {"Complete", "Failed"}:
            return _ending(job, pods)
        waited = time.monotonic() - began
        text = _waits_for(live, pods)
        if text and (text != waiting or waited - told > 30):
            print(f"  … {text} ({waited:.0f} s)", flush=True)
            waiting, told = text, waited
        if waited > JOB_SECONDS:
            raise LabError(f"Job {job} has not ended after {JOB_SECONDS} s")
        time.sleep(1)


def _waits_for(job: Object, pods: list[Object]) -> str:
    if not pods:
        return f"waiting for room in the quota of {TRAINING}" if job["status"].get("startTime") else "starting"
    for pod in pods:
        for state in pod["status"].get("containerStatuses", ()):
            if reason := state["state"].get("waiting", {}).get("reason"):
                return f"{pod['metadata']['name']}: {reason}"
        for condition in pod["status"].get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] != "True":
                return f"{pod['metadata']['name']}: {condition.get('message', 'waiting for a node')}"
    return ""


def _ending(job: str, pods: list[Object]) -> Object:
    """What the program said as it ended; of several workers, the one that said anything."""
    ends = [
        state["state"]["terminated"]
        for pod in reversed(pods)
        for state in pod["status"].get("containerStatuses", ())
        if "terminated" in state["state"]
    ]
    code = max((end["exitCode"] for end in ends[:1]), default=1)
    for end in ends:
        try:
            said = json.loads(end.get("message", ""))
        except ValueError:
            continue
        if said:
            return {**said, "exit": end["exitCode"]}
    return {"exit": code, "error": f"Job {job} failed: {', '.join(str(end.get('reason')) for end in ends) or 'no pod'}"}


def _checked(result: Object) -> Object:
    """The result of a Job that went well.

    Raises:
        LabError: it did not; the text is the program's own.
    """
    if result["exit"]:
        remedy = "the model stays out of the registry, and nothing serves it" if result["exit"] == REFUSED else None
        raise LabError(result.get("error", "the Job failed"), remedy=remedy)
    return result


@reported
def train(
    context: typer.Context,
    model: Model,
    variant: Annotated[str | None, typer.Option("--variant", help="Another way to train: bad, torch.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of all that is random.", show_default=False)] = None,
    data_version: Annotated[
        str | None, typer.Option("--data-version", help="Version of the dataset. Default: the current.")
    ] = None,
    to: Annotated[Stage | None, typer.Option("--promote", help="Then let this stage serve it.")] = None,
    json_output: Annotated[bool, typer.Option("--json", "-j", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model on the cluster, test it, and register it if it passes its gate.

    Ends with the run, its metrics and the gate's verdict; with an error where the gate refuses it.
    """
    session: Session = context.obj
    platform = Platform.of(session)
    # With --json, standard output is the result alone.
    with redirect_stdout(sys.stderr) if json_output else nullcontext():
        result = train_model(session, platform, model, variant, seed=seed, data_version=data_version, promote=to)
        if to is not None and not result["exit"]:
            finish_promotion(platform, model, to, str(result["version"]))
    if json_output:
        print(json.dumps(result))
        _checked(result)
        return
    _checked(result)
    rows = [(key, f"{value:.4f}" if isinstance(value, float) else str(value)) for key, value in result.items()]
    print(table(("RESULT", ""), [row for row in rows if row[0] != "exit" and "recall" not in row[0]]))
    print(f"Registered as version {result['version']} of {model}: the gate has passed it.")


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
    """Train, and promote what the gate has passed; what came of it. The stage may not serve it yet."""
    objects = manifests(session, model, variant)
    (job,) = [one for one in objects if one["kind"] == "Job"]
    given = job["spec"]["template"]["spec"]["containers"][0].get("args", [])
    options = [f"--seed={seed}"] if seed is not None else []
    options += [f"--data-version={data_version}"] if data_version else []
    options += [f"--promote={promote.value}"] if promote else []
    return run_job(platform, objects, f"{model}-{variant or 'train'}", [*given, *options])


@reported
def promote(
    context: typer.Context,
    model: Model,
    to: Annotated[Stage, typer.Option("--to", help="The stage that is to serve it.")],
    version: Annotated[str | None, typer.Option("--version", help="Default: the newest.", show_default=False)] = None,
    share: Annotated[
        int | None,
        typer.Option("--share", min=0, max=100, help="With --to canary: percent of production's requests."),
    ] = None,
) -> None:
    """Let a stage serve a version of a model, and wait until it does.

    `--to canary --share 10` sends it that part of production's requests, until something is promoted to production.
    """
    if share is not None and to is not Stage.canary:
        raise LabError("--share is for --to canary alone", code=ExitCode.CONFIGURATION)
    session: Session = context.obj
    platform = Platform.of(session)
    promote_model(session, platform, model, to, version, share)


def promote_model(
    session: Session, platform: Platform, model: str, stage: Stage, version: str | None = None, share: int | None = None
) -> None:
    """Promote a version, by default the newest, and wait until the stage serves it."""
    chosen = ["--version", version] if version else []
    promoted = _move(session, platform, model, ["promote", "--to", stage.value, *chosen])
    finish_promotion(platform, model, stage, promoted, share)


def finish_promotion(platform: Platform, model: str, stage: Stage, version: str, share: int | None = None) -> None:
    """Wait until a stage serves what was promoted to it, and set the canary's share."""
    _await_rollout(platform, model, stage, version)
    if stage is Stage.canary:
        split(platform, model, share or 0)
        print(f"The canary of {model} gets {share or 0} % of production's requests.")
    elif stage is Stage.production and split(platform, model, 0):
        print(f"The canary of {model} gets no requests any more.")


@reported
def rollback(
    context: typer.Context,
    model: Model,
    stage: Annotated[Stage, typer.Option("--stage", help="The stage.")] = Stage.production,
) -> None:
    """Let a stage serve again what it served before its last promotion, and wait until it does."""
    session: Session = context.obj
    platform = Platform.of(session)
    if stage is Stage.canary:
        split(platform, model, 0)
    _await_rollout(platform, model, stage, _move(session, platform, model, ["rollback", "--to", stage.value]))


def _move(session: Session, platform: Platform, model: str, arguments: list[str]) -> str:
    """Have a Job change what a stage is to serve; the version."""
    result = _checked(run_job(platform, manifests(session, model), f"{model}-{arguments[0]}", arguments))
    return str(result["version"])


def _await_rollout(platform: Platform, model: str, stage: Stage, version: str) -> None:
    def state() -> Object:
        found = platform.deployments(model).get(stage)
        if found is None:
            raise LabError(f"{model} has no Deployment for {stage}", remedy=f"k8s/models/{model} declares them")
        return found

    def served() -> bool:
        live = state()
        return served_version(live) == version and rolled_out(live)

    def missing() -> str:
        live = state()
        if served_version(live) != version:
            return f"waiting until {stage} is told of version {version}"
        ready = live["status"].get("updatedReplicas", 0)
        return f"rolling {stage} to version {version}: {ready} of {live['spec'].get('replicas', 1)} pods are new"

    wait(served, ROLLOUT_SECONDS, missing)
    print(f"{stage} serves version {version} of {model}.")


def split(platform: Platform, model: str, share: int) -> bool:
    """Send a part of production's requests to the canary; whether that changed anything.

    A route of its own, more exact than production's: what Git or the stack says of that one stays as it is.
    """
    from providers.kubernetes.objects import Identity

    target = Identity(ROUTE_API, "HTTPRoute", SERVING, f"{model}-canary")
    if not share:
        return platform.cluster.delete(target, "Background")
    live = platform.cluster.find(Identity(ROUTE_API, "HTTPRoute", SERVING, model))
    if live is None:
        raise LabError(f"{model} has no route", remedy=f"k8s/models/{model}/routes.yaml declares it")
    weights = {"production": 100 - share, "canary": share}
    spec = {
        "parentRefs": live["spec"]["parentRefs"],
        "hostnames": live["spec"]["hostnames"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": CANARY_PATH}}],
                "backendRefs": [
                    {"name": f"{model}-{stage}", "port": 80, "weight": weight} for stage, weight in weights.items()
                ],
            }
        ],
    }
    platform.cluster.apply(target, {"spec": spec}, MANAGER, force=True)
    return True


@reported
def predict(
    context: typer.Context,
    model: Model,
    sample: Annotated[
        Path, typer.Argument(help="JSON: a V2 request, or rows of numbers.", exists=True, dir_okay=False)
    ],
    stage: Annotated[Stage, typer.Option("--stage", help="Production's requests, or staging's.")] = Stage.production,
) -> None:
    """Ask a model through the gateway (Open Inference Protocol), with its certificate checked."""
    session: Session = context.obj
    print(json.dumps(ask_model(Platform.of(session), model, sample, stage.value), indent=1))


def ask_model(platform: Platform, model: str, sample: Path, stage: str = "production") -> Any:
    """What a model says of a sample.

    Raises:
        LabError: the sample is no JSON, or the model does not answer.
    """
    try:
        content = json.loads(sample.read_text())
    except ValueError as error:
        raise LabError(f"{sample} is no JSON: {error}") from None
    if isinstance(content, list):
        rows = content if isinstance(content[0], list) else [content]
        data = [value for row in rows for value in row]
        tensor = {"name": "input", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": data}
        content = {"inputs": [tensor]}
    host = model if stage == Stage.production else f"{model}-{stage}"
    return platform.ask(host, "POST", f"/v2/models/{model}/infer", content)
