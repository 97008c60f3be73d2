"""Verbs of the platform against a real API server; what a kubelet and the rollout controller do, the tests do."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cli import models, rollout, train
from cli.errors import LabError
from cli.workloads import ALIAS, MODEL, SHARE, VERSION, Platform, Stage, rolled_out, served_version
from tests.engine.harness import wait_for
from tests.k8s.conftest import apply, rendered
from tests.on_cluster.kubelet import Kubelet

if TYPE_CHECKING:
    from pathlib import Path

    import typer

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
JOB = "platform/training/run/base"


@pytest.fixture(scope="module")
def platform(control_plane: ControlPlane) -> Platform:
    """The lab profile, without pods that run."""
    apply(control_plane, "infrastructure/gateway-api", "infrastructure/base")
    apply(control_plane, "platform/training/base", "platform/serving/base", "models/digits")
    return Platform("lab", "lab.example", "192.0.2.7", 30443, "", {}, control_plane.kubeconfig.read_text())


class TrainingKubelet(Kubelet):
    """Runs the pods of training: each ends with what it is told to."""

    def __init__(self, plane: ControlPlane, message: dict[str, Any], code: int) -> None:
        super().__init__(plane, "training")
        self._message, self._code = message, code
        self.arguments: list[str] = []

    def _see(self, pod: dict[str, Any]) -> None:
        if pod["status"].get("phase") == "Pending" and pod["metadata"]["labels"].get("app") == "training-run":
            (container,) = pod["spec"]["containers"]
            self.arguments = container["args"]
            end = {"exitCode": self._code, "message": json.dumps(self._message), "reason": "Error"}
            state = {"name": container["name"], "ready": False, "restartCount": 0, "image": "i", "imageID": "i"}
            status = {
                "phase": "Failed" if self._code else "Succeeded",
                "containerStatuses": [{**state, "state": {"terminated": end}}],
            }
            self._plane.report("Pod", f"training/{pod['metadata']['name']}", status)


def run(platform: Platform, plane: ControlPlane, message: dict[str, Any], code: int = 0) -> tuple[Any, list[str]]:
    with TrainingKubelet(plane, message, code) as kubelet:
        result = models.run_job(platform, rendered(JOB), "digits-test", ["run", "--seed=7"])
    return result, kubelet.arguments


def test_a_run_ends_with_the_programs_result(platform: Platform, control_plane: ControlPlane) -> None:
    result, arguments = run(platform, control_plane, {"run": "r1", "version": "3", "test_accuracy": 0.97})
    assert result == {"run": "r1", "version": "3", "test_accuracy": 0.97, "exit": 0}
    assert arguments == ["run", "--seed=7"]


def test_a_refusal_of_the_gate_is_reported_and_not_retried(platform: Platform, control_plane: ControlPlane) -> None:
    result, _ = run(platform, control_plane, {"error": "the gate refuses run r2"}, code=models.REFUSED)
    assert result["exit"] == models.REFUSED
    with pytest.raises(LabError, match="the gate refuses run r2"):
        train._require_success(result)
    (last,) = sorted(
        control_plane.cluster.items("batch/v1", "Job", "training"), key=lambda job: job["metadata"]["creationTimestamp"]
    )[-1:]
    assert last["status"].get("failed") == 1


def move(plane: ControlPlane, stage: str, version: str) -> None:
    """What the rollout controller does when an alias moves."""
    template = {"metadata": {"annotations": {VERSION: version}}}
    # Pods of these tests do not say since when they are ready.
    change = {"spec": {"template": template, "replicas": 1, "minReadySeconds": 0}}
    plane.edit("Deployment", f"serving/digits-{stage}", change, "apps/v1", manager="model-rollout")


class Decided:
    """What the promotion service is asked to decide, and answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        self.asked: list[tuple[str, str, str | None]] = []

        def decide(
            _: Platform, model: str, stage: Stage, verb: str, number: str | None = None, incident: str | None = None
        ) -> str:
            del model, incident
            self.asked.append((verb, stage.value, number))
            return version

        for module in (models, rollout):
            monkeypatch.setattr(module, "decide", decide)


def test_promote_waits_until_all_pods_serve_the_version(
    platform: Platform, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "ROLLOUT_SECONDS", 60)
    decided = Decided(monkeypatch, "5")
    ended = threading.Event()

    def cluster() -> None:
        wait_for(lambda: decided.asked, "the decision")
        move(control_plane, "staging", "5")
        while not ended.wait(0.3):
            control_plane.run_pods("serving")

    thread = threading.Thread(target=cluster)
    thread.start()
    try:
        rollout.promote_model(platform, "digits", Stage.staging, "5")
    finally:
        ended.set()
        thread.join()
    assert decided.asked == [("promote", "staging", "5")]
    live = platform.deployments("digits")["staging"]
    assert served_version(live) == "5"
    assert rolled_out(live)
    assert "staging" in platform.models()


def test_a_canary_has_a_route_of_its_own(platform: Platform, control_plane: ControlPlane) -> None:
    """Production's route stays as Git has it; without a share there is no canary's route."""
    api = "gateway.networking.k8s.io/v1"
    before = control_plane.get("HTTPRoute", "serving/digits", api) or {}
    assert rollout.split(platform, "digits", 10)
    canary = control_plane.get("HTTPRoute", "serving/digits-canary", api) or {}
    (rule,) = canary["spec"]["rules"]
    assert {ref["name"]: ref["weight"] for ref in rule["backendRefs"]} == {"digits-production": 90, "digits-canary": 10}
    assert canary["spec"]["hostnames"] == before["spec"]["hostnames"]
    assert (control_plane.get("HTTPRoute", "serving/digits", api) or {})["metadata"]["generation"] == 1
    # By this the rollout controller knows whose share it is, and what it is while there are pods.
    assert canary["metadata"]["labels"] == {MODEL: "digits", ALIAS: "canary"}
    assert canary["metadata"]["annotations"][SHARE] == "10"
    assert rollout.split(platform, "digits", 0)
    wait_for(lambda: control_plane.get("HTTPRoute", "serving/digits-canary", api) is None, "the canary's end")
    assert not rollout.split(platform, "digits", 0)


def test_withdraw_is_asked_about_and_waits_until_the_stage_has_no_pods(
    platform: Platform,
    control_plane: ControlPlane,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rollout, "ROLLOUT_SECONDS", 60)
    monkeypatch.setattr(Platform, "of", lambda *_: platform)
    decided = Decided(monkeypatch, "6")
    move(control_plane, "canary", "6")
    rollout.split(platform, "digits", 10)
    context = cast("typer.Context", SimpleNamespace(obj=SimpleNamespace(interactive=False)))

    def withdraw(*, yes: bool) -> None:
        models.withdraw(context, "digits", Stage.canary, yes)

    with pytest.raises(LabError, match="--yes must be passed in"):
        withdraw(yes=False)
    assert control_plane.get("HTTPRoute", "serving/digits-canary", rollout.ROUTE_API)
    routed: list[bool] = []

    def controller() -> None:
        """What the rollout controller does once the registry has the mark."""
        wait_for(lambda: decided.asked, "the decision")
        routed.append(bool(control_plane.get("HTTPRoute", "serving/digits-canary", rollout.ROUTE_API)))
        control_plane.edit("Deployment", "serving/digits-canary", {"spec": {"replicas": 0}}, "apps/v1")

    thread = threading.Thread(target=controller)
    thread.start()
    try:
        withdraw(yes=True)
    finally:
        thread.join()
    assert decided.asked == [("withdraw", "canary", "6")]
    assert routed == [False]  # before anything else, no request goes there any more
    assert "canary of digits has been taken down." in capsys.readouterr().out
    withdraw(yes=True)
    assert "canary of digits is not serving." in capsys.readouterr().out


def test_a_missing_gateway_is_reported_with_a_remedy(platform: Platform, tmp_path: Path) -> None:
    from infra.credentials import issue  # noqa: PLC0415

    authority = issue({"names": ["test"]})["certificate"]
    away = Platform("lab", "lab.example", "127.0.0.1", 9, authority, {}, platform.kubeconfig)
    sample = tmp_path / "sample.json"
    sample.write_text("[[0, 1]]")
    with pytest.raises(LabError, match=r"https://digits\.lab\.example:9 does not answer") as response:
        models.ask_model(away, "digits", sample)
    assert response.value.remedy
