"""The OpenStack plugin without a cloud."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.providers.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def offline() -> Iterator[Plugin]:
    """A plugin whose cloud does not answer: whatever calls it fails."""
    with Plugin({"PATH": os.environ["PATH"]}) as plugin:
        plugin.configure(
            authUrl="http://127.0.0.1:9/v3",
            token="t",  # noqa: S106
            tenantName="t",
        )
        yield plugin
