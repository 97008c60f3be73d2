"""Metrics of objects: names and meaning are kube-state-metrics'."""

from __future__ import annotations

from typing import Any

import pytest
from state_exporter import objects
from state_exporter.exposition import Sample, render
from state_exporter.sources import stages

from tests.services.exposed import read, value

MODEL, ALIAS, VERSION = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250m", 0.25),
        ("2", 2),
        ("1.5", 1.5),
        ("2Gi", 2 * 2**30),
        ("500M", 5e8),
        ("128Mi", 2**27),
        ("1e3", 1000),
        ("100n", 1e-7),
    ],
)
def test_quantities(text: str, number: float) -> None:
    assert objects.quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "Gi", "2 Gi", "1gi", "two"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        objects.quantity(text)


def test_labels_are_escaped() -> None:
    text = render([Sample("told", 1, {"reason": 'said "no\\yes"\nand left'}), Sample("told", 0.5, {"reason": ""})])
    assert text == '# TYPE told gauge\ntold{reason="said \\"no\\\\yes\\"\\nand left"} 1\ntold{reason=""} 0.5\n'


def pod(name: str, **changes: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "serving", "labels": {"app": "digits"}, "annotations": {VERSION: "3"}}
    ready = [{"type": "Ready", "status": "True"}]
    state = {"name": "model", "ready": True, "restartCount": 0, "state": {"running": {}}}
    status = {"phase": "Running", "conditions": ready, "containerStatuses": [state]}
    return {
        "metadata": {**metadata, **changes.get("metadata", {})},
        "spec": {"nodeName": "n1", "containers": [{"name": "model", "resources": {"requests": {"memory": "256Mi"}}}]},
        "status": {**status, **changes.get("status", {})},
    }


def test_a_pod_that_restarts_in_a_loop() -> None:
    state = {
        "name": "model", "ready": False, "restartCount": 7, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
    }  # fmt: skip
    status = {"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [state]}
    found = read(render(objects.pods([pod("a", status=status)])))
    assert value(found, "kube_pod_container_status_restarts_total", pod="a", container="model") == 7
    assert value(found, "kube_pod_container_status_waiting_reason", reason="CrashLoopBackOff") == 1
    assert value(found, "kube_pod_container_status_last_terminated_reason", reason="OOMKilled") == 1
    assert value(found, "kube_pod_status_ready", condition="false") == 1
    assert value(found, "kube_pod_status_ready", condition="true") == 0
    assert value(found, "kube_pod_status_phase", phase="Running") == 1
    assert value(found, "kube_pod_container_resource_requests", resource="memory", unit="byte") == 2**28


def test_a_node_says_each_condition_in_three_states() -> None:
    node = {
        "metadata": {"name": "n1", "creationTimestamp": "2026-11-29T10:00:00Z",
                     "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}], "allocatable": {"cpu": "1900m"}},
    }  # fmt: skip
    found = read(render(objects.nodes([node])))
    for status, expected in (("true", 0), ("false", 0), ("unknown", 1)):
        assert value(found, "kube_node_status_condition", node="n1", condition="Ready", status=status) == expected
    assert value(found, "kube_node_status_allocatable", resource="cpu", unit="core") == 1.9
    assert value(found, "kube_node_role", role="control-plane") == 1


def deployment(**template: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "digits-production",
            "namespace": "serving",
            "labels": {MODEL: "digits", ALIAS: "production"},
        },
        "spec": {
            "selector": {"matchLabels": {"app": "digits"}},
            "template": {"metadata": {"annotations": {VERSION: template["version"]} if template else None}},
        },
    }


def test_a_stage_serves_what_its_ready_pods_have() -> None:
    """Not what its Deployment is told: while it is rolled, both versions answer."""
    waiting = {"conditions": [{"type": "Ready", "status": "False"}]}
    pods = [
        pod("old-1"), pod("old-2"), pod("new", metadata={"annotations": {VERSION: "4"}}),
        pod("late", metadata={"annotations": {VERSION: "4"}}, status=waiting),
        pod("other", metadata={"labels": {"app": "other"}}), pod("elsewhere", metadata={"namespace": "training"}),
    ]  # fmt: skip
    found = read(render(stages([deployment(version="4")], pods)))
    about = {"model": "digits", "alias": "production", "deployment": "digits-production"}
    assert value(found, "ml_cluster_stage_info", version="4", **about) == 1
    assert value(found, "ml_cluster_stage_served", version="3", **about) == 2
    assert value(found, "ml_cluster_stage_served", version="4", **about) == 1


def test_a_stage_that_never_served_tells_nothing() -> None:
    assert not list(stages([deployment()], []))
