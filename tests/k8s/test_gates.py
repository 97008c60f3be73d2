"""The models' gates on a real API server, read with the promotion service's own account."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from infra.manifests import TREE
from services.promotion.errors import InvalidError, RefusedError, UnavailableError
from services.promotion.gates import LABEL, Cluster, Folder
from tests.k8s.conftest import apply, kubectl

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster


@pytest.fixture(scope="module")
def gates(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    apply(
        control_plane, "infrastructure/gateway-api", "infrastructure/base", "platform/promotion/base", "models/digits"
    )
    account = tmp_path_factory.mktemp("account")
    token = kubectl(control_plane, "create", "token", "promotion", "--namespace=platform").stdout.strip()
    (account / "token").write_text(token)
    (account / "namespace").write_text("platform")
    (account / "ca.crt").write_text((control_plane.folder / "certificates/apiserver.crt").read_text())
    return Cluster(f"https://127.0.0.1:{control_plane.port}", account)


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


def test_nobody_of_another_namespace_may_change_one(gates: Cluster, control_plane: ControlPlane) -> None:
    assert gates
    for namespace in ("serving", "training"):
        kubectl(
            control_plane, "create", "rolebinding", "edits", "--clusterrole=edit", "--user=student", f"-n{namespace}"
        )
    end = time.monotonic() + 30
    while (
        kubectl(control_plane, "auth", "can-i", "patch", "deployments", "-nserving", "--as=student").stdout != "yes\n"
    ):
        assert time.monotonic() < end
    for verb in ("create", "update", "patch", "delete", "get"):
        for what in ("configmaps", "secrets", "pods"):
            asked = kubectl(control_plane, "auth", "can-i", verb, what, "--namespace=platform", "--as=student")
            assert asked.stdout.strip() == "no", (verb, what)
    account = "system:serviceaccount:platform:promotion"
    for verb, what in (("list", "secrets"), ("get", "configmaps"), ("update", "configmaps"), ("create", "pods")):
        asked = kubectl(control_plane, "auth", "can-i", verb, what, "--namespace=platform", f"--as={account}")
        assert asked.stdout.strip() == "no", (verb, what)


def test_an_api_that_is_away_is_said(tmp_path: Path) -> None:
    for name, content in (("token", "t"), ("namespace", "platform")):
        (tmp_path / name).write_text(content)
    with pytest.raises((UnavailableError, OSError)):
        Cluster("https://127.0.0.1:1", tmp_path).models()
