"""The workflows: valid for GitHub's schema, without logic of their own, and with no more rights than they need."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.main import get_command

from cli.app import app, hoist_globals
from tests.cli.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: path for path in sorted(FOLDER.iterdir())}
CHECKOUT = "check out"
RIGHTS = {
    "check": {"contents": "read"},
    "preview": {"contents": "read", "pull-requests": "write"},
    "deploy": {"contents": "read", "pull-requests": "read"},
    "drift": {"contents": "read", "issues": "write"},
    "clean-up": {"contents": "read", "pull-requests": "read"},
    "environment": {"contents": "read", "pull-requests": "write"},
    "models": {"contents": "read"},
    "images": {"contents": "write", "pull-requests": "write"},
}
workflow = pytest.mark.parametrize("name", WORKFLOWS)


def load(name: str) -> dict[str, Any]:
    content: dict[Any, Any] = yaml.safe_load(WORKFLOWS[name].read_text())
    # `on` is true for YAML 1.1.
    return {("on" if key is True else str(key)): value for key, value in content.items()}


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in load(name)["jobs"].values() for step in job["steps"]]


def test_they_are_those_that_are_wanted() -> None:
    assert set(WORKFLOWS) == set(RIGHTS)


def test_each_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    checked = subprocess.run([*command, *map(str, WORKFLOWS.values())], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@workflow
def test_each_does_nothing_but_call_lab(name: str) -> None:
    """Logic is in tested code; nothing of an event, and no secret, gets into a command line."""
    first, *others = steps(name)
    assert first["name"] == CHECKOUT
    assert not any("uses" in step for step in steps(name)), "actions of others would see the job's token"
    runs = [step["run"] for step in others]
    assert runs
    for run in runs:
        words = shlex.split(run)
        assert words[0] == "./lab"
        assert "${{" not in run
        assert "\n" not in run.strip()
        command: Any = get_command(app)
        for word in [word for word in hoist_globals(words[1:]) if not word.startswith("-")]:
            command = command.commands[word]


def test_all_check_out_alike_and_leave_nothing_of_the_token(tmp_path: Path) -> None:
    """Run as a job runs it, on what an earlier job has left, while the forge starts anew."""
    (step,) = {json.dumps(steps(name)[0]) for name in WORKFLOWS}
    origin, work = tmp_path / "lab" / "cluster", tmp_path / "work"
    origin.mkdir(parents=True)
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@lab.internal"]
    for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message=one"]):
        subprocess.run([*git, *words], check=True)
    (origin / "settings").write_text("new")
    for words in (["add", "."], ["commit", "--quiet", "--message=two"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    work.mkdir()
    (work / "left-by-another").write_text("")
    job = {"GITHUB_SERVER_URL": f"file://{tmp_path}", "GITHUB_REPOSITORY": "lab/cluster", "GITHUB_SHA": commit}
    content = json.loads(step)
    environment = {**os.environ, **job, **content["env"], "TOKEN": "planted-token"}
    away = origin.rename(tmp_path / "away")
    with subprocess.Popen(
        ["bash", "-e", "-c", content["run"]], cwd=work, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "does not" in process.stderr.readline()
        away.rename(origin)
        process.stderr.read()
    assert process.returncode == 0
    assert {path.name for path in work.iterdir()} == {".git", "settings"}
    assert not any("planted" in path.read_text(errors="replace") for path in work.rglob("*") if path.is_file())


@workflow
def test_each_has_no_more_rights_than_it_needs(name: str) -> None:
    content = load(name)
    assert content["permissions"] == RIGHTS[name]
    assert all("permissions" not in job for job in content["jobs"].values())
    # It would run a fork's code with the repository's secrets.
    assert "pull_request_target" not in content["on"]
    secrets = "secrets." in WORKFLOWS[name].read_text()
    if "pull_request" in content["on"] and secrets:
        own = "github.event.pull_request.head.repo.full_name == github.repository"
        allowed = {own, f"github.event_name == 'schedule' || {own}"} if "schedule" in content["on"] else {own}
        assert all(job["if"] in allowed for job in content["jobs"].values())
    assert all("timeout-minutes" in job for job in content["jobs"].values())
    for job in content["jobs"].values():
        assert "secrets." not in str({key: value for key, value in job.items() if key != "steps"})
    for step in steps(name):
        assert "secrets." not in str({key: value for key, value in step.items() if key != "env"})


def test_deployments_run_one_at_a_time_and_nothing_else_takes_the_place_of_one_that_waits() -> None:
    """Forges keep one waiting job of a group, the newest."""
    groups = [load(name)["concurrency"] for name in WORKFLOWS if "concurrency" in load(name)]
    assert [one for one in groups if one["group"] == "deploy"] == [{"group": "deploy", "cancel-in-progress": False}]
    assert load("deploy")["concurrency"]["group"] == "deploy"


def test_an_environment_is_not_destroyed_while_it_is_brought_up() -> None:
    group = {"group": "environment-${{ github.event.pull_request.number }}", "cancel-in-progress": False}
    assert load("environment")["concurrency"] == load("clean-up")["concurrency"] == group


@pytest.mark.parametrize("name", ["preview", "environment"])
def test_it_follows_every_push_and_every_label(name: str) -> None:
    assert set(load(name)["on"]["pull_request"]["types"]) == {
        "opened",
        "synchronize",
        "reopened",
        "labeled",
        "unlabeled",
    }
