"""The OpenStack plugin without a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.providers.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

EXECUTABLE = Path(__file__).resolve().parents[2] / "providers/bin/pulumi-resource-openstack"


@pytest.fixture(scope="module")
def offline() -> Iterator[Plugin]:
    """A plugin whose cloud does not answer: whatever calls it fails."""
    plugin = Plugin(EXECUTABLE, {"authUrl": "http://127.0.0.1:9/v3", "token": "t", "tenantName": "t"}, {})
    yield plugin
    plugin.close()
