"""Stages of a model: decided by the promotion service, rolled out by the rollout controller, which this waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.pipelines.cluster import DEPLOYMENTS, ROUTES, Cluster
from services.pipelines.errors import DecidedError, PipelineError
from services.promotion.client import Promotion, PromotionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.pipelines.cluster import Object

NAMESPACE = "serving"
PRODUCTION, CANARY, STAGING = "production", "canary", "staging"
MODEL, ALIAS, SHARE, VERSION = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "share", "model-version"))
ROUTE_API, CANARY_PATH = "gateway.networking.k8s.io/v1", "/v2"
ROLLOUT_SECONDS, SECONDS_BETWEEN = 600.0, 1.0


def shared_route(model: str, share: int, production: Object) -> Object:
    """The route by which a canary gets a percentage of production's requests; `production` is production's route.

    It is more specific than production's, which Git or the stack owns. The rollout controller finds it by its labels.
    """
    weights = {PRODUCTION: 100 - share, CANARY: share}
    backends = [{"name": f"{model}-{stage}", "port": 80, "weight": weight} for stage, weight in weights.items()]
    return {
        "apiVersion": ROUTE_API,
        "kind": "HTTPRoute",
        "metadata": {
            "name": f"{model}-canary",
            "namespace": NAMESPACE,
            "labels": {MODEL: model, ALIAS: CANARY},
            "annotations": {SHARE: str(share)},
        },
        "spec": {
            "parentRefs": production["spec"]["parentRefs"],
            "hostnames": production["spec"]["hostnames"],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": CANARY_PATH}}], "backendRefs": backends}],
        },
    }


@dataclass(frozen=True)
class Stages:
    """What serves a model.

    Raises:
        PipelineError: the promotion service or the Kubernetes API does not answer; of every method.
        DecidedError: it refuses.
    """

    cluster: Cluster
    promotion: Promotion
    say: Callable[[str], None]

    def ask(self, method: str, model: str, path: str, body: dict[str, Any] | None = None, **query: str) -> Any:
        """What the promotion service answers about a model."""
        try:
            return self.promotion.ask(method, f"models/{model}/{path}", body, **query)
        except PromotionError as error:
            raise (DecidedError if error.refused else PipelineError)(str(error)) from None

    def served(self, model: str, stage: str) -> str | None:
        """The version that a stage is to serve."""
        version = self.ask("GET", model, "stages")["stages"].get(stage, {}).get("version")
        return str(version) if version is not None else None

    def promote(self, model: str, stage: str, version: str) -> None:
        """Have a stage serve a version, and wait until all its pods do."""
        if self.served(model, stage) != version:
            self.ask("POST", model, f"stages/{stage}/promote", {"version": int(version)})
        deadline, told = time.monotonic() + ROLLOUT_SECONDS, ""
        while (missing := self._missing(model, stage, version)) and time.monotonic() < deadline:
            if missing != told:
                self.say(missing)
                told = missing
            time.sleep(SECONDS_BETWEEN)
        if missing:
            raise DecidedError(f"{stage} of {model} has not become ready in {ROLLOUT_SECONDS:g} s: {missing}")
        self.say(f"{stage} serves version {version} of {model}")

    def share(self, model: str, percent: int) -> None:
        """Send a percentage of production's requests to the canary."""
        if not percent:
            self.cluster.delete(ROUTES, NAMESPACE, f"{model}-canary")
            return
        production = self.cluster.find(ROUTES, NAMESPACE, model)
        if production is None:
            raise DecidedError(f"{model} has no route: `lab up` makes it, of k8s/models/{model}")
        self.cluster.apply(ROUTES, NAMESPACE, shared_route(model, percent, production))

    def back(self, model: str, version: str) -> None:
        """End the canary of a version: its requests first, then its pods."""
        self.share(model, 0)
        if self.served(model, CANARY) == version:
            self.ask("POST", model, f"stages/{CANARY}/withdraw", {"version": int(version)})

    def _missing(self, model: str, stage: str, version: str) -> str:
        """What a stage lacks of serving a version; nothing where all its pods do."""
        live = self.cluster.find(DEPLOYMENTS, NAMESPACE, f"{model}-{stage}")
        if live is None:
            raise DecidedError(f"{model} has no Deployment for {stage}: `lab up` makes it, of k8s/models/{model}")
        replicas, status = live["spec"].get("replicas", 1), live.get("status", {})
        written = live["spec"]["template"]["metadata"].get("annotations", {}).get(VERSION)
        if written != version or not replicas:
            return f"waiting for the rollout of version {version} to {stage}"
        counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        if status.get("observedGeneration", 0) >= live["metadata"]["generation"] and counts == [replicas] * 3:
            return ""
        return f"rolling out version {version} to {stage}: {counts[1]} of {replicas} pods updated, {counts[2]} ready"
