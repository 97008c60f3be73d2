"""The tree of manifests, rendered by the bundle's kubectl."""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra.bundle import manifests
from infra.manifests import Manifest, pins, render, third_party, write_tree
from tests.k8s.object_store import running
from tests.providers.kubernetes.control_plane import BUNDLE, ControlPlane, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.k8s.chain import Chain
    from tests.k8s.faults import Fault

FOLDERS = ("clusters/ci", "clusters/lab", "clusters/production")
RUNS = (
    "platform/training/run/base",
    "platform/training/run/workers",
    "platform/backup/restore",
    "platform/backup/to-volume",
    "platform/cloud",
    "platform/forge",
    "platform/gitops",
)
IMAGE = re.compile(r"image: localhost/([a-z0-9-]+)$", re.MULTILINE)


@functools.cache
def rendered(folder: str) -> list[Manifest]:
    """The objects of a kustomization of k8s/."""
    return render(folder, str(program("kubernetes", "kubectl")), files=of_others())


def of_others() -> dict[str, Path]:
    """The bundle's manifests of others, by name."""
    given = manifests(str(BUNDLE))
    assert given.keys() >= third_party([]), f"they are not in {BUNDLE}: build it with `./lab bundle build`"
    return given


@functools.cache
def tree() -> Path:
    """k8s/ with what it takes of the bundle; it is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="k8s-"))
    atexit.register(shutil.rmtree, folder)
    write_tree(folder, of_others())
    return folder


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of an object store with the platform's options, with the key that may make buckets."""
    with running(tmp_path_factory.mktemp("store")) as client:
        yield client


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """With an API server of its own, in which it does what nodes do."""
    from tests.k8s.chain import Chain  # noqa: PLC0415 - it takes of this module

    folder = tmp_path_factory.mktemp("chain")
    (folder / "plane").mkdir()
    with ControlPlane(folder / "plane") as plane, Chain(folder, plane) as made:
        yield made


@pytest.fixture(scope="session")
def faults(chain: Chain) -> list[Fault]:
    """One for each alert, all prepared: there are nodes, models and clients of them."""
    from tests.k8s.faults import Faults  # noqa: PLC0415

    made = Faults(chain).all()
    for fault in made:
        fault.prepares()
    chain.wait_for_figures('rate(traefik_service_requests_total{code="200"}[30s] offset 30s)')
    return made


def apply(plane: ControlPlane, *folders: str) -> None:
    """Apply parts of k8s/, with their images by digest as a profile has them."""
    for folder in folders:
        text = kubectl(plane, "kustomize", str(tree() / folder)).stdout
        text = IMAGE.sub(lambda found: f"{found[0]}@{pins()[found[1]]}", text)
        done = kubectl(plane, "apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
        assert done.returncode == 0, done.stderr


def kubectl(plane: ControlPlane, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """What kubectl says, as administrator; `text` is its standard input."""
    command = [str(program("kubernetes", "kubectl")), "--kubeconfig", str(plane.kubeconfig), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
