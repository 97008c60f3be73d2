"""The rollout controller, with its own rights, between a real API server and a real MLflow.

What kubelets would report of pods, the tests do. `pytest -m slow_images tests/images/test_rollout.py`.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cli import rollout
from cli.workloads import VERSION, Platform, Stage, rolled_out
from services.delivery import deployments
from tests.engine.harness import wait_for
from tests.images.controlled import prepared, report, start_controller
from tests.images.registry import MODEL, Between, Registry
from tests.images.services import Images, start_object_store, start_postgres, start_tracking
from tests.providers.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.containers import Container, Runtime

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(600)]
ROUTES = "gateway.networking.k8s.io/v1"
NOTE = "ml-cluster.dev/registry"
SHARE = 20
PASSES = 3
"""How often the controller is let look before it is believed to leave something alone."""


@dataclass
class World:
    """All there is."""

    plane: ControlPlane
    registry: Registry
    between: Between
    controller: Container
    platform: Platform
    unwell: set[str]
    """Stages whose pods are not ready."""

    def deployment(self, stage: str) -> Any:
        """As it is."""
        return self.plane.get("Deployment", f"serving/{MODEL}-{stage}", "apps/v1")

    def serves(self, stage: str) -> tuple[str | None, int, int]:
        """Version, pods that are wanted, pods that are available."""
        live = self.deployment(stage)
        version = live["spec"]["template"]["metadata"].get("annotations", {}).get(VERSION)
        return version, live["spec"]["replicas"], live["status"].get("availableReplicas", 0)

    def note(self, stage: str) -> str:
        """What the controller says of the registry."""
        return str(self.deployment(stage)["metadata"].get("annotations", {}).get(NOTE, ""))

    def is_forgotten(self, stage: str) -> bool:
        """Whether the controller says that the registry forgot what a stage serves."""
        return self.note(stage).startswith("forgotten: ")

    def weights(self) -> dict[str, int]:
        """Of the route that shares production's requests out, by stage."""
        route = self.plane.get("HTTPRoute", f"serving/{MODEL}-canary", ROUTES)
        assert route
        (rule,) = route["spec"]["rules"]
        return {one["name"].removeprefix(f"{MODEL}-"): one["weight"] for one in rule["backendRefs"]}

    def passes(self) -> None:
        """Wait until the controller has looked some more times at every stage."""
        seen = self.between.asked
        wait_for(lambda: self.between.asked >= seen + PASSES * len(Stage) + 1, "more passes")

    def reset(self) -> tuple[str, str]:
        """Production serves a new version, the canary another with a share of its requests; both versions."""
        self.between.answer = None
        self.unwell.clear()
        production, canary = self.registry.version(), self.registry.version()
        for stage, version in (("production", production), ("canary", canary)):
            self.registry.point(stage, version)
            wait_for(partial(self._is_up, stage, version), f"{stage} serves {version}")
        rollout.split(self.platform, MODEL, SHARE)
        wait_for(lambda: self.weights() == {"production": 100 - SHARE, "canary": SHARE}, "the canary's share")
        return production, canary

    def _is_up(self, stage: str, version: str) -> bool:
        served, wanted, _ = self.serves(stage)
        return served == version and wanted > 0 and rolled_out(self.deployment(stage)) and not self.note(stage)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as made:
        yield prepared(made)


@pytest.fixture(scope="module")
def registry(runtime: Runtime, images: Images) -> Registry:
    postgres, objects = start_postgres(runtime, images), start_object_store(runtime, images)
    made = Registry(start_tracking(runtime, images, postgres, objects).environment)
    made.register()
    return made


@contextmanager
def controlled(runtime: Runtime, images: Images, plane: ControlPlane, registry: Registry) -> Iterator[World]:
    """Start the controller; it looks once a second."""
    unwell: set[str] = set()
    ended = threading.Event()
    reporter = threading.Thread(target=report, args=(plane, unwell, ended))
    with Between(registry.environment["MLFLOW_TRACKING_URI"]) as between:
        environment = {**registry.environment, "MLFLOW_TRACKING_URI": between.url}
        controller = start_controller(runtime, images, plane, environment)
        platform = Platform("lab", "lab.example", "192.0.2.7", 30443, "", {}, plane.kubeconfig.read_text())
        reporter.start()
        try:
            yield World(plane, registry, between, controller, platform, unwell)
        finally:
            controller.stop()
            ended.set()
            reporter.join()


@pytest.fixture(scope="module")
def world(runtime: Runtime, images: Images, plane: ControlPlane, registry: Registry) -> Iterator[World]:
    with controlled(runtime, images, plane, registry) as made:
        yield made


def test_what_serves_goes_on_when_the_registry_forgets_its_alias_or_its_version(world: World) -> None:
    production, canary = world.reset()
    before = world.serves("production"), world.serves("canary")
    world.registry.forget("production")
    world.registry.delete(canary)
    for stage in ("production", "canary"):
        wait_for(partial(world.is_forgotten, stage), f"a note about {stage}")
    world.passes()
    assert (world.serves("production"), world.serves("canary")) == before
    assert world.weights() == {"production": 100 - SHARE, "canary": SHARE}
    result = world.platform.models()
    for stage, version in (("production", production), ("canary", canary)):
        assert f"{stage} of digits continues to serve version {version}, which is no longer in the registry" in result
        assert f"`lab promote digits --to {stage}`" in result
        assert f"`lab withdraw digits --stage {stage}`" in result
    # Named again, all is well.
    world.registry.point("production", production)
    wait_for(lambda: not world.note("production"), "production is named again")
    assert world.serves("production") == before[0]


def test_when_a_version_began_to_answer_is_noted_once_and_again_when_it_comes_back(world: World) -> None:
    production, canary = world.reset()

    def answered() -> list[str]:
        found = deployments.events([world.deployment("production")])
        return [one.data["version"] for one in sorted(found, key=lambda one: one.at)]

    wait_for(lambda: answered()[-1:] == [production], "the first version is noted")
    before = len(answered())
    world.passes()
    assert len(answered()) == before
    labels = world.deployment("production")["spec"]["template"]["metadata"]["labels"]
    assert labels[VERSION] == production
    world.registry.point("production", canary)
    wait_for(lambda: answered()[before:] == [canary], "the other version is noted")
    world.unwell.add("production")
    world.registry.point("production", world.registry.version())
    wait_for(lambda: world.serves("production")[0] not in {production, canary}, "a version that never answers")
    world.passes()
    world.registry.point("production", canary)
    world.unwell.clear()
    wait_for(lambda: answered()[before:] == [canary, canary], "what it came back to is noted")


def test_a_model_that_is_deleted_as_a_whole_goes_on_serving(world: World) -> None:
    production, _ = world.reset()
    before = world.serves("production")
    world.registry.ask("DELETE", "registered-models/delete", name=MODEL)
    wait_for(lambda: world.note("production").startswith("forgotten: the registry has no model"), "a note")
    world.passes()
    assert world.serves("production") == before
    # Registered anew it counts from 1 again: what is called by a number that serves already is another model.
    world.registry.register()
    while world.registry.version() != production:
        pass
    made = world.registry.ask(
        "POST", "model-versions/create", name=MODEL, source="s3://mlflow/models/other"
    )["model_version"]["version"]  # fmt: skip
    world.registry.point("production", made)
    wait_for(lambda: world.serves("production")[0] == made and not world.note("production"), "the new model")


NONSENSE = {
    "away": (0, b""),
    "an error": (500, b'{"error_code": "INTERNAL_ERROR", "message": "boom"}'),
    "a page": (200, b"<html>Sign in</html>"),
    "a page with 404": (404, b"<html>nginx</html>"),
    "nothing": (200, b""),
    "an empty object": (200, b"{}"),
    "a list": (200, b"[]"),
    "a version that is no number": (200, b'{"model_version": {"name": "digits", "version": "latest"}}'),
    "no version": (200, b'{"model_version": {}}'),
    "another model": (200, b'{"registered_model": {"name": "wines"}}'),
    "a wrong password": (401, b"You are not authenticated."),
    "too many requests": (429, b"slow down"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_what_serves_goes_on_while_the_registry_is_away_or_answers_nonsense(world: World, what: str) -> None:
    world.reset()
    before = world.serves("production"), world.serves("canary"), world.weights()
    world.between.answer = NONSENSE[what]
    wait_for(lambda: world.note("production").startswith("unanswered: "), "a note")
    world.passes()
    assert (world.serves("production"), world.serves("canary"), world.weights()) == before
    assert "production of digits continues to serve version" in world.platform.models()
    assert "the registry does not answer with a version" in world.platform.models()
    world.between.answer = None
    wait_for(lambda: not world.note("production"), "the registry is back")
    assert (world.serves("production"), world.serves("canary"), world.weights()) == before


def test_a_stage_is_taken_down_by_its_mark_alone_its_route_before_its_pods(world: World) -> None:
    _, canary = world.reset()
    seen: list[tuple[int, int]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            pods = sum(
                pod["metadata"]["labels"].get("ml-cluster.dev/stage") == "canary" for pod in world.plane.pods("serving")
            )
            # The route is looked at after the pods: what it says is never older.
            seen.append((world.weights()["canary"], pods))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        world.registry.tag("withdrawn.canary", canary)
        world.passes()
        assert world.serves("canary")[1] == 1  # it has its alias still
        world.registry.forget("canary")
        wait_for(lambda: world.serves("canary")[1:] == (0, 0), "the canary is down")
    finally:
        ended.set()
        watcher.join()
    assert (SHARE, 0) not in seen  # never was a request sent to a stage without pods
    assert (0, 1) in seen  # first the requests went, then the pod
    assert world.weights() == {"production": 100, "canary": 0}
    # It comes back with its pods first, then its share.
    world.unwell.add("canary")
    world.registry.point("canary", canary)
    wait_for(lambda: world.serves("canary")[1] == 1, "the canary is to serve again")
    world.passes()
    assert world.weights()["canary"] == 0
    world.unwell.clear()
    wait_for(lambda: world.weights() == {"production": 100 - SHARE, "canary": SHARE}, "the share")


def test_a_mark_for_another_version_takes_nothing_down(world: World) -> None:
    production, canary = world.reset()
    world.registry.tag("withdrawn.canary", production)
    world.registry.forget("canary")
    wait_for(partial(world.is_forgotten, "canary"), "a note")
    world.passes()
    assert world.serves("canary") == (canary, 1, 1)


@pytest.mark.parametrize("share", [SHARE, 100])
def test_a_canary_whose_pods_are_not_ready_gets_no_requests(world: World, share: int) -> None:
    world.reset()
    rollout.split(world.platform, MODEL, share)
    wait_for(lambda: world.weights()["canary"] == share, "its share")
    world.unwell.add("canary")
    wait_for(lambda: world.serves("canary")[2] == 0, "its pods are not ready")
    began = time.monotonic()
    wait_for(lambda: world.weights() == {"production": 100, "canary": 0}, "production gets all")
    assert time.monotonic() - began < 2
    world.unwell.clear()
    wait_for(lambda: world.weights() == {"production": 100 - share, "canary": share}, "it has its share again")


def test_the_routes_are_followed_while_the_registry_does_not_answer(world: World) -> None:
    world.reset()
    world.between.answer = NONSENSE["away"]
    world.unwell.add("canary")
    wait_for(lambda: world.weights() == {"production": 100, "canary": 0}, "production gets all")
