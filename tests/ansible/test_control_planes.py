"""Three control planes on a real devcloud, one of which dies: `pytest -m slow_cloud tests/ansible -s`."""

from __future__ import annotations

import itertools
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.ansible.conftest import BUNDLE, ETCDCTL, Cluster
from tests.devcloud.support import SSH, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ansible.conftest import Machines

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
NODES = {"c0", "c1", "c2", "w0"}
WRITES = 100
PROXY_PORT = 7443
KUBECTL = BUNDLE / "bin/kubernetes/v1.37.2/kubectl"


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    hosts = machines.boot(*sorted(NODES))
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


def test_writes_go_on_when_a_control_plane_dies(cluster: Cluster, figure: Callable[[str], None]) -> None:
    assert cluster.ready() == NODES
    written: dict[str, float] = {}
    lost: list[str] = []
    with through_the_proxy_of(cluster, "w0") as kubectl:
        began = time.monotonic()
        for number in range(WRITES):
            if number == WRITES // 4:
                cluster.machines.kill("c1")
            name = f"written-{number}"
            command = [*kubectl, "--request-timeout=4s", "create", "configmap", name]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                lost.append(done.stderr)
            else:
                written[name] = time.monotonic() - began
    gap = max(later - earlier for earlier, later in itertools.pairwise(written.values()))
    figure(f"a control plane killed: {len(lost)} of {WRITES} writes lost, longest gap {gap:.1f} s")
    assert len(lost) < WRITES // 10, lost
    assert written.keys() <= {key.rpartition("/")[2] for key in cluster.objects()}
    wait(lambda: cluster.ready() == NODES, 300, "the killed control plane again")
    again = cluster.ok("site")
    assert again.changes == []


def test_a_backup_brings_back_what_was_wiped(cluster: Cluster, figure: Callable[[str], None]) -> None:
    then = cluster.objects()
    cluster.ok("backup")
    cluster.ok("reset", cluster_reset="yes")
    restored = cluster.ok("restore")
    figure(f"three control planes, {len(then)} objects: made anew and restored in {restored.seconds:.0f} s")
    now = cluster.objects()
    assert {key: now.get(key) for key in then} == then
    wait(lambda: cluster.ready() == NODES, 120, "the nodes are ready")
    members = cluster.machines.ssh("c0", f"{ETCDCTL} member list").splitlines()
    assert len(members) == 3
