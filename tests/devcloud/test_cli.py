"""The command line, before there is a cloud."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from devcloud.bringup import NEEDED_DISK_GIB, Devcloud
from devcloud.cli import app

if TYPE_CHECKING:
    from pathlib import Path

runner = CliRunner()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status"], "error: devcloud is down\n  remedy: lab devcloud up\n"),
        (["env"], "error: devcloud was not up yet\n  remedy: lab devcloud up\n"),
        (["logs", "nova"], "error: there is no log of nova; there are: none: devcloud was never up\n"),
    ],
)
def test_asking_before_up_says_what_to_do(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = runner.invoke(app, [*arguments, "--state", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (1, message)


def test_a_bad_subnet_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    result = runner.invoke(app, ["up", "--state", str(tmp_path / "state"), "--subnet", "172.25.0.0/30"])
    assert result.exit_code == 1
    assert "/24 or larger" in result.stderr
    assert not (tmp_path / "state").exists()


def test_all_that_the_machine_lacks_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    result = runner.invoke(app, ["up", "--state", str(tmp_path / "state")])
    assert result.exit_code == 1
    assert "needs root" in result.stderr
    assert f"needs {NEEDED_DISK_GIB} GiB of disk" in result.stderr
    assert "remedy: use a cloud of your own" in result.stderr


def test_down_reset_and_purge_of_nothing_are_no_error_and_purge_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for arguments in (["down"], ["reset", "--yes"], ["purge", "--yes"]):
        assert runner.invoke(app, [*arguments, "--state", str(state)]).exit_code == 0
    assert not state.exists()


def test_two_devclouds_differ_in_the_name_of_their_interface(tmp_path: Path) -> None:
    names = {Devcloud(tmp_path / name).control.name for name in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)
