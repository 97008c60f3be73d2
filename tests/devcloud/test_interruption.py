"""Bring-ups of a real devcloud that are interrupted: `pytest -m slow_cloud tests/devcloud/test_interruption.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devcloud.bringup import Devcloud
from tests.devcloud.support import SETTINGS, STATE, Machine

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
POINTS = (
    ("Start the namespaces", signal.SIGKILL),
    ("Start database", signal.SIGKILL),
    ("Prepare the databases", signal.SIGINT),
    ("Prepare the databases", signal.SIGKILL),
    ("Create accounts", signal.SIGKILL),
    ("Start the other services", signal.SIGINT),
    ("Create resources", signal.SIGKILL),
    ("Upload the image", signal.SIGKILL),
)


def interrupt(stage: str, number: signal.Signals) -> None:
    """Run `up` and send it, SIGINT as a terminal does, the signal as soon as it says that it is at the stage."""
    up_command = [sys.executable, "-m", "devcloud", "up", f"--state={STATE}", f"--subnet={SETTINGS.subnet}"]
    # A shell has its background jobs ignore SIGINT, and what they start inherits that.
    command = ["env", "--default-signal=INT", *up_command]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as up:
        assert up.stdout is not None
        assert any(stage in line for line in up.stdout), up.stderr.read() if up.stderr else ""
        if number == signal.SIGINT:
            os.killpg(up.pid, number)
        else:
            up.send_signal(number)
        _, output = up.communicate(timeout=120)
    assert up.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in output


@pytest.fixture
def before() -> Machine:
    Devcloud(STATE).reset()
    return Machine.now()


def test_a_start_that_is_interrupted_repeatedly_is_resumed(before: Machine) -> None:
    for stage, number in POINTS:
        interrupt(stage, number)
    cloud = Devcloud(STATE, SETTINGS)
    cloud.up()
    assert {name: fault for name, fault in cloud.health() if fault} == {}
    cloud.reset()
    assert Machine.now() == before


@pytest.mark.parametrize("stage", ["Start the namespaces", "Start database", "Start the other services"])
def test_an_interrupted_bring_up_is_undone_by_reset(before: Machine, stage: str) -> None:
    interrupt(stage, signal.SIGKILL)
    Devcloud(STATE).reset()
    assert Machine.now() == before
