"""The command line, before there is a cloud."""

from __future__ import annotations

import fcntl
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from devcloud import machine
from devcloud.bringup import Devcloud
from devcloud.cli import app
from devcloud.layout import Settings

if TYPE_CHECKING:
    from pathlib import Path

runner = CliRunner()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status"], "error: devcloud is not running\n  remedy: start it: lab devcloud up\n"),
        (["env"], "error: devcloud has not been started yet\n  remedy: start it: lab devcloud up\n"),
        (["logs", "nova"], "error: service nova has no log; logs: none: devcloud has never been started\n"),
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


def test_all_missing_requirements_are_reported_at_once_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    monkeypatch.setattr(machine, "NEEDED_MEMORY_GIB", 10**6)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = runner.invoke(app, ["up", "--state", str(tmp_path / "state")])
    assert result.exit_code == 1
    for reason in (
        "it must run as root",
        "it needs 1000000 GiB of free memory; ",
        f"it needs {machine.NEEDED_DISK_GIB} GiB of disk below {tmp_path}/state; 1.0 are free",
        "tools are missing: apt-get install e2fsprogs iproute2 mount util-linux",
        "mmdebstrap and apt-get are missing",
        "remedy: use another cloud",
    ):
        assert reason in result.stderr
    assert not (tmp_path / "state").exists()


def test_an_external_network_that_the_machine_has_already_is_refused(tmp_path: Path) -> None:
    result = runner.invoke(app, ["up", "--state", str(tmp_path / "state"), "--subnet", "127.0.0.0/24"])
    assert result.exit_code == 1
    assert (
        "its external network 127.0.0.0/24 overlaps 127.0.0.0/8 on lo: choose another one with --subnet"
        in result.stderr
    )


def test_a_kernel_that_refuses_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "TRIAL", "ip link add trial type no-such-kind")
    result = runner.invoke(app, ["up", "--state", str(tmp_path / "state")])
    assert result.exit_code == 1
    assert "it cannot create namespaces, or its kernel lacks bridges, veth or VXLAN: " in result.stderr
    assert not (tmp_path / "state").exists()


def test_another_system_than_linux_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    result = runner.invoke(app, ["up", "--state", str(tmp_path / "state")])
    assert (result.exit_code, "devcloud needs Linux" in result.stderr) == (1, True)


def test_a_devcloud_made_with_other_settings_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(Settings().model_dump_json())
    result = runner.invoke(app, ["up", "--state", str(tmp_path), "--subnet", "10.200.0.0/24"])
    assert result.exit_code == 1
    assert "has another subnet" in result.stderr
    assert "leave the option out" in result.stderr


def test_two_commands_at_once_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = runner.invoke(app, ["down", "--state", str(tmp_path)])
    assert result.exit_code == 1
    assert "another command is using" in result.stderr


def test_down_reset_and_purge_of_nothing_are_no_error_and_purge_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for arguments in (["down"], ["reset", "--yes"], ["purge", "--yes"]):
        assert runner.invoke(app, [*arguments, "--state", str(state)]).exit_code == 0
    assert not state.exists()


def test_two_devclouds_differ_in_the_name_of_their_interface(tmp_path: Path) -> None:
    names = {Devcloud(tmp_path / name).control.name for name in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)
