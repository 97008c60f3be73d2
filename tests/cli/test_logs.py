"""`lab logs`, on a cluster that is a list of pods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli import logs as module
from cli.errors import LabError

PODS = {
    "serving": [("rollout-1", {"app": "rollout"}), ("digits-1", {"app": "digits", "ml-cluster.dev/model": "digits"})],
    "training": [("digits-train-1", {"app": "digits", "ml-cluster.dev/model": "digits"})],
    "platform": [("backup-1", {"app": "backup"})],
}
WORKLOADS = {"rollout": "serving", "digits": "digits"}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """With what options logs were asked for."""
    asked: list[dict[str, str]] = []

    def items(_api: str, _kind: str, namespace: str) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "a"}]},
            }
            for name, labels in PODS.get(namespace, [])
        ]

    def request(_what: str, _method: str, path: str, **options: str) -> str:
        asked.append(options)
        lines = ("I am {}", "I was asked")
        stamps = (f"2026-01-01T00:00:0{second}.000Z" for second in range(2))
        return "".join(f"{at} {line.format(path.split('/')[-2])}\n" for at, line in zip(stamps, lines, strict=True))

    workloads = [
        {
            "metadata": {"name": app, "namespace": "serving", "labels": {"app.kubernetes.io/name": capability}},
            "spec": {"selector": {"matchLabels": {"app": app}}},
        }
        for app, capability in WORKLOADS.items()
    ]
    cluster = SimpleNamespace(items=items, request=request)
    platform = SimpleNamespace(cluster=cluster, workloads=lambda: workloads, credentials={})
    monkeypatch.setattr(module, "Platform", SimpleNamespace(of=lambda _session: platform))
    return asked


def logs(name: str | None = None, **options: Any) -> None:
    module.logs(cast("Any", SimpleNamespace(obj=None)), name, **{"tail": 5, **options})


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
    said = [f"{pod}/a | {line}" for pod in pods for line in (f"I am {pod}", "I was asked")]
    assert capsys.readouterr() == ("\n".join([*said, ""]), "")


def test_logs_of_nothing_names_the_choices() -> None:
    with pytest.raises(LabError, match="there are no pods for 'moon'") as told:
        logs("moon")
    assert told.value.remedy == "choose one of: backup, digits, serving"


def test_logs_of_a_capability_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logs(capability="digits")
    assert "digits-train-1" not in capsys.readouterr().out
    with pytest.raises(LabError, match="there is no capability 'digits-1'"):
        logs(capability="digits-1")


def test_without_a_log_store_the_pods_themselves_are_read_and_that_is_said(
    asked: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    logs("backup", since="2h", grep="asked")
    told = capsys.readouterr()
    assert told.out.splitlines() == ["backup-1/a | I was asked"]
    assert "There is no log store" in told.err
    assert [options["sinceSeconds"] for options in asked] == ["7200"]


def test_a_journal_is_in_the_log_store_alone() -> None:
    with pytest.raises(LabError, match="has no log store"):
        logs(node="node-1")


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"since": "yesterday"}, "use a duration"), ({"node": "a", "capability": "b"}, "use only one of")],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, str], fault: str) -> None:
    with pytest.raises(LabError, match=fault):
        logs(**options)
