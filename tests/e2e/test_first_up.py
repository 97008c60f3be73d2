"""The first minutes of a newcomer: a fresh clone, an empty home, no cloud, `./lab up --yes`, a model that answers.

Costs some 12 minutes of two cores and 8 GiB of memory, beside a devcloud and a bundle that are there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.naming import stack_of
from tests.cli.harness import ROOT
from tests.e2e.harness import BUNDLE, on_subnet

if TYPE_CHECKING:
    from collections.abc import Callable

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(2400)]


STAGE = re.compile(r"^(cloud|preview|programs and images|deployment|model|total) +(\S+)$", re.MULTILINE)


def test_plain_up_in_a_fresh_clone(
    devcloud: Devcloud, student: Connection, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """devcloud is up already, or comes up for this: that takes its own time, which tests/devcloud measures."""
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    settings = clone / "Pulumi.dev.yaml"
    text = on_subnet(settings.read_text(), devcloud)
    settings.write_text(text.replace("  ml-cluster:cluster:\n", f"  ml-cluster:cluster:\n    bundle: {BUNDLE}\n"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PULUMI_", "XDG_"))}
    environment = {**clean, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def lab(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(clone / "lab"), *arguments], cwd=clone, env={**environment, **variables},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    look = lab("preview", DEVCLOUD_STATE=str(tmp_path / "none"))
    assert look.returncode == 2
    assert "a real OpenStack for this machine alone" in look.stderr
    assert "remedy: bring it up with `lab devcloud up`, or `lab up --yes`" in look.stderr
    assert not (tmp_path / "none").exists()

    try:
        up = lab("up", "--yes", DEVCLOUD_STATE=str(devcloud.layout.state))
        assert up.returncode == 0, up.stdout + up.stderr
        took = dict(STAGE.findall(up.stdout))
        record_property("figures", f"./lab up in a fresh clone, to a served prediction: {took}")
        assert took.keys() >= {"cloud", "deployment", "model", "total"}
        assert re.search(r"^digits, version 1, asked for sample\.json: \[\d", up.stdout, re.MULTILINE), up.stdout
        for service in ("tracking", "artifacts", "digits"):
            assert f"https://{service}." in up.stdout
        passphrase = home / ".config" / "ml-cluster" / "passphrase"
        assert str(passphrase) in up.stderr
        assert passphrase.stat().st_mode & 0o777 == 0o600
        nodes = [server for server in student.compute.servers() if stack_of(server.metadata) == "dev"]
        assert len(nodes) == 3
        assert {server.status for server in nodes} == {"ACTIVE"}
        asked = lab("predict", "digits", str(clone / "k8s/models/digits/sample.json"))
        assert '"model_version": "1"' in asked.stdout, asked.stderr
        status = lab("status").stdout
        assert re.search(r"digits +production +1 +\d of \d ready", status), status
        again = lab("up", "--yes", "--expect-no-changes", DEVCLOUD_STATE=str(devcloud.layout.state))
        assert again.returncode == 0, again.stdout + again.stderr
    finally:
        down = lab("destroy", "--yes", DEVCLOUD_STATE=str(devcloud.layout.state))
    assert down.returncode == 0, down.stdout + down.stderr
    assert [server for server in student.compute.servers() if stack_of(server.metadata) == "dev"] == []
