"""The playbooks as text: the linter's strictest profile, settings that are all documented, files that parse."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.ansible.harness import ANSIBLE, PROGRAMS, inventory, play

if TYPE_CHECKING:
    from pathlib import Path

ROLES = ANSIBLE / "roles"
NODE = {
    "architecture": "amd64", "cgroup_v2": True, "container": "", "joined": False, "unfinished": False,
    "sys_resource": True, "sysctl": {},
}  # fmt: skip
OLD_NODE = NODE | {"cgroup_v2": False, "container": "lxc-libvirt", "sys_resource": False}


def test_the_linter_finds_nothing_at_its_strictest() -> None:
    done = subprocess.run(
        [PROGRAMS / "ansible-lint", "--offline", "--profile", "production", "--nocolor"],
        cwd=ANSIBLE, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("playbook", ["site", "upgrade", "scale", "reset", "backup", "restore", "images"])
def test_playbooks_parse(playbook: str, tmp_path: Path) -> None:
    run = play(playbook, inventory({"a": {}}, {"b": {}}), tmp_path, "--syntax-check")
    assert run.status == 0, run.output


def test_the_sample_inventory_has_every_setting() -> None:
    sample = (ANSIBLE / "inventory/sample.yml").read_text()
    defaults: dict[str, Any] = {}
    for role in ("cluster", "nvidia", "validate"):
        defaults |= yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    # Roles' own names of what an inventory says in another way.
    derived = {"cluster_node_address"}
    missing = [name for name in defaults.keys() - derived if f"{name}:" not in sample]
    assert not missing
    assert yaml.safe_load(sample)["all"]["children"].keys() >= {"control_plane", "workers"}


def render(tmp_path: Path, template: str, role: str, node: dict[str, Any], **variables: Any) -> str:
    """What a node of these facts gets."""
    (tmp_path / "bundle.json").write_text(
        json.dumps(
            {
                "architecture": "amd64",
                "artifacts": [
                    {"name": name, "version": "v1", "kind": "image"} for name in ("pause", "coredns", "etcd")
                ],
            }
        )
    )
    play_file = tmp_path / "render.yml"
    task = {
        "ansible.builtin.template": {"src": ROLES.as_posix() + f"/{role}/templates/{template}", "dest": "{{ target }}"}
    }
    plays = [
        {
            "hosts": "control_plane",
            "connection": "local",
            "gather_facts": False,
            "roles": [{"role": "cluster"}],
            "vars_files": [
                file.as_posix() for kind in ("defaults", "vars") for file in ROLES.glob(f"{role}/{kind}/main.yml")
            ],
            "tasks": [{"name": "Render", **task}],
        }
    ]
    play_file.write_text(json.dumps(plays))
    target = tmp_path / "rendered"
    host = {"node_address": "10.0.0.1", "cluster_node": node, "ansible_python_interpreter": sys.executable}
    hosts = inventory({"c": host}, {"w": {}})
    run = play(play_file, hosts, tmp_path, target=str(target), cluster_bundle=str(tmp_path), **variables)
    assert run.status == 0, run.output
    return target.read_text()


def test_containerd_follows_the_cgroup_version(tmp_path: Path) -> None:
    for node, systemd, restricted in ((NODE, True, False), (OLD_NODE, False, True)):
        settings = tomllib.loads(render(tmp_path, "config.toml.j2", "containerd", node))
        runtime = settings["plugins"]["io.containerd.cri.v1.runtime"]
        assert runtime["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is systemd
        assert runtime["restrict_oom_score_adj"] is restricted


def test_images_are_checked_where_there_is_a_key_and_nowhere_else(tmp_path: Path) -> None:
    plugin = "io.containerd.image-verifier.v1.bindir"
    assert plugin not in tomllib.loads(render(tmp_path, "config.toml.j2", "containerd", NODE))["plugins"]
    given = {"cluster_image_keys": ["key"], "cluster_images_unsigned": ["registry.example.org/group"]}
    settings = tomllib.loads(render(tmp_path, "config.toml.j2", "containerd", NODE, **given))
    # An empty folder would let everything through: the program is installed into this one.
    assert settings["plugins"][plugin]["bin_dir"] == "/opt/containerd/image-verifiers"
    # Options with which containerd pulls without asking the plugin.
    assert settings["plugins"]["io.containerd.cri.v1.images"].keys() == {"pinned_images", "registry"}
    assert settings["plugins"]["io.containerd.cri.v1.images"]["registry"].keys() == {"config_path"}
    assert json.loads(render(tmp_path, "image-verifier.json.j2", "containerd", NODE, **given)) == {
        "keys": ["key"],
        "registries": ["http://10.0.0.1:5000"],
        "unsigned": ["registry.example.org/group"],
    }


def test_kubeadm_follows_the_cgroup_version(tmp_path: Path) -> None:
    for node, ignored, limits in ((NODE, [], True), (OLD_NODE, ["SystemVerification"], False)):
        text = render(tmp_path, "init.yaml.j2", "kubernetes_node", node)
        documents = {document["kind"]: document for document in yaml.safe_load_all(text)}
        registration = documents["InitConfiguration"]["nodeRegistration"]
        assert registration["ignorePreflightErrors"] == ignored
        assert ("conntrack" not in documents["KubeProxyConfiguration"]) is limits
        assert documents["KubeProxyConfiguration"]["mode"] == "nftables"


def test_kubeadm_waits_as_long_as_the_playbooks(tmp_path: Path) -> None:
    """Slow machines are given the time that the inventory says: kubeadm's own would end the run first."""
    for template in ("init.yaml.j2", "upgrade.yaml.j2"):
        text = render(tmp_path, template, "kubernetes_node", NODE, cluster_wait_seconds=1800)
        waits = next(iter(yaml.safe_load_all(text)))["timeouts"]
        assert {"controlPlaneComponentHealthCheck", "kubernetesAPICall", "upgradeManifests"} <= waits.keys()
        assert set(waits.values()) == {"1800s"}


def test_containerd_runs_nvidias_runtime(tmp_path: Path) -> None:
    settings = tomllib.loads(render(tmp_path, "nvidia.toml.j2", "nvidia", NODE))
    runtime = settings["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]
    assert runtime["default_runtime_name"] in runtime["runtimes"]


def test_files_are_written_once_and_only_where_they_differ(tmp_path: Path) -> None:
    """The module `files`: a second run changes nothing, a check writes nothing, and force=false keeps what is there."""
    folder, kept = tmp_path / "made", tmp_path / "made/kept"
    task = {
        "folders": [{"path": str(folder), "mode": "0700"}],
        "files": [
            {"dest": str(folder / "one"), "content": "{{ text }}\n", "mode": "0640"},
            {"dest": str(kept), "content": "{{ text }}\n", "mode": "0600", "force": False},
        ],
    }
    playbook = tmp_path / "files.yml"
    playbook.write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [{"name": "Write", "files": task}]}])
    )

    def run(*arguments: str, text: str) -> list[str]:
        done = play(playbook, {"all": {}}, tmp_path, *arguments, text=text)
        assert done.status == 0, done.output
        return done.changes

    assert run("--check", text="a")
    assert not folder.exists()
    assert run(text="a")
    assert run(text="a") == []
    assert run("--check", text="b")
    assert (folder / "one").read_text() == "a\n"
    assert run(text="b")
    assert ((folder / "one").read_text(), kept.read_text()) == ("b\n", "a\n")
    (folder / "one").chmod(0o666)
    assert run(text="b")
    modes = [path.stat().st_mode & 0o777 for path in (folder, folder / "one", kept)]
    assert modes == [0o700, 0o640, 0o600]
