"""Stages that are set in Git: what the promotion service does of a commit, on the real MLflow and PostgreSQL.

What `lab` and the forge do with it: tests/forge/test_stages.py.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.harness import wait_for
from tests.images.promotion import MODEL, ROWS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.decided import Decided

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(600)]


def commit(number: int) -> str:
    return f"{number:040x}"


@pytest.fixture(scope="module")
def versions(decided: Decided) -> list[str]:
    """Three that have passed the gate, by the time that stages come to be set in Git; production serves the first."""
    made = [decided.world.register(wrong) for wrong in (4, 2, 0)]
    decided.world.promote("production", made[0])
    return made


@pytest.fixture
def world(decided: Decided, versions: list[str]) -> Iterator[World]:
    """Stages are set in Git, as from a stack's setting; production serves the first version, and Git says so."""
    decider = decided.stack.runtime.work / "gates/decider"
    decider.write_text("git\n")
    settle(decided.world, 1, production=versions[0])
    yield decided.world
    decider.unlink()


def settle(world: World, number: int, *, after: str | None = None, status: int = 200, **stages: str) -> Any:
    """Have the stages as a commit says; what the service answers."""
    known = world.read("stages")["git"]["commit"] if after is None else after
    body = {
        "stages": {stage: int(version) for stage, version in stages.items()}, "commit": commit(number), "after": known,
        "pull_request": number, "author": "ada",
    }  # fmt: skip
    answered, answer = world.decide("stages", "admin", **body)
    assert answered == status, answer
    return answer


def served(world: World) -> dict[str, str]:
    """What each stage serves, as the service and the registry say alike."""
    found = {stage: one["version"] for stage, one in world.read("stages")["stages"].items() if one["version"]}
    assert found == world.aliases()
    return found


def test_only_git_says_what_stages_serve(world: World, versions: list[str]) -> None:
    before = served(world)
    attempts: dict[str, dict[str, Any]] = {
        "stages/production/promote": {"version": int(versions[1])}, "stages/staging/promote": {},
        "stages/production/rollback": {}, "stages/production/withdraw": {"version": int(versions[0])},
    }  # fmt: skip
    for path, given in attempts.items():
        for user in ("admin", "trainer"):
            status, answer = world.decide(path, user, **given)
            assert (status, answer["error"]) == (409, f"stages of {MODEL} are set in Git"), path
            assert answer["remedy"]
    status, answer = world.decide("stages/production/promote", "admin")
    assert f"`lab promote {MODEL} --to production --pull-request`" in answer["remedy"]
    body: dict[str, Any] = {"stages": {}, "commit": commit(9)}
    assert world.decide("stages", "trainer", **body)[0] == 403
    body["stages"] = {"moon": 1, "canary": "latest"}
    status, answer = world.decide("stages", "admin", **body)
    assert status == 400
    assert "stages.moon" in answer["error"]
    assert "stages.canary: Input should be a valid integer" in answer["error"]
    assert served(world) == before


def test_a_commit_is_done_once_and_its_revert_is_a_rollback(world: World, versions: list[str]) -> None:
    first, second, third = versions
    plan = world.read(f"plan?production={second}&canary={third}")["stages"]
    assert [plan[stage]["did"] for stage in ("staging", "canary", "production")] == [None, "promoted", "promoted"]
    assert plan["production"]["before"] == first
    assert plan["production"]["compared"]["version"] == int(first)
    assert plan["production"]["compared"]["difference"] == pytest.approx(2 / ROWS)
    assert served(world) == {"production": first}

    answer = settle(world, 2, production=second, canary=third)
    assert {one["refused"] for one in answer["stages"].values()} == {""}
    assert served(world) == {"production": second, "canary": third}
    move, *_ = world.read("history?stage=production")["history"]
    assert (move["did"], move["version"], move["by"]) == ("promoted", second, "admin")
    assert move["git"] == {"commit": commit(2), "pull_request": 2, "author": "ada"}
    told = len(world.read("history")["history"])
    # The job again, and the next commit that changes no stage.
    for number in (2, 3):
        again = settle(world, number, production=second, canary=third)
        assert {one["did"] for one in again["stages"].values()} == {None}
    assert len(world.read("history")["history"]) == told
    assert world.read("stages")["git"]["commit"] == commit(3)

    # The version before is worse, and served already: a revert is not compared.
    settle(world, 4, production=first)
    assert served(world) == {"production": first}
    moves = {one["stage"]: one["did"] for one in world.read("history?count=2")["history"]}
    assert moves == {"production": "rolled back", "canary": "withdrawn"}


def test_the_gate_refuses_all_of_a_commit_or_nothing(world: World, versions: list[str]) -> None:
    before, history = served(world), world.read("history")
    bad = world.run()
    assert not world.evaluate(bad, 40)["passed"]
    made = world.made("POST", "model-versions/create", "promotion", name=MODEL, source=f"runs:/{bad}/model", run_id=bad)
    sneaked = made["model_version"]["version"]
    for stages in ({"production": sneaked}, {"staging": versions[2], "production": "999"}):
        plan = world.read("plan?" + "&".join(f"{stage}={version}" for stage, version in stages.items()))["stages"]
        number = stages["production"]
        reason = f"production: {MODEL} has no version {number} that has passed the gate"
        assert plan["production"]["refused"] == reason
        answer = settle(world, 5, status=409, **stages)
        assert answer["error"] == reason
    assert (served(world), world.read("history")) == (before, history)
    assert world.read("plan?production=newest")["stages"]["production"]["version"] == versions[2]


def test_who_comes_late_with_an_older_commit_is_refused(world: World, versions: list[str]) -> None:
    late = world.read("stages")["git"]["commit"]
    settle(world, 6, production=versions[1])
    answer = settle(world, 5, after=late, status=409, production=versions[0])
    assert answer["error"] == f"commit {commit(6)[:12]} of {MODEL} was done since"
    assert served(world)["production"] == versions[1]
    settle(world, 7, production=versions[0])


def test_a_rollback_goes_ahead_of_git_and_stays_until_git_says_something_else(
    decided: Decided, world: World, versions: list[str]
) -> None:
    first, second, third = versions
    settle(world, 10, production=second)
    status, answer = world.decide("stages/production/rollback", "admin", ahead_of_git=True, incident="wrong-digits")
    assert (status, answer["version"]) == (200, first)
    assert world.read("stages")["git"]["said"]["production"] == {"version": int(second), "ahead": True}
    # Other merges come first: they do not bring the bad version back, and change what else they say.
    answer = settle(world, 11, production=second, staging=third)
    assert answer["stages"]["production"]["kept"]
    decided.restart()
    settle(world, 12, production=second, staging=third)
    assert served(world) == {"production": first, "staging": third}
    # The revert, for which nothing is left to do.
    answer = settle(world, 13, production=first, staging=third)
    assert {one["did"] for one in answer["stages"].values()} == {None}
    assert world.read("stages")["git"]["said"]["production"] == {"version": int(first), "ahead": False}
    # And what was rolled back can be proposed again.
    settle(world, 14, production=second)
    assert served(world) == {"production": second}
    settle(world, 15, production=first)


def test_a_service_that_is_killed_in_the_middle_has_done_all_or_nothing(
    decided: Decided, world: World, versions: list[str]
) -> None:
    """It has asked MLflow to move an alias, and hears no answer."""
    before = served(world)
    server = decided.tracking.process
    assert server
    body = {
        "stages": {"staging": int(versions[2]), "production": int(versions[1])}, "commit": commit(20),
        "after": world.read("stages")["git"]["commit"],
    }  # fmt: skip
    decided.stack.postgres.psql(
        "create function held() returns trigger language plpgsql as 'begin perform pg_sleep(60); return new; end'"
    )
    decided.stack.postgres.psql(
        "create trigger held before insert on promotion.moves for each row execute function held()"
    )
    asking = threading.Thread(target=lambda: suppressed(world, body))
    asking.start()
    try:
        # Its first alias has moved by now, and its transaction is open.
        wait_for(lambda: world.aliases().get("staging") == versions[2], "the first alias moves", 60)
        decided.promotion.kill()
    finally:
        asking.join(60)
        decided.stack.postgres.psql(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like '%promotion.moves%'"
            " and pid <> pg_backend_pid()"
        )
        decided.stack.postgres.psql("drop function held() cascade")
    decided.restart()
    assert served(world) == before
    assert world.decide("stages", "admin", **body)[0] == 200
    assert served(world) == {"staging": versions[2], "production": versions[1]}
    settle(world, 21, production=versions[0])


def suppressed(world: World, body: dict[str, Any]) -> None:
    try:
        world.decide("stages", "admin", **body)
    except OSError:
        return


def test_without_the_setting_a_commit_says_nothing(decided: Decided, versions: list[str]) -> None:
    world = decided.world
    assert world.read("stages")["git"] is None
    body: dict[str, Any] = {"stages": {"production": int(versions[1])}, "commit": commit(30)}
    status, answer = world.decide("stages", "admin", **body)
    assert (status, answer["error"]) == (409, f"stages of {MODEL} are not set in Git")
    assert world.promote("production", versions[1])["version"] == versions[1]
    assert world.decide("stages/production/rollback", ahead_of_git=True)[1]["version"] == versions[0]
