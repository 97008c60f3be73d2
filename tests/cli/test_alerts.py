"""`lab alerts` on what Alertmanager answers; tests/k8s/test_alerts.py has the real one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from cli import alerts
from cli.errors import LabError

ALERT = {
    "labels": {"alertname": "ModelSlow", "severity": "warning", "model": "digits"},
    "annotations": {"summary": "digits is slow", "description": "Look at it."},
    "startsAt": "2026-11-29T10:00:00.000Z",
    "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
}
CRITICAL = {
    "labels": {"alertname": "NodeNotReady", "severity": "critical"},
    "annotations": {"summary": "Node n1 is not ready", "description": "Look at it."},
    "startsAt": "2026-11-29T11:00:00.000Z",
    "status": {"state": "suppressed", "silencedBy": ["3f2a90c1-1"], "inhibitedBy": []},
}
WATCHDOG = {**ALERT, "labels": {"alertname": "Watchdog", "severity": "none"}}
SILENCE = {
    "id": "3f2a90c1-1", "status": {"state": "active"}, "endsAt": "2026-11-29T13:00:00.000Z", "createdBy": "me",
    "comment": "known", "matchers": [{"name": "alertname", "value": "NodeNotReady", "isRegex": False}],
}  # fmt: skip


class Platform:
    """A platform whose Alertmanager answers what the test says."""

    profile = "lab"

    def __init__(self, *found: dict[str, Any]) -> None:
        self.found, self.asked = [*found, WATCHDOG], list[tuple[str, str, Any]]()
        self.credentials: dict[str, Any] = {"monitoring": {}}

    def ask(self, _service: str, method: str, path: str, body: Any = None) -> Any:
        self.asked.append((method, path, body))
        if path == alerts.SILENCES:
            return {"silenceID": "9c1b-new"} if method == "POST" else [SILENCE]
        if path == alerts.ALERTS:
            return list(self.found)
        if path.startswith("/vmalert"):
            return {"data": {"groups": [{"rules": [{"type": "alerting", "name": "DiskFills"}]}]}}
        return None


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    made = Platform(ALERT, CRITICAL)
    monkeypatch.setattr(alerts, "Platform", SimpleNamespace(of=lambda _session: made))
    return made


def lab(*words: str) -> Any:
    return CliRunner().invoke(alerts.app, list(words), obj=cast("Any", None), catch_exceptions=False)


def test_the_worst_is_first_and_the_heartbeat_is_no_alert(platform: Platform) -> None:
    lines = lab().stdout.splitlines()
    assert lines[0] == "critical: Node n1 is not ready (silenced)"
    assert lines[2] == "warning: digits is slow"
    assert lines[-1].split()[:2] == ["3f2a90c1", "alertname=NodeNotReady"]
    assert "Watchdog" not in "".join(lines)
    platform.found = [WATCHDOG]
    assert lab().stdout.startswith("No alert fires.")


@pytest.mark.usefixtures("platform")
def test_as_json() -> None:
    told = json.loads(lab("--json").stdout)
    assert [(one["alert"], one["state"]) for one in told["alerts"]] == [
        ("NodeNotReady", "silenced"),
        ("ModelSlow", "active"),
    ]
    assert told["alerts"][1]["labels"] == {"model": "digits"}
    assert told["silences"][0]["matchers"] == "alertname=NodeNotReady"


def test_a_silence_is_of_one_alert_for_a_while(platform: Platform) -> None:
    said = lab("silence", "DiskFills", "node=n1", "--for", "30m", "--reason", "cleaning up").stdout
    assert "--end 9c1b-new" in said
    ((_, _, body),) = [one for one in platform.asked if one[0] == "POST"]
    assert [(one["name"], one["value"]) for one in body["matchers"]] == [("alertname", "DiskFills"), ("node", "n1")]
    assert body["comment"] == "cleaning up"


def test_a_silence_is_ended_by_the_beginning_of_its_id(platform: Platform) -> None:
    lab("silence", "--end", "3f2a90c1")
    assert ("DELETE", "/api/v2/silence/3f2a90c1-1", None) in platform.asked


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("silence",), "no alert was given"),
        (("silence", "DiskFill"), "there is no alert 'DiskFill'"),
        (("silence", "DiskFills", "--for", "2"), "is not a duration"),
        (("silence", "DiskFills", "--for", "31d"), "is not a duration"),
        (("silence", "DiskFills", "node"), "not a label with a value"),
        (("silence", "--end", "f"), "there is no silence 'f'"),
        (("silence", "DiskFills", "--end", "3f"), "takes no alert"),
    ],
)
def test_mistakes_are_told(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(LabError, match=told):
        lab(*words)


def test_a_profile_without_monitoring_is_told(platform: Platform) -> None:
    platform.credentials = {}
    with pytest.raises(LabError, match="has no monitoring"):
        lab()
