"""Deployments of stages: what each serves, and what has to change."""

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
"""Label of a Deployment that is no stage, but keeps what one served before warm: that stage's alias."""
SELECTOR = MODEL
REVISION = "deployment.kubernetes.io/revision"
PARKED = "ml-cluster.dev/parked-replicas"
NOTE = "ml-cluster.dev/registry"
ANSWERED = "ml-cluster.dev/answered"
"""Annotation: the versions that a stage has answered with, the last ones, each with the revision and since when."""
REMEMBERED = 50
FORGOTTEN, UNANSWERED, WITHDRAWN = "forgotten", "unanswered", "withdrawn"
Patch = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A Deployment that serves what an alias of a model names."""

    deployment: Any

    @property
    def name(self) -> str:
        """The Deployment's name, which is its Service's too."""
        return str(self.deployment.metadata.name)

    @property
    def model(self) -> str:
        """The registered model."""
        return str(self.deployment.metadata.labels[MODEL])

    @property
    def alias(self) -> str:
        """The alias; of what keeps a version warm, that of the stage which served it."""
        labels = self.deployment.metadata.labels
        return str(labels.get(WARM) or labels[ALIAS])

    @property
    def keeps_warm(self) -> bool:
        """Whether it is not a stage, but keeps the former version of one warm."""
        return WARM in self.deployment.metadata.labels

    @property
    def selector(self) -> str:
        """Selects its pods."""
        return ",".join(f"{key}={value}" for key, value in self.deployment.spec.selector.match_labels.items())

    @property
    def source(self) -> str | None:
        """Where the files of that version are."""
        return self._of_pods.get(SOURCE)

    @property
    def version(self) -> str | None:
        """The version that it was last told to serve."""
        return self._of_pods.get(VERSION)

    @property
    def state(self) -> str:
        """`forgotten`, `unanswered`, `withdrawn`, or empty where the registry names what is served."""
        return self._annotations.get(NOTE, "").partition(":")[0]

    @property
    def down(self) -> bool:
        """Whether it is to have no pods."""
        return PARKED in self._annotations or self.deployment.spec.replicas == 0

    @property
    def answers(self) -> bool:
        """Whether it is to be sent requests: it has pods that take them, and keeps them."""
        return self.state != WITHDRAWN and not self.down and bool(self.deployment.status.available_replicas)

    @property
    def whole(self) -> bool:
        """Whether all its pods have become those of its last change, and answer."""
        spec, status, metadata = self.deployment.spec, self.deployment.status, self.deployment.metadata
        counts = (status.replicas, status.updated_replicas, status.available_replicas)
        return (status.observed_generation or 0) >= metadata.generation and set(counts) == {spec.replicas}

    def noted(self, now: datetime) -> Patch | None:
        """What to patch where all its pods have become those of its last change: from when on it answers with that."""
        if self.version is None or self.down or not self.whole:
            return None
        answered = self._answered
        revision = self.annotation(REVISION)
        if answered and answered[-1]["revision"] == revision:
            return None
        # Kubernetes says when, but leaves the time as it is where it sees nothing in between.
        conditions = self.deployment.status.conditions or ()
        times = [one.last_update_time for one in conditions if one.reason == "NewReplicaSetAvailable"]
        since = next(
            (written for written in map(_written, times) if not answered or written > answered[-1]["since"]), None
        )
        answered.append({"version": self.version, "revision": revision, "since": since or _written(now)})
        return _annotated(ANSWERED, json.dumps(answered[-REMEMBERED:]))

    def taken_over(self, version: str, now: datetime) -> Patch:
        """What to patch where pods that were kept warm answer in its place, before its own do."""
        answered = [*self._answered, {"version": version, "revision": "", "since": _written(now)}]
        return _annotated(ANSWERED, json.dumps(answered[-REMEMBERED:]))

    def change(self, answer: Answer, *, asked: bool) -> Patch | None:
        """What to patch, so that it serves what the registry answers.

        `asked`: requests are sent to it, apart from those for its own host. They end before its pods do.
        """
        if answer.version is not None:
            return self.serve(answer.version, answer.source)
        if self.down:
            return None
        if self.version is None:
            return self.park()
        if answer.withdrawn == self.version:
            note = self._note(WITHDRAWN, f"version {self.version} was taken down")
            return note or (None if asked else self.park())
        return self._note(FORGOTTEN, answer.reason)

    def unanswered(self, reason: str) -> Patch | None:
        """What to patch while the registry does not answer."""
        return None if self.down or self.version is None else self._note(UNANSWERED, reason)

    def serve(self, version: str, source: str) -> Patch | None:
        """What to patch, so that it serves a version."""
        gone = {key: None for key in (PARKED, NOTE) if key in self._annotations}
        patch: Patch = {"metadata": {"annotations": gone}} if gone else {}
        if not self.serves(version, source):
            # As a label too: logs and metrics of a pod are found by its labels.
            metadata = {"annotations": {VERSION: version, SOURCE: source}, "labels": {VERSION: version}}
            patch["spec"] = {"template": {"metadata": metadata}}
        if PARKED in gone:
            patch.setdefault("spec", {})["replicas"] = int(self._annotations[PARKED])
        return patch or None

    def park(self) -> Patch:
        """What to patch, so that it has no pods."""
        annotations = {PARKED: str(self.deployment.spec.replicas)}
        return {"metadata": {"annotations": annotations}, "spec": {"replicas": 0}}

    def serves(self, version: str, source: str) -> bool:
        """Whether it was last told to serve this version."""
        # A model that was deleted and registered again counts its versions from 1 again.
        return self.version == version and self._of_pods.get(SOURCE, source) == source

    def annotation(self, key: str) -> str:
        """What an annotation says; empty without it."""
        return self._annotations.get(key, "")

    @property
    def _answered(self) -> list[dict[str, str]]:
        noted: list[dict[str, str]] = json.loads(self._annotations.get(ANSWERED, "[]"))
        return noted

    @property
    def _annotations(self) -> dict[str, str]:
        return self.deployment.metadata.annotations or {}

    @property
    def _of_pods(self) -> dict[str, str]:
        return self.deployment.spec.template.metadata.annotations or {}

    def _note(self, state: str, reason: str) -> Patch | None:
        if self.state == state:
            return None
        return _annotated(NOTE, f"{state}: {reason}")


def found(deployments: Iterable[Any]) -> list[Stage]:
    """Those of Deployments that are stages, or keep a version warm."""
    return [Stage(one) for one in deployments if {ALIAS, WARM} & one.metadata.labels.keys()]


def merged(one: Patch | None, other: Patch) -> Patch:
    """Both patches in one."""
    whole = dict(one or {})
    for key, value in other.items():
        whole[key] = merged(whole.get(key), value) if isinstance(value, dict) else value
    return whole


def _annotated(key: str, value: str) -> Patch:
    return {"metadata": {"annotations": {key: value}}}


def _written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
