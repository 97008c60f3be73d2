"""Update plans where the Pulumi CLI deploys: its options are passed on, and the plan says what state it was made of.

A stand-in for `pulumi` notes how it is called, and writes what the CLI does; what plans mean is tested in tests/engine.
"""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.harness import Lab

STAND_IN = """#!/bin/sh
echo "$*" >> "$HOME/calls"
while [ $# -gt 0 ]; do
    if [ "$1" = --save-plan ]; then echo '{"manifest": {}, "resourcePlans": {}}' > "$2"; fi
    shift
done
"""


@pytest.fixture
def pulumi(dev: Lab) -> Lab:
    folder = dev.home / "bin"
    folder.mkdir()
    (folder / "pulumi").write_text(STAND_IN)
    (folder / "pulumi").chmod(0o755)
    dev.env |= {"PATH": f"{folder}:{dev.env['PATH']}", "PULUMI_STACK": "dev"}
    dev.engine = "pulumi"
    return dev


def test_the_clis_options_are_passed_on(pulumi: Lab) -> None:
    plan = pulumi.home / "plan.json"
    plan.write_text("an older one")
    plan.chmod(0o644)
    pulumi.run("preview", "--save-plan", str(plan))
    assert stat.S_IMODE(plan.stat().st_mode) == 0o600
    assert json.loads(plan.read_text()) == {
        "manifest": {},
        "resourcePlans": {},
        "base": {"project": "demo", "stack": "dev", "refresh": False, "resources": {}},
    }
    pulumi.run("up", "--plan", str(plan), "--yes")
    (previewed, again, updated) = (pulumi.home / "calls").read_text().splitlines()
    assert f"--save-plan {plan}" in previewed
    # `pulumi preview` has no --plan.
    assert again.startswith("preview ")
    assert "--plan" not in again
    assert updated.startswith("up ")
    assert f"--plan {plan}" in updated


def test_another_state_is_refused_before_the_cli_is_called(pulumi: Lab) -> None:
    plan = pulumi.home / "plan.json"
    pulumi.run("preview", "--save-plan", str(plan))
    (pulumi.home / "calls").unlink()
    pulumi.engine = "embedded"
    pulumi.run("up", "--skip-preview")
    pulumi.engine = "pulumi"
    pulumi.refuse("up", "--plan", str(plan), "--yes", status=1, saying="demo-dev is new")
    pulumi.refuse("preview", "--plan", str(plan), status=1, saying="use --engine embedded")
    assert not (pulumi.home / "calls").exists()
