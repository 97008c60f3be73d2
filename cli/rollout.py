"""What a stage serves, on the cluster: waiting until it does, and the canary's share of production's requests."""

from __future__ import annotations

from cli.errors import LabError
from cli.jobs import MANAGER
from cli.promotion import decide
from cli.workloads import (
    SERVING,
    SHARE,
    Object,
    Platform,
    Stage,
    answers_early,
    rolled_out,
    served_version,
    wait,
)

ROLLOUT_SECONDS = 600
ROUTE_API = "gateway.networking.k8s.io/v1"


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
    await_rollout(platform, model, stage, version)
    if stage is Stage.canary:
        split(platform, model, share or 0)
        print(f"The canary of {model} gets {share or 0} % of production's requests.")
    elif stage is Stage.production and split(platform, model, 0):
        print(f"The canary of {model} no longer gets requests.")


def deployment_of(platform: Platform, model: str, stage: Stage) -> Object:
    """The Deployment of a stage.

    Raises:
        LabError: there is none.
    """
    deployment = platform.deployments(model).get(stage)
    if deployment is None:
        raise LabError(f"{model} has no Deployment for {stage}", remedy=f"`lab up` makes them, of k8s/models/{model}")
    return deployment


def await_rollout(platform: Platform, model: str, stage: Stage, version: str) -> None:
    """Wait until all pods of a stage serve a version.

    Raises:
        LabError: timeout.
    """

    def served() -> bool:
        live = deployment_of(platform, model, stage)
        return served_version(live) == version and rolled_out(live)

    def missing() -> str:
        live = deployment_of(platform, model, stage)
        if served_version(live) != version:
            return f"waiting for the rollout of version {version} to {stage}"
        ready = live["status"].get("updatedReplicas", 0)
        if answers_early(live, version):
            return f"{stage} answers with version {version}, which was warm; {ready} pods of its own have followed"
        return f"rolling out version {version} to {stage}: {ready} of {live['spec'].get('replicas', 1)} pods updated"

    wait(served, ROLLOUT_SECONDS, missing)
    print(f"{stage} serves version {version} of {model}.")


def await_down(platform: Platform, model: str, stage: Stage) -> None:
    """Wait until a stage has no pods.

    Raises:
        LabError: timeout.
    """

    def down() -> bool:
        live = deployment_of(platform, model, stage)
        return live["spec"].get("replicas") == 0 and rolled_out(live)

    wait(down, ROLLOUT_SECONDS, lambda: f"waiting until {stage} has no pods")
    print(f"{stage} of {model} has been taken down.")


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


def share_of(platform: Platform, model: str) -> int:
    """The canary's share of production's requests, in percent."""
    from providers.kubernetes.objects import Identity

    route = platform.cluster.find(Identity(ROUTE_API, "HTTPRoute", SERVING, f"{model}-canary"))
    return int(route["metadata"].get("annotations", {}).get(SHARE, 0)) if route else 0
