"""From a pull request to what its merge deploys: the workflows and `lab ci` as they are, on the forge in the box.

The program has files as resources, in place of a cloud; the state is in a folder, in place of a bucket.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.test_ci import CLOUDS_YAML, PASSPHRASE, PROGRAM
from tests.engine.harness import wait_for
from tests.forge.box import REPOSITORY, Box
from tests.forge.pulls import ROOT, SECONDS, WORKFLOWS, approve, checked, comments, commit, label, merge, propose

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow_forge
LAB = f"""#!/bin/sh
# The repository's own: without the checks of its code, which is in no pull request here.
[ "$*" != "ci check" ] || exec test ! -e broken
exec {ROOT}/lab --cwd "$PWD" --engine embedded "$@"
"""


class Delivery:
    """A repository whose program makes files in `world`, and the jobs of its workflows."""

    stack, clouds = "dev", CLOUDS_YAML

    def __init__(self, box: Box, clone: Path) -> None:
        self.box, self.clone = box, clone
        box.jobs = 4
        self.world, self.backend = box.folder / "world", box.folder / "backend"
        for folder in (self.world, self.backend):
            folder.mkdir()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "OS_", "XDG_")) and k != "CI"}
        self.env = {
            **inherited,
            "HOME": str(box.folder / "scratch"),
            "PULUMI_BACKEND_URL": f"file://{self.backend}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        }

    def lab(self, *words: str) -> None:
        """Run `lab` by hand, past the forge."""
        command = [str(ROOT / "lab"), "--cwd", str(self.clone), "--engine", "embedded", *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def push(self) -> None:
        """What `lab up` does once, with the repository's variables and secrets."""
        shutil.copytree(WORKFLOWS, self.clone / ".github/workflows")
        for name in ("clean-up", "environment"):
            (self.clone / f".github/workflows/{name}.yaml").unlink()
        self.write_program()
        (self.clone / "lab").write_text(LAB)
        (self.clone / "lab").chmod(0o755)
        self.lab("stack", "init", self.stack)
        for words in (
            ["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "--message=Start"],
            ["remote", "add", "origin", f"{self.box.url}/{REPOSITORY}.git"], ["push", "--quiet", "origin", "main"],
        ):  # fmt: skip
            done = self.box.git(self.clone, *words)
            assert done.returncode == 0, done.stderr
        wait_for(lambda: self.box.ask("GET", f"/repos/{REPOSITORY}").body["has_actions"], "workflows", SECONDS)
        url = f"/repos/{REPOSITORY}/actions"
        given = {"LAB_BACKEND_URL": self.env["PULUMI_BACKEND_URL"], "LAB_STACK": self.stack}
        for name, text in given.items():
            assert self.box.ask("POST", f"{url}/variables/{name}", {"value": text}).status == 201
        for name, text in {"PULUMI_CONFIG_PASSPHRASE": PASSPHRASE, "CLOUDS_YAML": self.clouds}.items():
            assert self.box.ask("PUT", f"{url}/secrets/{name}", {"data": text}).status == 201

    def write_program(self) -> None:
        """What the repository has at first."""
        virtualenv = Path(sys.executable).parents[1]
        files = {
            "Pulumi.yaml": "name: demo\nruntime:\n  name: python\n  options:\n"
            f"    toolchain: uv\n    virtualenv: {virtualenv}\n",
            "uv.lock": 'version = 1\nrequires-python = ">=3.11"\n',
            # Where else a job works, its provider has to be the same: by its module's name.
            "things.py": "import pulumi\n" + PROGRAM.format(world=str(self.world)),
            "__main__.py": program(""),
        }
        for name, text in files.items():
            (self.clone / name).write_text(text)

    def propose(self, branch: str, resources: str, *, preview: str = "success") -> int:
        """A pull request that changes the program, with both its jobs done."""
        return self.propose_files(branch, {"__main__.py": program(resources)}, preview=preview)

    def propose_files(self, branch: str, files: dict[str, str], *, preview: str = "success") -> int:
        """A pull request with other files, with both its jobs done."""
        number = propose(self.box, self.clone, branch, files)
        self.until(number, check="success", preview=preview)
        return number

    def until(self, number: int, **wanted: str) -> None:
        wait_for(lambda: checked(self.box, number, **wanted), f"the checks of {number}", SECONDS)

    def merge(self, number: int) -> str:
        """Merge it, approved; the commit."""
        approve(self.box, number)
        assert merge(self.box, number) == 200
        made: str = self.box.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body["merge_commit_sha"]
        return made

    def deploy(self, number: int, conclusion: str = "success") -> str:
        """Merge it, and wait for the deployment's end; what it said."""
        made = self.merge(number)
        wait_for(lambda: self.box.job("deploy", made).get("status") == "completed", "the deployment", SECONDS)
        job = self.box.job("deploy", made)
        log = self.log(job)
        assert job["conclusion"] == conclusion, log
        return log

    def log(self, job: dict[str, Any]) -> str:
        return self.box.text(f"/repos/{REPOSITORY}/actions/jobs/{job['id']}/logs")

    @property
    def files(self) -> dict[str, str]:
        """Files of the world, without markers of running operations."""
        found = {path.name: path.read_text() for path in self.world.iterdir()}
        return {name: text for name, text in found.items() if not name.startswith(("begun-", "hold-"))}


def program(resources: str) -> str:
    return f"from things import File\n{resources}\n"


@pytest.fixture(scope="module")
def delivery(box: Box) -> Iterator[Delivery]:
    with tempfile.TemporaryDirectory(prefix="clone-") as folder:
        made = Delivery(box, Path(folder))
        made.push()
        wait_for(box.is_quiet, "what the first push begins: there is nothing to deploy", SECONDS)
        yield made


def test_what_would_be_lost_is_red_until_it_is_labelled(delivery: Delivery) -> None:
    """A file here is of a kind whose deletion is a loss, as a volume's is."""
    box = delivery.box
    number = delivery.propose("two", "File('a'); File('data')")
    (text,) = comments(box, number)
    assert "### Preview of stack `dev`: 2 to create" in text
    delivery.deploy(number)
    assert set(delivery.files) == {"a", "data"}

    number = delivery.propose("fewer", "File('a')", preview="failure")
    (text,) = comments(box, number)
    assert "- deletes lease `data`" in text
    assert "Do not merge this" in text
    approve(box, number)
    assert {merge(box, number, user) for user in ("ada", "admin")} == {405}
    label(box, number)
    delivery.until(number, preview="success")
    (text,) = comments(box, number)
    assert "The label `destructive` allows losses." in text
    assert set(delivery.files) == {"a", "data"}
    delivery.deploy(number)
    assert set(delivery.files) == {"a"}


def test_a_plan_that_is_out_of_date_is_refused_at_the_deployment(delivery: Delivery) -> None:
    number = delivery.propose("mine", "File('a', 'mine'); File('b')")
    # Somebody has added to the stack by hand meanwhile: the merge would delete that, which nobody has reviewed.
    proposed = (delivery.clone / "__main__.py").read_text()
    (delivery.clone / "__main__.py").write_text(program("File('a'); File('theirs')"))
    delivery.lab("up", "--skip-preview", "--yes")
    (delivery.clone / "__main__.py").write_text(proposed)
    log = delivery.deploy(number, "failure")
    assert "this deployment is not what was reviewed; nothing was changed" in log
    assert delivery.files == {"a": "", "theirs": ""}
    assert PASSPHRASE not in log
    assert "planted-cloud-secret" not in log

    # What is left to do can be reviewed as it is now.
    delivery.deploy(delivery.propose("again", "File('a', 'mine'); File('b'); File('theirs')"))
    assert delivery.files == {"a": "mine", "b": "", "theirs": ""}


def test_two_merges_are_deployed_one_after_the_other(delivery: Delivery) -> None:
    box, there = delivery.box, "File('a', 'mine'); File('b'); File('theirs')"
    first = delivery.propose("first", f"{there}; File('first')")
    second = propose(box, delivery.clone, "second", {"__main__.py": program(f"{there}; File('second')")})
    delivery.until(second, check="success", preview="success")
    (delivery.world / "hold-first").touch()
    made = delivery.merge(first)
    wait_for((delivery.world / "begun-first").exists, "the first deployment", SECONDS)
    # The branch has to have what is deployed now; both programs are one.
    approve(box, second)
    assert merge(box, second) == 405
    assert box.ask("POST", f"/repos/{REPOSITORY}/pulls/{second}/update", user="ada").status == 409  # same line
    both = f"{there}; File('first'); File('second')"
    for words in (["fetch", "--quiet"], ["merge", "--quiet", "--strategy=ours", "origin/main"]):
        assert box.git(delivery.clone, *words, user="ada").returncode == 0
    commit(box, delivery.clone, "second", {"__main__.py": program(both)})
    delivery.until(second, check="success", preview="success")
    after = delivery.merge(second)
    # There is a pod for it, as for the check of the same commit; while the first deployment runs, it waits.
    wait_for(lambda: box.job("check", after).get("status") == "completed", "the check", SECONDS)
    assert box.job("deploy", made)["status"] == "in_progress"
    assert box.job("deploy", after)["status"] == "waiting"
    (delivery.world / "hold-first").unlink()
    for one in (made, after):
        wait_for(lambda one=one: box.job("deploy", one)["status"] == "completed", "a deployment", SECONDS)  # type: ignore[misc]
        assert box.job("deploy", one)["conclusion"] == "success", delivery.log(box.job("deploy", one))
    ended, began = (box.job("deploy", one)[key] for one, key in ((made, "completed_at"), (after, "started_at")))
    assert ended <= began
    assert {"first", "second"} <= set(delivery.files)


def test_what_a_killed_job_began_is_finished_by_the_next(delivery: Delivery) -> None:
    box = delivery.box
    there = "; ".join(f"File({name!r}, {text!r})" for name, text in delivery.files.items())
    chain = f"{there}\none = File('one'); two = File('two', depends_on=[one]); File('three', depends_on=[two])"
    number = delivery.propose("chain", chain)
    (delivery.world / "hold-two").touch()
    killed = delivery.merge(number)
    wait_for((delivery.world / "begun-two").exists, "the second file", SECONDS)
    box.kill(box.job("deploy", killed))
    (delivery.world / "hold-two").unlink()
    assert "three" not in delivery.files
    wait_for(lambda: box.job("deploy", killed).get("status") == "completed", "the forge knows", SECONDS)
    assert box.job("deploy", killed)["conclusion"] == "failure"
    delivery.deploy(delivery.propose("next", f"{chain}; File('next')"))
    assert {"one", "two", "three", "next"} <= set(delivery.files)
