"""Stages of long work."""

from __future__ import annotations

import io
import re

import pytest

from terminal.progress import HEARTBEAT_SECONDS, Stages
from tests.cli.display.stream import Gone


def test_stages_print_when_they_begin_wait_and_end_and_all_are_listed_at_last() -> None:
    now = [0.0]
    out = io.StringIO()
    with Stages("Preparing", out=out, clock=lambda: now[0]) as stages:
        with stages.stage("Make venv", waiting_for="uv") as stage:
            now[0] += 2
            stage.wait_for("wheels")
            stage.wait_for("wheels")
            now[0] += 1
        with stages.stage("Check"):
            now[0] += 70
    assert out.getvalue().splitlines() == [
        "Preparing",
        "  … Make venv: waiting for uv (0.0s)",
        "  … Make venv: waiting for wheels (2.0s)",
        "  ✓ Make venv (3.0s)",
        "  … Check (0.0s)",
        "  ✓ Check (1m10s)",
        "  ✓ Make venv      3.0s",
        "  ✓ Check         1m10s",
        "    Total         1m13s",
    ]


def test_a_failed_stage_is_marked_and_the_error_goes_on() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="broken"), Stages("Preparing", out=out) as stages, stages.stage("Make venv"):
        raise ValueError("broken")
    assert re.search(r"✗ Make venv: failed \(\d", out.getvalue())
    assert out.getvalue().splitlines()[-2].startswith("  ✗ Make venv")


def test_silence_is_broken_by_what_is_still_waited_for() -> None:
    now = [0.0]
    out = io.StringIO()
    with Stages("Preparing", out=out, clock=lambda: now[0]) as stages, stages.stage("Boot", waiting_for="SSH"):
        stages.beat()
        now[0] += HEARTBEAT_SECONDS
        stages.beat()
    assert out.getvalue().count("Boot: waiting for SSH") == 2
    assert "  … Boot: waiting for SSH (30.0s)\n" in out.getvalue()


def test_on_a_terminal_a_stage_is_one_line_that_changes() -> None:
    out = io.StringIO()
    with (
        Stages("Preparing", out=out, interactive=True, color="never") as stages,
        stages.stage("Boot", waiting_for="SSH"),
    ):
        stages.draw()
    assert "\x1b[?25l" in out.getvalue()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")
    assert "✓ Boot" in out.getvalue()


@pytest.mark.parametrize("interactive", [False, True])
def test_the_work_goes_on_when_its_report_cannot_be_written(interactive: bool) -> None:
    done = []
    with Stages("Preparing", out=Gone(OSError(28, "No space left on device"), 0), interactive=interactive) as stages:
        with stages.stage("Boot", waiting_for="SSH") as stage:
            stage.wait_for("DNS")
            stages.draw()
        done.append(True)
    assert done
