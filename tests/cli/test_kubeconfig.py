"""`lab kubeconfig`, of a program that puts out what one with a cluster does."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.harness import Lab

PROGRAM = 'pulumi.export("kubeconfig", pulumi.Output.secret("kind: Config"))'


def test_it_is_readable_by_the_user_only_and_the_shell_command_is_printed(dev: Lab) -> None:
    dev.write(PROGRAM)
    dev.run("up", "--yes", "--stack", "dev")
    result = dev.run("kubeconfig", "--stack", "dev").stdout.strip()
    assert "kind: Config" not in result
    path = Path(subprocess.check_output(["sh", "-c", f"{result}; printf %s $KUBECONFIG"], text=True))
    assert path.read_text() == "kind: Config"
    assert path.stat().st_mode & 0o777 == 0o600
    chosen = dev.project / "my config"
    dev.run("kubeconfig", "--stack", "dev", "--output", str(chosen))
    assert chosen.stat().st_mode & 0o777 == 0o600


def test_a_stack_without_a_cluster_is_refused(dev: Lab) -> None:
    dev.refuse("kubeconfig", "--stack", "dev", status=1, saying="has no cluster")
