"""`lab ci`: from a pull request's preview to what its merge does, as jobs run it, against a forge over HTTP."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cli.ci import check_all_settings
from cli.session import Session
from tests.cli.forge_server import TOKEN, Forge
from tests.cli.harness import ROOT, Lab, Outcome
from tests.engine.harness import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSPHRASE = "planted-passphrase"  # noqa: S105
CLOUDS_YAML = "clouds: {planted-cloud: {auth: {application_credential_secret: planted-cloud-secret}}}\n"
PROGRAM = """
import os, pathlib, stat, time
from pulumi.dynamic import *
WORLD = pathlib.Path({world!r})

class Files(ResourceProvider):
    def create(self, props):
        (WORLD / ("begun-" + props["name"])).touch()
        while (WORLD / ("hold-" + props["name"])).exists():
            time.sleep(0.01)
        (WORLD / props["name"]).write_text(props["text"])
        return CreateResult(props["name"], props)
    def read(self, id_, props):
        file = WORLD / (id_ or "none")
        return ReadResult(id_, dict(props, text=file.read_text())) if file.exists() else ReadResult("", dict())
    def diff(self, id_, olds, news):
        return DiffResult(changes=olds["text"] != news["text"])
    def update(self, id_, olds, news):
        (WORLD / id_).write_text(news["text"])
        return UpdateResult(news)
    def delete(self, id_, props):
        (WORLD / id_).unlink()

class File(Resource, module="blazar", name="Lease"):  # something whose deletion is a loss
    def __init__(self, name, text="", **options):
        super().__init__(Files(), name, dict(name=name, text=text), pulumi.ResourceOptions(**options))

"""


class Jobs:
    """A repository on a forge, and the jobs of its workflows."""

    def __init__(self, lab: Lab, forge: Forge) -> None:
        self.lab, self.forge = lab, forge
        self.world = lab.home / "world"
        self.world.mkdir()
        lab.env |= forge.environment | {"PULUMI_STACK": "dev", "CLOUDS_YAML": CLOUDS_YAML}

    def program(self, text: str) -> None:
        """What is checked out."""
        self.lab.write(PROGRAM.format(world=str(self.world)) + text + "\n")

    def event(self, content: dict[str, Any]) -> dict[str, str]:
        path = self.lab.home / "event.json"
        path.write_text(json.dumps(content))
        return {"GITHUB_EVENT_PATH": str(path)}

    def run(self, verb: str, *, status: int, **env: str) -> Outcome:
        outcome = self.lab.run("ci", verb, status=status, env=env)
        for planted in (TOKEN, PASSPHRASE, "planted-cloud-secret"):
            assert planted not in outcome.stdout + outcome.stderr
        return outcome

    def preview(self, number: int, *labels: str, head: str = "", status: int = 0) -> str:
        """The comment that a pull request has after its job."""
        record = self.forge.pull(number, head or f"{number:040}", *labels)
        # An event keeps the labels of its time.
        event = {"number": number, "pull_request": {**record, "labels": []}}
        self.run("preview", status=status, **self.event(event))
        (comment,) = [body for body in self.forge.bodies(number) if body.startswith("<!-- ml-cluster")]
        return comment

    def merge(self, number: int, *, status: int = 0) -> Outcome:
        """Merge a pull request, and run the job of that."""
        self.forge.merge(number, self.merge_commit(number))
        return self.deploy(self.merge_commit(number), status=status)

    def deploy(self, commit: str, *, status: int = 0) -> Outcome:
        return self.run("deploy", status=status, GITHUB_SHA=commit)

    @staticmethod
    def merge_commit(number: int) -> str:
        return f"{number + 1000:040}"

    @property
    def files(self) -> dict[str, str]:
        """Files of the world, without markers of running operations."""
        found = {path.name: path.read_text() for path in self.world.iterdir()}
        return {name: text for name, text in found.items() if not name.startswith(("begun-", "hold-"))}

    @property
    def plans(self) -> list[str]:
        """Plans that wait for a merge."""
        return sorted(path.name for path in self.lab.backend.rglob("plans/**/*.json"))


@pytest.fixture
def jobs(dev: Lab) -> Iterator[Jobs]:
    with Forge() as forge:
        yield Jobs(dev, forge)


def test_a_pull_request_is_previewed_reviewed_and_deployed(jobs: Jobs) -> None:
    jobs.program("File('a', 'one')")
    comment = jobs.preview(7)
    assert "### Preview of stack `dev`: 1 to create" in comment
    assert "The merge deploys this and no more." in comment
    jobs.program("File('a', 'one'); File('b', 'two')")
    assert "2 to create" in jobs.preview(7, head="f" * 40)
    assert jobs.files == {}
    (plan,) = jobs.lab.backend.rglob("plans/**/*.json")
    assert stat.S_IMODE(plan.stat().st_mode) & 0o077 == 0

    jobs.merge(7)
    assert jobs.files == {"a": "one", "b": "two"}
    assert jobs.plans == []
    (update,) = jobs.lab.run("history", "--json").json
    assert update["message"] == "Change 7 (#7)"
    # The same job once more, and a commit that changes nothing, are fine without a plan.
    jobs.deploy(jobs.merge_commit(7))
    jobs.deploy("d" * 40)
    jobs.program("raise ValueError('planted')")
    failed = jobs.deploy("d" * 40, status=1)
    assert "ValueError: planted" in failed.stdout
    assert "not what was reviewed" not in failed.stderr


def test_a_loss_is_red_until_it_is_labelled(jobs: Jobs) -> None:
    jobs.program("File('a'); File('data')")
    jobs.preview(1)
    jobs.merge(1)
    jobs.program("File('a')")
    comment = jobs.preview(2, status=10)
    assert "- deletes lease `data`" in comment
    assert "Do not merge this" in comment
    assert jobs.plans == []
    jobs.merge(2, status=1)
    assert set(jobs.files) == {"a", "data"}

    assert "The label `destructive` allows losses." in jobs.preview(3, "destructive")
    jobs.merge(3)
    assert set(jobs.files) == {"a"}


def test_what_was_not_reviewed_is_not_deployed(jobs: Jobs) -> None:
    jobs.program("File('a', 'reviewed')")
    jobs.preview(7)
    jobs.program("File('a', 'something else')")
    refused = jobs.merge(7, status=1)
    assert "this deployment is not what was reviewed; nothing was changed" in refused.stderr
    assert 'text (planned: set to "reviewed"; now: set to "something else")' in refused.stdout

    jobs.program("File('a', 'reviewed'); File('more')")
    assert "create is not allowed by the plan" in jobs.deploy(jobs.merge_commit(7), status=1).stdout

    jobs.program("File('a', 'reviewed')")
    jobs.forge.pulls[0]["head"]["sha"] = "e" * 40
    refused = jobs.deploy(jobs.merge_commit(7), status=1)
    assert f"the plan of pull request 7 is of commit {7:040}"[:-28] in refused.stderr
    assert "is not the merge of a pull request" in jobs.deploy("d" * 40, status=1).stderr
    jobs.forge.pull(8, "a" * 40)
    assert "there is no plan of pull request 8" in jobs.merge(8, status=1).stderr
    assert jobs.files == {}
    assert jobs.lab.run("history", "--json").json == []


def test_two_merges_are_deployed_one_after_the_other(jobs: Jobs) -> None:
    jobs.program("File('a')")
    jobs.preview(1)
    jobs.program("File('b')")
    jobs.preview(2)
    jobs.program("File('a')")
    jobs.merge(1)
    jobs.program("File('a'); File('b')")
    jobs.merge(2)
    assert set(jobs.files) == {"a", "b"}

    # Two that touch each other: the second one is previewed anew.
    jobs.program("File('a', 'mine'); File('b')")
    jobs.preview(3)
    jobs.program("File('a', 'theirs'); File('b')")
    jobs.preview(4)
    jobs.merge(4)
    jobs.program("File('a', 'both'); File('b')")
    jobs.merge(3, status=1)
    assert jobs.files["a"] == "theirs"


def test_a_job_that_was_killed_is_finished_by_the_next(jobs: Jobs) -> None:
    program = "first = File('first'); second = File('second', depends_on=[first]); File('third', depends_on=[second])"
    jobs.program(program)
    jobs.preview(7)
    jobs.forge.merge(7, jobs.merge_commit(7))
    (jobs.world / "hold-second").touch()
    environment = jobs.lab.env | {"GITHUB_SHA": jobs.merge_commit(7)}
    with subprocess.Popen(
        jobs.lab.command("ci", "deploy"), env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    ) as running:
        wait_for((jobs.world / "begun-second").exists, "the second file is begun")
        running.send_signal(signal.SIGKILL)
    assert set(jobs.files) == {"first"}
    (jobs.world / "hold-second").unlink()
    jobs.deploy(jobs.merge_commit(7))
    assert set(jobs.files) == {"first", "second", "third"}
    assert jobs.plans == []


def test_a_failed_preview_says_so_and_leaves_no_plan(jobs: Jobs) -> None:
    jobs.program("File('a')")
    assert "1 to create" in jobs.preview(7)
    jobs.program("raise ValueError('planted')")
    comment = jobs.preview(7, status=1)
    assert "ValueError: planted" in comment
    assert "It failed" in comment
    assert jobs.plans == []
    jobs.lab.write("", settings="config:\n  size:\n    type: integer\n")
    comment = jobs.preview(7, status=1)
    assert "### The preview of stack `dev` failed" in comment
    assert "size is not set" in comment


@pytest.mark.parametrize("verb", ["gate", "stages"])
def test_stages_that_are_not_set_in_git_are_left_alone(jobs: Jobs, verb: str) -> None:
    jobs.program("")
    assert jobs.run(verb, status=0).stdout == "Stages of stack 'dev' are not set in Git.\n"
    assert jobs.forge.requests == []


def test_drift_is_reported_in_one_issue(jobs: Jobs) -> None:
    jobs.program("File('a', 'as wanted')")
    jobs.lab.run("up", "--skip-preview")
    jobs.run("drift", status=0)
    assert jobs.forge.issues == []
    (jobs.world / "a").write_text("by hand")
    jobs.run("drift", status=7)
    jobs.run("drift", status=7)
    (issue,) = jobs.forge.issues
    assert issue["title"] == "Drift of stack dev"
    assert "1 changed" in issue["body"]
    assert "`~text`" in issue["body"]
    (jobs.world / "a").write_text("as wanted")
    jobs.run("drift", status=0)
    assert issue["state"] == "closed"
    assert jobs.forge.bodies(issue["number"]) == ["There is no drift any more."]


def test_an_update_under_way_is_no_drift(jobs: Jobs) -> None:
    jobs.program("File('a', 'old')")
    jobs.lab.run("up", "--skip-preview")
    jobs.program("File('a', 'new'); File('b')")
    (jobs.world / "hold-b").touch()
    with subprocess.Popen(
        jobs.lab.command("up", "--skip-preview"), env=jobs.lab.env, stdout=subprocess.DEVNULL
    ) as running:
        wait_for((jobs.world / "begun-b").exists, "the update")
        assert "Stack 'dev' is being updated: the next run checks it." in jobs.run("drift", status=0).stdout
        (jobs.world / "hold-b").unlink()
        assert running.wait(120) == 0
    assert jobs.forge.issues == []
    assert "There is no drift." in jobs.run("drift", status=0).stdout


def test_a_closed_pull_request_leaves_nothing(jobs: Jobs) -> None:
    jobs.program("File('of-the-request')")
    jobs.lab.run("stack", "init", "pr-7")
    jobs.lab.run("--stack", "pr-7", "up", "--skip-preview")
    jobs.preview(7)
    jobs.preview(8)
    assert jobs.plans == ["pull-request-7.json", "pull-request-8.json"]
    closed = jobs.event({"number": 7, "pull_request": jobs.forge.pull(7, "a" * 40, state="closed")})
    jobs.run("clean-up", status=0, **closed)
    assert jobs.files == {}
    assert [stack["name"] for stack in jobs.lab.run("stack", "ls", "--json").json] == ["dev"]
    assert jobs.plans == ["pull-request-8.json"]
    # The deployment after the merge needs its plan.
    merged = jobs.event({"number": 8, "pull_request": jobs.forge.merge(8, jobs.merge_commit(8))})
    jobs.run("clean-up", status=0, **merged)
    assert jobs.plans == ["pull-request-8.json"]


ADDRESS = "pulumi.export('endpoints', dict(overview='https://192.0.2.7:443', ssh='ssh cc@192.0.2.7'))"


def environment(jobs: Jobs, number: int, *labels: str, status: int = 0, **more: Any) -> str:
    """The comment of a pull request's environment after the job for it, empty where there is none."""
    jobs.forge.pull(number, f"{number:040}", *labels, **more)
    event = {"number": number, "pull_request": {**jobs.forge.pulls[-1], "labels": []}}
    jobs.run("environment", status=status, **jobs.event(event))
    return next((body for body in jobs.forge.bodies(number) if "environment of stack" in body), "")


def stacks(jobs: Jobs) -> list[str]:
    return [stack["name"] for stack in jobs.lab.run("stack", "ls", "--json").json]


def test_a_label_gives_a_pull_request_a_stack_of_its_own(jobs: Jobs) -> None:
    template = jobs.lab.project / "Pulumi.environment.yaml"
    template.write_text("config:\n  proj:size: smallest\n")
    jobs.program(f"File('a', pulumi.Config('proj').require('size'))\n{ADDRESS}")
    assert environment(jobs, 7) == ""
    assert stacks(jobs) == ["dev"]
    comment = environment(jobs, 7, "environment")
    assert jobs.files == {"a": "smallest"}
    assert stacks(jobs) == ["dev", "pr-7"]
    assert "| overview | https://192.0.2.7:443 |" in comment
    assert "8 hours after the last push" in comment
    # A push: another job, on a machine that has nothing of the first but what is in the repository and in the state.
    (jobs.lab.project / "Pulumi.pr-7.yaml").unlink()
    template.write_text("config:\n  proj:size: small\n")
    assert f"{7:040}"[:12] in environment(jobs, 7, "environment")
    assert jobs.files == {"a": "small"}
    assert len(jobs.forge.bodies(7)) == 1
    (jobs.lab.project / "Pulumi.pr-7.yaml").unlink()
    environment(jobs, 7)  # the label is taken away
    assert jobs.files == {}
    assert stacks(jobs) == ["dev"]


def test_an_environment_that_fails_says_so_and_stays(jobs: Jobs) -> None:
    (jobs.lab.project / "Pulumi.environment.yaml").write_text("config: {}\n")
    jobs.program("File('a', 'one')\nraise ValueError('planted')")
    assert "could not be brought up" in environment(jobs, 7, "environment", status=1)
    assert stacks(jobs) == ["dev", "pr-7"]
    jobs.program(f"File('a', 'one')\n{ADDRESS}")
    assert "could not be brought up" not in environment(jobs, 7, "environment")


def test_without_a_template_there_is_no_environment(jobs: Jobs) -> None:
    jobs.program("")
    environment(jobs, 7, "environment", status=2)
    assert stacks(jobs) == ["dev"]


def test_environments_past_their_end_are_destroyed(jobs: Jobs) -> None:
    (jobs.lab.project / "Pulumi.environment.yaml").write_text("config: {}\n")
    jobs.program("File('of-' + pulumi.get_stack())")
    for number in (7, 8, 9):
        environment(jobs, number, "environment")
    jobs.forge.pull(8, "b" * 40, "environment", state="closed")
    jobs.forge.pull(9, "c" * 40)
    swept = jobs.run("clean-up", status=0, **jobs.event({"schedule": "41 * * * *"}))
    assert "pr-8 is destroyed: pull request 8 is closed" in swept.stdout
    assert "pr-9 is destroyed: pull request 9 has no label 'environment'" in swept.stdout
    assert stacks(jobs) == ["dev", "pr-7"]
    jobs.run("clean-up", status=0, **jobs.event({}), LAB_ENVIRONMENT_HOURS="0.000001")
    assert stacks(jobs) == ["dev"]
    assert jobs.files == {}
    jobs.run("clean-up", status=2, **jobs.event({}), LAB_ENVIRONMENT_HOURS="soon")


def test_secrets_reach_the_clients_alone(jobs: Jobs) -> None:
    jobs.program("""
seen = dict(os.environ)
clouds = pathlib.Path(seen["OS_CLIENT_CONFIG_FILE"])
assert "CLOUDS_YAML" not in seen and "GITHUB_TOKEN" not in seen
assert stat.S_IMODE(clouds.stat().st_mode) == 0o600 and "planted-cloud" in clouds.read_text()
(WORLD / "clouds").write_text(str(clouds))
""")
    jobs.preview(7)
    assert not jobs.lab.project.joinpath(jobs.files["clouds"]).exists()


def test_a_comment_of_any_job(jobs: Jobs, tmp_path: Path) -> None:
    jobs.forge.pull(7, "a" * 40)
    file = tmp_path / "text.md"
    for text in ("one", "two"):
        file.write_text(f"<!-- of a job -->\n{text}")
        jobs.lab.run("ci", "comment", str(file), "--pull-request", "7")
    assert jobs.forge.bodies(7) == ["<!-- of a job -->\ntwo"]
    jobs.lab.refuse("ci", "comment", str(tmp_path / "none"), status=2, saying="could not read")
    jobs.lab.refuse("ci", "comment", str(file), status=1, saying="was not started by a pull request")


def test_outside_of_a_job_the_variables_are_named(dev: Lab) -> None:
    dev.refuse("ci", "preview", status=1, saying="not set: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_TOKEN")


def test_the_settings_of_all_stacks_are_checked(tmp_path: Path) -> None:
    for path in (*ROOT.glob("Pulumi*.yaml"), ROOT / "__main__.py"):
        shutil.copy(path, tmp_path)
    session = Session(tmp_path, None, "embedded", interactive=False, color="never", verbose=False)
    assert check_all_settings(session) == []
    for stack in ("dev", "chameleon-kvm"):
        path = tmp_path / f"Pulumi.{stack}.yaml"
        path.write_text(path.read_text().replace("count: 2", "count: two"))
    (tmp_path / "Pulumi.mine.yaml").write_text("config: [\n")
    (tmp_path / "Pulumi.ruled.yaml").write_text("config:\n  lab:policies:\n    - {pack: policies/none}\n")
    errors = "\n".join(check_all_settings(session))
    for name in ("Pulumi.dev.yaml", "Pulumi.chameleon-kvm.yaml", "Pulumi.mine.yaml", "policies/none"):
        assert name in errors
