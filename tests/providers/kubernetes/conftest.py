"""The Kubernetes plugin, alone and with a real API server."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.providers.kubernetes.control_plane import ControlPlane
from tests.providers.plugin import ROOT, Plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

EXECUTABLE = ROOT / "providers/bin/pulumi-resource-kubernetes"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="module")
def plugin(control_plane: ControlPlane) -> Iterator[Plugin]:
    """A plugin configured for the API server. A proxy of the environment is not for this machine."""
    environment = {"PATH": os.environ["PATH"], "HTTPS_PROXY": "http://127.0.0.1:9"}
    with Plugin(environment, EXECUTABLE) as running:
        running.configure(kubeconfig=str(control_plane.kubeconfig))
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    digits = hashlib.sha256(request.node.name.encode()).hexdigest()[:4]
    name = f"{request.node.name.split('[')[0].replace('_', '-')[:40]}-{digits}"
    control_plane.post({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def bare() -> Iterator[Plugin]:
    """A plugin that is not configured, in an environment without a cluster."""
    with Plugin({"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, EXECUTABLE) as running:
        yield running
