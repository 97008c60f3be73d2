"""What holds data is kept by `up`, and by `destroy` until somebody says that it may go."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from infra.settings.model import Volume

if TYPE_CHECKING:
    from tests.cli.harness import Lab

# Volumes as the project has them, of a resource that takes no cloud.
PROGRAM = """
config = pulumi.Config()

def volume(name, size, protect):
    opts = pulumi.ResourceOptions(protect=protect)
    return pulumi.ComponentResource(
        "openstack:blockstorage/volume:Volume", name, {"name": f"dev-{name}", "size": size}, opts
    )

volumes = [
    volume(name, 8, (config.get_object("protect") or {}).get(name, True)) for name in config.require_object("names")
]
volume("scratch", 1, False)
"""
DATA = ["volume dev-etcd, 8 GB", "volume dev-stores, 8 GB"]


@pytest.fixture
def volumes(dev: Lab) -> Lab:
    """A stack of this project with two protected volumes, and one that holds nothing."""
    dev.write(PROGRAM)
    file = dev.project / "Pulumi.yaml"
    file.write_text(file.read_text().replace("name: demo\n", "name: ml-cluster\n"))
    dev.env["PULUMI_STACK"] = "dev"
    dev.run("stack", "init", "dev")
    dev.run("config", "set", "names", '["etcd", "stores"]')
    dev.run("up", "--yes")
    return dev


def there(lab: Lab) -> dict[str, bool]:
    """The volumes of the state, and whether they are protected."""
    resources = lab.run("state", "export").json["deployment"].get("resources") or []
    return {one["urn"].split("::")[-1]: bool(one.get("protect")) for one in resources if "Volume" in one["type"]}


ALL = {"etcd": True, "stores": True, "scratch": False}


def test_what_a_volume_holds_decides() -> None:
    def protected(**given: object) -> bool:
        return Volume.model_validate({"sizeGb": 1, **given}).protected

    assert not protected()
    for holds in ("etcd", "stores", "backups"):
        assert protected(holds=holds)
        assert not protected(holds=holds, protect=False)
        assert not protected(holds=holds, retain=True)
    assert protected(protect=True)


def test_an_update_that_would_delete_data_is_refused_before_anything_is_done(volumes: Lab) -> None:
    volumes.run("config", "set", "names", '["etcd"]')
    for verb in (("preview",), ("up", "--yes"), ("up", "--yes", "--skip-preview")):
        told = volumes.run(*verb, status=1)
        text = told.stdout + told.stderr
        assert "stores" in text
        assert "protected" in text
        assert "`protect: false`, run `lab up`, then remove it" in told.stderr
    assert there(volumes) == ALL
    # The act that it takes: two updates.
    volumes.run("config", "set", "names", '["etcd", "stores"]')
    volumes.run("config", "set", "protect", '{"stores": false}')
    volumes.run("up", "--yes")
    volumes.run("config", "set", "names", '["etcd"]')
    assert "Deleted, with all data:\n  volume dev-stores, 8 GB" in volumes.run("up", "--yes").stdout
    assert there(volumes) == {"etcd": True, "scratch": False}


@pytest.mark.parametrize("flags", [("--yes",), ("--yes", "--skip-preview"), ("--skip-preview",)])
def test_destroy_names_the_data_and_wants_a_flag(volumes: Lab, flags: tuple[str, ...]) -> None:
    told = volumes.run("destroy", *flags, status=2)
    assert f"protected because it holds data: {', '.join(DATA)}" in told.stderr
    assert "--delete-data" in told.stderr
    assert there(volumes) == ALL
    volumes.run("destroy", *flags, "--delete-data", "--remove")
    assert volumes.run("stack", "ls", "--json").json == []


def test_destroy_on_a_terminal_wants_the_name_of_the_stack(volumes: Lab) -> None:
    for typed, status in (("prod", 1), ("dev", 0)):
        with volumes.terminal("destroy") as terminal:
            terminal.expect("Do you want to perform this destroy?")
            terminal.answer("yes")
            terminal.expect("type the stack's name, `dev`:")
            assert [f"  {name}" in terminal.text for name in DATA] == [True, True]
            terminal.answer(typed)
            assert terminal.end() == status
        assert there(volumes) == (ALL if status else {})


def test_a_preview_shows_it_and_changes_nothing(volumes: Lab) -> None:
    before = volumes.run("state", "export").stdout
    told = volumes.run("destroy", "--preview-only")
    named = told.stdout.partition("Deleted, with all data:\n")[2].splitlines()
    assert {f"  {name}" for name in DATA} <= set(named)
    assert volumes.run("state", "export").stdout == before


def test_what_a_setting_protects_stays_whatever_flag_is_given(volumes: Lab) -> None:
    settings = {"volumes": {"stores": {"sizeGb": 8, "protect": True}, "etcd": {"sizeGb": 8}}}
    volumes.run("config", "set", "storage", json.dumps(settings))
    told = volumes.run("destroy", "--yes", "--delete-data", status=1)
    assert "stores" in told.stdout + told.stderr
    assert there(volumes) == ALL


def test_targets_that_are_not_protected_need_no_flag(volumes: Lab) -> None:
    volumes.run("destroy", "--yes", "--target", "**::scratch")
    assert there(volumes) == {"etcd": True, "stores": True}
    volumes.run("destroy", "--yes", "--target", "**::etcd", status=2)
    volumes.run("destroy", "--yes", "--target", "**::etcd", "--delete-data")
    assert there(volumes) == {"stores": True}


KILLER = (
    PROGRAM
    + """
from pulumi.dynamic import CreateResult, Resource, ResourceProvider

class Killer(ResourceProvider):
    def create(self, props):
        return CreateResult("killer", {})

    def delete(self, id_, props):
        import os, signal
        os.kill(os.getppid(), signal.SIGKILL)

class Last(Resource):
    pass

# Children are deleted before their parent, so the volumes are there yet when the first is.
if config.get_bool("killer"):
    for index, parent in enumerate(volumes):
        Last(Killer(), f"last-{index}", {}, pulumi.ResourceOptions(parent=parent, protect=False))
"""
)


def test_a_destroy_that_is_killed_leaves_the_data_protected(volumes: Lab) -> None:
    volumes.write(KILLER)
    file = volumes.project / "Pulumi.yaml"
    file.write_text(file.read_text().replace("name: demo\n", "name: ml-cluster\n"))
    volumes.run("config", "set", "killer", "true")
    volumes.run("up", "--yes")
    killed = subprocess.run(
        volumes.command("destroy", "--yes", "--skip-preview", "--delete-data"), env=volumes.env, check=False
    )
    assert killed.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
    volumes.run("cancel", "--yes", status=None)
    assert {name: there(volumes).get(name) for name in ("etcd", "stores")} == {"etcd": True, "stores": True}
