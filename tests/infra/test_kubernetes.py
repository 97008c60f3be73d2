"""What decides that a node, or the cluster, changes: who is refused, replaced, updated or left alone."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from infra.credentials import CertificateProvider
from infra.kubernetes.cluster import ClusterProvider, KubeconfigProvider
from infra.kubernetes.inventory import recorded_servers
from infra.kubernetes.node import ClusterNodeProvider
from infra.kubernetes.previous import PreviousNodes

ADDRESS = {"control-0": "10.42.0.10", "worker-0": "10.42.0.11", "control-1": "10.42.0.12"}


def place(node: str, **changed: Any) -> dict[str, Any]:
    role = "control-plane" if node.startswith("control") else "worker"
    return {"host": f"lab-{node}", "role": role, "address": ADDRESS[node], "floating_ip": None, **changed}


def member(node: str, server: str, *others: str, **changed: Any) -> dict[str, Any]:
    places = [place(one) for one in ("control-0", "worker-0", *others)]
    kept = {"node": node, "name": "lab", "server": server, "volumes": [], "machines": places, "formed": True}
    return {**place(node), **kept, "variables": {}, **changed}


def cluster(*nodes: str, **variables: str) -> dict[str, Any]:
    ranges = {"cluster_pod_subnet": "10.244.0.0/16", "cluster_service_subnet": "10.96.0.0/16"}
    given = {"cluster_bundle": "/nowhere", "cluster_kubernetes_version": "v1.37.2", **ranges, **variables}
    return {
        "machines": [place(node) for node in nodes],
        "servers": {f"lab-{node}": {"server": f"id-{node}", "volumes": []} for node in nodes},
        "variables": given,
        "user": "cc",
        "content": "1",
    }


def test_nodes_that_are_made_at_the_same_time_are_all_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = {f"lab-worker-{number}": f"id-{number}" for number in range(200)}

    def made(host: str) -> None:
        ClusterNodeProvider().create({"name": "lab", "host": host, "server": wanted[host], "formed": False})

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(made, wanted))
    assert recorded_servers("lab") == wanted


def test_another_server_is_another_node_and_the_former_leaves_first() -> None:
    diff = ClusterNodeProvider().diff("", member("worker-0", "a"), member("worker-0", "b"))
    assert (diff.replaces, diff.delete_before_replace) == (["server"], True)


@pytest.mark.parametrize(
    "change",
    [{"floating_ip": "172.24.4.7"}, {"address": "10.42.0.99"}, {"private_key": "another"}, {"formed": False}],
)
def test_an_address_or_a_key_does_not_replace_a_node(change: dict[str, Any]) -> None:
    diff = ClusterNodeProvider().diff("", member("worker-0", "a"), member("worker-0", "a", **change))
    assert (diff.changes, diff.replaces) == (False, [])


def test_more_nodes_change_nothing_of_a_node_that_is_there() -> None:
    assert not ClusterNodeProvider().diff("", member("worker-0", "a"), member("worker-0", "a", "control-1")).changes


def test_the_only_control_plane_is_not_replaced_without_its_data() -> None:
    # The engine has nothing old of a node that is to go before its server.
    for olds in (member("control-0", "a"), {}):
        (failure,) = ClusterNodeProvider().check(olds, member("control-0", "b")).failures
        assert "the only control plane" in failure.reason
        assert "attachTo: control-0, holds: etcd" in failure.reason


def test_replacing_the_only_control_plane_warns_that_the_api_is_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    volumes = [{"holds": "etcd", "id": "v", "device": "/dev/vdb"}]
    for olds in (member("control-0", "a"), {}):
        ClusterNodeProvider().check(olds, member("control-0", "b", volumes=volumes))
        assert "the cluster's API is unavailable while its server is replaced" in capsys.readouterr().err
    ClusterNodeProvider().check(member("control-0", "a"), member("control-0", "b", "control-1"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "news",
    [
        member("control-0", "a"),
        member("control-0", "b", volumes=[{"holds": "etcd", "id": "v", "device": "/dev/vdb"}]),
        member("control-0", "b", "control-1"),
        member("control-0", "b", formed=False),
    ],
    ids=["same server", "etcd on a volume", "another control plane", "no cluster yet"],
)
def test_a_control_plane_that_may_be_replaced(news: dict[str, Any]) -> None:
    assert not ClusterNodeProvider().check(member("control-0", "a"), news).failures


def test_ranges_of_a_running_cluster_are_refused_all_at_once() -> None:
    news = cluster("control-0", cluster_pod_subnet="10.0.0.0/16", cluster_service_subnet="10.1.0.0/16")
    reasons = [failure.reason for failure in ClusterProvider().check(cluster("control-0"), news).failures]
    assert [reason.split(" ", 1)[0] for reason in reasons] == ["network.podCidr", "network.serviceCidr"]
    assert not ClusterProvider().check({}, news).failures


def test_another_server_changes_nothing_of_the_cluster() -> None:
    news = cluster("control-0", "worker-0")
    news["servers"]["lab-worker-0"]["server"] = "another"
    assert not ClusterProvider().diff("", cluster("control-0", "worker-0"), news).changes


@pytest.mark.parametrize("address", ["172.24.4.7", None])
def test_a_floating_ip_is_an_update(address: str | None) -> None:
    olds, news = cluster("control-0"), cluster("control-0")
    olds["machines"][0]["floating_ip"] = "172.24.4.100"
    news["machines"][0]["floating_ip"] = address
    diff = ClusterProvider().diff("", olds, news)
    assert (diff.changes, diff.replaces) == (True, [])


def test_a_node_that_a_refresh_did_not_find_is_brought_back() -> None:
    whole = cluster("control-0", "worker-0")
    assert ClusterProvider().diff("", {**whole, "machines": whole["machines"][:1]}, whole).changes


def test_an_unreachable_api_is_no_drift() -> None:
    props = {**cluster("control-0", "worker-0"), "name": "a-stack-without-a-kubeconfig-here"}
    assert ClusterProvider().read("lab", deepcopy(props)).outs == props


def test_missing_nodes_first_then_control_planes_then_workers_then_new_ones() -> None:
    servers, ports = {"control-0", "worker-0"}, {"control-0", "worker-0", "worker-1"}
    previous = PreviousNodes(True, frozenset(servers), frozenset(ports))
    roles = {"control-0": "control-plane"}
    nodes = ["worker-0", "worker-1", "worker-2", "control-0"]
    order = sorted(nodes, key=lambda node: previous.sort_key(node, roles.get(node, "worker")))
    assert order == ["worker-1", "control-0", "worker-0", "worker-2"]


@pytest.mark.parametrize(("authority", "issued", "due"), [("ca", "2020-01-01", True), ("", "2020-01-01", False)])
def test_a_certificate_near_its_end_is_made_again(authority: str, issued: str, due: bool) -> None:
    provider = CertificateProvider()
    news = {"names": ["lab.internal"], "authority_certificate": authority}
    olds = {**news, "issued": issued}
    checked = provider.check(olds, news).inputs
    assert provider.diff("", olds, checked).changes is due
    assert provider.check({}, news).inputs["issued"] > "2026"


@pytest.mark.parametrize(("issued", "changes"), [("2020-01-01", True), ("2999-01-01", False)])
def test_a_kubeconfig_is_fetched_again_before_its_certificate_ends(issued: str, changes: bool) -> None:
    provider = KubeconfigProvider()
    olds = {"name": "lab", "address": "172.24.4.100", "issued": issued}
    assert provider.diff("", olds, provider.check(olds, {**olds}).inputs).changes is changes


def test_more_nodes_leave_the_kubeconfig_as_it_is() -> None:
    olds = {"name": "lab", "address": "172.24.4.100", "issued": "2999-01-01", "machines": []}
    assert not KubeconfigProvider().diff("", olds, {**olds, "machines": [place("worker-0")]}).changes
