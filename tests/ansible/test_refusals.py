"""What is wrong with a real machine is found there, and nothing is installed: `pytest -m slow_cloud tests/ansible`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ansible.conftest import Cluster, Machines
from tests.devcloud.support import wait

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]

SUDOERS = "/etc/sudoers.d/90-cloud-init-users"
# What goes wrong, how it is put right, and what is told. What takes root away must put it back by itself.
FAULTS = {
    "no python": (
        "mv /usr/bin/python3 /usr/bin/python3.away",
        "mv /usr/bin/python3.away /usr/bin/python3",
        "apt-get install python3",
    ),
    "no sudo": (
        f"mv {SUDOERS} /root/; systemd-run --on-active=120 mv /root/{SUDOERS.rpartition('/')[2]} {SUDOERS}",
        "true",
        "may not become root without a password",
    ),
    "port taken": (
        "systemd-run --unit=taken python3 -m http.server 6443",
        "systemctl stop taken",
        "port 6443 is taken by python3",
    ),
    "full disk": (
        "fallocate -l $(($(stat -f -c '%a*%S' /) - 500000000)) /var/full",
        "rm /var/full",
        "MiB are free below /var/lib",
    ),
}


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    hosts = machines.boot("c0", "w0")
    yield Cluster(machines, tmp_path_factory.mktemp("cluster"), {"c0": hosts["c0"]}, {"w0": hosts["w0"]})
    assert (
        machines.ssh("c0", "ls /usr/local/bin /etc/kubernetes /var/lib/ml-cluster 2>/dev/null | grep kube || true")
        == ""
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_nothing_installed(cluster: Cluster, fault: str) -> None:
    spoil, mend, told = FAULTS[fault]
    cluster.machines.ssh("c0", spoil)
    try:
        run = cluster.play("site")
    finally:
        wait(lambda: cluster.machines.root("c0", mend).returncode == 0, 300, "the machine as it was")
    assert run.status != 0
    assert f"c0 ({cluster.control_plane['c0']['ansible_host']}): " in run.output
    assert told in run.output
    assert run.changes == []


def test_machines_with_one_host_name_are_refused(cluster: Cluster) -> None:
    cluster.machines.ssh("w0", "hostnamectl set-hostname c0")
    run = cluster.play("site")
    cluster.machines.ssh("w0", "hostnamectl set-hostname w0")
    assert "machines share a host name: c0, c0" in run.output
    assert run.changes == []
