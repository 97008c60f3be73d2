"""The tree of manifests, rendered by the bundle's kubectl."""

from __future__ import annotations

import functools
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from infra.manifests import TREE, Manifest, pins, render
from tests.providers.kubernetes.control_plane import ControlPlane, program

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = ("clusters/ci", "clusters/lab", "clusters/production")
RUNS = (
    "models/digits/training/base",
    "models/digits/training/overlays/bad",
    "models/digits/training/overlays/torch",
    "platform/backup/restore",
)
IMAGE = re.compile(r"image: localhost/([a-z0-9-]+)$", re.MULTILINE)


@functools.cache
def rendered(folder: str) -> list[Manifest]:
    """The objects of a kustomization of k8s/."""
    return render(folder, str(program("kubernetes", "kubectl")))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


def apply(plane: ControlPlane, *folders: str) -> None:
    """Apply parts of k8s/, with their images by digest as a profile has them."""
    for folder in folders:
        text = kubectl(plane, "kustomize", str(TREE / folder)).stdout
        text = IMAGE.sub(lambda found: f"{found[0]}@{pins()[found[1]]}", text)
        done = kubectl(plane, "apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
        assert done.returncode == 0, done.stderr


def kubectl(plane: ControlPlane, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """What kubectl says, as administrator; `text` is its standard input."""
    command = [str(program("kubernetes", "kubectl")), "--kubeconfig", str(plane.kubeconfig), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
