"""Routes that split a host's requests among stages: a stage without available pods gets none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_rollout.stages import ALIAS, MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubernetes.client import CustomObjectsApi

    from model_rollout.stages import Stage

KIND: dict[str, Any] = {"group": "gateway.networking.k8s.io", "version": "v1", "plural": "httproutes"}
SECONDS_TO_ANSWER = 30
SHARE = "ml-cluster.dev/share"
"""Annotation of a route: the weight of its stage while that has available pods."""


class Routes:
    """The routes of a namespace with the labels of a stage and a share."""

    def __init__(self, api: CustomObjectsApi, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    def update_weight(self, stage: Stage) -> int | None:
        """Set a stage's weight to its share if it has available pods, else to 0; returns the weight if it changed.

        Raises:
            kubernetes.client.exceptions.ApiException: the API server refused, or does not answer.
        """
        changed = None
        for route in self._of(stage):
            share = int(route["metadata"].get("annotations", {}).get(SHARE, "0"))
            weight = share if stage.answers else 0
            if not _set_weight(route, stage, weight):
                continue
            # With the version, the API server refuses to undo a concurrent change; the next pass tries again.
            metadata = {"resourceVersion": route["metadata"]["resourceVersion"]}
            patch = {"metadata": metadata, "spec": {"rules": route["spec"]["rules"]}}
            self._api.patch_namespaced_custom_object(
                **KIND, namespace=self._namespace, name=route["metadata"]["name"], body=patch,
                _request_timeout=SECONDS_TO_ANSWER,
            )  # fmt: skip
            changed = weight
        return changed

    def routed(self, stage: Stage) -> bool:
        """Whether a route with a share sends requests to a stage.

        Raises:
            kubernetes.client.exceptions.ApiException: the API server refused, or does not answer.
        """
        backends = (one for route in self._of(stage) for rule in _rules(route) for one in rule)
        return any(one["name"] == stage.name and one.get("weight", 1) for one in backends)

    def _of(self, stage: Stage) -> Iterator[Any]:
        found: Any = self._api.list_namespaced_custom_object(
            **KIND, namespace=self._namespace, label_selector=f"{MODEL}={stage.model},{ALIAS}={stage.alias}",
            _request_timeout=SECONDS_TO_ANSWER,
        )  # fmt: skip
        yield from (route for route in found["items"] if SHARE in route["metadata"].get("annotations", {}))


def _rules(route: Any) -> Iterator[list[Any]]:
    """The backends of each rule."""
    yield from (rule["backendRefs"] for rule in route["spec"].get("rules", ()) if rule.get("backendRefs"))


def _set_weight(route: Any, stage: Stage, weight: int) -> bool:
    """Set a stage's weight in a route, and the other backend's to the rest of 100; returns whether that changed it."""
    changed = False
    for backends in _rules(route):
        for backend in backends:
            wanted = weight if backend["name"] == stage.name else 100 - weight
            changed |= backend.get("weight", 1) != wanted
            backend["weight"] = wanted
    return changed
