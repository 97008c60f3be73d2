"""Stages that are set in Git, on a real cluster: pull request, gate, merge, rollback and its revert.

Needs what test_delivery.py needs: the families forge and forge-runner in the bundle, and a package index. About 40
minutes on idle cores: every pull request is checked, and every merge deployed.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cli.stage_file import Stages, parse, path_of
from tests.e2e.delivery import PEOPLE, Delivery, delivered, wait
from tests.e2e.load import Load
from tests.forge.box import REPOSITORY
from tests.forge.pulls import comments, merge, propose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.harness import Cloud

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(7200)]
STACK = "e2e-stages"
MODEL = "digits"
MOST_SECONDS = 15
"""From the start of `lab rollback` to the old version's first answer: issue 19."""
AS_ADA = ("--pull-request", "--as", "ada")


@pytest.fixture(scope="module")
def delivery(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    """A stack with a forge whose stages are set in Git, as `lab up` makes it of a clone; its runner runs."""
    settings = {"profile": "lab", "promotion": "git"}
    with delivered(cloud, tmp_path_factory.mktemp(STACK), STACK, settings, workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def versions(delivery: Delivery) -> list[str]:
    """Two that the gate passes."""
    made = [delivery.lab.run("train", MODEL, "--seed", seed, "--json").json for seed in ("0", "7")]
    return [str(one["version"]) for one in made]


def pulls(delivery: Delivery) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = delivery.forge.ask("GET", f"/repos/{REPOSITORY}/pulls?state=open").body
    return found


def promote(delivery: Delivery, version: str) -> float:
    """By pull request, from the command to the end of the deployment; seconds from the merge to the new version."""
    delivery.lab.run("promote", MODEL, "--to", "production", "--version", version, *AS_ADA)
    (pull,) = pulls(delivery)
    assert f"production serves version {version}" in pull["title"]
    assert "accuracy" in pull["body"]
    delivery.until(pull["number"], check="success", preview="success")
    assert "The gate passes it." in "".join(comments(delivery.forge, pull["number"]))
    began = time.monotonic()
    commit = delivery.merge(pull["number"])
    wait(lambda: answers_with(delivery) == version, f"version {version} answers")
    took = time.monotonic() - began
    assert f"production serves version {version} of {MODEL}." in delivery.deployed(commit)
    (move,) = delivery.lab.run("stages", MODEL, "--json").json["history"][:1]
    assert move["git"] == {"commit": commit, "pull_request": pull["number"], "author": "ada"}
    return took


def answers_with(delivery: Delivery) -> str | None:
    """The version that answers for production; None where nothing does."""
    done = delivery.lab.run("predict", MODEL, "models/digits/sample.json", status=None)
    return str(json.loads(done.stdout)["model_version"]) if done.status == 0 else None


def test_production_is_what_main_says(
    delivery: Delivery, versions: list[str], record_property: Callable[[str, object], None]
) -> None:
    first, second = versions
    delivery.lab.refuse(
        "promote", MODEL, "--to", "production", "--version", first, status=1,
        saying=f"stages of {MODEL} are set in Git",
    )  # fmt: skip
    took = [promote(delivery, version) for version in (first, second)]
    record_property("figures", "stages in Git: from the merge to the new version's first answer "
                    f"{' and '.join(f'{seconds:.0f} s' for seconds in took)}")  # fmt: skip


def test_a_rollback_waits_for_no_job_and_its_revert_changes_nothing(
    delivery: Delivery, versions: list[str], record_property: Callable[[str, object], None]
) -> None:
    first, second = versions
    platform = delivery.stack.platform

    def is_warm() -> bool:
        warm = platform.kept_warm(MODEL).get("production", {})
        return bool(warm.get("version") == first and warm["ready"])

    wait(is_warm, "the version before is warm")
    with Load(delivery.stack) as load:
        wait(lambda: any(one.version == second for one in load.answers), "production answers")
        began = time.monotonic()
        output = delivery.lab.run("rollback", MODEL, "--as", "ada").stdout
        wait(lambda: any(one.version == first and one.began >= began for one in load.answers), "the old one answers")
    assert load.faults == []
    answered = (
        min(one.began + one.seconds for one in load.answers if one.version == first and one.began >= began) - began
    )
    assert answered <= MOST_SECONDS
    (pull,) = pulls(delivery)
    assert f"Pull request {pull['number']}: Revert: {MODEL}: production serves version {first}" in output
    delivery.until(pull["number"], check="success", preview="success")
    before = delivery.lab.run("stages", MODEL, "--json").json["history"]
    commit = delivery.merge(pull["number"])
    delivery.deployed(commit)
    after = delivery.lab.run("stages", MODEL, "--json").json
    assert after["history"] == before
    assert after["git"]["commit"] == commit
    text = delivery.forge.git(delivery.forge.clone(delivery.folder / "reader"), "show", f"HEAD:{path_of(MODEL)}").stdout
    assert parse(text, "main").versions["production"] == int(first)
    record_property("figures", f"stages in Git: {answered:.1f} s from `lab rollback` to the old version's first answer")


def test_a_version_without_a_passed_gate_is_red(delivery: Delivery, versions: list[str]) -> None:
    assert versions
    clone = delivery.forge.clone(delivery.folder / "ada")
    text = Stages().changed("production", 999).text(MODEL)
    number = propose(delivery.forge, clone, "no-such-version", {path_of(MODEL): text})
    delivery.until(number, preview="failure")
    wait(partial(comments, delivery.forge, number), "the comment")
    assert f"{MODEL} has no version 999 that has passed the gate" in "".join(comments(delivery.forge, number))
    assert {merge(delivery.forge, number, user) for user in (*PEOPLE, "admin")} == {405}
    assert answers_with(delivery) == versions[0]
