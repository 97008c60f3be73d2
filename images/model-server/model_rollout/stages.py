"""Deployments of stages: what each serves, and patches that change it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from model_rollout.registry import Answer

MODEL, ALIAS, VERSION, SOURCE = (
    f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version", "model-source")
)
WARM = "ml-cluster.dev/warm"
"""Label of a Deployment that keeps a stage's former version warm: the alias of that stage."""
SELECTOR = MODEL
REVISION = "deployment.kubernetes.io/revision"
PARKED = "ml-cluster.dev/parked-replicas"
NOTE = "ml-cluster.dev/registry"
ANSWERED = "ml-cluster.dev/answered"
"""Annotation: the last versions that a stage answered with, each with its revision and time."""
MAX_RECORDS = 50
FORGOTTEN, UNANSWERED, WITHDRAWN = "forgotten", "unanswered", "withdrawn"
Patch = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A Deployment that serves the version of a model's alias."""

    deployment: Any

    @property
    def name(self) -> str:
        """The name of the Deployment and of its Service."""
        return str(self.deployment.metadata.name)

    @property
    def model(self) -> str:
        """The registered model."""
        return str(self.deployment.metadata.labels[MODEL])

    @property
    def alias(self) -> str:
        """The alias; of a Deployment that keeps a version warm, that of its stage."""
        labels = self.deployment.metadata.labels
        return str(labels.get(WARM) or labels[ALIAS])

    @property
    def keeps_warm(self) -> bool:
        """Whether it is not a stage, but keeps one's former version warm."""
        return WARM in self.deployment.metadata.labels

    @property
    def selector(self) -> str:
        """The label selector of its pods."""
        return ",".join(f"{key}={value}" for key, value in self.deployment.spec.selector.match_labels.items())

    @property
    def source(self) -> str | None:
        """Where the files of the version are."""
        return self._pod_annotations.get(SOURCE)

    @property
    def version(self) -> str | None:
        """The version in its pod template."""
        return self._pod_annotations.get(VERSION)

    @property
    def state(self) -> str:
        """`forgotten`, `unanswered`, `withdrawn`, or empty if the registry confirms the version."""
        return self._annotations.get(NOTE, "").partition(":")[0]

    @property
    def down(self) -> bool:
        """Whether it is scaled to no pods."""
        return PARKED in self._annotations or self.deployment.spec.replicas == 0

    @property
    def answers(self) -> bool:
        """Whether it takes requests: it has available pods, and keeps them."""
        return self.state != WITHDRAWN and not self.down and bool(self.deployment.status.available_replicas)

    @property
    def rolled_out(self) -> bool:
        """Whether the rollout of its last change is complete."""
        spec, status, metadata = self.deployment.spec, self.deployment.status, self.deployment.metadata
        counts = (status.replicas, status.updated_replicas, status.available_replicas)
        return (status.observed_generation or 0) >= metadata.generation and set(counts) == {spec.replicas}

    def record_rollout(self, now: datetime) -> Patch | None:
        """The patch that records when it began to answer with its version; None before that, and if it is recorded."""
        if self.version is None or self.down or not self.rolled_out:
            return None
        answered = self._answered
        revision = self.annotation(REVISION)
        if answered and answered[-1]["revision"] == revision:
            return None
        # Kubernetes sets the time, but leaves it unchanged if it saw no progress in between.
        conditions = self.deployment.status.conditions or ()
        times = [one.last_update_time for one in conditions if one.reason == "NewReplicaSetAvailable"]
        since = next((time for time in map(_format_time, times) if not answered or time > answered[-1]["since"]), None)
        answered.append({"version": self.version, "revision": revision, "since": since or _format_time(now)})
        return _annotated(ANSWERED, json.dumps(answered[-MAX_RECORDS:]))

    def record_takeover(self, version: str, now: datetime) -> Patch:
        """The patch that records that warm pods answer for it, before its own do."""
        answered = [*self._answered, {"version": version, "revision": "", "since": _format_time(now)}]
        return _annotated(ANSWERED, json.dumps(answered[-MAX_RECORDS:]))

    def change(self, answer: Answer, *, routed: bool) -> Patch | None:
        """The patch that makes it serve what the registry answers.

        `routed`: a route sends it requests, besides those for its own host. They must end before its pods do.
        """
        if answer.version is not None:
            return self.serve(answer.version, answer.source)
        if self.down:
            return None
        if self.version is None:
            return self.park()
        if answer.withdrawn == self.version:
            note = self._set_state(WITHDRAWN, f"version {self.version} was taken down")
            return note or (None if routed else self.park())
        return self._set_state(FORGOTTEN, answer.reason)

    def unanswered(self, reason: str) -> Patch | None:
        """The patch that records that the registry does not answer."""
        return None if self.down or self.version is None else self._set_state(UNANSWERED, reason)

    def serve(self, version: str, source: str) -> Patch | None:
        """The patch that makes it serve a version."""
        removed = {key: None for key in (PARKED, NOTE) if key in self._annotations}
        patch: Patch = {"metadata": {"annotations": removed}} if removed else {}
        if not self.serves(version, source):
            # As a label too, for queries of logs and metrics.
            metadata = {"annotations": {VERSION: version, SOURCE: source}, "labels": {VERSION: version}}
            patch["spec"] = {"template": {"metadata": metadata}}
        if PARKED in removed:
            patch.setdefault("spec", {})["replicas"] = int(self._annotations[PARKED])
        return patch or None

    def park(self) -> Patch:
        """The patch that scales it to no pods."""
        annotations = {PARKED: str(self.deployment.spec.replicas)}
        return {"metadata": {"annotations": annotations}, "spec": {"replicas": 0}}

    def serves(self, version: str, source: str) -> bool:
        """Whether its pod template has this version."""
        # The versions of a model that was deleted and registered again start at 1.
        return self.version == version and self._pod_annotations.get(SOURCE, source) == source

    def annotation(self, key: str) -> str:
        """The value of an annotation; empty without it."""
        return self._annotations.get(key, "")

    @property
    def _answered(self) -> list[dict[str, str]]:
        records: list[dict[str, str]] = json.loads(self._annotations.get(ANSWERED, "[]"))
        return records

    @property
    def _annotations(self) -> dict[str, str]:
        return self.deployment.metadata.annotations or {}

    @property
    def _pod_annotations(self) -> dict[str, str]:
        return self.deployment.spec.template.metadata.annotations or {}

    def _set_state(self, state: str, reason: str) -> Patch | None:
        if self.state == state:
            return None
        return _annotated(NOTE, f"{state}: {reason}")


def found(deployments: Iterable[Any]) -> list[Stage]:
    """The Deployments that are stages, or keep a version warm."""
    return [Stage(one) for one in deployments if {ALIAS, WARM} & one.metadata.labels.keys()]


def merged(one: Patch | None, other: Patch) -> Patch:
    """Merge two patches."""
    both = dict(one or {})
    for key, value in other.items():
        both[key] = merged(both.get(key), value) if isinstance(value, dict) else value
    return both


def _annotated(key: str, value: str) -> Patch:
    return {"metadata": {"annotations": {key: value}}}


def _format_time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
