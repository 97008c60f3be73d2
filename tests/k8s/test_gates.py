"""The models' gates on a real API server, read with the promotion service's own account."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import TREE
from services.promotion.errors import InvalidError, RefusedError, UnavailableError
from services.promotion.gates import LABEL, Cluster, Folder
from tests.engine.harness import wait_for
from tests.k8s.conftest import apply, kubectl

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster


@pytest.fixture(scope="module")
def gates(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    apply(control_plane, "infrastructure/gateway-api", "infrastructure/base", "platform/promotion/base")
    apply(control_plane, "platform/serving/base", "models/digits")
    account = tmp_path_factory.mktemp("account")
    token = kubectl(control_plane, "create", "token", "promotion", "--namespace=platform").stdout.strip()
    (account / "token").write_text(token)
    (account / "namespace").write_text("platform")
    (account / "ca.crt").write_text((control_plane.folder / "certificates/apiserver.crt").read_text())
    return Cluster(f"https://127.0.0.1:{control_plane.port}", account)


@pytest.fixture(scope="module")
def student(control_plane: ControlPlane, gates: Cluster) -> str:
    """A user who may do all with the objects of the namespaces `serving` and `training`."""
    assert gates
    for namespace in ("serving", "training"):
        for command in (
            ("role", "edits", "--verb=*", "--resource=deployments.apps,configmaps,secrets,pods"),
            ("rolebinding", "edits", "--role=edits", "--user=student"),
        ):
            done = kubectl(control_plane, "create", *command, f"--namespace={namespace}")
            assert done.returncode == 0, done.stderr
    return "student"


def put(plane: ControlPlane, name: str, model: str, text: str) -> None:
    """Make a ConfigMap with a gate."""
    kubectl(plane, "delete", "configmap", name, "--namespace=platform", "--ignore-not-found")
    made = kubectl(plane, "create", "configmap", name, "--namespace=platform", f"--from-literal=gate.yaml={text}")
    assert made.returncode == 0, made.stderr
    assert kubectl(plane, "label", "configmap", name, "--namespace=platform", f"{LABEL}={model}").returncode == 0


def test_a_models_gate_is_what_its_folder_says(gates: Cluster) -> None:
    assert gates.models() == {"digits"}
    assert gates.of("digits") == Folder(TREE / "models").of("digits")


def test_a_model_without_a_gate_with_two_or_with_a_wrong_one_is_refused(
    gates: Cluster, control_plane: ControlPlane
) -> None:
    with pytest.raises(RefusedError, match="wines has no gate"):
        gates.of("wines")
    put(control_plane, "one", "wines", "score: {minimum: 95}")
    with pytest.raises(InvalidError, match=r"gate\.yaml of ConfigMap one: score\.minimum: Input should be less than"):
        gates.of("wines")
    put(control_plane, "two", "wines", "score: {minimum: 0.9}")
    with pytest.raises(RefusedError, match="wines has more than one gate: ConfigMaps one, two"):
        gates.of("wines")
    put(control_plane, "one", "other", "score: {minimum: 0.9}")
    assert gates.of("wines").score.minimum == 0.9
    assert gates.models() == {"digits", "wines", "other"}


def test_the_folder_of_the_setting_sets_stages_in_git(gates: Cluster, control_plane: ControlPlane) -> None:
    assert not gates.in_git()
    apply(control_plane, "platform/promotion/git")
    assert gates.in_git()
    assert gates.models() >= {"digits"}
    assert kubectl(control_plane, "delete", "configmap", "stages-in-git", "--namespace=platform").returncode == 0
    assert not gates.in_git()


def test_nobody_of_another_namespace_may_change_one(control_plane: ControlPlane, student: str) -> None:
    for verb in ("create", "update", "patch", "delete", "get"):
        for what in ("configmaps", "secrets", "pods"):
            asked = kubectl(control_plane, "auth", "can-i", verb, what, "--namespace=platform", f"--as={student}")
            assert asked.stdout.strip() == "no", (verb, what)
    account = "system:serviceaccount:platform:promotion"
    for verb, what in (("list", "secrets"), ("get", "configmaps"), ("update", "configmaps"), ("create", "pods")):
        asked = kubectl(control_plane, "auth", "can-i", verb, what, "--namespace=platform", f"--as={account}")
        assert asked.stdout.strip() == "no", (verb, what)


VERSION, SOURCE = "ml-cluster.dev/model-version", "ml-cluster.dev/model-source"


def of_pods(**annotations: str | None) -> dict[str, Any]:
    """A patch of a Deployment's pods."""
    return {"spec": {"template": {"metadata": {"annotations": {VERSION: annotations["version"]}}}}}


def test_nobody_promotes_by_editing_a_deployment(control_plane: ControlPlane, student: str) -> None:
    env = {"name": "model", "env": [{"name": "MODEL_VERSION", "value": "9", "valueFrom": None}]}
    new = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "mine", "namespace": "serving"},
        "spec": {
            "selector": {"matchLabels": {"app": "mine"}},
            "template": {
                "metadata": {"labels": {"app": "mine"}, "annotations": {SOURCE: "s3://mlflow/other"}},
                "spec": {"containers": [{"name": "model", "image": "localhost/model-server"}]},
            },
        },
    }  # fmt: skip

    def patch(change: dict[str, Any], user: str, stage: str = "production") -> subprocess.CompletedProcess[str]:
        return kubectl(
            control_plane, "patch", "deployment", f"digits-{stage}", "--namespace=serving", f"--as={user}",
            f"--patch={json.dumps(change)}",
        )  # fmt: skip

    numbers = count(100)

    def is_refused() -> bool:
        done = patch(of_pods(version=str(next(numbers))), student)
        return "decided by the promotion service alone" in done.stderr

    wait_for(is_refused, "the API server knows the policy", 30)
    warm = patch(of_pods(version="1"), student, "warm")
    assert "decided by the promotion service alone" in warm.stderr
    written = patch({"spec": {"template": {"spec": {"containers": [env]}}}}, student)
    assert "MODEL_VERSION and MODEL_SOURCE come from the pod's annotations alone" in written.stderr
    made = kubectl(control_plane, "create", f"--as={student}", "--filename=-", text=json.dumps(new))
    assert "Remedy: `lab promote`, `lab rollback`" in made.stderr
    # The controller may, and everybody else all but that.
    rollout = "system:serviceaccount:serving:rollout"
    assert patch(of_pods(version="4"), rollout).returncode == 0
    assert patch({"spec": {"replicas": 3}}, student).returncode == 0
    for version in ("5", None):
        assert "decided by the promotion service alone" in patch(of_pods(version=version), student).stderr
    assert patch(of_pods(version=None), rollout).returncode == 0


def test_an_api_that_is_away_is_said(tmp_path: Path) -> None:
    for name, content in (("token", "t"), ("namespace", "platform")):
        (tmp_path / name).write_text(content)
    with pytest.raises((UnavailableError, OSError)):
        Cluster("https://127.0.0.1:1", tmp_path).models()
