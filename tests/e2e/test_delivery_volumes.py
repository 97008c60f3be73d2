"""A pull request that would delete a volume of Cinder, on the forge in the box: red until it is labelled.

The workflows, `lab ci` and the program are this repository's own; the forge is on loopback (tests/forge), the volumes
are on devcloud. Needs the families forge and forge-runner in the bundle. Costs about 5 minutes on idle cores.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import Deployment, with_settings
from tests.engine.harness import wait_for
from tests.forge.box import Box
from tests.forge.pulls import ROOT, SECONDS, approve, comments, label, merge
from tests.forge.test_delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from openstack.connection import Connection

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(2400)]
STACK = "e2e-volumes"
VOLUMES = {"data": {"sizeGb": 1}, "kept": {"sizeGb": 1, "protect": True}}


class VolumeDelivery(Delivery):
    """A repository with this program, for a stack of one small node and two volumes."""

    stack = STACK

    def __init__(self, box: Box, clone: Path, lab: Deployment) -> None:
        super().__init__(box, clone)
        self.settings = lab.project / f"Pulumi.{STACK}.yaml"
        self.clouds = lab.cloud.clouds_yaml.read_text()
        self.env["OS_CLIENT_CONFIG_FILE"] = str(lab.cloud.clouds_yaml)

    def write_program(self) -> None:
        virtualenv = Path(sys.executable).parents[1]
        written = (ROOT / "Pulumi.yaml").read_text().replace("virtualenv: .venv", f"virtualenv: {virtualenv}")
        (self.clone / "Pulumi.yaml").write_text(written)
        for name in ("__main__.py", "uv.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.clone)
        for package in ("infra", "kubeyaml"):
            shutil.copytree(ROOT / package, self.clone / package, ignore=shutil.ignore_patterns("__pycache__"))
        (self.clone / ".gitignore").write_text("__pycache__/\n")
        text = self.settings.read_text().partition("encryptionsalt:")[0]
        (self.clone / self.settings.name).write_text(text)

    def without(self, branch: str, *names: str, preview: str) -> int:
        """A pull request that takes volumes out of `main`'s settings."""
        for words in (["fetch", "--quiet", "origin"], ["switch", "--quiet", "--detach", "origin/main"]):
            assert self.box.git(self.clone, *words, user="ada").returncode == 0
        text = (self.clone / self.settings.name).read_text()
        changed = with_settings(text, **{f"storage__volumes__{name}": None for name in names})
        return self.propose_files(branch, {self.settings.name: changed}, preview=preview)


@pytest.fixture(scope="module")
def delivery(deploy: Callable[[str], AbstractContextManager[Deployment]]) -> Iterator[VolumeDelivery]:
    with deploy(STACK) as lab, Box() as box, tempfile.TemporaryDirectory(prefix="clone-") as folder:
        lab.change(lease="none", nodes__groups__worker=None, nodes__groups__control__flavor="m1.tiny",
                   storage__volumes=VOLUMES)  # fmt: skip
        made = VolumeDelivery(box, Path(folder), lab)
        made.push()
        wait_for(box.is_quiet, "what the first push begins", SECONDS)
        made.lab("up", "--skip-preview", "--yes")
        yield made
        # What a setting protects, `destroy` deletes only once the setting is gone.
        settings = Path(folder, made.settings.name)
        settings.write_text(with_settings(settings.read_text(), storage__volumes={}))
        made.lab("destroy", "--yes", "--skip-preview", "--delete-data")


def is_there(student: Connection, name: str) -> bool:
    """Whether Cinder has a volume of the stack."""
    return any(one.name == f"{STACK}-{name}" for one in student.block_storage.volumes())


def test_a_volume_is_deleted_only_with_the_label(delivery: VolumeDelivery, student: Connection) -> None:
    box = delivery.box
    number = delivery.without("no-data", "data", preview="failure")
    (text,) = comments(box, number)
    assert "- deletes volume `data`" in text
    assert "Do not merge this" in text
    approve(box, number)
    assert {merge(box, number, user) for user in ("ada", "admin")} == {405}
    label(delivery.box, number)
    delivery.until(number, preview="success")
    assert is_there(student, "data")
    delivery.deploy(number)
    assert not is_there(student, "data")
    assert is_there(student, "kept")


def test_a_protected_volume_is_kept_with_the_label_too(delivery: VolumeDelivery, student: Connection) -> None:
    box = delivery.box
    number = delivery.without("no-kept", "kept", preview="failure")
    label(delivery.box, number)
    # It is looked at again, and still red: the first comment has been replaced.
    wait_for(lambda: "protect" in "".join(comments(box, number)), "the comment", SECONDS)
    wait_for(box.is_quiet, "the preview with the label", SECONDS)
    delivery.until(number, preview="failure")
    approve(box, number)
    assert {merge(box, number, user) for user in ("ada", "admin")} == {405}
    assert is_there(student, "kept")
