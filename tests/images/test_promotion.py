"""The promotion service, on the real MLflow and PostgreSQL, all from the images: `pytest -m slow_images`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from services.delivery.events import PROMOTED, ROLLED_BACK, WITHDRAWN
from services.delivery.registry import MOVED
from tests.images.decided import PYTHON, Mlflow
from tests.images.promotion import CALLERS, MODEL, ROWS, World, asked, evidence
from tests.images.services import PASSWORD

if TYPE_CHECKING:
    from tests.images.decided import Decided

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(600)]
MOMENT = "moved.production.2026-01-02T03:04:05Z"
EVERYBODY = ("admin", "trainer", "server")


@pytest.fixture(scope="module")
def world(decided: Decided) -> World:
    return decided.world


@pytest.fixture(scope="module")
def served(world: World) -> str:
    """A version that production serves."""
    version = world.register()
    world.promote("production", version)
    return version


@pytest.mark.parametrize("api", ["api/2.0", "ajax-api/2.0"])
@pytest.mark.parametrize("user", EVERYBODY)
def test_mlflow_refuses_everybody_what_only_the_service_decides(world: World, served: str, user: str, api: str) -> None:
    run = world.run()
    refused = world.register()  # it passed, and nobody promoted it
    own, version = {"name": MODEL}, {"name": MODEL, "version": served}
    attempts: dict[str, tuple[str, str, dict[str, Any]]] = {
        "promote": ("POST", "registered-models/alias", {"name": MODEL, "alias": "production", "version": refused}),
        "alias": ("POST", "registered-models/alias", {"name": MODEL, "alias": "mine", "version": refused}),
        "take down": ("DELETE", "registered-models/alias", {"name": MODEL, "alias": "production"}),
        "register": ("POST", "model-versions/create", {"name": MODEL, "source": f"runs:/{run}/model", "run_id": run}),
        "stage": ("POST", "model-versions/transition-stage", {**version, "stage": "Production"}),
        "delete what is served": ("DELETE", "model-versions/delete", version),
        "delete all": ("DELETE", "registered-models/delete", {"name": MODEL}),
        "rename": ("POST", "registered-models/rename", {"name": MODEL, "new_name": "other"}),
        "withdraw": ("POST", "registered-models/set-tag", {**own, "key": "withdrawn.production", "value": served}),
        "forge history": ("POST", "registered-models/set-tag", {**own, "key": "moved.production.x", "value": "{}"}),
        "forge a verdict": ("POST", "model-versions/set-tag", {**version, "key": "gate", "value": "passed"}),
        "be the service": ("PATCH", "users/update-password", {"username": "promotion", "password": PASSWORD}),
    }  # fmt: skip
    before = world.made("GET", f"registered-models/get?name={MODEL}", "server")
    for what, (method, path, body) in attempts.items():
        status, answer = world.mlflow(method, path, user, api, **body)
        assert status == 403, (what, answer)
        if user == "admin":  # others may be refused by MLflow's own rights first
            assert "Only the promotion service does that: `lab train`, `lab promote`" in answer["message"], what
    mutation = {"query": 'mutation { setRegisteredModelAlias(name: "digits") { name } }'}
    assert asked("POST", f"{world.tracking}/graphql", user, mutation)[1].get("data") is None
    assert world.made("GET", f"registered-models/get?name={MODEL}", "server") == before
    assert world.aliases()["production"] == served


def test_models_without_a_gate_are_free_but_serve_no_stage(world: World) -> None:
    run = world.run()
    world.made("POST", "registered-models/create", name="sketch")
    made = world.made("POST", "model-versions/create", name="sketch", source=f"runs:/{run}/model", run_id=run)
    version = made["model_version"]["version"]
    world.made("POST", "registered-models/alias", name="sketch", alias="candidate", version=version)
    status, answer = world.mlflow("POST", "registered-models/alias", name="sketch", alias="production", version=version)
    assert (status, answer["error_code"]) == (403, "PERMISSION_DENIED")
    status, answer = asked("POST", f"{world.promotion}/v1/models/sketch/stages/production/promote", "trainer", {})
    assert status == 409
    assert answer["error"] == "sketch has no gate"
    assert "k8s/models/sketch/gate.yaml" in answer["remedy"]
    # It cannot become one with a gate by its name.
    assert world.mlflow("POST", "registered-models/rename", name="sketch", new_name=MODEL)[0] == 403
    world.made("DELETE", "registered-models/delete", name="sketch")


CLIENT = """
import json, sys, mlflow
from mlflow.exceptions import MlflowException
client, told = mlflow.MlflowClient(), {}
run, name, version = sys.argv[1:]
attempts = {
    "alias": lambda: client.set_registered_model_alias(name, "production", version),
    "no alias": lambda: client.delete_registered_model_alias(name, "production"),
    "register": lambda: mlflow.register_model(f"runs:/{run}/model", name),
    "delete": lambda: client.delete_model_version(name, version),
    "stage": lambda: client.transition_model_version_stage(name, version, "Production"),
}
for what, attempt in attempts.items():
    try:
        attempt()
        told[what] = "done"
    except MlflowException as error:
        told[what] = error.error_code
print("told: " + json.dumps(told))
"""


@pytest.mark.parametrize("user", EVERYBODY)
def test_so_does_its_own_client(decided: Decided, served: str, user: str) -> None:
    run = decided.world.run()
    container = decided.stack.runtime.start(
        decided.stack.images["mlflow"], f"client-{user}", ["-c", CLIENT, run, MODEL, served],
        entrypoint=["/usr/bin/python3"],
        environment={
            "MLFLOW_TRACKING_URI": decided.world.tracking, "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": CALLERS[user], "GIT_PYTHON_REFRESH": "quiet",
        },
    )  # fmt: skip
    assert container.wait(120) == 0, container.output
    told = json.loads(container.output.split("told: ")[1])
    assert told == dict.fromkeys(("alias", "no alias", "register", "delete", "stage"), "PERMISSION_DENIED")


FREE = {"_update_registered_model", "_update_model_version", "_get_latest_versions"}
"""Handlers that change nothing that is decided: two write descriptions, one reads."""
RULES = """
import json, os
from mlflow.server import app
import only_by_promotion
only_by_promotion.create_app()
words = ("registered-models", "model-versions")
told = {
    rule.endpoint for rule in app.url_map.iter_rules()
    if any(word in str(rule) for word in words) and rule.methods - {"GET", "HEAD", "OPTIONS"}
}
print("told: " + json.dumps([sorted(told), sorted(only_by_promotion.CHECKS), sorted(app.view_functions)]))
"""


def test_no_way_of_mlflow_to_change_the_registry_is_overlooked(decided: Decided) -> None:
    """What a new version of MLflow adds has to be looked at, and added to the one list or the other."""
    stack = decided.stack
    mlflow = Mlflow(stack.runtime, stack.images, stack.postgres, stack.objects)
    container = mlflow.start("rules", ["-c", RULES], PYTHON)
    assert container.wait(120) == 0, container.output
    changing, checked, there = map(set, json.loads(container.output.split("told: ")[1]))
    assert changing - checked == FREE & changing
    assert checked <= there


def test_the_files_that_a_gate_has_passed_stay_as_they_are(world: World) -> None:
    run = world.run()
    found = world.made("GET", f"runs/get?run_id={run}")["run"]
    experiment = found["info"]["experiment_id"]
    model = found["outputs"]["model_outputs"][0]["model_id"]
    url = f"{world.tracking}/api/2.0/mlflow-artifacts/artifacts/{experiment}/models/{model}/artifacts/MLmodel"
    assert asked("PUT", url, "trainer", {"before": "the verdict"})[0] == 200
    assert world.evaluate(run)["passed"]
    for user in ("trainer", "admin"):
        status, answer = asked("PUT", url, user, {"after": "it"})
        assert (status, f"the files of {model} have passed a gate" in answer["message"]) == (403, True)
        assert asked("DELETE", url, user)[0] == 403
        assert world.mlflow("DELETE", f"logged-models/{model}", user)[0] == 403


def test_the_way_of_a_version_is_kept_with_all_its_figures(world: World, served: str) -> None:
    run = world.run(code_version="abc", data_version="d1")
    verdict = world.evaluate(run, 6)
    assert verdict["passed"]
    assert verdict["figures"]["accuracy"] == pytest.approx(294 / 300)
    assert verdict["figures"]["production"]["version"] == int(served)
    assert verdict["figures"]["production"]["at_least"] == pytest.approx(-0.0382, abs=0.0001)
    first, again = (world.decide("versions", run=run)[1] for _ in range(2))
    assert first == again
    version = world.made("GET", f"model-versions/get?name={MODEL}&version={first['version']}")["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags == {"code_version": "abc", "data_version": "d1", "gate": "passed", "test_accuracy": "0.980000"}
    assert world.promote("staging", first["version"], "admin")["before"] is None
    assert world.aliases()["staging"] == first["version"]
    told = world.read(f"verdict?version={first['version']}")
    assert told["figures"] == verdict["figures"]
    assert told["gate"]["score"] == {"minimum": 0.95, "name": "accuracy", "rows": 100}
    assert told["caller"] == "trainer"
    (move,) = world.read("history?stage=staging&count=1")["history"]
    assert (move["did"], move["version"], move["by"]) == ("promoted", first["version"], "admin")
    assert world.read("stages")["stages"]["staging"]["version"] == first["version"]


def test_what_the_gate_refuses_cannot_be_had_past_it(world: World, served: str) -> None:
    before = world.read("stages")
    run = world.run()
    bad = world.evaluate(run, 40)
    assert not bad["passed"]
    assert any(reason.startswith("accuracy 0.8667, below 0.95") for reason in bad["reasons"])
    assert any("worse than production's version" in reason for reason in bad["reasons"])
    status, answer = world.decide("versions", run=run)
    assert (status, answer["error"].startswith(f"run {run} has not passed the gate: accuracy 0.8667")) == (409, True)
    unjudged = world.run()
    status, answer = world.decide("versions", run=unjudged)
    assert (status, answer["error"]) == (409, f"run {unjudged} has not passed the gate: it was not evaluated")
    # What the service's own credential registers past its tables is no version to it.
    made = world.made("POST", "model-versions/create", "promotion", name=MODEL, source=f"runs:/{run}/model", run_id=run)
    sneaked = int(made["model_version"]["version"])
    status, answer = world.decide("stages/production/promote", "admin", version=sneaked)
    assert (status, answer["error"]) == (409, f"{MODEL} has no version {sneaked} that has passed the gate")
    assert world.decide("stages/production/promote", version=9999)[0] == 409
    assert world.read("stages") == before
    assert world.aliases()["production"] == served


def test_production_that_has_moved_meanwhile_is_compared_with_again(world: World) -> None:
    world.promote("production", world.register(5))
    worse, better = world.register(10), world.register(0)
    world.promote("production", better)
    # It passed when production was no better; by now it is too much worse.
    status, answer = world.decide("stages/production/promote", version=int(worse))
    assert (status, f"worse than production's version {better} on the same 300 rows" in answer["error"]) == (409, True)
    other = world.run()
    assert world.evaluate(other, 0, test="rows-2", baseline={"version": int(better), "right": "1" * ROWS})["passed"]
    version = world.decide("versions", run=other)[1]["version"]
    world.promote("production", version)
    status, answer = world.decide("stages/production/promote", version=int(worse))
    assert status == 409
    assert f"was not compared with version {version}, which production serves by now" in answer["error"]
    assert world.decide("verdicts", run=world.run(), **evidence())[0] == 409  # nobody knows what it says of rows-1
    world.decide("stages/production/rollback")


def test_a_rollback_passes_over_what_was_deleted_once(world: World) -> None:
    first, second, third = (world.register() for _ in range(3))
    for version in (first, second, third):
        world.promote("canary", version)
    world.made("DELETE", "model-versions/delete", "admin", name=MODEL, version=second)  # nothing serves it any more
    for _ in range(2):  # asked where it would lead, nothing is done
        asked_only = world.read("stages/canary/rollback")
        assert (asked_only["version"], asked_only["before"], asked_only["passed_over"]) == (first, third, [second])
    status, answer = world.decide("stages/canary/rollback", incident="wrong-digits")
    assert (status, answer["version"], answer["passed_over"]) == (200, first, [second])
    assert world.aliases()["canary"] == first
    world.promote("canary", third)
    assert world.decide("stages/canary/rollback")[1]["passed_over"] == []  # it is not tried again
    status, answer = world.decide("stages/canary/rollback")
    assert (status, answer["error"]) == (409, f"canary of {MODEL} has served nothing before version {first}")
    assert world.read("stages/canary/rollback")["version"] is None


def test_a_stage_is_withdrawn_and_comes_back(world: World) -> None:
    version = world.register()
    world.promote("staging", version)
    assert world.decide("stages/staging/withdraw", version=9999)[0] == 409
    for _ in range(2):  # it may be asked again
        assert world.decide("stages/staging/withdraw", version=int(version))[0] == 200
        assert "staging" not in world.aliases()
    found = world.made("GET", f"registered-models/get?name={MODEL}", "server")["registered_model"]
    assert {"key": "withdrawn.staging", "value": version} in found["tags"]
    assert world.decide("stages/staging/rollback")[1]["version"] == version
    assert world.aliases()["staging"] == version


def test_the_delivery_figures_can_read_what_was_done(world: World) -> None:
    version = world.register()
    before = moves(world)
    world.promote("canary", version)
    world.decide("stages/canary/withdraw", version=int(version))
    world.decide("stages/canary/rollback", incident="wrong-digits")
    new = {key: json.loads(value) for key, value in moves(world).items() if key not in before}
    assert [new[key] for key in sorted(new, key=moment)] == [
        {"did": "promoted", "version": version}, {"did": "withdrawn", "version": version},
        {"did": "rolled back", "version": version, "incident": "wrong-digits"},
    ]  # fmt: skip
    assert all(MOVED.fullmatch(key) for key in new)
    assert {PROMOTED, ROLLED_BACK, WITHDRAWN}


def moves(world: World) -> dict[str, str]:
    """The tags of the registered model that tell of moves."""
    found = world.made("GET", f"registered-models/get?name={MODEL}", "server")["registered_model"]
    return {tag["key"]: tag["value"] for tag in found["tags"] if tag["key"].startswith("moved.")}


def moment(key: str) -> str:
    """The time in such a tag, as text that sorts."""
    at = key.split(".", 2)[2]
    return at if "." in at else at.replace("Z", ".000Z")


def test_a_history_has_no_limit(decided: Decided) -> None:
    """A registered model's tag holds 5,000 characters."""
    world, version = decided.world, decided.world.register()
    world.promote("staging", version)
    decided.stack.postgres.psql(
        "update promotion.stages set former = array_fill(version, array[3000]) where stage = 'staging'"
    )
    other = world.register()
    world.promote("staging", other)
    assert len(world.read("stages")["stages"]["staging"]["former"]) == 3001
    assert world.decide("stages/staging/rollback")[1]["version"] == version


def test_promotions_at_once_are_one_after_the_other(world: World) -> None:
    versions = [world.register() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda version: world.promote("staging", version), versions))
    state = world.read("stages")["stages"]["staging"]
    assert state["version"] == world.aliases()["staging"]
    assert {*state["former"][:4], state["version"]} >= {*versions}
    assert len({answer["before"] for answer in answers}) == 4


def test_who_may_not_is_told_so(world: World) -> None:
    url = f"{world.promotion}/v1/models/{MODEL}"
    for user, password in (("", ""), ("trainer", "wrong"), ("promotion", None), ("trainer", CALLERS["server"])):
        assert asked("GET", f"{url}/stages", user, None, password)[0] == 401
    for user in ("server", "monitor"):
        status, answer = asked("POST", f"{url}/stages/production/promote", user, {})
        assert (status, answer) == (403, {"error": f"{user} may only read"})
    status, answer = asked("POST", f"{url}/stages/moon/promote", "admin", {})
    assert (status, answer["error"].endswith("stages are staging, canary, production")) == (404, True)
    status, answer = asked("POST", f"{url}/stages/canary/promote", "admin", {"version": 0, "share": 10})
    assert status == 400
    assert "version: Input should be greater than or equal to 1" in answer["error"]
    assert "share: Extra inputs are not permitted" in answer["error"]
    status, answer = world.decide("verdicts", run="r", test="t", right="0121", columns={"digit": ["1"]})
    assert status == 400
    assert "right: String should match pattern" in answer["error"]


def test_a_change_is_heard_of_at_once(world: World) -> None:
    last = asked("GET", f"{world.promotion}/v1/changes", "server")[1]["last"]
    version = world.register()
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(asked, "GET", f"{world.promotion}/v1/changes?since={last}&seconds=20", "server")
        world.promote("canary", version)
        assert heard.result(10)[1]["last"] > last


def test_nothing_is_decided_while_the_registry_or_the_database_is_away(decided: Decided) -> None:
    world, version = decided.world, decided.world.register()
    before = world.read("stages")
    decided.tracking.stop()
    status, answer = world.decide("stages/production/promote", version=int(version))
    assert (status, "the registry does not answer" in answer["error"]) == (503, True)
    decided.restart_tracking()
    assert world.read("stages") == before
    world.promote("production", version)
    decided.stack.postgres.container.stop()
    status, answer = world.decide("stages/production/rollback")
    assert (status, "PostgreSQL does not answer" in answer["error"]) == (503, True)
    decided.stack.postgres.container.start()
    decided.stack.postgres.container.until(decided.stack.postgres.is_ready)
    decided.restart_tracking()
    assert world.aliases()["production"] == version
    assert world.decide("stages/production/rollback")[0] == 200


def test_what_the_tags_of_an_existing_cluster_say_is_imported_once(decided: Decided) -> None:
    world = decided.world
    versions = [world.register() for _ in range(3)]
    own = {"name": MODEL}
    for alias, version in (("production", versions[2]), ("canary", versions[0])):
        world.made("POST", "registered-models/alias", "promotion", **own, alias=alias, version=version)
    world.made("DELETE", "registered-models/alias", "promotion", **own, alias="staging")
    tags = {
        "former.production": f"{versions[0]},{versions[1]}", "former.staging": versions[1],
        MOMENT: json.dumps({"did": "promoted", "version": versions[1], "incident": "i"}),
    }  # fmt: skip
    for key, value in tags.items():
        world.made("POST", "registered-models/set-tag", "promotion", **own, key=key, value=value)
    decided.stack.postgres.psql("drop schema promotion cascade")
    decided.restart()
    stages = world.read("stages")["stages"]
    assert (stages["production"]["version"], stages["production"]["former"]) == (versions[2], versions[1::-1])
    assert (stages["canary"]["version"], stages["staging"]["version"]) == (versions[0], None)
    found = world.read("history?stage=production&count=1000")["history"]
    assert ("promoted", versions[1], "i", "2026-01-02T03:04:05Z") in [
        (one["did"], one["version"], one["incident"], one["at"]) for one in found
    ]
    assert world.decide("stages/production/rollback")[1]["version"] == versions[1]
    assert world.promote("staging", versions[2])["version"] == versions[2]
    # Once: what somebody writes there later is not believed.
    decided.restart()
    assert world.read("stages")["stages"]["production"]["version"] == versions[1]
