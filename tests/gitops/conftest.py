"""A repository with the platform in it, and the controller that applies it, once for a module."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from infra.manifests import TREE
from tests.gitops.controller import Controller
from tests.gitops.remote import Remote
from tests.providers.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORAGE = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "test", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "example.org/none",
    "volumeBindingMode": "WaitForFirstConsumer",
}


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    made = Remote(tmp_path_factory.mktemp("git"))

    def tree(work: Path) -> None:
        shutil.copytree(TREE, work / "k8s", ignore=shutil.ignore_patterns("__pycache__"))

    made.change(tree)
    with made:
        yield made


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory, remote: Remote) -> Iterator[Controller]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        plane.post(STORAGE)
        made = Controller(plane, remote, tmp_path_factory.mktemp("controller"))
        made.install()
        made.start()
        try:
            yield made
        finally:
            made.stop()
