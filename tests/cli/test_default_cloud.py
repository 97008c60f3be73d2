"""`lab` for those who have no cloud: devcloud is found, asked for, or said to be missing. Nothing is brought up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.harness import Lab, Outcome, Terminal

FIRST_RUN = Path(__file__).with_name("first_run.py")
# In a user namespace of its own, root is nobody to the machine; files stay its own.
NOT_ROOT = ["unshare", "--user"] if os.geteuid() == 0 else []


@pytest.fixture
def newcomer(tmp_path: Path) -> Lab:
    """This repository's program, no stack, no cloud, and no devcloud ever."""
    lab = Lab(tmp_path)
    lab.write_program()
    lab.env["DEVCLOUD_STATE"] = str(tmp_path / "devcloud")
    return lab


def as_user(lab: Lab, *arguments: str) -> Outcome:
    done = subprocess.run(
        [*NOT_ROOT, *lab.command(*arguments)],
        env=lab.env, cwd=lab.home, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("verb", [("up", "--yes"), ("preview",)])
def test_without_root_one_message_names_the_alternatives_and_nothing_is_made(
    newcomer: Lab, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    outcome = as_user(newcomer, *verb)
    assert outcome.status == 1
    assert outcome.stderr.startswith("error: devcloud cannot run on this machine")
    assert "must run as root" in outcome.stderr
    assert outcome.stderr.count("error: ") == 1
    assert "  remedy: use another cloud: set OS_CLIENT_CONFIG_FILE and OS_CLOUD" in outcome.stderr
    assert not (tmp_path / "devcloud").exists()
    assert newcomer.run("stack", "ls", "--json").json == []


def test_with_a_cloud_the_stacks_are_listed_and_devcloud_is_not_offered(newcomer: Lab, tmp_path: Path) -> None:
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text("clouds: {mine: {auth: {auth_url: http://192.0.2.1:5000/v3}}}\n")
    newcomer.env["OS_CLIENT_CONFIG_FILE"] = str(clouds)
    first = newcomer.run("up", "--yes", status=1).stderr
    assert "no stack selected" in first
    assert "lab stack init NAME`, where NAME is one of dev, or a new name" in first
    newcomer.run("stack", "init", "winter", "--no-select")
    second = newcomer.run("up", "--yes", status=1).stderr
    assert "existing stacks: winter" in second
    assert "devcloud" not in first + second


def test_a_stack_on_devcloud_says_that_it_is_down(newcomer: Lab) -> None:
    newcomer.run("stack", "init", "dev")
    assert "Its cloud, devcloud, is not running" in newcomer.run("status").stdout
    for verb in ("up", "destroy", "refresh"):
        outcome = as_user(newcomer, verb, "--yes")
        assert outcome.status == 1
        assert "must run as root" in outcome.stderr
    newcomer.refuse("sweep", status=1, saying="devcloud, is not running\n  remedy: start it: lab devcloud up")


def test_doctor_tells_a_newcomer_how_to_start_devcloud(newcomer: Lab) -> None:
    findings = newcomer.run("doctor", "--json", status=1).json
    (found,) = (finding for finding in findings if finding["check"] == "devcloud")
    assert found["status"] == "fail"
    assert "not running" in found["message"]
    assert "lab devcloud up" in found["remedy"]
    assert [f["check"] for f in findings if f["status"] == "fail"] == ["devcloud"]


def test_a_stack_on_another_cloud_has_nothing_to_do_with_devcloud(newcomer: Lab) -> None:
    newcomer.run("stack", "init", "winter")
    newcomer.run("config", "set", "--path", "cloud.name", "mine")
    assert "devcloud" not in newcomer.run("status").stdout
    assert "devcloud" not in newcomer.run("sweep", status=1).stderr


STARTER = "demo:cloud: {name: devcloud}"
RESOURCE = """
from pulumi.dynamic import CreateResult, Resource, ResourceProvider
class Maker(ResourceProvider):
    def create(self, props):
        return CreateResult("m", props)
class Made(Resource):
    pass
Made(Maker(), "made", {"size": SIZE})
"""
QUESTION = "Do you want to perform this update?"


@pytest.fixture
def first_run(tmp_path: Path) -> Lab:
    """A small program whose stack dev is on devcloud; the first `lab up` brings that up."""
    lab = Lab(tmp_path)
    lab.write(RESOURCE.replace("SIZE", "1"))
    (lab.project / "Pulumi.dev.yaml").write_text(f"config:\n  {STARTER}\n")
    lab.env["DEVCLOUD_STATE"] = str(tmp_path / "devcloud")
    return lab


def on_a_terminal(lab: Lab, *arguments: str) -> Terminal:
    _, *rest = lab.command(*arguments)
    return Terminal([sys.executable, str(FIRST_RUN), *rest], lab.env)


def test_the_first_run_asks_once(first_run: Lab) -> None:
    """A question minutes later would find nobody to answer it."""
    with on_a_terminal(first_run, "up") as terminal:
        terminal.expect("Continue? [Y/n]")
        for text in ("creates stack 'dev' on it", "deploys stack 'dev'", "asks again only if"):
            assert text in terminal.text
        terminal.answer("y")
        assert terminal.end() == 0, terminal.text
    assert "devcloud is up" in terminal.text
    assert QUESTION not in terminal.text
    assert first_run.run("stack", "ls", "--json").json[0]["resourceCount"] == 3  # with the stack and the provider


def test_the_first_run_asks_again_if_it_would_do_more(first_run: Lab) -> None:
    """A plan that changes what is there."""
    state = Path(first_run.env["DEVCLOUD_STATE"])
    with on_a_terminal(first_run, "up", "--yes") as terminal:
        assert terminal.end() == 0, terminal.text
    (state / "clouds.yaml").unlink()  # by hand: the stack is still there
    first_run.write(RESOURCE.replace("SIZE", "2"))
    with on_a_terminal(first_run, "up") as terminal:
        terminal.expect("Continue? [Y/n]")
        terminal.answer("y")
        terminal.expect(QUESTION)
        terminal.answer("no")
        assert terminal.end() == 1


def test_the_first_run_makes_nothing_without_a_yes(first_run: Lab) -> None:
    with on_a_terminal(first_run, "up") as terminal:
        terminal.expect("Continue? [Y/n]")
        terminal.answer("n")
        assert terminal.end() == 1
    assert not Path(first_run.env["DEVCLOUD_STATE"]).exists()
    assert first_run.run("stack", "ls", "--json").json == []


def test_a_preview_promises_no_deployment(first_run: Lab) -> None:
    with on_a_terminal(first_run, "preview") as terminal:
        terminal.expect("Continue? [Y/n]")
        assert "deploys" not in terminal.text
        terminal.answer("y")
        assert terminal.end() == 0


def test_invalid_settings_are_reported_before_a_cloud_is_created(newcomer: Lab) -> None:
    settings = newcomer.project / "Pulumi.dev.yaml"
    settings.write_text(settings.read_text().replace("172.25.0.0/24", "172.25.0.1/24"))
    with on_a_terminal(newcomer, "up") as terminal:
        assert terminal.end() == 1
    assert "ml-cluster:network.externalCidrs[0]" in terminal.text
    assert 'Write "172.25.0.0/24"' in terminal.text
    assert not Path(newcomer.env["DEVCLOUD_STATE"]).exists()
    assert newcomer.run("stack", "ls", "--json").json == []
