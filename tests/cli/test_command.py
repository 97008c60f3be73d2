"""The command line itself: help, wrong use, errors, and how quickly it starts."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

from cli import reference
from tests.cli.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.harness import Lab

OPERATIONS = ("up", "preview", "destroy", "refresh")
VERBS = (*OPERATIONS, "status", "history", "doctor", "sweep", "test", "bench", "stack", "config", "state")


def test_help_names_every_verb(lab: Lab) -> None:
    shown = lab.run("--help").stdout
    assert all(f"\n  {verb} " in shown for verb in VERBS)
    assert "stack init" not in lab.run("stack", "-h").stdout
    assert "--skip-preview" in lab.run("up", "-h").stdout


def test_the_reference_page_is_current() -> None:
    assert reference.PATH.read_text() == reference.render(), "run python -m cli.reference"


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'pulumi', 'openstack', 'grpc', 'pydantic', 'rich', 'ruamel'}"
    script = f"import sys, cli.app; print(*{heavy} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


def test_wrong_use_is_refused(lab: Lab) -> None:
    for arguments in (["fly"], ["up", "--altitude", "3"], ["up", "--parallel", "0"], ["config", "set"]):
        outcome = lab.run(*arguments, status=2)
        assert "Usage: lab" in outcome.stderr
    lab.refuse(
        "destroy", "--yes", "--preview-only", status=2, saying="--yes and --preview-only cannot be used together"
    )
    lab.refuse("bench", "fly", status=2, saying="choose one of: class, devcloud, engine, memory, serving")


def test_benchmarks_work_on_the_stack_that_is_meant(dev: Lab) -> None:
    saying = "stack 'dev' has no platform"
    dev.refuse("--stack", "dev", "bench", "memory", status=1, saying=saying)
    dev.refuse("bench", "serving", "--stack", "dev", status=1, saying=saying)
    dev.refuse("bench", "serving", status=1, saying="no stack selected")


def test_global_options_stand_anywhere(dev: Lab) -> None:
    before = dev.run("--stack", "dev", "status", "--json").json
    assert dev.run("status", "--json", "--stack=dev").json == before
    assert dev.run("status", "-s", "dev", "--json", "--non-interactive").json == before
    assert before["stack"] == "dev"


def test_a_folder_without_a_project_is_refused(lab: Lab) -> None:
    lab.refuse("stack", "ls", "--cwd", str(lab.home), status=1, saying="No Pulumi.yaml project file was found")
    lab.refuse("stack", "ls", "-C", str(lab.home / "absent"), status=2, saying="does not exist")


def test_file_errors_are_reported_without_a_traceback(dev: Lab) -> None:
    dev.refuse("stack", "ls", env={"PULUMI_HOME": "/dev/null"}, status=1, saying="Not a directory: /dev/null/")


def test_a_defect_leaves_its_traceback_in_a_private_file(tmp_path: Path) -> None:
    script = "from cli.errors import report_unexpected\ntry: 1 / 0\nexcept Exception as e: report_unexpected(e)"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "unexpected ZeroDivisionError" in shown
    assert "Traceback" not in shown
    (log,) = tmp_path.iterdir()
    assert str(log) in shown
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "Traceback" in log.read_text()


def test_the_pulumi_engine_needs_pulumi(lab: Lab) -> None:
    lab.engine = "pulumi"
    lab.refuse("stack", "ls", env={"PATH": "/usr/bin:/bin"}, status=1, saying="pulumi is not on PATH")


def test_arguments_of_test_go_to_pytest() -> None:
    shown = subprocess.run(
        [ROOT / "lab", "test", "tests/cli/test_command.py", "-k", "current", "-s", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown
    assert "1 passed" in shown.stdout
    assert "tests  passed" in shown.stdout


def test_the_summary_says_what_was_slow_and_ends_with_what_failed(tmp_path: Path) -> None:
    """Hours of output come after a failure: the last lines must say which test it was, and why."""
    (tmp_path / "test_broken.py").write_text("""
import time
import pytest

@pytest.mark.parametrize("number", range(11))
def test_wait(number: int) -> None:
    time.sleep(2 * (number == 7))

def test_sum() -> None:
    assert 1 + 1 == 3
""")
    shown = subprocess.run(
        [ROOT / "lab", "test", "--rootdir", tmp_path, "-p", "no:cacheprovider", tmp_path / "test_broken.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode != 0
    summary = shown.stdout.partition("tests  failed (1)")[2]
    assert re.search(r"^ROOM +TESTS  TIME\ntest_broken +12 +\d+\.\d s$", summary, re.MULTILINE), summary
    slowest = re.search(r"^SLOWEST TESTS +TIME\n((?:.+\n)+)", summary, re.MULTILINE)
    assert slowest, summary
    names, times = zip(*(line.split()[:2] for line in slowest[1].splitlines()), strict=True)
    assert names[0] == "test_broken.test_wait[7]"
    assert len(times) == 10
    assert [float(one) for one in times] == sorted(map(float, times), reverse=True)
    assert "test_broken.test_sum" in summary
    assert "assert (1 + 1) == 3" in summary
