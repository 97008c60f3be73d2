"""The registry forgets what is served, while clients ask through the gateway: none of them notices.

Costs about 6 minutes on idle cores beside the platform itself (conftest.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.harness import wait
from tests.e2e.load import MODEL, Load, ask_often
from tests.e2e.platform_stack import Tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
AFTERWARDS_SECONDS = 30
"""How long the clients go on after the platform has said what became of it: the controller looks every few seconds."""


@pytest.fixture(scope="module")
def tracking(platform: PlatformStack) -> Tracking:
    """With the one login that may lose something, as an old backup that is restored would."""
    return Tracking(platform, service=True)


@pytest.fixture(scope="module")
def spare(platform: PlatformStack) -> list[str]:
    """Two versions to lose. Each loses an alias first, and goes then."""
    trained: list[dict[str, Any]] = [platform.lab.run("train", MODEL, "--json").json for _ in range(2)]
    return [str(one["version"]) for one in trained]


def forget_alias(tracking: Tracking, stage: str, version: str) -> None:
    del version
    tracking.ask("registered-models/alias", {"name": MODEL, "alias": stage}, method="DELETE")


def forget_version(tracking: Tracking, stage: str, version: str) -> None:
    del stage
    tracking.ask("model-versions/delete", {"name": MODEL, "version": version}, method="DELETE")


FORGET: dict[str, Callable[[Tracking, str, str], None]] = {"alias": forget_alias, "version": forget_version}


@pytest.fixture
def production(platform: PlatformStack, tracking: Tracking, spare: list[str]) -> Iterator[str]:
    """A version that production serves meanwhile."""
    served = tracking.aliases(MODEL)["production"]
    platform.lab.run("promote", MODEL, "--to", "production", "--version", spare[0])
    yield spare[0]
    platform.lab.run("promote", MODEL, "--to", "production", "--version", served)


def goes_on(platform: PlatformStack, stage: str, version: str) -> bool:
    """Whether `lab status` says that a stage goes on with what the registry names no more, and what to do."""
    told = platform.lab.run("status").stdout
    said = f"{stage} of {MODEL} continues to serve version {version}, which is no longer in the registry" in told
    return said and f"`lab promote {MODEL} --to {stage}`" in told


@pytest.mark.parametrize("what", ["alias", "version"])
def test_production_goes_on_when_the_registry_forgets_what_it_serves(
    what: str,
    platform: PlatformStack,
    tracking: Tracking,
    production: str,
    record_property: Callable[[str, object], None],
) -> None:
    wait(lambda: {answer.version for answer in ask_often(platform, 20)} == {production}, "it answers alone")
    with Load(platform) as load:
        wait(lambda: load.answers, "the clients are answered")
        FORGET[what](tracking, "production", production)
        assert "production" not in tracking.aliases(MODEL)
        wait(lambda: goes_on(platform, "production", production), "lab status says so")
        end = time.monotonic() + AFTERWARDS_SECONDS
        wait(lambda: time.monotonic() > end, "the clients have gone on")
    record_property("figures", f"digits: production's {what} deleted in the registry, through the gateway: {load}")
    assert load.faults == []
    assert {answer.version for answer in load.answers} == {production}


@pytest.mark.parametrize("what", ["alias", "version"])
def test_clients_of_production_notice_nothing_when_the_registry_forgets_a_canary_with_a_share(
    what: str,
    platform: PlatformStack,
    tracking: Tracking,
    spare: list[str],
    record_property: Callable[[str, object], None],
) -> None:
    served, canary = tracking.aliases(MODEL)["production"], spare[1]
    platform.lab.run("promote", MODEL, "--to", "canary", "--version", canary, "--share", "50")
    with Load(platform) as load:
        wait(lambda: {answer.version for answer in load.answers} == {served, canary}, "both are asked")
        FORGET[what](tracking, "canary", canary)
        wait(lambda: goes_on(platform, "canary", canary), "lab status says so")
        end = time.monotonic() + AFTERWARDS_SECONDS
        wait(lambda: time.monotonic() > end, "the clients have gone on")
        forgotten = time.monotonic()
        # Then it is taken down, with its share still set.
        platform.lab.run("withdraw", MODEL, "--stage", "canary", "--yes")
        end = time.monotonic() + AFTERWARDS_SECONDS
        wait(lambda: time.monotonic() > end, "the clients have gone on without it")
    record_property("figures", f"digits: the canary's {what} deleted at a share of 50 %, then withdrawn: {load}")
    assert load.faults == []
    assert {answer.version for answer in load.answers} == {served, canary}
    late = [answer.version for answer in load.answers if answer.began > forgotten + AFTERWARDS_SECONDS]
    assert set(late) <= {served}
