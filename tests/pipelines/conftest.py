"""Fixtures of pipelines: all that they ask is real, from the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.images.decided import decided
from tests.images.services import images, runtime, store
from tests.pipelines.world import World
from tests.providers.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.decided import Decided

__all__ = ["decided", "images", "runtime", "store"]


@pytest.fixture(scope="module")
def world(decided: Decided, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A cluster with pipelines, on which nothing has been trained."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "plane").mkdir()
    with ControlPlane(folder / "plane") as plane, World(plane, decided, folder) as made:
        yield made
