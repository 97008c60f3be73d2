"""The tree on a real API server: with kubectl alone, and what its admission refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from infra.manifests import TREE, WORKLOADS, named
from tests.engine.harness import wait_for
from tests.k8s.conftest import FOLDERS, RUNS, kubectl, rendered

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster


@pytest.fixture(scope="module")
def kinds(control_plane: ControlPlane) -> None:
    """The Gateway API's kinds and the namespaces: what everything else needs to be looked at."""
    for folder in ("gateway-api", "base"):
        done = kubectl(control_plane, "apply", "--server-side", "-k", str(TREE / "infrastructure" / folder))
        assert done.returncode == 0, done.stderr
    done = kubectl(control_plane, "wait", "--for=condition=Established", "--all", "customresourcedefinitions")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("folder", [*FOLDERS, *RUNS])
def test_the_api_server_takes_it(control_plane: ControlPlane, folder: str) -> None:
    """A dry run on the server, which knows every field, and warns where pod security would refuse a pod."""
    path = str(TREE / folder)
    done = kubectl(control_plane, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr


@pytest.mark.usefixtures("kinds")
def test_kubectl_alone_applies_it(control_plane: ControlPlane) -> None:
    """All pods are admitted under `restricted` and the quotas; a second time changes nothing."""
    path = str(TREE / "clusters" / "lab")
    first = kubectl(control_plane, "apply", "-k", path)
    assert first.returncode == 0, first.stderr
    wanted = [one for one in rendered("clusters/lab") if one["kind"] in WORKLOADS]

    def admitted() -> bool:
        listed = json.loads(kubectl(control_plane, "get", "pods", "-A", "-o", "json").stdout)["items"]
        names = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in listed]
        return all(any(name.startswith(f"{named(one)}-") for name in names) for one in wanted)

    wait_for(admitted, "a pod of every workload")
    before = generations(control_plane)
    assert kubectl(control_plane, "apply", "-k", path).returncode == 0
    assert generations(control_plane) == before


def generations(control_plane: ControlPlane) -> dict[str, int]:
    """How often what is wanted of each object has changed."""
    kinds = "deployments,statefulsets,services,networkpolicies,httproutes,gateways,poddisruptionbudgets"
    items = json.loads(kubectl(control_plane, "get", kinds, "-A", "-o", "json").stdout)["items"]
    return {f"{one['kind']} {named(one)}": one["metadata"].get("generation", 0) for one in items}


PRIVILEGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "privileged"},
    # The API server of these tests knows no privileged containers at all; the host's processes are as much.
    "spec": {"hostPID": True, "containers": [{"name": "c", "image": "localhost/postgres"}]},
}


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("namespace", ["gateway", "platform", "training", "serving"])
def test_a_privileged_pod_is_refused(control_plane: ControlPlane, tmp_path: Path, namespace: str) -> None:
    file = tmp_path / "pod.json"
    file.write_text(json.dumps(PRIVILEGED))
    done = kubectl(control_plane, "apply", "--namespace", namespace, "-f", str(file))
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr
