"""What `lab` tells of applications from Git, and how it waits for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cli import gitops
from cli.errors import LabError
from cli.gitops import Application, applications, describe, wait_until_applied
from providers.kubernetes.client import UnknownKindError

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = {"repoURL": "https://git.example.org/cluster", "path": "k8s"}
REVISION = "0123456789abcdef" * 2
TRACKING = {"kind": "Deployment", "namespace": "platform", "name": "tracking", "status": "Synced"}


def application(name: str = "platform", **status: Any) -> dict[str, Any]:
    """One that is as in Git and healthy, but for these parts of its status."""
    sync = {"status": "Synced", "revision": REVISION, "comparedTo": {"source": SOURCE}}
    found = {"sync": sync, "health": {"status": "Healthy"}, **status}
    return {"metadata": {"name": name}, "spec": {"source": SOURCE}, "status": found}


class Api:
    """A cluster with these applications, one list after the other; the last one stays."""

    def __init__(self, *found: list[dict[str, Any]]) -> None:
        self.found = list(found)
        self.refreshed: list[str] = []

    def items(self, *_: str) -> list[dict[str, Any]]:
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]

    def path(self, target: Any) -> str:
        return str(target.name)

    def request(self, _what: str, method: str, path: str, body: Any, **_: str) -> None:
        assert (method, body) == ("PATCH", {"metadata": {"annotations": {gitops.REFRESH: "normal"}}})
        self.refreshed.append(path)


def waited(api: Api) -> None:
    wait_until_applied(SimpleNamespace(cluster=api))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes at once."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: now[0])


def test_a_healthy_application_is_one_row() -> None:
    text = describe([Application.of(application())])
    assert text.split() == ["APPLICATION", "REVISION", "SYNC", "HEALTH", "platform", REVISION[:12], "Synced", "Healthy"]


def test_what_is_not_healthy_is_named_with_its_reason() -> None:
    resource = {**TRACKING, "health": {"status": "Progressing", "message": "0 of 1 updated replicas are available"}}
    drifted = {"kind": "Service", "namespace": "platform", "name": "landing", "status": "OutOfSync"}
    found = application(health={"status": "Progressing"}, resources=[TRACKING, resource, drifted])
    text = describe([Application.of(found)])
    assert "Deployment platform/tracking: Progressing: 0 of 1 updated replicas are available" in text
    assert "Service platform/landing: out of sync with Git" in text


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"conditions": [{"type": "ComparisonError", "message": "login required"}]}, "login required"),
        (
            {"operationState": {"phase": "Failed", "message": "one or more tasks failed", "syncResult": {"resources": [
                {**TRACKING, "status": "SyncFailed", "message": "is forbidden: no quota"}]}}},
            "Deployment platform/tracking: is forbidden: no quota",
        ),
        (
            {"operationState": {"phase": "Running", "retryCount": 2, "message": "will be tried again"}},
            "will be tried again",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_applied_ends_the_waiting_with_the_reason(status: dict[str, Any], told: str) -> None:
    with pytest.raises(LabError, match="application platform is not applied") as caught:
        waited(Api([application(sync={"status": "OutOfSync", "comparedTo": {"source": SOURCE}}, **status)]))
    assert told in str(caught.value)
    assert caught.value.remedy


def test_what_is_left_out_is_told_though_all_else_is_applied(capsys: pytest.CaptureFixture[str]) -> None:
    message = "Resource /Secret planted is excluded in the settings"
    found = application(conditions=[{"type": "ExcludedResourceWarning", "message": message}])
    waited(Api([found]))
    assert f"Warning: {message}" in capsys.readouterr().out
    assert message in describe([Application.of(found)])


def test_an_error_that_passes_is_waited_out(capsys: pytest.CaptureFixture[str]) -> None:
    failing = application(conditions=[{"type": "ComparisonError", "message": "connection refused"}])
    failing["status"]["sync"]["status"] = "Unknown"
    api = Api([failing], [failing], [failing], [application()])
    waited(api)
    assert api.refreshed == ["platform"]
    printed = capsys.readouterr().out
    assert "application platform (Unknown, Healthy): connection refused" in printed
    assert f"Application platform: synced to {REVISION[:12]}, healthy." in printed


@pytest.mark.parametrize("change", ["source", "annotation"])
def test_a_state_of_before_is_not_taken_for_the_new_one(change: str) -> None:
    before = application()
    if change == "source":
        before["spec"]["source"] = {**SOURCE, "path": "other"}
    else:
        before["metadata"]["annotations"] = {gitops.REFRESH: "normal"}
    api = Api([before], [before], [before], [application()])
    waited(api)
    assert len(api.found) == 1


def test_one_that_never_becomes_healthy_is_a_timeout_that_says_why() -> None:
    lost = {"kind": "PersistentVolumeClaim", "namespace": "platform", "name": "backup", "status": "Synced",
            "health": {"status": "Degraded", "message": "its volume is gone"}}  # fmt: skip
    with pytest.raises(LabError, match="timeout") as caught:
        waited(Api([application(health={"status": "Degraded"}, resources=[lost])]))
    assert "PersistentVolumeClaim platform/backup: Degraded: its volume is gone" in str(caught.value)


def test_a_controller_that_has_not_looked_yet_is_waited_for() -> None:
    found = {"metadata": {"name": "platform"}, "spec": {"source": SOURCE}}
    assert not Application.of(found).is_done
    assert "Unknown" in describe([Application.of(found)])


def test_without_a_controller_there_is_nothing() -> None:
    def unknown(*_: str) -> Callable[..., Any]:
        raise UnknownKindError("the cluster has no kind Application")

    assert applications(SimpleNamespace(items=unknown)) == []  # type: ignore[arg-type]
