"""Events of the cluster: when a stage began to answer with a version, as the rollout controller records it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.delivery.events import ANSWERS, Event, model_subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MODEL, ALIAS, ANSWERED = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "answered"))


def events(deployments: Iterable[dict[str, Any]]) -> Iterator[Event]:
    """The versions that Deployments with a model's labels have answered with."""
    for deployment in deployments:
        labels, annotations = (deployment["metadata"].get(name) or {} for name in ("labels", "annotations"))
        for record in json.loads(annotations.get(ANSWERED, "[]")):
            stage, version, since = labels[ALIAS], str(record["version"]), record["since"]
            data = {"stage": stage, "version": version}
            at = datetime.fromisoformat(since)
            yield Event(ANSWERS, model_subject(labels[MODEL]), f"{stage}:{version}@{since}", at, data)
