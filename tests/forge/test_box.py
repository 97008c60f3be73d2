"""Pull requests on the forge in the box: the repository's workflows, on the real programs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from tests.engine.harness import wait_for
from tests.forge.box import REPOSITORY, SERVER, Box, end, resident
from tests.forge.pulls import SECONDS, WORKFLOWS, approve, checked, comments, commit, merge, propose, states

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow_forge
ROOT = Path(__file__).parents[2]
ASK = """\
name: ask
on: [pull_request]
jobs:
  ask:
    runs-on: ubuntu-latest
    steps:
@CHECKOUT@
      - run: ./lab ci ask
        env:
          GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}
          CLOUDS_YAML: ${{ secrets.CLOUDS_YAML }}
"""


@pytest.fixture(scope="module")
def marks(box: Box) -> Path:
    """Where jobs say what they do; from here on there are pods for them."""
    box.jobs = 4
    folder = box.folder / "marks"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def clone(box: Box, marks: Path) -> Iterator[Path]:
    """A repository like this one, pushed as `lab up` does; `main` is protected then."""
    folder = Path(tempfile.mkdtemp(prefix="clone-"))
    assert box.ask("GET", f"/repos/{REPOSITORY}/branch_protections/main").status == 404
    shutil.copytree(WORKFLOWS, folder / ".github/workflows")
    # Of real jobs there is nothing to clean up and nothing to bring up.
    for name in ("clean-up", "environment"):
        (folder / f".github/workflows/{name}.yaml").unlink()
    stub = (ROOT / "tests/forge/stub.py").read_text().replace("@LAB@", str(ROOT / "lab")).replace("@MARKS@", str(marks))
    (folder / "stub.py").write_text(stub)
    (folder / "lab").write_text('#!/bin/sh\nexec python3 stub.py "$@"\n')
    (folder / "lab").chmod(0o755)
    (folder / "settings").write_text("three workers")
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        ["commit", "--quiet", "--message=Start"],
        ["remote", "add", "origin", f"{box.url}/{REPOSITORY}.git"],
        ["push", "--quiet", "origin", "main"],
    ):
        done = box.git(folder, *words)
        assert done.returncode == 0, done.stderr
    wait_for(
        lambda: box.ask("GET", f"/repos/{REPOSITORY}/branch_protections/main").status == 200, "protection", SECONDS
    )
    wait_for(lambda: box.ask("GET", f"/repos/{REPOSITORY}").body["has_actions"], "workflows", SECONDS)
    yield folder
    shutil.rmtree(folder)


def test_nobody_gets_in_without_a_password(box: Box) -> None:
    for path in ("/api/v1/repos/search", f"/{REPOSITORY}", f"/{REPOSITORY}.git/info/refs?service=git-upload-pack"):
        assert box.anonymously(path) in {401, 403, "/user/login"}, path
    assert box.ask("GET", "/user", user="eve").status == 401
    assert box.ask("GET", "/admin/users", user="ada").status == 403
    with urllib.request.urlopen(f"{box.url}/user/sign_up", timeout=30) as answer:
        assert 'name="user_name"' not in answer.read().decode()


def test_figures_are_for_who_knows_the_token(box: Box) -> None:
    token = (box.folder / "secrets/metrics-token").read_text()
    for given, status in (("", 401), ("Bearer wrong", 401), (f"Bearer {token}", 200)):
        told = urllib3.request("GET", f"{box.url}/metrics", headers={"Authorization": given} if given else {})
        assert told.status == status
    assert b"gitea_repositories" in told.data


def test_what_the_start_needed_is_gone_after_it(box: Box) -> None:
    wait_for(lambda: not (box.folder / "setup/token").exists(), "the end of the token", SECONDS)
    wait_for(lambda: box.ask("GET", "/users/admin/tokens").body == [], "the end of the token", SECONDS)
    assert (box.folder / "run/app.ini").stat().st_mode & 0o777 == 0o600
    logs = "".join(path.read_text(errors="replace") for path in box.folder.glob("*.log"))
    told = [*box.passwords.values(), *(path.read_text() for path in (box.folder / "secrets").iterdir())]
    assert not [secret for secret in told if secret in logs]


def test_a_pull_request_is_checked_commented_once_and_merged_after_that(box: Box, clone: Path) -> None:
    number = propose(box, clone, "more", {"settings": "four workers"})
    assert merge(box, number) == 405
    began = time.monotonic()
    wait_for(lambda: checked(box, number, check="success", preview="success"), "the checks", SECONDS)
    print(f"two checks: {time.monotonic() - began:.1f} s")
    (text,) = comments(box, number)
    assert "four workers" in text
    commit(box, clone, "more", {"settings": "five workers"})
    wait_for(lambda: checked(box, number, check="success", preview="success"), "the checks", SECONDS)
    (text,) = comments(box, number)
    assert "five workers" in text
    assert "four workers" not in text
    # Somebody else has to agree, as there is somebody else.
    assert merge(box, number) == 405
    approve(box, number)
    assert merge(box, number) == 200


def test_the_gitops_controller_reads_the_repository_and_writes_nothing(box: Box, clone: Path) -> None:
    listed = box.git(clone, "ls-remote", "origin", "refs/heads/main", user="gitops")
    assert listed.stdout.endswith("refs/heads/main\n"), listed.stderr
    refused = box.git(clone, "push", "origin", "HEAD:refs/heads/of-the-controller", user="gitops")
    assert refused.returncode
    assert box.ask("GET", f"/repos/{REPOSITORY}/branches/of-the-controller").status == 404
    assert box.ask("GET", "/admin/users", user="gitops").status == 403


def test_what_fails_the_check_is_not_merged_by_anybody(box: Box, clone: Path) -> None:
    number = propose(box, clone, "bad", {"broken": ""})
    wait_for(lambda: checked(box, number, check="failure", preview="success"), "the checks", SECONDS)
    approve(box, number)
    assert {merge(box, number, user) for user in ("ada", "admin")} == {405}
    for user in ("ada", "admin"):
        done = box.git(clone, "push", "origin", "HEAD:main", user=user)
        assert done.returncode, f"{user} pushed to main"
        assert "protected branch" in done.stderr
    box.ask("PATCH", f"/repos/{REPOSITORY}/pulls/{number}", {"state": "closed"})


def test_deployments_run_one_at_a_time_and_the_next_finishes_what_a_killed_one_began(
    box: Box, clone: Path, marks: Path
) -> None:
    wait_for(box.is_quiet, "the jobs of earlier merges", SECONDS)
    (marks / "hold").touch()
    commits = []
    for branch in ("one", "two"):
        number = propose(box, clone, branch, {branch: ""})
        wait_for(partial(checked, box, number, check="success", preview="success"), "checks", SECONDS)
        approve(box, number)
        assert merge(box, number) == 200
        commits.append(box.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body["merge_commit_sha"])
        if branch == "one":
            wait_for((marks / f"began-{commits[0]}").exists, "the first deployment", SECONDS)
    # The second waits, though there are pods: one of them has done the check of the same commit.
    wait_for(lambda: box.job("check", commits[1]).get("status") == "completed", "the check", SECONDS)
    assert box.job("deploy", commits[1])["status"] == "waiting"
    assert not (marks / f"began-{commits[1]}").exists()
    box.kill(box.job("deploy", commits[0]))
    began = time.monotonic()
    wait_for((marks / f"began-{commits[1]}").exists, "the second deployment", SECONDS)
    print(f"after a killed deployment the next began in {time.monotonic() - began:.0f} s")
    (marks / "hold").unlink()
    wait_for((marks / f"ended-{commits[1]}").exists, "the second deployment's end", SECONDS)
    assert not (marks / f"ended-{commits[0]}").exists()


def test_a_fork_gets_no_runner_before_somebody_agrees_and_no_secret_after(box: Box, clone: Path) -> None:
    secret = {"data": "planted-cloud-secret"}
    assert box.ask("PUT", f"/repos/{REPOSITORY}/actions/secrets/CLOUDS_YAML", secret).status in {201, 204}
    # Somebody whom the administrator lets read, by hand.
    eve = {"username": "eve", "email": "eve@lab.internal", "password": box.passwords["eve"]}
    assert box.ask("POST", "/admin/users", {**eve, "must_change_password": False}).status == 201
    assert box.ask("PUT", f"/repos/{REPOSITORY}/collaborators/eve", {"permission": "read"}).status == 204
    assert box.ask("POST", f"/repos/{REPOSITORY}/forks", {"name": "fork"}, user="eve").status == 202
    work = clone.parent / f"{clone.name}-fork"
    assert box.git(clone.parent, "clone", "--quiet", f"{box.url}/eve/fork.git", str(work), user="eve").returncode == 0
    checkout = re.search(r"      - name: check out\n(?:        .*\n)+", (WORKFLOWS / "check.yaml").read_text())
    assert checkout
    (work / ".github/workflows/ask.yaml").write_text(ASK.replace("@CHECKOUT@\n", checkout[0]))
    for words in (["add", "."], ["commit", "--quiet", "--message=ask"], ["push", "--quiet", "origin", "HEAD:ask"]):
        done = box.git(work, *words, user="eve")
        assert done.returncode == 0, done.stderr
    before = {job["id"] for job in box.runs()}
    request = {"title": "from a fork", "head": "eve:ask", "base": "main"}
    number = box.ask("POST", f"/repos/{REPOSITORY}/pulls", request, user="eve").body["number"]

    def new() -> list[dict[str, Any]]:
        return [job for job in box.runs() if job["id"] not in before]

    wait_for(lambda: len(new()) >= 2, "the fork's jobs", SECONDS)
    assert {job["status"] for job in new()} <= {"waiting", "completed"}, new()
    assert not [job for job in new() if job.get("runner_name")]
    shutil.rmtree(work)
    _approve_runs(box, {job["run_id"] for job in new()})
    (asked,) = [job for job in new() if job["name"] == "ask"]
    wait_for(lambda: _job(box, asked["id"])["status"] == "completed", "the fork's job", SECONDS)
    log = box.text(f"/repos/{REPOSITORY}/actions/jobs/{asked['id']}/logs")
    found = json.loads(re.findall(r"FOUND (\{.*\})", log)[-1])
    assert found["secrets"] == []
    assert found["push"] in {401, 403, 404}
    assert found["users"] in {401, 403}
    assert "planted-cloud-secret" not in log
    wait_for(box.is_quiet, "the fork's other jobs", SECONDS)
    assert {job["name"]: job["conclusion"] for job in new()} == {
        "ask": "success",
        "check": "success",
        "preview": "skipped",
    }
    box.ask("PATCH", f"/repos/{REPOSITORY}/pulls/{number}", {"state": "closed"})


def _job(box: Box, number: int) -> dict[str, Any]:
    job: dict[str, Any] = box.ask("GET", f"/repos/{REPOSITORY}/actions/jobs/{number}").body
    return job


def _approve_runs(box: Box, runs: set[int]) -> None:
    """Let a fork's jobs run, as the button on the page does."""
    jar = box.folder / "cookies"
    form = [
        "--silent",
        "--show-error",
        "--fail",
        "--cookie",
        str(jar),
        "--cookie-jar",
        str(jar),
        "--output",
        "/dev/null",
    ]
    login = f"user_name=admin&password={box.passwords['admin']}"
    subprocess.run(["curl", *form, "--data", "@-", f"{box.url}/user/login"], input=login.encode(), check=True)
    for number in runs:
        subprocess.run(
            ["curl", *form, "--data", "", f"{box.url}/{REPOSITORY}/actions/runs/{number}/approve"], check=True
        )


def test_a_jobs_token_is_for_its_repository_alone(box: Box, clone: Path) -> None:
    assert box.ask("POST", "/orgs/lab/repos", {"name": "other", "private": True, "auto_init": True}).status == 201
    checkout = re.search(r"      - name: check out\n(?:        .*\n)+", (WORKFLOWS / "check.yaml").read_text())
    assert checkout
    number = propose(box, clone, "ask", {".github/workflows/ask.yaml": ASK.replace("@CHECKOUT@\n", checkout[0])})
    wait_for(lambda: states(box, number).get("ask / ask (pull_request)") == "success", "the job", SECONDS)
    job = next(job for job in box.runs() if job["name"] == "ask")
    log = box.text(f"/repos/{REPOSITORY}/actions/jobs/{job['id']}/logs")
    found = json.loads(re.findall(r"FOUND (\{.*\})", log)[-1])
    assert found["own"] == 200
    assert found["other"] in {401, 403, 404}
    assert found["users"] in {401, 403}
    assert found["secrets"] == ["CLOUDS_YAML"]
    assert found["environment"] == []
    assert "planted-cloud-secret" not in log
    box.ask("PATCH", f"/repos/{REPOSITORY}/pulls/{number}", {"state": "closed"})


def test_it_comes_back_after_it_was_killed_and_says_what_it_takes(box: Box, clone: Path) -> None:
    print(f"gitea: {resident(box.server)} MiB, setup: {resident(box.setup)} MiB")
    end(box.server)
    began = time.monotonic()
    box.serve()
    print(f"answers again after {time.monotonic() - began:.1f} s")
    assert box.git(clone, "fetch", "--quiet", "origin", user="ada").returncode == 0


def test_a_user_who_is_taken_out_is_shut_out(box: Box, clone: Path) -> None:
    (box.folder / "users/grace").unlink()
    wait_for(lambda: box.ask("GET", "/user", user="grace").status in {401, 403}, "grace is out", SECONDS)
    assert box.git(clone, "fetch", "origin", user="grace").returncode


def test_a_changed_password_is_taken(box: Box) -> None:
    old, new = box.passwords["admin"], "0123456789abcdef0123456789abcdef"
    (box.folder / "users/admin").write_text(new)
    box.passwords["admin"] = new
    wait_for(lambda: box.ask("GET", "/user").status == 200, "the new password", SECONDS)
    box.passwords["admin"] = old
    assert box.ask("GET", "/user").status == 401
    box.passwords["admin"] = new


def test_the_settings_are_read(box: Box) -> None:
    """A misspelt section or key would change nothing."""
    known = subprocess.run([box.folder / "bin/gitea", "--version"], check=True, capture_output=True, text=True).stdout
    assert "1.27.3" in known
    assert "[cron.stop_zombie_tasks]" in (SERVER / "app.ini").read_text()
