"""The rollout controller hears of decisions from the promotion service; without it, it goes on by the registry alone.

What kubelets would report of pods, the tests do. `pytest -m slow_images tests/images/test_decisions.py`.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest

from cli.workloads import VERSION
from tests.engine.harness import wait_for
from tests.images.controlled import prepared, report, start_controller
from tests.images.promotion import CALLERS, MODEL
from tests.images.registry import Between
from tests.providers.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.containers import Container
    from tests.images.decided import Decided

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(1500)]
NEVER, OFTEN = 600, 2
"""Seconds between looks at the registry: so many that what is followed was heard of; so few as to go without that."""
AT_ONCE = 15
"""Seconds within which it follows what it has heard of, on a machine that has much else to do."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as made:
        prepared(made)
        ended = threading.Event()
        reporter = threading.Thread(target=report, args=(made, set(), ended))
        reporter.start()
        yield made
        ended.set()
        reporter.join()


@contextmanager
def controlled(
    decided: Decided, plane: ControlPlane, seconds: float, promotion: str | None = None, name: str = "rollout"
) -> Iterator[Container]:
    """Start the controller, which asks another address than the service's where one is given."""
    environment = {
        "MLFLOW_TRACKING_URI": decided.world.tracking, "MLFLOW_TRACKING_USERNAME": "server",
        "MLFLOW_TRACKING_PASSWORD": CALLERS["server"], "PROMOTION_URL": promotion or decided.world.promotion,
        "POLL_SECONDS": str(seconds),
    }  # fmt: skip
    controller = start_controller(decided.stack.runtime, decided.stack.images, plane, environment, name)
    try:
        yield controller
    finally:
        controller.stop()


def told(plane: ControlPlane, stage: str) -> str | None:
    """Which version a stage's Deployment was told to serve."""
    live: Any = plane.get("Deployment", f"serving/{MODEL}-{stage}", "apps/v1")
    version: str | None = live["spec"]["template"]["metadata"].get("annotations", {}).get(VERSION)
    return version


def is_told(plane: ControlPlane, stage: str, version: str) -> bool:
    """Whether it was told this one."""
    return told(plane, stage) == version


def test_no_decision_is_missed_from_the_first_one_on(decided: Decided, plane: ControlPlane) -> None:
    """Decisions are made while it starts, while it acts on others, and after nothing has happened for a while."""
    world = decided.world
    versions = [world.register() for _ in range(2)]
    world.promote("staging", versions[0])
    with controlled(decided, plane, NEVER) as controller:
        for version in cycle(versions):
            world.promote("staging", version)
            if told(plane, "staging") is not None:
                break
        wait_for(partial(is_told, plane, "staging", version), "the last decision during the start", AT_ONCE)
        seconds = []
        for version in (*versions, *versions):
            world.promote("staging", version)
            began = time.monotonic()
            wait_for(partial(is_told, plane, "staging", version), f"version {version}", AT_ONCE)
            seconds.append(time.monotonic() - began)
        print(f"\nfrom a decision to the Deployment: {', '.join(f'{one:.2f} s' for one in seconds)}")
        for version in versions:
            for stage in ("staging", "canary", "production"):
                world.promote(stage, version)
        for stage in ("staging", "canary", "production"):
            wait_for(partial(is_told, plane, stage, versions[-1]), f"all decisions about {stage}", AT_ONCE)
        # It waits for the service itself, not for an answer that it got once.
        decided.restart()
        world.promote("staging", versions[0])
        wait_for(
            partial(is_told, plane, "staging", versions[0]), "a decision after the service was restarted", 2 * AT_ONCE
        )
        assert "Traceback" not in controller.output


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("how", ["away", "silent", "nonsense"])
def test_without_the_service_the_registry_is_followed_all_the_same(
    decided: Decided, plane: ControlPlane, how: str
) -> None:
    world, versions = decided.world, [decided.world.register() for _ in range(2)]
    with Between(world.promotion) as between, silent() as nobody:
        between.answer = {"away": (0, b""), "nonsense": (200, b'{"last": "soon"}')}.get(how)
        address = nobody if how == "silent" else between.url
        with controlled(decided, plane, OFTEN, address, f"rollout-{how}") as controller:
            for version in versions:
                world.promote("staging", version)
                wait_for(partial(is_told, plane, "staging", version), f"version {version}", OFTEN + AT_ONCE)
            if how != "silent":
                wait_for(lambda: "by looking at the registry alone" in controller.output, "it says so", AT_ONCE)
                assert controller.output.count("by looking at the registry alone") == 1  # once, and not every time
            assert controller.process
            assert controller.process.poll() is None
