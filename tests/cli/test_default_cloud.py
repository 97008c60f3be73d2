"""`lab` for those who have no cloud: devcloud is found, asked for, or said to be missing. Nothing is brought up."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.harness import Lab, Outcome

if TYPE_CHECKING:
    from pathlib import Path

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
    assert outcome.stderr.startswith("error: this machine cannot carry devcloud")
    assert "must run as root" in outcome.stderr
    assert outcome.stderr.count("error: ") == 1
    assert "  remedy: use a cloud of your own: set OS_CLIENT_CONFIG_FILE and OS_CLOUD" in outcome.stderr
    assert not (tmp_path / "devcloud").exists()
    assert newcomer.run("stack", "ls", "--json").json == []


def test_who_has_a_cloud_is_told_the_stacks_and_not_led_to_devcloud(newcomer: Lab, tmp_path: Path) -> None:
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text("clouds: {mine: {auth: {auth_url: http://192.0.2.1:5000/v3}}}\n")
    newcomer.env["OS_CLIENT_CONFIG_FILE"] = str(clouds)
    first = newcomer.run("up", "--yes", status=1).stderr
    assert "no stack selected" in first
    assert "lab stack init NAME`, NAME being one of dev, or new" in first
    newcomer.run("stack", "init", "winter", "--no-select")
    second = newcomer.run("up", "--yes", status=1).stderr
    assert "there are: winter" in second
    assert "devcloud" not in first + second


def test_a_stack_on_devcloud_says_that_it_is_down(newcomer: Lab) -> None:
    newcomer.run("stack", "init", "dev")
    assert "Its cloud, devcloud, is down" in newcomer.run("status").stdout
    for verb in ("up", "destroy", "refresh"):
        outcome = as_user(newcomer, verb, "--yes")
        assert outcome.status == 1
        assert "must run as root" in outcome.stderr
    newcomer.refuse("sweep", status=1, saying="devcloud, is down\n  remedy: lab devcloud up")


def test_doctor_tells_a_newcomer_how_to_start_devcloud(newcomer: Lab) -> None:
    findings = newcomer.run("doctor", "--json", status=1).json
    (found,) = (finding for finding in findings if finding["check"] == "devcloud")
    assert found["status"] == "fail"
    assert "down" in found["message"]
    assert "lab devcloud up" in found["remedy"]
    assert [f["check"] for f in findings if f["status"] == "fail"] == ["devcloud"]


def test_a_stack_on_another_cloud_has_nothing_to_do_with_devcloud(newcomer: Lab) -> None:
    newcomer.run("stack", "init", "winter")
    newcomer.run("config", "set", "--path", "cloud.name", "mine")
    assert "devcloud" not in newcomer.run("status").stdout
    assert "devcloud" not in newcomer.run("sweep", status=1).stderr
