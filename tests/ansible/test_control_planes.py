"""Three control planes on a real devcloud, one of which dies: `pytest -m slow_cloud tests/ansible -s`."""

from __future__ import annotations

import itertools
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.ansible.conftest import BUNDLE, Cluster, Machines
from tests.devcloud.support import SSH, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
PROXY_PORT = 7443
KUBECTL = BUNDLE / "bin/kubernetes/v1.37.2/kubectl"


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    hosts = machines.boot("c0", "c1", "c2", "w0")
    worker = {"w0": hosts.pop("w0")}
    made = Cluster(machines, tmp_path_factory.mktemp("cluster"), hosts, worker)
    made.ok("site")
    return made


@contextmanager
def through_the_proxy_of(cluster: Cluster, node: str) -> Iterator[list[str]]:
    """kubectl that asks the proxy on a node, as that node's kubelet does."""
    address = cluster.machines.nodes[node].address
    forward = [f"{PROXY_PORT}:127.0.0.1:{PROXY_PORT}", "-i", str(cluster.machines.key), f"cc@{address}"]
    tunnel = subprocess.Popen([*SSH, "-N", "-o", "ExitOnForwardFailure=yes", "-L", *forward])
    kubectl = [str(KUBECTL), f"--kubeconfig={cluster.kubeconfig}", f"--server=https://127.0.0.1:{PROXY_PORT}"]
    try:
        version = [*kubectl, "get", "--raw=/version"]
        wait(lambda: subprocess.run(version, check=False, capture_output=True).returncode == 0, 60, "the tunnel")
        yield kubectl
    finally:
        tunnel.terminate()
        tunnel.wait()


def test_writes_go_on_when_a_control_plane_dies(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    assert cluster.ready() == {"c0", "c1", "c2", "w0"}
    machines = cluster.machines
    written: list[float] = []
    lost = 0
    with through_the_proxy_of(cluster, "w0") as kubectl:
        began = time.monotonic()
        for number in range(60):
            if number == 20:
                machines.kill("c1")
            command = [*kubectl, "--request-timeout=4s", "create", "configmap", f"written-{number}"]
            if subprocess.run(command, check=False, capture_output=True).returncode:
                lost += 1
            else:
                written.append(time.monotonic() - began)
    gap = max(later - earlier for earlier, later in itertools.pairwise(written))
    record_property("figures", f"a control plane killed: {len(written)} of 60 writes done, longest gap {gap:.1f} s")
    assert lost < 5
    wait(lambda: cluster.ready() == {"c0", "c1", "c2", "w0"}, 300, "the killed control plane again")
    again = cluster.ok("site")
    assert again.changes == []
