"""The OpenStack plugin without a cloud."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from providers.values import UNKNOWN
from tests.providers.plugin import Plugin
from tests.providers.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def offline() -> Iterator[Plugin]:
    """A plugin whose cloud is not known yet: whatever calls it fails."""
    with Plugin({"PATH": os.environ["PATH"]}) as plugin:
        plugin.configure(authUrl=UNKNOWN)
        yield plugin


@pytest.fixture(scope="module")
def recording() -> Iterator[tuple[Recorder, Plugin]]:
    """A recorder, and a plugin whose cloud it is."""
    recorder = Recorder()
    with Plugin({"PATH": os.environ["PATH"]}) as plugin:
        plugin.configure(
            authUrl=f"{recorder.url}/identity/v3",
            userName="u",
            password="p",  # noqa: S106
            tenantName="p",
            region="r",
        )
        yield recorder, plugin
    recorder.close()


@pytest.fixture
def recorder(recording: tuple[Recorder, Plugin]) -> Recorder:
    recording[0].forget()
    return recording[0]


@pytest.fixture
def recorded(recording: tuple[Recorder, Plugin]) -> Plugin:
    return recording[1]
