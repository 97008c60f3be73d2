"""open and logs: the platform's services as people look at them; and what `lab up` ends with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import LabError
from cli.workloads import MODEL, NAMESPACES, Object, Platform, capability_of, reported, served_version, wait

if TYPE_CHECKING:
    from cli.session import Session

EXAMPLE = "digits"
SAMPLE = Path(__file__).resolve().parent.parent / "k8s" / "models" / EXAMPLE / "sample.json"
READY_SECONDS = 300


@reported
def open_services(
    context: typer.Context,
    authority: Annotated[
        Path | None, typer.Option("--authority", help="Write the authority's certificate to this file.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the overview, if there is a browser.")
    ] = True,
) -> None:
    """Print where every service is, and where its credentials are; open the overview in a browser."""
    session: Session = context.obj
    platform = Platform.of(session)
    if authority is not None:
        authority.write_text(platform.authority)
        print(f"Wrote {authority}: let browsers trust it, and clients (REQUESTS_CA_BUNDLE={authority}).")
        return
    print(platform.table())
    if browser and session.interactive:
        import webbrowser

        webbrowser.open(platform.url())


@reported
def logs(
    context: typer.Context,
    capability: Annotated[
        str | None, typer.Argument(help="tracking, serving, gateway, digits... Default: list them.", metavar="[NAME]")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=1, help="Lines of each container to begin with.")] = 50,
) -> None:
    """Print what the pods of a capability, of a model or of a training run say."""
    session: Session = context.obj
    platform = Platform.of(session)
    pods = [pod for namespace in NAMESPACES for pod in platform.cluster.items("v1", "Pod", namespace)]
    workloads = list(platform.workloads())
    names = {pod["metadata"]["name"]: _names(pod, workloads) for pod in pods}
    known = {name for found in names.values() for name in found}
    if capability is None:
        print("\n".join(sorted(known)))
        return
    chosen = [pod for pod in pods if capability in {pod["metadata"]["name"], *names[pod["metadata"]["name"]]}]
    if not chosen:
        raise LabError(f"nothing of '{capability}' runs", remedy=f"choose one of: {', '.join(sorted(known))}")
    seen: dict[str, str] = {}
    while True:
        for pod in chosen:
            metadata = pod["metadata"]
            for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
                _more(platform, metadata["namespace"], metadata["name"], container["name"], seen, tail)
        if not follow:
            return
        time.sleep(1)


def _names(pod: Object, workloads: list[Object]) -> set[str]:
    """What a pod may be asked for by: its capability, its model, what its Job is called."""
    labels = pod["metadata"].get("labels", {})
    return {name for name in (labels.get(MODEL), capability_of(pod, workloads) or labels.get("app")) if name}


def _more(platform: Platform, namespace: str, pod: str, container: str, seen: dict[str, str], tail: int) -> None:
    """Print the lines of a container that are not `seen`."""
    from providers.kubernetes.client import ClusterError

    key = f"{pod}/{container}"
    options = {"container": container, "timestamps": "true"}
    options |= {"sinceTime": seen[key][:19] + "Z"} if key in seen else {"tailLines": str(tail)}
    try:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        text = str(platform.cluster.request(f"log of {key}", "GET", path, **options))
    except ClusterError:
        return  # it has not begun, or is gone
    for line in text.splitlines():
        stamp, _, said = line.partition(" ")
        if stamp > seen.get(key, ""):
            print(f"{key} | {said}", flush=True)
            seen[key] = stamp


def finish_up(session: Session, stack: str) -> bool:
    """What `lab up` ends with: an answer of the example, trained first where it never was, and the addresses.

    Whether there is a platform that it could tell of.
    """
    from infra.settings import Platform as Settings

    given = session.config(stack).get("ml-cluster:platform")
    if given is None or not given.is_object:
        return False
    wanted = Settings.model_validate(json.loads(given.value))
    if wanted.apply == "gitops":
        return False
    platform = Platform.of(session, stack)
    if wanted.example:
        serve_example(session, platform)
    print("\n" + platform.table() + "\n")
    return True


def serve_example(session: Session, platform: Platform) -> None:
    """Train and promote the example, unless it serves; then ask it."""
    from cli.models import Stage, ask_model, finish_promotion, train_model

    began = time.monotonic()
    live = platform.deployments(EXAMPLE).get("production")
    if live is None or served_version(live) is None:
        print(f"Training {EXAMPLE}, the worked example, on the cluster.")
        # In one Job: another would have its image pulled by another node.
        result = train_model(session, platform, EXAMPLE, promote=Stage.production)
        if result["exit"]:
            raise LabError(result.get("error", f"{EXAMPLE} could not be trained"))
        print(
            f"  test accuracy {result['test_accuracy']:.4f}: the gate has passed it ({time.monotonic() - began:.0f} s)"
        )
        finish_promotion(platform, EXAMPLE, Stage.production, str(result["version"]))
    last = ""

    def answers() -> bool:
        nonlocal last
        try:
            told = ask_model(platform, EXAMPLE, SAMPLE)
        except LabError as error:
            last = str(error)
            return False
        label = next(output["data"] for output in told["outputs"] if output["name"] == "label")
        print(f"{EXAMPLE}, version {told['model_version']}, asked for {SAMPLE.name}: {label}")
        return True

    wait(answers, READY_SECONDS, lambda: f"waiting for {EXAMPLE}: {last}")


def platform_status(session: Session, stack: str) -> str:
    """The part of `lab status` about the platform; empty where there is none."""
    from providers.framework import ProviderError

    try:
        platform = Platform.of(session, stack)
    except LabError:
        return ""
    try:
        return f"Capabilities:\n{platform.health()}\nModels:\n{platform.models()}"
    except ProviderError as error:
        return f"Capabilities: the cluster does not answer: {error}"
