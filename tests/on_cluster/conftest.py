"""A real API server for each module, whose pods the tests run in a kubelet's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.providers.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
