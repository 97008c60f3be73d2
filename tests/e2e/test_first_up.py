"""The first minutes of a newcomer: a fresh clone, an empty home, no cloud, `./lab up --yes`, a model that answers.

The cloud of DEVCLOUD_STATE is used if it is up; if not, `lab up` brings it up, and the test takes it down again. What
`~/.cache` has need not be had again. Then all nodes are exchanged for ones of another image. Costs some 14 minutes of
two cores and 8 GiB of memory with a warm cache, half an hour more with an empty one, where the bundle is built.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from devcloud.bringup import Devcloud
from infra.naming import stack_of
from tests.cli.harness import ROOT
from tests.devcloud.support import SETTINGS, STATE, Machine, connect, wait
from tests.e2e.harness import copy_image, on_subnet

if TYPE_CHECKING:
    from collections.abc import Callable

    from openstack.compute.v2.server import Server

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(5000)]

STAGE = re.compile(r"^(cloud|preview|programs and images|deployment|model|total) +(\S.*)$", re.MULTILINE)
NEWER = "first-up-newer"
"""The image that the nodes are exchanged for."""
GIVEN_BACK = 0.9
"""Of the memory that the stack took, at least this share is free again after its end; files' caches do not count."""


class Newcomer:
    """Somebody with a clone, and with nothing in the home folder but the cache."""

    def __init__(self, folder: Path, devcloud: Devcloud) -> None:
        self.clone, self.home = folder / "clone", folder / "home"
        self.home.mkdir()
        (self.home / ".cache").symlink_to(Path.home() / ".cache")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.clone)], check=True)
        settings = self.clone / "Pulumi.dev.yaml"
        settings.write_text(on_subnet(settings.read_text(), devcloud))
        foreign = ("OS_", "PULUMI_", "XDG_", "VIRTUAL_ENV", "LAB_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "HOME": str(self.home),
            "DEVCLOUD_STATE": str(devcloud.layout.state),
        }

    def lab(self, *arguments: str, status: int = 0, **variables: str) -> str:
        """All that `./lab` says, passed on at once: what is silent for minutes looks stuck."""
        with subprocess.Popen(
            [self.clone / "lab", *arguments], cwd=self.clone, env={**self.env, **variables},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            output = ""
            for line in process.stdout:
                print(line, end="", flush=True)
                output += line
        assert process.returncode == status, output
        return output


def nodes() -> list[Server]:
    """The instances of stack dev."""
    student = connect(Devcloud(STATE), "devcloud")
    return [server for server in student.compute.servers() if stack_of(server.metadata) == "dev"]


def remove_newer(devcloud: Devcloud) -> None:
    """Delete the images of that name."""
    images = connect(devcloud, "devcloud").image
    for image in images.images(name=NEWER):
        images.delete_image(str(image.id))


def replace_every_node(newcomer: Newcomer, devcloud: Devcloud, record_property: Callable[[str, object], None]) -> None:
    """Another image: the nodes are exchanged one after the other, and what was on the cluster stays."""
    remove_newer(devcloud)  # what a run that was killed has left: of two images of a name none is taken
    copy_image(devcloud, NEWER, newcomer.clone.parent / "image.raw")
    settings = newcomer.clone / "Pulumi.dev.yaml"
    settings.write_text(settings.read_text().replace("image: CC-Debian12\n", f"image: {NEWER}\n"))
    before = {server.id for server in nodes()}
    # Three servers and nodes, two attachments; nothing of the cluster, of the platform, and no volume.
    look = newcomer.lab("preview")
    assert "dev-control-0 is the only control plane: the cluster's API is unavailable" in look
    assert re.search(r"^ +\+-8 to replace\n +\d+ unchanged$", look, re.MULTILINE), look[-1500:]
    began = time.monotonic()
    newcomer.lab("up", "--yes", "--skip-preview")
    record_property(
        "figures", f"./lab up with another image, three nodes one at a time: {time.monotonic() - began:.0f} s"
    )
    assert {server.status for server in nodes()} == {"ACTIVE"}
    assert not before & {server.id for server in nodes()}
    # The registry's version 1 is still there, in the database and in the object store, and served.
    sample = newcomer.clone / "models/digits/sample.json"
    assert '"model_version": "1"' in newcomer.lab("predict", "digits", str(sample))
    assert re.search(r"digits +production +1 +\d of \d ready", newcomer.lab("status"))
    newcomer.lab("up", "--yes", "--expect-no-changes")


def test_plain_up_in_a_fresh_clone(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    devcloud = Devcloud(STATE, SETTINGS)
    was_up = devcloud.is_running
    newcomer = Newcomer(tmp_path, devcloud)
    machine, memory_before = Machine.now(), psutil.virtual_memory().available

    look = newcomer.lab("preview", status=2, DEVCLOUD_STATE=str(tmp_path / "none"), DEVCLOUD_SUBNET="172.25.9.0/24")
    assert "a real OpenStack on this machine" in look
    assert "remedy: start it with `lab devcloud up` or `lab up --yes`" in look
    assert not (tmp_path / "none").exists()

    try:
        up = newcomer.lab("up", "--yes")
        memory_with = psutil.virtual_memory().available
        took = {stage: time.strip() for stage, time in STAGE.findall(up)}
        record_property("figures", f"./lab up in a fresh clone, devcloud {'up' if was_up else 'down'} before, "
                        f"to a served prediction: {took}")  # fmt: skip
        assert took.keys() >= {"cloud", "deployment", "model", "total"}
        assert re.search(r"^digits, version 1, predicts for sample\.json: \[\d", up, re.MULTILINE)
        for service in ("tracking", "artifacts", "digits"):
            assert f"https://{service}." in up
        passphrase = newcomer.home / ".config" / "ml-cluster" / "passphrase"
        assert str(passphrase) in up
        assert passphrase.stat().st_mode & 0o777 == 0o600
        assert [server.status for server in nodes()] == ["ACTIVE"] * 3
        sample = newcomer.clone / "models/digits/sample.json"
        assert '"model_version": "1"' in newcomer.lab("predict", "digits", str(sample))
        assert re.search(r"digits +production +1 +\d of \d ready", newcomer.lab("status"))
        newcomer.lab("up", "--yes", "--expect-no-changes")
        replace_every_node(newcomer, devcloud, record_property)
    finally:
        ended = newcomer.lab("destroy", "--yes", "--delete-data")
        remove_newer(devcloud)
    named = ended.partition("Deleted, with all data:\n")[2].partition("\n\n")[0].splitlines()
    assert {"  volume dev-etcd, 1 GB", "  volume dev-stores, 8 GB"} <= set(named)
    assert nodes() == []
    assert "Nothing is left of stack 'dev'" in newcomer.lab("sweep")
    if not was_up:
        newcomer.lab("devcloud", "down")
        assert Machine.now() == machine

    def given_back() -> float:
        return (psutil.virtual_memory().available - memory_with) / (memory_before - memory_with)

    wait(lambda: given_back() >= GIVEN_BACK, 60, "the memory is free again")
    record_property("figures", f"./lab up took {(memory_before - memory_with) / 2**30:.1f} GiB of memory; "
                    f"{given_back():.0%} of it was free again after its end")  # fmt: skip
