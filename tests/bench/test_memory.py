"""The sums of `lab bench memory`."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tests.bench._stack import MIB
from tests.bench.memory import JOBS, Row, requested, rows, table_of


def pod(name: str, labels: dict[str, str], *requests: str, init: str = "0", phase: str = "Running") -> dict[str, Any]:
    containers = [{"resources": {"requests": {"memory": memory}}} for memory in requests]
    return {
        "metadata": {"name": name, "namespace": "platform", "labels": labels},
        "spec": {"containers": containers, "initContainers": [{"resources": {"requests": {"memory": init}}}]},
        "status": {"phase": phase},
    }


def workload(name: str, *, namespace: str = "platform") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": name}},
        "spec": {"selector": {"matchLabels": {"app": name}}},
    }


def test_a_pod_asks_for_its_containers_or_for_its_largest_init_container() -> None:
    assert requested(pod("a", {}, "64Mi", "1Gi")) == 1088 * MIB
    assert requested(pod("a", {}, "64Mi", init="448Mi")) == 448 * MIB
    assert requested({"spec": {"containers": [{}]}}) == 0


def test_each_pod_counts_for_the_capability_that_made_it() -> None:
    pods = [
        pod("tracking-1", {"app": "tracking"}, "448Mi"),
        pod("tracking-2", {"app": "tracking"}, "448Mi"),
        pod("tracking-0", {"app": "tracking"}, "448Mi", phase="Succeeded"),
        pod("digits-1", {"app": "digits"}, "256Mi"),
        pod("run-1", {"app": "run"}, "384Mi"),
    ]
    workloads = [
        workload("digits", namespace="serving"),
        workload("tracking"),
        workload("digits"),
    ]
    used = {"platform/tracking-1": 300 * MIB, "platform/tracking-2": 200 * MIB, "platform/digits-1": 90 * MIB}
    assert rows(pods, workloads, used) == {
        "digits": Row(1, 256.0, 90.0),
        JOBS: Row(1, 384.0, 0.0),
        "tracking": Row(2, 896.0, 500.0),
    }


def test_the_sums_are_held_against_the_limits() -> None:
    _, kept = table_of({"a": Row(1, 4096.0, 3072.0)})
    assert kept
    assert not table_of({"a": Row(1, 4096.0, 1.0), "b": Row(1, 1.0, 1.0)})[1]
    table, kept = table_of({"a": Row(1, 1.0, 3000.0), "b": Row(2, 1.0, 73.0)})
    assert not kept
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    lines = [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]
    assert "all 3 2 3073" in lines
    assert "limit 4096 3072" in lines
