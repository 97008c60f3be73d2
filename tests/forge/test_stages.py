"""Stages that are set in Git, from a pull request to production's answers and back: every part is the real one.

The forge in the box and its jobs, the promotion service with MLflow and PostgreSQL, the API server, the rollout
controller, the gateway and model servers. Only `./lab` in the repository is a stub: its `ci gate` and `ci stages` are
the real ones, but for a stack's state; its other steps do nothing. Needs root.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cli import models, promotion, stages
from cli.errors import LabError
from cli.stage_file import Stages, parse, path_of
from cli.workloads import Platform, Stage
from infra.manifests import DOMAIN
from tests.engine.harness import wait_for
from tests.forge.box import REPOSITORY, Box
from tests.forge.front import front
from tests.forge.pulls import ROOT, SECONDS, WORKFLOWS, approve, checked, comments, merge, propose, states
from tests.images.decided import decided
from tests.images.promotion import CALLERS, MODEL
from tests.images.rollback import Cluster, Load
from tests.images.services import images, runtime, store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import typer

    from tests.images.decided import Decided

__all__ = ["decided", "images", "runtime", "store"]
pytestmark = [pytest.mark.slow_forge, pytest.mark.timeout(2400)]
PEOPLE = ("admin", "ada", "grace")
FILE = path_of(MODEL)
MOST_SECONDS = 15
"""From `lab rollback` to the first answer of the old version: issue 19."""
LAB = """#!{python}
import json, pathlib, sys
sys.path.insert(0, {root!r})
from cli import stages
from cli.errors import LabError, report
from cli.forge import Forge, Job
from cli.stage_file import of_models
from cli.workloads import Platform

verb = [word for word in sys.argv[1:] if not word.startswith("-")]
platform = Platform(**json.loads(pathlib.Path({platform!r}).read_text()))
try:
    if verb == ["ci", "check"]:
        sys.exit(pathlib.Path("broken").exists())
    if verb == ["ci", "gate"]:
        job = Job.current()
        forge = Forge(job)
        files = {{str(path): path.read_text() for path in pathlib.Path().glob("models/*/stages.yaml")}}
        if changes := stages.changed(job, forge, of_models(files)):
            stages.check(platform, job, forge, changes)
    if verb == ["ci", "stages"]:
        job = Job.current()
        stages.settle(platform, job, Forge(job))
except LabError as error:
    report(error)
    sys.exit(1)
"""


class World:
    """Everything, and what people do with it."""

    def __init__(self, box: Box, cluster: Cluster, platform: Platform, clone: Path) -> None:
        self.box, self.cluster, self.platform, self.clone = box, cluster, platform, clone

    def push(self) -> None:
        """The repository's first push, with the workflows as they are."""
        folder = self.clone / ".github/workflows"
        folder.mkdir(parents=True)
        for name in ("check", "preview", "deploy"):
            shutil.copy(WORKFLOWS / f"{name}.yaml", folder)
        told = self.box.folder / "platform.json"
        told.write_text(json.dumps(asdict(self.platform)))
        lab = self.clone / "lab"
        lab.write_text(LAB.format(python=sys.executable, root=str(ROOT), platform=str(told)))
        lab.chmod(0o755)
        for words in (
            ["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "--message=Start"],
            ["remote", "add", "origin", f"{self.box.url}/{REPOSITORY}.git"], ["push", "--quiet", "origin", "main"],
        ):  # fmt: skip
            done = self.box.git(self.clone, *words)
            assert done.returncode == 0, done.stderr
        wait_for(lambda: self.box.ask("GET", f"/repos/{REPOSITORY}").body["has_actions"], "workflows", SECONDS)

    def promote(self, stage: Stage, version: str, share: int | None = None) -> int:
        """`lab promote --pull-request`, as ada; the number of the pull request, whose checks have ended well."""
        before = {one["number"] for one in self.pulls()}
        models.promote(context(), MODEL, stage, version, share, None, True, "ada")
        number: int
        (number,) = {one["number"] for one in self.pulls()} - before
        self.until(number, check="success", preview="success")
        return number

    def pulls(self, state: str = "open") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.box.ask("GET", f"/repos/{REPOSITORY}/pulls?state={state}").body
        return found

    def until(self, number: int, **wanted: str) -> None:
        wait_for(
            lambda: checked(self.box, number, **wanted), f"checks of {number}: {states(self.box, number)}", SECONDS
        )

    def merge(self, number: int) -> str:
        """Merge what grace has approved; the commit."""
        approve(self.box, number)
        assert merge(self.box, number, "grace") == 200
        made: str = self.box.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body["merge_commit_sha"]
        return made

    def deployed(self, commit: str, conclusion: str = "success") -> str:
        """Wait for the end of the deployment of a merge; what it said."""
        wait_for(lambda: self.box.job("deploy", commit).get("status") == "completed", "the deployment", 600)
        job = self.box.job("deploy", commit)
        log = self.box.text(f"/repos/{REPOSITORY}/actions/jobs/{job['id']}/logs")
        assert job["conclusion"] == conclusion, log
        return log

    def file(self) -> Stages:
        """The file on `main`."""
        assert self.box.git(self.clone, "fetch", "--quiet", "origin").returncode == 0
        return parse(self.box.git(self.clone, "show", f"origin/main:{FILE}").stdout, FILE)

    def history(self, count: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.decided.world.read(f"history?count={count}")["history"]
        return found


def context() -> typer.Context:
    return cast("typer.Context", SimpleNamespace(obj=None))


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with Box() as started:
        started.jobs = 2
        yield started


@pytest.fixture(scope="module")
def world(box: Box, decided: Decided, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(decided, tmp_path_factory.mktemp("plane")) as cluster:
        servers = {"forge": box.url, "promotion": decided.world.promotion, "tracking": decided.world.tracking}
        with front(servers) as (port, authority):
            platform = Platform(
                profile="ci", domain=DOMAIN, address="127.0.0.1", port=port, authority=authority,
                credentials={
                    "forge": {name: box.passwords[name] for name in PEOPLE},
                    "tracking": {"username": "admin", "password": CALLERS["admin"]},
                },
                kubeconfig=cluster.plane.kubeconfig.read_text(),
            )  # fmt: skip
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Platform, "of", lambda *_: platform)
                made = World(box, cluster, platform, tmp_path_factory.mktemp("clone"))
                made.push()
                (decided.stack.runtime.work / "gates/decider").write_text("git\n")
                yield made


@pytest.fixture(scope="module")
def versions(world: World) -> list[str]:
    """Two that the gate has passed; production serves the first, which no file says yet."""
    made = [world.cluster.register(label) for label in (1, 2)]
    decider = world.cluster.decided.stack.runtime.work / "gates/decider"
    decider.unlink()
    world.cluster.promote(made[0])
    decider.write_text("git\n")
    return made


def test_from_a_pull_request_to_production_and_back(
    world: World, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = versions
    with pytest.raises(LabError, match=f"stages of {MODEL} are set in Git") as refused:
        models.promote(context(), MODEL, Stage.production, second)
    assert "--pull-request" in str(refused.value.remedy)

    number = world.promote(Stage.production, second)
    output = capsys.readouterr().out
    assert f"Pull request {number}: {MODEL}: production serves version {second}\n" in output
    body = world.box.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body
    assert body["user"]["login"] == "ada"
    (comment,) = comments(world.box, number)
    for text in (body["body"], comment):
        assert f"production serves version {second} in place of {first}" in text
        assert f"| figure | version {second} | version {first}, in production |" in text
        assert "| accuracy | 1 | 1 |" in text
        assert f"than production's version {first}; with 95% confidence, it is at most" in text
        assert f"https://tracking.{DOMAIN}:" in text
        assert f"/#/models/{MODEL}/versions/{second})" in text
        assert "/runs/" in text
    assert "The gate passes it." in comment

    # The same again is the same pull request, and nothing is served that is not merged.
    models.promote(context(), MODEL, Stage.production, second, None, None, True, "ada")
    assert f"Pull request {number}:" in capsys.readouterr().out
    assert world.cluster.version("production") == first

    began = time.monotonic()
    commit = world.merge(number)
    wait_for(lambda: world.cluster.version("production") == second, "production is to serve it", 120)
    moved = time.monotonic() - began
    log = world.deployed(commit)
    assert f"production serves version {second} of {MODEL}." in log
    (move,) = world.history()
    assert (move["did"], move["version"]) == ("promoted", second)
    assert move["git"] == {"commit": commit, "pull_request": number, "author": "ada"}
    promotion.stages(context(), MODEL)
    assert f"ada (#{number}, commit {commit[:12]})" in capsys.readouterr().out
    models.promote(context(), MODEL, Stage.production, second, None, None, True, "ada")
    assert f"production of {MODEL} is version {second} in Git already." in capsys.readouterr().out
    with capsys.disabled():
        print(f"\nstages in Git: {moved:.1f} s from the merge to the decision")


def test_a_rollback_is_at_once_and_git_follows(
    world: World, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = versions
    wait_for(lambda: world.cluster.serves("warm", first), "the version before is warm", 180)
    with Load(world.cluster.port) as load:
        wait_for(lambda: load.has(second), "production answers", 60)
        began = time.monotonic()
        models.rollback(context(), MODEL, Stage.production, "wrong-digits", "ada")
        wait_for(partial(load.has, first, began), "the old version answers", 60)
        answered = load.first(first, began)
    with capsys.disabled():
        print(f"\nstages in Git: {answered:.2f} s from `lab rollback` to the first answer of the old version")
    assert answered <= MOST_SECONDS
    output = capsys.readouterr().out
    assert f"production serves version {first} of {MODEL}." in output
    (pull,) = world.pulls()
    assert pull["title"] == f"Revert: {MODEL}: production serves version {first}"
    assert "resolves the incident `wrong-digits`" in pull["body"]
    assert world.file().versions["production"] == int(second)
    promotion.stages(context(), MODEL)
    assert f"production was rolled back; Git names version {second} until" in capsys.readouterr().out

    # What is merged before the revert does not bring the bad version back.
    other = propose(world.box, world.clone, "other", {"README.md": "Another change.\n"})
    world.until(other, check="success", preview="success")
    log = world.deployed(world.merge(other))
    assert f"production of {MODEL} stays at version {first}" in log
    assert world.cluster.version("production") == first

    number = pull["number"]
    assert world.box.ask("POST", f"/repos/{REPOSITORY}/pulls/{number}/update").status == 200
    world.until(number, check="success", preview="success")
    moves = world.history(100)
    log = world.deployed(world.merge(number))
    assert f"production serves version {first} of {MODEL}." in log
    assert world.file().versions["production"] == int(first)
    assert world.history(100) == moves
    assert [one["did"] for one in moves[:2]] == ["rolled back", "promoted"]


def test_a_rollback_without_its_pull_request_gets_it_and_goes_no_further(
    world: World, versions: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = versions
    world.deployed(world.merge(world.promote(Stage.production, second)))

    def away(*_: object, **__: object) -> Any:
        raise LabError("the forge does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "repository_of", away)
        with pytest.raises(LabError, match="Git still names another version for production") as failed:
            models.rollback(context(), MODEL)
    assert f"`lab rollback {MODEL} --stage production` again" in str(failed.value.remedy)
    assert world.cluster.version("production") == first
    assert world.pulls() == []
    before = world.history(100)
    models.rollback(context(), MODEL)
    assert "was rolled back to version" in capsys.readouterr().out
    assert world.history(100) == before
    (pull,) = world.pulls()
    world.until(pull["number"], check="success", preview="success")
    world.deployed(world.merge(pull["number"]))
    assert world.file().versions["production"] == int(first)


def test_a_version_without_a_passed_gate_is_red(world: World, versions: list[str]) -> None:
    unknown = "999"
    with pytest.raises(LabError, match=f"has no version {unknown} that has passed the gate"):
        models.promote(context(), MODEL, Stage.production, unknown, None, None, True, "ada")
    assert world.pulls() == []
    text = Stages().changed("production", int(unknown)).text(MODEL)
    number = propose(world.box, world.clone, "by-hand", {FILE: text})
    world.until(number, check="success", preview="failure")
    (comment,) = comments(world.box, number)
    assert f"**refused:** production: {MODEL} has no version {unknown} that has passed the gate" in comment
    assert "**Do not merge this:**" in comment
    approve(world.box, number)
    assert {merge(world.box, number, user) for user in PEOPLE} == {405}
    closed = world.box.ask("PATCH", f"/repos/{REPOSITORY}/pulls/{number}", {"state": "closed"}, user="ada")
    assert closed.status == 201
    assert world.cluster.version("production") == versions[0]


def test_a_job_that_was_killed_is_finished_by_the_next_and_the_canary_gets_its_share(
    world: World, versions: list[str]
) -> None:
    first, second = versions
    number = world.promote(Stage.canary, second, 20)
    world.cluster.kubelet.held.add("canary")
    commit = world.merge(number)
    # It has decided, and waits for the canary's pod.
    wait_for(lambda: world.cluster.version("canary") == second, "the canary is to serve it", 120)
    world.box.kill(world.box.job("deploy", commit))
    world.cluster.kubelet.held.clear()
    wait_for(lambda: world.box.job("deploy", commit).get("status") == "completed", "the forge knows", SECONDS)
    assert world.box.job("deploy", commit)["conclusion"] == "failure"
    assert share(world) is None
    moves = world.history(100)
    other = propose(world.box, world.clone, "next", {"README.md": "The next change.\n"})
    world.until(other, check="success", preview="success")
    log = world.deployed(world.merge(other))
    assert f"The canary of {MODEL} gets 20 % of production's requests." in log
    assert share(world) == "20"
    assert world.history(100) == moves
    # To production: the share ends with it.
    world.deployed(world.merge(world.promote(Stage.production, second)))
    assert share(world) is None
    assert world.file() == Stages().changed("canary", int(second)).changed("production", int(second))
    assert world.cluster.version("production") == second
    assert first not in {world.cluster.version("production"), world.cluster.version("canary")}


def share(world: World) -> str | None:
    """Of the canary, as its route says."""
    route = world.cluster.plane.get("HTTPRoute", f"serving/{MODEL}-canary", "gateway.networking.k8s.io/v1")
    return route["metadata"]["annotations"]["ml-cluster.dev/share"] if route else None
