"""`lab logs`, on a cluster that is a list of pods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli import services
from cli.errors import LabError

PODS = {
    "serving": [("rollout-1", {"app": "rollout"}), ("digits-1", {"app": "digits", "ml-cluster.dev/model": "digits"})],
    "training": [("digits-train-1", {"app": "digits", "ml-cluster.dev/model": "digits"})],
    "platform": [("backup-1", {"app": "backup"})],
}
WORKLOADS = {"rollout": "serving", "digits": "digits"}


@pytest.fixture(autouse=True)
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def items(_api: str, _kind: str, namespace: str) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "a"}]},
            }
            for name, labels in PODS.get(namespace, [])
        ]

    def request(_what: str, _method: str, path: str, **_options: str) -> str:
        return f"2026-01-01T00:00:00.000Z I am {path.split('/')[-2]}\n"

    workloads = [
        {
            "metadata": {"name": app, "namespace": "serving", "labels": {"app.kubernetes.io/name": capability}},
            "spec": {"selector": {"matchLabels": {"app": app}}},
        }
        for app, capability in WORKLOADS.items()
    ]
    platform = SimpleNamespace(cluster=SimpleNamespace(items=items, request=request), workloads=lambda: workloads)
    monkeypatch.setattr(services, "Platform", SimpleNamespace(of=lambda _session: platform))


def logs(name: str | None = None) -> None:
    services.logs(cast("Any", SimpleNamespace(obj=None)), name, follow=False, tail=5)


def test_logs_names_what_there_is_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    logs()
    assert capsys.readouterr().out.split() == ["backup", "digits", "serving"]


@pytest.mark.parametrize(
    ("name", "pods"),
    [
        ("serving", ["rollout-1"]),
        ("digits", ["digits-train-1", "digits-1"]),
        ("backup", ["backup-1"]),
        ("digits-1", ["digits-1"]),
    ],
)
def test_logs_of_a_capability_a_model_a_job_and_a_pod(
    name: str, pods: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    logs(name)
    assert capsys.readouterr().out.splitlines() == [f"{pod}/a | I am {pod}" for pod in pods]


def test_logs_of_nothing_names_the_choices() -> None:
    with pytest.raises(LabError, match="nothing of 'moon' runs") as told:
        logs("moon")
    assert told.value.remedy == "choose one of: backup, digits, serving"
