"""The platform component under the engine, on a real API server: order, Secrets, no second change, an end."""

from __future__ import annotations

import base64
import contextlib
import json
import textwrap
from typing import TYPE_CHECKING

import pytest

from infra.manifests import DOMAIN
from providers.kubernetes.client import ClusterError
from tests.engine.harness import REPOSITORY, Outcome, Stack, wait_for
from tests.providers.kubernetes.control_plane import BUNDLE, STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
NAMESPACES = ("gateway", "platform", "training", "serving", "monitoring", "monitoring-nodes")
PROGRAM = """
    from types import SimpleNamespace

    import pulumi
    from infra.credentials import Password
    from infra.platform import Platform
    from infra.settings import Cluster, GitOps, Monitoring, Platform as Wanted, Settings
    from pydantic import SecretStr

    own = GitOps(controller="none")
    wanted = Wanted(profile="lab", apply=pulumi.Config().get("apply") or "pulumi", gitops=own)
    hook = SecretStr("https://hooks.example.org/s3cret")
    monitoring = Monitoring(cloud="192.0.2.9:9180")
    settings = Settings.model_construct(
        platform=wanted, cluster=Cluster(bundle=BUNDLE), alerts_webhook=hook, monitoring=monitoring
    )
    server = Password("server")
    nodes = SimpleNamespace(entry=lambda: pulumi.Output.from_input("192.0.2.7"))
    cluster = SimpleNamespace(kubeconfig=pulumi.Output.secret(open(KUBECONFIG).read()), resource=server)
    lease_end = pulumi.Output.from_input("2026-12-01T18:00:00Z")
    platform = Platform(settings, nodes, cluster, lease_end=lease_end)
    pulumi.export("endpoints", platform.endpoints)
    pulumi.export("platform", platform.outputs)
    pulumi.export("credentials", platform.credentials)
"""


@pytest.fixture
def stack(tmp_path: Path, control_plane: ControlPlane) -> Iterator[Stack]:
    yield _stack(tmp_path, control_plane)
    for namespace in NAMESPACES:
        with contextlib.suppress(ClusterError):
            control_plane.cluster.request("deleting", "DELETE", f"/api/v1/namespaces/{namespace}")
    wait_for(lambda: not any(control_plane.get("Namespace", name) for name in NAMESPACES), "the namespaces' end")


def _stack(tmp_path: Path, control_plane: ControlPlane) -> Stack:
    made = Stack(tmp_path)
    made.project_file()
    made.init()
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "test", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "example.org/none",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    if control_plane.get("StorageClass", "test", "storage.k8s.io/v1") is None:
        control_plane.post(storage)
    made.env["PYTHONPATH"] += f":{REPOSITORY}"
    values = {"KUBECONFIG": str(control_plane.kubeconfig), "BUNDLE": str(BUNDLE)}
    constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    (made.folder / "__main__.py").write_text(constants + textwrap.dedent(PROGRAM))
    return made


def up(stack: Stack, plane: ControlPlane) -> tuple[Outcome, list[str]]:
    """`up`, while the pods that it makes become ready; and the workloads in the order in which they were."""
    running = stack.start(*stack.operation("up"))
    order: list[str] = []

    def done() -> bool:
        for namespace in NAMESPACES:
            for pod in plane.pods(namespace):
                name = pod["metadata"]["name"]
                if name not in order:
                    order.append(name)
            plane.run_pods(namespace)
        if plane.pods("gateway"):
            program(plane)
        return running.process.poll() is not None

    wait_for(done, "the end of up", 300)
    outcome = stack.finish(running)
    assert outcome.exit_code == 0, outcome.messages
    return outcome, order


def program(plane: ControlPlane) -> None:
    """What a controller of the Gateway API reports, once it runs and the Gateway is there."""
    condition: dict[str, object] = {
        "type": "Programmed",
        "status": "True",
        "reason": "Programmed",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    path = "/apis/gateway.networking.k8s.io/v1/namespaces/gateway/gateways/gateway"
    with contextlib.suppress(ClusterError):
        result = plane.cluster.request("looking", "GET", path)
        condition["observedGeneration"] = result["metadata"]["generation"]
        change = {"status": {"conditions": [condition]}}
        plane.cluster.request("reporting", "PATCH", f"{path}/status", change, **STATUS)


def test_the_platform_from_up_to_destroy(stack: Stack, control_plane: ControlPlane) -> None:
    planned = {name for operation, name in stack.preview().planned if operation == "create"}
    assert "platform/tracking" in planned
    _, order = up(stack, control_plane)
    tracking = next(name for name in order if name.startswith("tracking-"))
    model = next(name for name in order if name.startswith("digits-production"))
    assert order.index("metadata-store-0") < order.index(tracking) < order.index(model)

    outputs = stack.outputs("--show-secrets")
    domain = "192-0-2-7.sslip.io"
    assert outputs["endpoints"]["tracking"] == f"https://tracking.{domain}:30443"
    route = control_plane.get("HTTPRoute", "platform/tracking", "gateway.networking.k8s.io/v1") or {}
    assert route["spec"]["hostnames"] == [f"tracking.{domain}"]
    for manifest in control_plane.cluster.items("apps/v1", "Deployment", "platform"):
        assert DOMAIN not in json.dumps(manifest["spec"])

    assert outputs["endpoints"]["monitoring"] == f"https://monitoring.{domain}:30443"
    told = control_plane.get("ConfigMap", "monitoring/stack") or {}
    assert told["data"] == {
        "availability": "0.99", "latency-seconds": "1", "lease-end": "2026-12-01T18:00:00Z",
    }  # fmt: skip
    cloud = control_plane.get("ConfigMap", "monitoring/cloud") or {}
    assert json.loads(cloud["data"]["targets.json"]) == [{"targets": ["192.0.2.9:9180"]}]
    assert control_plane.get("Deployment", "monitoring/cloud-lines", "apps/v1")
    secret = control_plane.get("Secret", "monitoring/receivers") or {}
    receivers = json.loads(base64.b64decode(secret["data"]["alertmanager.yaml"]))["receivers"]
    assert receivers[0]["webhook_configs"][0]["url"] == "https://hooks.example.org/s3cret"
    assert "s3cret" not in stack.checkpoint_path.read_text()
    alerts = control_plane.get("StatefulSet", "monitoring/alerts", "apps/v1") or {}
    assert alerts["spec"]["template"]["metadata"]["annotations"]["ml-cluster.dev/receivers"]

    password = outputs["credentials"]["tracking"]["password"]
    assert len(password) == 32
    assert password not in stack.checkpoint_path.read_text()
    assert password not in json.dumps(stack.outputs())
    assert not stack.up("--expect-no-changes").changes.keys() - {"same", "read"}

    stack.destroy()
    # The servers went too: their cluster's objects were left to go with them.
    assert control_plane.get("Namespace", "platform") is not None


def test_for_another_controller_there_are_namespaces_and_secrets(stack: Stack, control_plane: ControlPlane) -> None:
    stack.config("apply", "gitops")
    stack.up()
    assert control_plane.get("Secret", "gateway/certificate")
    assert not control_plane.cluster.items("apps/v1", "Deployment", "platform")
    stack.destroy()


def test_a_controller_takes_over_and_gives_back_without_a_deletion(stack: Stack, control_plane: ControlPlane) -> None:
    """From `apply: pulumi` to `gitops` and back: nothing is deleted, made anew or restarted."""
    up(stack, control_plane)
    wait_for(lambda: _autoscaled(control_plane), "the autoscaler's first word")
    before = _objects(control_plane)
    assert "PersistentVolumeClaim platform/backup" in before

    stack.config("apply", "gitops")
    planned = stack.preview().changes
    assert not planned.keys() - {"same", "read"}, planned
    stack.up()
    assert _objects(control_plane) == before
    assert not stack.up("--expect-no-changes").changes.keys() - {"same", "read"}

    # What the state does not know, as a controller's own objects, is adopted on the way back.
    state = stack.export()
    known = state["deployment"]["resources"]
    state["deployment"]["resources"] = [
        one for one in known if not one["urn"].endswith(":Deployment::platform/landing")
    ]
    stack.import_(state)
    stack.config("apply", "pulumi")
    back = up(stack, control_plane)[0].changes
    assert back["create"] == 1, back
    assert not back.keys() - {"same", "read", "create", "update"}, back
    assert _objects(control_plane) == before
    stack.destroy()


def _autoscaled(control_plane: ControlPlane) -> bool:
    """Whether as many pods of the model are wanted as the autoscaler has at the least."""
    name = "serving/digits-production"
    scaler = control_plane.get("HorizontalPodAutoscaler", name, "autoscaling/v2") or {}
    model = control_plane.get("Deployment", name, "apps/v1") or {}
    return bool(model["spec"]["replicas"] >= scaler["spec"]["minReplicas"])


def _objects(control_plane: ControlPlane) -> dict[str, tuple[str, int]]:
    """Identity and generation of what the platform consists of, by kind and name."""
    kinds = {
        "v1": ("ConfigMap", "Secret", "Service", "PersistentVolumeClaim"),
        "apps/v1": ("Deployment", "StatefulSet", "DaemonSet"),
        "batch/v1": ("CronJob",),
    }
    return {
        f"{kind} {namespace}/{found['metadata']['name']}": (
            found["metadata"]["uid"],
            found["metadata"].get("generation", 0),
        )
        for api, names in kinds.items()
        for kind in names
        for namespace in NAMESPACES
        for found in control_plane.cluster.items(api, kind, namespace)
    }
