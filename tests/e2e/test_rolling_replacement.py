"""All nodes of a cluster get another image, and `up` is killed again and again on the way.

Three control planes and a worker, whose volume has data. A client writes to the API all the while and notes what was
acknowledged. Each run is killed with SIGKILL, engine, program, providers and playbook together, at the next of the
points below: so the kills are spread over what a replacement does, not over the clock. The last run gets through.

Costs about 25 minutes on idle cores, 10 GiB of memory beside the cloud's, and a bundle (`lab bundle build`).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.ansible.conftest import ETCDCTL
from tests.e2e.harness import BUNDLE, VERSION, Cloud, Cluster, Deployment
from tests.e2e.rolling import Writer, another_image, servers
from tests.e2e.victim import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.e2e.fault_proxy import Call, Moment, Proxy

pytestmark = [pytest.mark.slow_cloud, pytest.mark.thorough, pytest.mark.timeout(7200)]

STACK: Final = "e2e-rolling"
NEWER: Final = "e2e-rolling-newer"
CONTROL_PLANES: Final = 3
MARKER: Final = "/var/lib/local-path/marker"
"""On the volume that holds the stores."""
IN_ORDER: Final = (
    "kubernetes_node: Drain the nodes",
    "kubernetes_node: Stop the pods",
    "kubernetes_node: Delete the nodes",
    r"DELETE nova/\S*/servers/[0-9a-f-]+$",
    r"POST nova/\S*/servers$",
    "containerd: Install containerd and runc",
    "kubernetes_node: Import the images",
    "kubernetes_node: Run kubeadm ",
    "cni: Start the pod network",
    "Wait until every node is ready",
)
"""What a replacement does to a node, from its leave to its successor's: requests to the cloud, tasks of playbooks."""
OTHER: Final = 2
"""Every other point for a node, beginning with the first for one and with the second for the next."""
ENOUGH: Final = 20


class Killer:
    """Kills a run at the first thing it does that fits a pattern: a request to the cloud, or a task of a playbook."""

    def __init__(self, lab: Deployment, proxy: Proxy) -> None:
        self._lab, self._proxy = lab, proxy
        self._started = threading.Event()
        self._run: Run | None = None
        self._pattern = re.compile("")
        self.fatal = ""

    def up(self, pattern: str) -> str:
        """Run `up` until the pattern fits; what fitted, or nothing where the run got through."""
        self.fatal, self._pattern = "", re.compile(pattern)
        self._started.clear()
        self._proxy.watch = self._asked
        arguments = ("--non-interactive", "up", "--yes", "--skip-preview", "--json")
        try:
            self._run = Run(self._lab.command(*arguments), self._lab.env, self._said)
            self._started.set()
            outcome = self._run.end()
        finally:
            self._proxy.watch = lambda _call, _moment: False
        assert outcome.status == (-9 if self.fatal else 0), outcome.messages[-6000:]
        return self.fatal

    def _asked(self, call: Call, moment: Moment) -> bool:
        # The cloud has carried it out, and nobody hears of it.
        if moment == "done":
            self._see(str(call).partition("?")[0])
        return bool(self.fatal)

    def _said(self, line: str) -> None:
        if line.startswith("{"):
            self._see(str(json.loads(line).get("diagnosticEvent", {}).get("message", "")))

    def _see(self, what: str) -> None:
        if not self.fatal and self._pattern.search(what):
            self._started.wait()
            assert self._run is not None
            self.fatal = what.strip()
            self._run.kill()


@pytest.fixture
def lab(deploy: Callable[[str], AbstractContextManager[Deployment]], proxy: Proxy) -> Iterator[Deployment]:
    with deploy(STACK) as lab:
        lab.reach(proxy.urls["keystone"])
        lab.change(
            lease="none",
            cluster={"kubernetesVersion": VERSION, "bundle": str(BUNDLE)},
            network__floatingIps="control-plane",
            storage__volumes={"stores": {"sizeGb": 1, "attachTo": "worker-0", "holds": "stores"}},
            nodes__groups__control__flavor="m1.medium",
            nodes__groups__worker__flavor="m1.medium",
        )
        lab.change(nodes__groups__control__count=CONTROL_PLANES, nodes__groups__worker__count=1)
        lab.perform("up")
        yield lab
        lab.perform("destroy")


def points() -> Iterator[str]:
    """Where runs are killed, one after the other."""
    for node in range(CONTROL_PLANES + 1):
        yield from IN_ORDER[node % OTHER :: OTHER]


@pytest.fixture
def newer(cloud: Cloud, tmp_path: Path) -> Iterator[None]:
    with another_image(cloud, NEWER, tmp_path / "image.raw"):
        yield


@pytest.mark.usefixtures("newer")
def test_a_rolling_replacement_that_is_killed_goes_on(
    lab: Deployment,
    cloud: Cloud,
    proxy: Proxy,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    nodes: dict[str, dict[str, str]] = lab.output("nodes")
    control = [node["floatingIp"] for node in nodes.values() if node["role"] == "control-plane"]
    cluster = Cluster(lab, tmp_path / "kubeconfig")
    assert len(cluster.ready()) == len(nodes)
    lab.run("ssh", "worker-0", f"sudo sh -c 'echo kept > {MARKER}'")
    before = servers(cloud, STACK)
    lab.change(nodes__image=NEWER)

    killer, killed = Killer(lab, proxy), list[str]()
    began = time.monotonic()
    with Writer(cluster.kubeconfig, control) as writer:
        for pattern in points():
            fatal = killer.up(pattern)
            assert fatal, f"no run came to {pattern} any more, after {killed}"
            killed.append(fatal)
            print(f"{time.monotonic() - began:6.1f} s  killed at {fatal}", flush=True)
        lab.perform("up")
    seconds = time.monotonic() - began

    assert len(killed) >= ENOUGH
    lab.run("preview", "--expect-no-changes")
    after = servers(cloud, STACK)
    assert Counter(server for server, _ in after) == Counter(f"{STACK}-{name}" for name in nodes)
    assert not {id_ for _, id_ in before} & {id_ for _, id_ in after}
    assert set(cluster.ready()) == {f"{STACK}-{name}" for name in nodes}
    found = cluster.kubectl("get", "configmaps", "--output", "jsonpath={.items[*].metadata.name}").split()
    lost = set(writer.acknowledged) - set(found)
    assert lost == set()
    members = lab.run("ssh", "control-0", f"sudo {ETCDCTL} member list").stdout.splitlines()
    assert len([member for member in members if ", started, " in member]) == len(members) == CONTROL_PLANES
    assert lab.run("ssh", "worker-0", f"sudo cat {MARKER}").stdout.strip() == "kept"
    record_property(
        "figures",
        f"{len(nodes)} nodes replaced one by one, `up` killed {len(killed)} times on the way: {seconds:.0f} s; "
        f"{len(writer.acknowledged)} writes acknowledged, {len(lost)} lost, {writer.refused} tried again",
    )
