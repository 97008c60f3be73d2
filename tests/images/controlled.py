"""The rollout controller with its own rights on a real API server, where the tests are the kubelets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from providers.kubernetes.client import ClusterError
from tests.images.services import free_port
from tests.k8s.conftest import apply, kubectl
from tests.providers.kubernetes.control_plane import running

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from tests.images.containers import Container, Runtime
    from tests.images.services import Images
    from tests.providers.kubernetes.control_plane import ControlPlane

TREES = ("infrastructure/gateway-api", "infrastructure/base", "platform/serving/base", "models/digits")
LONG_AGO = "2026-01-01T00:00:00Z"


def prepared(plane: ControlPlane) -> ControlPlane:
    """An API server with the stages of the example model, and the controller's account."""
    apply(plane, *TREES)
    return plane


def kubeconfig(plane: ControlPlane) -> str:
    """One of the controller's own service account."""
    token = kubectl(plane, "create", "token", "rollout", "--namespace=serving", "--duration=2h").stdout.strip()
    content = json.loads(kubectl(plane, "config", "view", "--flatten", "--minify", "--output=json").stdout)
    content["users"][0]["user"] = {"token": token}
    return yaml.safe_dump(content)


def start_controller(
    runtime: Runtime, images: Images, plane: ControlPlane, environment: Mapping[str, str], name: str = "rollout"
) -> Container:
    """Start it; it looks once a second unless `environment` says otherwise."""
    file = runtime.work / "kubeconfig"
    file.write_text(kubeconfig(plane))
    file.chmod(0o644)
    settings = {
        "KUBECONFIG": "/run/kubeconfig", "NAMESPACE": "serving", "POLL_SECONDS": "1", "PORT": str(free_port()),
        "HOME": "/tmp", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # noqa: S108
    }  # fmt: skip
    return runtime.start(
        images["model-server"], name, ["-m", "model_rollout"], entrypoint=["/usr/bin/python3"],
        environment={**settings, **environment}, read_only={file: "/run/kubeconfig"},
    )  # fmt: skip


def report(plane: ControlPlane, unwell: set[str], ended: threading.Event, address: str = "10.9.9.9") -> None:
    """A kubelet's part: pods are ready, but for those of stages that are not well."""
    while not ended.wait(0.1):
        for pod in plane.pods("serving"):
            stage = pod["metadata"]["labels"].get("ml-cluster.dev/stage")
            if stage is None:
                continue
            status: dict[str, Any] = {**running(pod), "podIP": address}
            status["conditions"][0] |= {
                "lastTransitionTime": LONG_AGO, "status": "False" if stage in unwell else "True"
            }  # fmt: skip
            if pod["status"].get("conditions") != status["conditions"]:
                try:
                    plane.report("Pod", f"serving/{pod['metadata']['name']}", status)
                except ClusterError as error:
                    if error.code not in {404, 409}:
                        raise
