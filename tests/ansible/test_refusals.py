"""What is wrong with a real machine is found there, and nothing is installed: `pytest -m slow_cloud tests/ansible`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.ansible.conftest import BUNDLE, Cluster
from tests.devcloud.support import wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ansible.conftest import Machines
    from tests.ansible.harness import Run

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]

SUDOERS = "/etc/sudoers.d/90-cloud-init-users"
SHIFTED = "/usr/lib/python3/dist-packages/shifted.pth"
# What goes wrong, how it is put right, what is told, and the remedy. What takes root away must put it back by itself.
FAULTS = {
    "no python": (
        "mv /usr/bin/python3 /usr/bin/python3.away",
        "mv /usr/bin/python3.away /usr/bin/python3",
        {"it has no Python 3": "apt-get install python3"},
    ),
    "no sudo": (
        f"mv {SUDOERS} /root/; systemd-run --on-active=120 mv /root/{SUDOERS.rpartition('/')[2]} {SUDOERS}",
        "true",
        {"may not become root without a password": "NOPASSWD:ALL"},
    ),
    # A container has its host's kernel: what that would say of swap and of the time is said in its place.
    "five at once": (
        (
            "systemd-run --unit=taken python3 -m http.server 6443;"
            "fallocate -l $(($(stat -f -c '%a*%S' /) - 500000000)) /var/full;"
            "printf '#!/bin/sh\\n' > /usr/bin/kubeadm; chmod +x /usr/bin/kubeadm;"
            "printf 'Filename Type\\n/dev/sda2 partition\\n' > /run/swaps; mount --bind /run/swaps /proc/swaps;"
            f"echo 'import time; time.time = lambda real=time.time: real() - 3600' > {SHIFTED}"
        ),
        f"rm -f {SHIFTED} /var/full /usr/bin/kubeadm; systemctl stop taken; umount /proc/swaps; rm -f /run/swaps",
        {
            "port 6443 is taken by python3": "Stop that program",
            "MiB are free below /var/lib": "Make room: 2500 MiB",
            "another containerd or Kubernetes is installed: /usr/bin/kubeadm": "apt-get remove",
            "swap is on: /dev/sda2": "swapoff -a",
            "s behind": "timedatectl set-ntp true",
        },
    ),
}


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    hosts = machines.boot("c0", "w0")
    before = {name: machines.snapshot(name) for name in hosts}
    yield Cluster(machines, tmp_path_factory.mktemp("cluster"), {"c0": hosts["c0"]}, {"w0": hosts["w0"]})
    for name, then in before.items():
        now = machines.snapshot(name)
        assert {what: now[what] ^ then[what] for what in then if now[what] != then[what]} == {}


def refused(cluster: Cluster, host: str, result: dict[str, str], **variables: str) -> Run:
    """Run site.yml, which says what is wrong with a machine, and what to do, and changes nothing."""
    run = cluster.play("site", **variables)
    assert run.status != 0
    assert run.changes == []
    for problem, remedy in result.items():
        assert problem in run.output
        assert remedy in run.output
    address = (cluster.control_plane | cluster.workers)[host]["ansible_host"]
    assert f"{host} ({address}): " in run.output
    return run


@pytest.mark.parametrize("fault", FAULTS)
def test_a_problem_is_reported_and_nothing_installed(cluster: Cluster, fault: str) -> None:
    spoil, mend, result = FAULTS[fault]
    cluster.machines.ssh("c0", spoil)
    try:
        refused(cluster, "c0", result)
    finally:
        wait(lambda: cluster.machines.root("c0", mend).returncode == 0, 300, "the machine as it was")


def test_machines_with_one_host_name_are_refused(cluster: Cluster) -> None:
    cluster.machines.ssh("w0", "hostnamectl set-hostname c0")
    run = cluster.play("site")
    cluster.machines.ssh("w0", "hostnamectl set-hostname w0")
    assert "machines share a host name: c0, c0" in run.output
    assert "hostnamectl set-hostname NAME" in run.output
    assert run.changes == []


def test_a_corrupt_artifact_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy, copy_function=os.link)
    kubelet = copy / "bin/kubernetes/v1.37.2/kubelet"
    content = bytearray(kubelet.read_bytes())
    content[len(content) // 2] ^= 1
    kubelet.unlink()
    kubelet.write_bytes(content)
    run = cluster.play("site", cluster_bundle=str(copy))
    assert "bin/kubernetes/v1.37.2/kubelet is corrupt" in run.output
    assert "lab bundle build" in run.output
    assert run.changes == []


def test_a_machine_that_is_off_is_named_within_a_minute(cluster: Cluster) -> None:
    cluster.machines.power_off("w0")
    try:
        run = refused(cluster, "w0", {"cannot be reached at": "security group"})
    finally:
        cluster.machines.power_on("w0")
    assert run.seconds < 60
