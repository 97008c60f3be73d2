"""A rollback from the decision to the last pod, with everything that it goes through: images, API server, gateway.

`pytest -m slow_images tests/images/test_rollback.py -s` prints the times.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import wait_for
from tests.images.rollback import Cluster, Load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.decided import Decided

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(1500)]
MOST_SECONDS = 5
"""From the decision to the first answer of the old version: issue 19."""


@pytest.fixture(scope="module")
def cluster(decided: Decided, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(decided, tmp_path_factory.mktemp("plane")) as made:
        yield made


@pytest.fixture(scope="module")
def versions(cluster: Cluster) -> list[str]:
    """Three, the last of which production serves; the one before it is warm."""
    made = [cluster.register(label) for label in (1, 2, 3)]
    for version in made:
        cluster.promote(version)
    wait_for(lambda: cluster.serves("warm", made[1]), "the version before is warm", 180)
    return made


def test_the_old_version_answers_within_seconds_and_nothing_fails(cluster: Cluster, versions: list[str]) -> None:
    """Two rollbacks in a row, each as fast: what the second leads to is warm as soon as the first is over."""
    oldest, old, bad = versions
    with Load(cluster.port) as load:
        wait_for(lambda: load.has(bad), "production answers", 60)
        for version, before in ((old, bad), (oldest, old)):
            wait_for(partial(cluster.serves, "warm", version), f"version {version} is warm", 180)
            began = time.monotonic()
            assert cluster.rollback() == version
            decided = time.monotonic()
            wait_for(partial(load.has, version, began), "the old version answers", 60)
            wait_for(partial(cluster.serves, "production", version), "production's own pods", 240)
            followed = time.monotonic() - began
            wait_for(lambda: cluster.labels()["production"] == {"production"}, "those alone answer", 60)
            after = time.monotonic()
            wait_for(partial(load.has, version, after), "it goes on answering", 60)
            first, last = load.first(version, began), load.last(before, began)
            print(
                f"\nrollback under load to version {version}: {len(load.asked)} requests, {len(load.failed)} failed;"
                f" decided after {decided - began:.2f} s; version {version} answers after {first:.2f} s, the last"
                f" of version {before} after {last:.2f} s; production's own pods after {followed:.0f} s"
            )
            assert first <= MOST_SECONDS
            assert last <= MOST_SECONDS + 1
    assert not load.failed, load.failed[:3]
    # There is nothing before that any more.
    wait_for(lambda: cluster.labels() == {"production": {"production"}}, "nothing is warm", 60)
    assert not cluster.kubelet.failures


@pytest.fixture
def served(cluster: Cluster, versions: list[str]) -> tuple[str, str]:
    """The version that production serves, and the one before it, which is warm."""
    cluster.kubelet.held.clear()
    old, new = versions[1:]
    for version in (old, new):
        cluster.promote(version)
    wait_for(lambda: cluster.serves("warm", old), "the version before is warm", 180)
    return new, old


@pytest.mark.parametrize("why", ["not ready", "lost"])
def test_without_a_warm_pod_that_answers_a_rollback_goes_the_long_way(
    cluster: Cluster, served: tuple[str, str], why: str
) -> None:
    """A pod that never became ready; one whose node is gone, while the API server says that it is ready."""
    bad, old = served
    if why == "lost":
        cluster.kubelet.lose("warm")
    else:
        cluster.promote(old)  # so that the other one is to become warm, and does not
        cluster.kubelet.held.add("warm")
        bad, old = old, bad
        wait_for(lambda: cluster.version("warm") == old, "it is to be warm", 60)
    with Load(cluster.port) as load:
        wait_for(lambda: load.has(bad), "production answers", 60)
        began = time.monotonic()
        assert cluster.rollback() == old
        wait_for(lambda: cluster.serves("production", old), "production serves it", 240)
        wait_for(lambda: load.has(old, began), "it answers", 60)
    assert not load.failed, load.failed[:3]
    wait_for(lambda: cluster.labels()["production"] == {"production"}, "those alone answer", 60)
    assert cluster.labels().get("warm", {None}) == {None}


def test_a_version_that_was_deleted_is_not_kept_warm(cluster: Cluster, versions: list[str]) -> None:
    old, newer, deleted = versions[1], versions[2], cluster.register(4)
    for version in (old, deleted, newer):
        cluster.promote(version)
    wait_for(lambda: cluster.version("warm") == deleted, "the version before is warm", 60)
    world = cluster.decided.world
    world.made("DELETE", "model-versions/delete", "admin", name="digits", version=deleted)
    wait_for(lambda: cluster.version("warm") == old, "the one before that is", 90)


def test_a_stage_that_is_taken_down_has_nothing_warm(cluster: Cluster, served: tuple[str, str]) -> None:
    new, old = served
    status, answer = cluster.decided.world.decide("stages/production/withdraw", version=int(new))
    assert status == 200, answer
    wait_for(lambda: cluster.version("production") is None, "production has no pods", 60)
    wait_for(lambda: cluster.version("warm") is None, "neither has what was warm", 60)
    assert cluster.rollback() == new
    wait_for(lambda: cluster.serves("production", new), "production is back", 240)
    wait_for(lambda: cluster.serves("warm", old), "so is what was before it", 240)


def test_it_is_kept_for_its_time_and_again_after_the_next_promotion(cluster: Cluster, served: tuple[str, str]) -> None:
    new, old = served
    past = {"metadata": {"annotations": {"ml-cluster.dev/warm-until": "2026-01-01T00:00:00Z"}}}
    cluster.plane.edit("Deployment", "serving/digits-warm", past, "apps/v1")
    wait_for(lambda: cluster.version("warm") is None, "its time is over", 60)
    cluster.promote(old)
    wait_for(lambda: cluster.version("warm") == new, "another one is warm", 60)
    cluster.controller.stop()
    cluster.start_controller({"WARM_HOURS": "0"}, "rollout-cold")
    wait_for(lambda: cluster.version("warm") is None, "none is to be kept", 90)
