"""The platform component under the engine, on a real API server: order, Secrets, no second change, an end."""

from __future__ import annotations

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
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
NAMESPACES = ("gateway", "platform", "training", "serving")
PROGRAM = """
    from types import SimpleNamespace

    import pulumi
    from infra.credentials import Password
    from infra.platform import Platform
    from infra.settings import Cluster, Platform as Wanted

    wanted = Wanted(profile="lab", apply=pulumi.Config().get("apply") or "pulumi")
    settings = SimpleNamespace(platform=wanted, cluster=Cluster(bundle=BUNDLE))
    server = Password("server")
    nodes = SimpleNamespace(entry=lambda: pulumi.Output.from_input("192.0.2.7"))
    cluster = SimpleNamespace(kubeconfig=pulumi.Output.secret(open(KUBECONFIG).read()), resource=server)
    platform = Platform(settings, nodes, cluster)
    pulumi.export("endpoints", platform.endpoints)
    pulumi.export("platform", platform.told)
    pulumi.export("credentials", platform.credentials)
"""


@pytest.fixture
def stack(tmp_path: Path, control_plane: ControlPlane) -> Stack:
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
        told = plane.cluster.request("looking", "GET", path)
        condition["observedGeneration"] = told["metadata"]["generation"]
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

    password = outputs["credentials"]["tracking"]["password"]
    assert len(password) == 32
    assert password not in stack.checkpoint_path.read_text()
    assert password not in json.dumps(stack.outputs())
    assert not stack.up("--expect-no-changes").changes.keys() - {"same", "read"}

    stack.destroy()
    # The servers went too: their cluster's objects were left to go with them.
    assert control_plane.get("Namespace", "platform") is not None
    for namespace in NAMESPACES:
        control_plane.cluster.request("deleting", "DELETE", f"/api/v1/namespaces/{namespace}")


def test_for_gitops_there_are_namespaces_and_secrets(stack: Stack, control_plane: ControlPlane) -> None:
    wait_for(lambda: not any(control_plane.get("Namespace", name) for name in NAMESPACES), "the namespaces' end")
    stack.config("apply", "gitops")
    stack.up()
    assert control_plane.get("Secret", "gateway/certificate")
    assert not control_plane.cluster.items("apps/v1", "Deployment", "platform")
    stack.destroy()
