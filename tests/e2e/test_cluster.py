"""The nodes of a stack become a Kubernetes cluster, on a real cloud; the tests build on one another.

Costs about 5 minutes on idle cores, 6 GiB of memory beside the cloud's, and a bundle (`lab bundle build`).
"""

from __future__ import annotations

import itertools
import re
import shlex
import time
from typing import TYPE_CHECKING

import pytest

from tests.ansible.harness import Host, filled_in, play
from tests.devcloud.support import SSH
from tests.e2e.harness import BUNDLE, VERSION, Cloud, Cluster, Deployment, Step, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3000)]
STACK = "e2e-cluster"
FLAVOR = "m1.medium"
STAGE = re.compile(r"(?:^|: )(\S[^:\n]*?) {2,}([\d.]+) s$", re.MULTILINE)
"""A line of the table of stages."""


@pytest.fixture(scope="module")
def cluster(
    deploy: Callable[[str], AbstractContextManager[Deployment]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with deploy(STACK) as lab:
        lab.change(
            lease="none",
            cluster={"kubernetesVersion": VERSION, "bundle": str(BUNDLE)},
            storage__volumes={"stores": {"sizeGb": 1, "attachTo": "worker-0", "holds": "stores"}},
            nodes__groups__control__flavor=FLAVOR,
            nodes__groups__worker__flavor=FLAVOR,
        )
        lab.change(nodes__groups__worker__count=2)
        yield Cluster(lab, tmp_path_factory.mktemp("kube") / "config")
        lab.perform("destroy")


def test_up_makes_a_cluster_of_the_nodes(cluster: Cluster, record_property: Callable[[str, object], None]) -> None:
    began = time.monotonic()
    result = cluster.lab.run("up", "--yes", "--skip-preview").stdout
    seconds = time.monotonic() - began
    assert cluster.ready() == {f"{STACK}-{node}": VERSION for node in ("control-0", "worker-0", "worker-1")}
    stages = {name: float(took) for name, took in STAGE.findall(result)}
    assert list(stages)[-1] == "Total"
    until_ready = itertools.takewhile(lambda stage: not stage.startswith("Install the add-ons"), stages)
    record_property("figures", f"devcloud: up with a cluster of three nodes: {seconds:.0f} s; "
                    f"from the playbook's start to all Ready {sum(stages[stage] for stage in until_ready):.0f} s: "
                    + ", ".join(f"{stage} {took} s" for stage, took in stages.items()))  # fmt: skip


def test_a_second_up_changes_nothing(cluster: Cluster, record_property: Callable[[str, object], None]) -> None:
    began = time.monotonic()
    cluster.lab.run("up", "--yes", "--expect-no-changes")
    record_property("figures", f"devcloud: up of a cluster without changes: {time.monotonic() - began:.1f} s")


def test_an_inventory_written_by_hand_gives_the_same_cluster(cluster: Cluster, tmp_path: Path) -> None:
    key, entry = cluster.lab.login()
    user, _, floating_ip = entry.partition("@")
    jump = shlex.join([*SSH, "-i", str(key), "-o", "IdentitiesOnly=yes", "-W", "%h:%p", entry])
    hosts: dict[str, dict[str, Host]] = {"control-plane": {}, "worker": {}}
    for name, node in cluster.lab.output("nodes").items():
        reached = {"ansible_host": node["floatingIp"] or node["address"], "node_address": node["address"]}
        if not node["floatingIp"]:
            reached["ansible_ssh_common_args"] = shlex.join(["-o", f"ProxyCommand={jump}"])
        hosts[node["role"]][f"{STACK}-{name}"] = reached
    written = filled_in(
        hosts["control-plane"], hosts["worker"], ansible_user=user, ansible_ssh_private_key_file=str(key),
        cluster_name=STACK, cluster_bundle=str(BUNDLE), cluster_kubeconfig=str(cluster.kubeconfig),
        cluster_api_names=[floating_ip],
    )  # fmt: skip
    run = play("site", written, tmp_path)
    assert run.status == 0, run.output[-6000:]
    assert run.changes == []


def test_more_and_fewer_workers(cluster: Cluster) -> None:
    cluster.lab.change(nodes__groups__worker__count=4)
    steps = cluster.lab.up_as_previewed().steps
    # Their own resources, and one update of the cluster.
    assert {step.op for step in steps} == {"create", "update"}
    assert [step.name for step in steps if step.op == "update"] == ["kubernetes"]
    assert steps[Step("create", "worker-3-member")] == 1
    assert set(cluster.ready()) == {f"{STACK}-control-0", *(f"{STACK}-worker-{number}" for number in range(4))}
    cluster.lab.change(nodes__groups__worker__count=1)
    cluster.lab.up_as_previewed()
    assert set(cluster.ready()) == {f"{STACK}-control-0", f"{STACK}-worker-0"}


def test_a_server_that_was_lost_is_a_node_again_with_its_data(cluster: Cluster, cloud: Cloud) -> None:
    marker = "/var/lib/local-path/marker"
    cluster.lab.run("ssh", "worker-0", f"sudo sh -c 'echo kept > {marker}; sync'")
    cloud.client("server", "delete", "--wait", f"{STACK}-worker-0")
    cluster.lab.perform("refresh")
    cluster.lab.up_as_previewed()
    wait(lambda: set(cluster.ready()) == {f"{STACK}-control-0", f"{STACK}-worker-0"}, "both nodes are Ready")
    assert cluster.lab.run("ssh", "worker-0", f"sudo cat {marker}").stdout.strip() == "kept"
