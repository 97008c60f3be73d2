"""What `lab bench serving` makes, on a real API server under the platform's own rules; no pod runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.errors import LabError
from cli.workloads import VERSION, Platform
from tests.bench.serving import NAME, ROLE, Bench
from tests.engine.harness import wait_for
from tests.k8s.conftest import apply
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
KINDS = (
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("batch/v1", "Job"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
)


@pytest.fixture
def bench(control_plane: ControlPlane, tmp_path: Path) -> Bench:
    apply(control_plane, "infrastructure/gateway-api", "infrastructure/base", "platform/serving/base", "models/digits")
    kubeconfig = control_plane.kubeconfig.read_text()
    platform = Platform("lab", "lab.example", "192.0.2.7", 30443, "", {}, kubeconfig)
    return Bench(platform, "digits", b'{"inputs": []}', str(program("kubernetes", "kubectl")), tmp_path)


def made(plane: ControlPlane) -> set[str]:
    """Kinds of what the benchmark's name is on."""
    found = set()
    for api, kind in KINDS:
        for one in plane.cluster.items(api, kind, "serving"):
            if one["metadata"]["name"].startswith(NAME):
                found.add(kind)
    return found


def serve(plane: ControlPlane, version: str | None) -> None:
    """What the rollout controller does when production's alias moves."""
    change = {"spec": {"replicas": 1, "template": {"metadata": {"annotations": {VERSION: version}}}}}
    plane.edit("Deployment", "serving/digits-production", change, "apps/v1", manager="model-rollout")


def test_without_a_version_in_production_nothing_is_made(bench: Bench, control_plane: ControlPlane) -> None:
    serve(control_plane, None)
    with pytest.raises(LabError, match="production serves no version of digits"):
        bench.make(60)
    assert made(control_plane) == set()


def test_it_keeps_to_the_rules_and_leaves_nothing(bench: Bench, control_plane: ControlPlane) -> None:
    serve(control_plane, "7")
    assert bench.make(60) == "7"
    assert made(control_plane) == {kind for _, kind in KINDS}

    def roles() -> set[str]:
        return {pod["metadata"]["labels"].get(ROLE, "") for pod in control_plane.pods("serving")}

    # Admission lets a Job be whose pods it refuses.
    wait_for(lambda: {"generator", "subject"} <= roles(), "both pods")
    assert bench.make(60) == "7", "what an earlier run has left is put away"
    bench.remove()
    # The garbage collector may not know a kind yet that was only just defined.
    wait_for(lambda: made(control_plane) == set(), "the end of all that was made")
    bench.remove()


def test_what_nobody_deletes_expires(bench: Bench, control_plane: ControlPlane) -> None:
    serve(control_plane, "7")
    bench.make(3)
    # The deadline counts from when the Job's pod was made.
    wait_for(lambda: made(control_plane) == set(), "the end", 120)
