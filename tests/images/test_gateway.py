"""The gateway's image: `pytest -m slow_images tests/images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bundle.manifest import load
from tests.images.services import Images, answers, free_port

if TYPE_CHECKING:
    from tests.images.containers import Runtime

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(120)]


def test_it_says_that_it_is_alive_and_what_it_is(runtime: Runtime, images: Images) -> None:
    port = free_port()
    container = runtime.start(
        images["gateway"], "gateway",
        [f"--entrypoints.health.address=127.0.0.1:{port}", "--ping", "--ping.entrypoint=health"],
    )  # fmt: skip
    container.until(lambda: answers(f"http://127.0.0.1:{port}/ping"))
    output = container.run("/usr/local/bin/traefik", "version").stdout
    assert load().families["gateway"].version.removeprefix("v") in output
    container.stop()
