"""Deployments of stages: what each serves, and what has to change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from model_rollout.registry import Answer

MODEL, ALIAS, VERSION, SOURCE = (
    f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version", "model-source")
)
SELECTOR = f"{MODEL},{ALIAS}"
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
        """The alias."""
        return str(self.deployment.metadata.labels[ALIAS])

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

    def noted(self, now: datetime) -> Patch | None:
        """What to patch where all its pods have become those of its last change: from when on it answers with that."""
        spec, status, metadata = self.deployment.spec, self.deployment.status, self.deployment.metadata
        counts = (status.replicas, status.updated_replicas, status.available_replicas)
        whole = (status.observed_generation or 0) >= metadata.generation and set(counts) == {spec.replicas}
        if self.version is None or self.down or not whole:
            return None
        answered = json.loads(self._annotations.get(ANSWERED, "[]"))
        revision = self._annotations.get(REVISION)
        if answered and answered[-1]["revision"] == revision:
            return None
        # Kubernetes says when, but leaves the time as it is where it sees nothing in between.
        times = [one.last_update_time for one in status.conditions or () if one.reason == "NewReplicaSetAvailable"]
        since = next(
            (written for written in map(_written, times) if not answered or written > answered[-1]["since"]), None
        )
        answered.append({"version": self.version, "revision": revision, "since": since or _written(now)})
        return {"metadata": {"annotations": {ANSWERED: json.dumps(answered[-REMEMBERED:])}}}

    def change(self, answer: Answer, *, asked: bool) -> Patch | None:
        """What to patch, so that it serves what the registry answers.

        `asked`: requests are sent to it, apart from those for its own host. They end before its pods do.
        """
        if answer.version is not None:
            return self._serve(answer.version, answer.source)
        if self.down:
            return None
        if self.version is None:
            return self._park()
        if answer.withdrawn == self.version:
            note = self._note(WITHDRAWN, f"version {self.version} was taken down")
            return note or (None if asked else self._park())
        return self._note(FORGOTTEN, answer.reason)

    def unanswered(self, reason: str) -> Patch | None:
        """What to patch while the registry does not answer."""
        return None if self.down or self.version is None else self._note(UNANSWERED, reason)

    @property
    def _annotations(self) -> dict[str, str]:
        return self.deployment.metadata.annotations or {}

    @property
    def _of_pods(self) -> dict[str, str]:
        return self.deployment.spec.template.metadata.annotations or {}

    def _serve(self, version: str, source: str) -> Patch | None:
        # A model that was deleted and registered again counts its versions from 1 again.
        same = self.version == version and self._of_pods.get(SOURCE, source) == source
        gone = {key: None for key in (PARKED, NOTE) if key in self._annotations}
        patch: Patch = {"metadata": {"annotations": gone}} if gone else {}
        if not same:
            # As a label too: logs and metrics of a pod are found by its labels.
            metadata = {"annotations": {VERSION: version, SOURCE: source}, "labels": {VERSION: version}}
            patch["spec"] = {"template": {"metadata": metadata}}
        if PARKED in gone:
            patch.setdefault("spec", {})["replicas"] = int(self._annotations[PARKED])
        return patch or None

    def _park(self) -> Patch:
        annotations = {PARKED: str(self.deployment.spec.replicas)}
        return {"metadata": {"annotations": annotations}, "spec": {"replicas": 0}}

    def _note(self, state: str, reason: str) -> Patch | None:
        if self.state == state:
            return None
        return {"metadata": {"annotations": {NOTE: f"{state}: {reason}"}}}


def _written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
