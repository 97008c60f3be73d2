"""Keeps a stage's former version warm, so that it answers at once after a rollback.

The Service of such a stage selects pods by the label `ml-cluster.dev/answers`. Its own pods have it from their
template, warm pods only while the stage's Deployment rolls out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import urllib3
from kubernetes.client.exceptions import ApiException

from model_rollout.registry import Answer, Registry
from model_rollout.stages import VERSION, WITHDRAWN, Patch, Stage, merged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes.client import CoreV1Api


ANSWERS = "ml-cluster.dev/answers"
"""Label of a pod: the stage that it answers for, or `held` if it gets no requests."""
HELD = "held"
UNTIL = "ml-cluster.dev/warm-until"
"""Annotation of a Deployment that keeps a version warm: until when it does."""
PORT, READY = 8080, "/v2/health/ready"
SECONDS_TO_ANSWER = 30
READY_TIMEOUTS = {False: 1, True: 5}
"""Seconds for a pod to report that it is ready; more if it answers requests already."""
NOT_FOUND = 404


class Warm:
    """Labels pods, and computes patches for Deployments that keep versions warm."""

    def __init__(self, api: CoreV1Api, namespace: str, registry: Registry, hours: float) -> None:
        self._api, self._namespace, self._registry, self._hours = api, namespace, registry, hours

    def label_pods(self, stage: Stage, warm: Stage, version: str, source: str) -> bool:
        """Let warm pods answer for a stage that is to serve their version, until its own pods do.

        Returns whether warm pods answer. Pods of other versions get no requests meanwhile, unless no pod of this
        version is ready.

        Raises:
            kubernetes.client.exceptions.ApiException: the API server refused, or does not answer.
        """
        complete = stage.serves(version, source) and stage.rolled_out
        ends = stage.down or stage.state == WITHDRAWN
        wanted = not complete and not ends and not warm.down and warm.serves(version, source)
        own, spare = self._pods(stage), self._pods(warm)
        takes = [wanted and _serves(pod, version) and _is_ready(pod) and _reports_ready(pod) for pod in spare]
        partly = any(_serves(pod, version) and _is_ready(pod) for pod in own)
        holds = any(takes) or (wanted and partly and any(_label_of(pod) == HELD for pod in own))
        changes: list[tuple[Any, str | None]] = [
            (pod, stage.alias if taken else None) for pod, taken in zip(spare, takes, strict=True)
        ]
        if not ends:  # otherwise held pods stay held until they are deleted
            changes += [(pod, HELD if holds and not _serves(pod, version) else stage.alias) for pod in own]
        # First the pods that start to answer.
        for pod, value in sorted(changes, key=lambda change: change[1] != stage.alias):
            if _label_of(pod) != value:
                self._label(pod, value)
        return any(takes)

    def patch(self, stage: Stage, warm: Stage, former: Mapping[tuple[str, str], str | None]) -> Patch | None:
        """The patch that keeps warm the version a rollback would lead to; None if that is unknown, or nothing changes.

        Raises:
            model_rollout.registry.RegistryError: the registry does not answer, or its answer is not valid.
        """
        if stage.version is not None and not stage.rolled_out and warm.serves(stage.version, stage.source or ""):
            return None  # it answers for the stage, or will soon
        wanted = self._wanted(stage, warm, former)
        if wanted is None:
            return None
        until, now = warm.annotation(UNTIL), datetime.now(UTC)
        rest = None if warm.down else warm.park()
        if wanted.version is None:
            return merged(rest, _until(None)) if until else rest
        if not until or not warm.serves(wanted.version, wanted.source):
            ends = (now + timedelta(hours=self._hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
            return merged(warm.serve(wanted.version, wanted.source), _until(ends))
        return rest if datetime.fromisoformat(until) <= now else warm.serve(wanted.version, wanted.source)

    def _wanted(self, stage: Stage, warm: Stage, former: Mapping[tuple[str, str], str | None]) -> Answer | None:
        """The version that a rollback would lead to, which may be none; None to change nothing."""
        if self._hours <= 0 or stage.version is None or stage.down or stage.state == WITHDRAWN:
            return Answer()
        if (stage.model, stage.alias) not in former:
            return Answer() if warm.version is None else None
        version = former[stage.model, stage.alias]
        if version == stage.version:
            return None  # the stage's rollback to it has not started
        return Answer() if version is None else self._registry.version(stage.model, version)

    def _pods(self, stage: Stage) -> list[Any]:
        found = self._api.list_namespaced_pod(
            self._namespace, label_selector=stage.selector, _request_timeout=SECONDS_TO_ANSWER
        )
        pods: list[Any] = found.items
        return [pod for pod in pods if pod.metadata.deletion_timestamp is None]

    def _label(self, pod: Any, value: str | None) -> None:
        try:
            self._api.patch_namespaced_pod(
                pod.metadata.name, self._namespace, {"metadata": {"labels": {ANSWERS: value}}},
                _request_timeout=SECONDS_TO_ANSWER,
            )  # fmt: skip
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise


def _until(ends: str | None) -> Patch:
    return {"metadata": {"annotations": {UNTIL: ends}}}


def _label_of(pod: Any) -> str | None:
    value: str | None = (pod.metadata.labels or {}).get(ANSWERS)
    return value


def _serves(pod: Any, version: str) -> bool:
    return bool((pod.metadata.annotations or {}).get(VERSION) == version)


def _is_ready(pod: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())


def _reports_ready(pod: Any) -> bool:
    """Whether it reports itself that it is ready: the API shows pods of a lost node as ready for most of a minute."""
    ports = (port for one in pod.spec.containers for port in one.ports or () if port.name == "http")
    port = next((port.container_port for port in ports), PORT)
    try:
        answer = urllib3.request(
            "GET", f"http://{pod.status.pod_ip}:{port}{READY}", retries=False,
            timeout=READY_TIMEOUTS[_label_of(pod) is not None],
        )  # fmt: skip
    except urllib3.exceptions.HTTPError:
        return False
    return bool(answer.status == 200)
