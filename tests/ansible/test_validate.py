"""What `validate` refuses without a machine that answers."""

from __future__ import annotations

import json
import socket
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.ansible.harness import ANSIBLE, Run, inventory, play

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "v1.37.2"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with every artifact that the roles ask for, each a few bytes."""
    asked = yaml.safe_load((ANSIBLE / "roles/cluster/vars/main.yml").read_text())
    folder = tmp_path / "bundle"
    artifacts: list[dict[str, Any]] = []
    for kind in ("program", "image", "manifest", "unit"):
        lists = [
            value for key, value in asked.items() if key.startswith(f"cluster_{kind}s_") and isinstance(value, list)
        ]
        for name in {entry["name"] for entries in lists for entry in entries}:
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            digest = sha256(name.encode()).hexdigest()
            relative = str(path.relative_to(folder))
            artifacts.append({"name": name, "version": VERSION, "kind": kind, "path": relative, "sha256": digest})
    (folder / "bundle.json").write_text(json.dumps({"architecture": "amd64", "artifacts": artifacts}))
    return folder


@pytest.fixture
def closed_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(tmp_path: Path, bundle: Path, port: int, **variables: Any) -> Run:
    host = {"ansible_host": "127.0.0.1", "ansible_port": port}
    settings = {"cluster_bundle": str(bundle), "cluster_kubernetes_version": VERSION, **variables}
    run = play("site", inventory({"c0": host}, {"w0": host}), tmp_path, **settings)
    assert run.status != 0
    assert run.changes == []
    return run


def test_a_machine_that_does_not_answer_is_named_with_its_address_and_the_reason(
    tmp_path: Path, bundle: Path, closed_port: int
) -> None:
    run = refused(tmp_path, bundle, closed_port)
    for name in ("c0", "w0"):
        assert f"{name} (127.0.0.1): cannot be reached at 127.0.0.1" in run.output
    assert "still booting" in run.output
    assert "the bundle in" not in run.output
    assert run.seconds < 60


def test_a_flipped_bit_in_the_bundle_is_refused(tmp_path: Path, bundle: Path, closed_port: int) -> None:
    (bundle / "program/kubelet").write_text("kubelex")
    assert "program/kubelet is corrupt" in refused(tmp_path, bundle, closed_port).output


def test_a_version_that_the_bundle_has_not_is_refused(tmp_path: Path, bundle: Path, closed_port: int) -> None:
    run = refused(tmp_path, bundle, closed_port, cluster_kubernetes_version="v1.38.0")
    assert "The bundle has program kubeadm in v1.37.2; wanted: v1.38.0." in run.output


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path, closed_port: int) -> None:
    run = refused(tmp_path, tmp_path / "nothing", closed_port)
    assert "lab bundle build" in run.output


SOUND = {
    # A slow machine: it was asked 100 s ago, and took 70 s of them to answer.
    "clock_offset": 70.0, "clock_asked": time.time() - 100,
    "architecture": "amd64", "cgroup_v2": True, "container": "", "disk_free_mib": 9000,
    "foreign": [], "hostname": "sound", "joined": False, "unfinished": False, "kubelet_version": "", "listeners": {},
    "memory_mib": 4000, "python": [3, 11], "swap": [], "systemd": True,
}  # fmt: skip
FAULTY: dict[str, tuple[dict[str, Any], str, str]] = {
    "old-python": ({"python": [3, 6]}, "its Python is 3.6", "3.8 or newer"),
    "other-init": ({"systemd": False}, "its init system is not systemd", "Choose an image"),
    "other-processor": ({"architecture": "arm64"}, "it is of architecture arm64", "Build the bundle"),
    "swapping": ({"swap": ["/dev/sda2"]}, "swap is on: /dev/sda2", "swapoff -a"),
    "taken": ({"listeners": {"6443": "nginx"}}, "port 6443 is taken by nginx", "Stop that program"),
    "docker": ({"foreign": ["/usr/bin/containerd"]}, "another containerd or Kubernetes is installed", "kubelet"),
    "full": ({"disk_free_mib": 100}, "100 MiB are free below /var/lib", "Make room: 2500 MiB"),
    "small": ({"memory_mib": 500}, "it has 500 MiB of memory", "Choose a larger flavor: 700 MiB"),
    "early": ({"clock_offset": 9000.0}, "its clock is 9000.0 s ahead", "timedatectl set-ntp true"),
    "late": ({"clock_offset": -3600.0}, "its clock is 3600.0 s behind", "timedatectl set-ntp true"),
    "older": ({"joined": True, "kubelet_version": "v1.36.3"}, "it runs Kubernetes v1.36.3", "playbooks/upgrade.yml"),
    "Named_badly": ({}, "its name in the inventory cannot be a node's name", "lower case"),
    "twin": ({"hostname": "sound"}, "machines share a host name", "hostnamectl set-hostname"),
}


def test_each_problem_is_reported_with_its_remedy(tmp_path: Path, bundle: Path) -> None:
    role = ANSIBLE / "roles/validate"
    report = tmp_path / "report"
    facts = "{{ validate_checks | selectattr('fault') }}"
    plays = [
        {
            "hosts": "all",
            "gather_facts": False,
            "roles": [{"role": "cluster"}],
            "vars_files": [str(role / "defaults/main.yml"), str(role / "vars/main.yml")],
            "vars": {"validate_bundle": {"faults": []}},
            "tasks": [
                {"ansible.builtin.set_fact": {"validate_faults": facts}},
                {
                    "ansible.builtin.template": {"src": str(role / "templates/faults.j2"), "dest": str(report)},
                    "delegate_to": "localhost",
                    "run_once": True,
                },
            ],
        }
    ]
    file = tmp_path / "checks.yml"
    file.write_text(json.dumps(plays))
    hosts = {
        name: {"cluster_node": SOUND | {"hostname": name} | facts} for name, (facts, _, _) in FAULTY.items()
    }  # fmt: skip
    control_plane = {"sound": {"cluster_node": SOUND}}
    run = play(
        file, inventory(control_plane, hosts), tmp_path, cluster_bundle=str(bundle), cluster_kubernetes_version=VERSION
    )
    assert run.status == 0, run.output
    result = report.read_text()
    for name, (_, problem, remedy) in FAULTY.items():
        if name != "twin":
            assert f"{name} ({name}): {problem}" in result
        assert problem in result
        assert remedy in result
    assert "sound (" not in result
