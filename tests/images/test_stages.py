"""What the rollout controller notes of a stage, by the Deployment alone; no image is needed."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "images" / "model-server" / "model_rollout" / "stages.py"
NOW, ROLLED = datetime(2026, 3, 2, 10, 0, 9, tzinfo=UTC), datetime(2026, 3, 2, 10, 0, 0, tzinfo=UTC)
ANSWERED = "ml-cluster.dev/answered"


@pytest.fixture(scope="module")
def stages() -> Any:
    spec = importlib.util.spec_from_file_location("model_rollout_stages", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def deployment(version: str | None, revision: int, answered: object = None, **status: Any) -> Any:
    """A Deployment with two pods, all of its last change unless `status` says otherwise."""
    annotations = {"deployment.kubernetes.io/revision": str(revision)}
    if answered is not None:
        annotations[ANSWERED] = json.dumps(answered)
    of_pods = {"ml-cluster.dev/model-version": version} if version else {}
    told = {"replicas": 2, "updated_replicas": 2, "available_replicas": 2, "observed_generation": 4, **status}
    condition = SimpleNamespace(reason="NewReplicaSetAvailable", last_update_time=ROLLED)
    return SimpleNamespace(
        metadata=SimpleNamespace(annotations=annotations, generation=4, name="digits-production", labels={}),
        spec=SimpleNamespace(replicas=2, template=SimpleNamespace(metadata=SimpleNamespace(annotations=of_pods))),
        status=SimpleNamespace(conditions=[condition], **told),
    )


def noted(stages: Any, one: Any) -> Any:
    """What would be written; None where nothing is."""
    patch = stages.Stage(one).record_rollout(NOW)
    return patch and json.loads(patch["metadata"]["annotations"][ANSWERED])


def test_a_version_that_answers_is_noted_once(stages: Any) -> None:
    first = noted(stages, deployment("3", 7))
    assert first == [{"version": "3", "revision": "7", "since": "2026-03-02T10:00:00Z"}]
    assert noted(stages, deployment("3", 7, first)) is None


@pytest.mark.parametrize(
    "status", [{"updated_replicas": 1}, {"replicas": 3}, {"available_replicas": None}, {"observed_generation": 3}]
)
def test_what_is_being_rolled_out_does_not_answer_yet(stages: Any, status: dict[str, Any]) -> None:
    assert noted(stages, deployment("3", 7, **status)) is None


def test_nothing_is_noted_of_a_stage_that_serves_nothing(stages: Any) -> None:
    assert noted(stages, deployment(None, 1)) is None


def test_going_back_is_noted_though_kubernetes_saw_nothing_happen(stages: Any) -> None:
    """The version before never stopped to answer: the time of its rollout is that of the first one."""
    before = [{"version": "2", "revision": "6", "since": "2026-03-02T10:00:00Z"}]
    assert noted(stages, deployment("2", 8, before))[-1] == {
        "version": "2", "revision": "8", "since": "2026-03-02T10:00:09Z"
    }  # fmt: skip


def test_the_last_ones_are_remembered(stages: Any) -> None:
    many = [{"version": str(n), "revision": str(n), "since": "2026-01-01T00:00:00Z"} for n in range(stages.MAX_RECORDS)]
    found = noted(stages, deployment("99", 99, many))
    assert (len(found), found[0]["version"], found[-1]["version"]) == (stages.MAX_RECORDS, "1", "99")


def test_what_was_kept_warm_answers_before_its_own_pods_are_noted(stages: Any) -> None:
    """Both are: the delivery figures go by the first, and what comes after the last one is new again."""
    before = [{"version": "3", "revision": "7", "since": "2026-03-02T09:00:00Z"}]
    patch = stages.Stage(deployment("3", 7, before)).record_takeover("2", NOW)
    early = json.loads(patch["metadata"]["annotations"][ANSWERED])
    assert early == [*before, {"version": "2", "revision": "", "since": "2026-03-02T10:00:09Z"}]
    assert noted(stages, deployment("2", 8, early))[-1]["revision"] == "8"
