"""The tree on a real API server: with kubectl alone, and what its admission refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import WORKLOADS, qualified_name
from tests.engine.harness import wait_for
from tests.k8s.conftest import FOLDERS, RUNS, kubectl, rendered, tree

if TYPE_CHECKING:
    import subprocess

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster


@pytest.fixture(scope="module")
def kinds(control_plane: ControlPlane) -> None:
    """The Gateway API's kinds and the namespaces: what everything else needs to be looked at."""
    for folder in ("gateway-api", "base"):
        done = kubectl(control_plane, "apply", "--server-side", "-k", str(tree() / "infrastructure" / folder))
        assert done.returncode == 0, done.stderr
    done = kubectl(control_plane, "wait", "--for=condition=Established", "--all", "customresourcedefinitions")
    assert done.returncode == 0, done.stderr
    namespaces = [one for folder in (*FOLDERS, *RUNS) for one in rendered(folder) if one["kind"] == "Namespace"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": namespaces})
    done = kubectl(control_plane, "apply", "--server-side", "-f", "-", text=text)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("folder", [*FOLDERS, *RUNS])
def test_the_api_server_takes_it(control_plane: ControlPlane, folder: str) -> None:
    """A dry run on the server, which knows every field, and warns where pod security would refuse a pod."""
    path = str(tree() / folder)
    done = kubectl(control_plane, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr


@pytest.mark.usefixtures("kinds")
def test_kubectl_alone_applies_it(control_plane: ControlPlane) -> None:
    """All pods are admitted under `restricted` and the quotas; a second time changes nothing."""
    path = str(tree() / "clusters" / "lab")
    first = kubectl(control_plane, "apply", "-k", path)
    assert first.returncode == 0, first.stderr
    wanted = [one for one in rendered("clusters/lab") if one["kind"] in WORKLOADS]

    def admitted() -> bool:
        listed = json.loads(kubectl(control_plane, "get", "pods", "-A", "-o", "json").stdout)["items"]
        names = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in listed]
        return all(any(name.startswith(f"{qualified_name(one)}-") for name in names) for one in wanted)

    wait_for(admitted, "a pod of every workload")
    before = generations(control_plane)
    assert kubectl(control_plane, "apply", "-k", path).returncode == 0
    assert generations(control_plane) == before


def generations(control_plane: ControlPlane) -> dict[str, int]:
    """How often what is wanted of each object has changed."""
    kinds = "deployments,statefulsets,services,networkpolicies,httproutes,gateways,poddisruptionbudgets"
    items = json.loads(kubectl(control_plane, "get", kinds, "-A", "-o", "json").stdout)["items"]
    return {f"{one['kind']} {qualified_name(one)}": one["metadata"].get("generation", 0) for one in items}


NAMESPACES = ("gateway", "platform", "training", "serving")
BY_DIGEST = f"localhost/postgres@sha256:{'0' * 64}"
BY_TAG = "localhost/postgres:v18.6.0"


def pod(image: str, **spec: Any) -> str:
    """A pod that pod security takes, unless `spec` says otherwise."""
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    containers = [{"name": "main", "image": image, "securityContext": context}]
    whole = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}
    metadata = {"generateName": "test-"}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**whole, "containers": containers, **spec}}
    )


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_privileged_pod_is_refused(control_plane: ControlPlane, namespace: str) -> None:
    # The API server of these tests knows no privileged containers at all; the host's processes are as much.
    done = kubectl(control_plane, "create", "-n", namespace, "-f", "-", text=pod(BY_DIGEST, hostPID=True))
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


@pytest.fixture(scope="module")
def refusing(control_plane: ControlPlane, kinds: None) -> None:  # noqa: ARG001 - what it stands on
    """Admission has read its policy, which it does a moment after that is there."""

    def refused() -> bool:
        dry = ("create", "--dry-run=server", "-n", "training", "-f", "-")
        return bool(kubectl(control_plane, *dry, text=pod(BY_TAG)).returncode)

    wait_for(refused, "the policy of images")


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_an_image_by_tag_is_refused(control_plane: ControlPlane, namespace: str) -> None:
    def create(manifest: str) -> subprocess.CompletedProcess[str]:
        return kubectl(control_plane, "create", "--dry-run=server", "-n", namespace, "-f", "-", text=manifest)

    taken = create(pod(BY_DIGEST))
    assert taken.returncode == 0, taken.stderr
    first = json.loads(pod(BY_DIGEST))["spec"]["containers"][0]
    initial = {**first, "name": "first", "image": "localhost/mlflow"}
    for manifest, named_image in (
        (pod(BY_TAG), BY_TAG),
        (pod(f"{BY_TAG}@sha256:feed"), f"{BY_TAG}@sha256:feed"),
        (pod(BY_DIGEST, initContainers=[initial]), "localhost/mlflow"),
    ):
        done = create(manifest)
        assert done.returncode != 0
        assert f"images without a digest: {named_image}. Remedy: " in done.stderr


@pytest.mark.usefixtures("refusing")
def test_an_image_by_tag_does_not_come_later(control_plane: ControlPlane) -> None:
    """Neither by another image of a pod that is there, nor by a container that is added to debug it."""
    made = kubectl(control_plane, "create", "-n", "training", "-o", "name", "-f", "-", text=pod(BY_DIGEST))
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip()
    debug = ("debug", "-n", "training", name, "--profile=restricted", "--attach=false", "--image")
    for refused in (("set", "image", "-n", "training", name, f"main={BY_TAG}"), (*debug, BY_TAG)):
        done = kubectl(control_plane, *refused)
        assert done.returncode != 0
        assert f"images without a digest: {BY_TAG}." in done.stderr
    taken = kubectl(control_plane, *debug, BY_DIGEST)
    assert taken.returncode == 0, taken.stderr


@pytest.mark.usefixtures("refusing")
def test_a_pod_that_was_there_before_the_policy_can_be_changed_and_ended(control_plane: ControlPlane) -> None:
    """Its finalizers must go some day."""
    assert kubectl(control_plane, "create", "namespace", "older").returncode == 0
    wait_for(lambda: control_plane.get("ServiceAccount", "older/default"), "the namespace's account")
    made = kubectl(control_plane, "create", "-n", "older", "-o", "name", "-f", "-", text=pod(BY_TAG))
    assert made.returncode == 0, made.stderr
    assert kubectl(control_plane, "label", "namespace", "older", "app.kubernetes.io/part-of=ml-cluster").returncode == 0
    wait_for(
        lambda: kubectl(control_plane, "create", "-n", "older", "-f", "-", text=pod(BY_TAG)).returncode,
        "the policy in a namespace that is labelled",
    )
    done = kubectl(control_plane, "label", "-n", "older", made.stdout.strip(), "changed=true")
    assert done.returncode == 0, done.stderr
    assert kubectl(control_plane, "delete", "-n", "older", "--wait=false", made.stdout.strip()).returncode == 0
