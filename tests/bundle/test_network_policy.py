"""network-policy under a real API server, on pods that open real connections.

Two namespaces: `shop` (label team=shop) with web, client and far, the last of another node; `other` with guest.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bundle.node import CLIENT, Node, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = pytest.mark.slow_cloud
BUNDLE = Path("~/.cache/ml-cluster/bundle").expanduser()
PODS = ("web", "client", "far", "guest")
EVERYTHING = {(source, target) for source in PODS for target in PODS if source != target}


def to(target: str, *, but: str = "") -> set[tuple[str, str]]:
    return {pair for pair in EVERYTHING if pair[1] == target and pair[0] not in but.split()}


def of(source: str, *, but: str = "") -> set[tuple[str, str]]:
    return {pair for pair in EVERYTHING if pair[0] == source and pair[1] not in but.split()}


CLOSED = "podSelector: {}\npolicyTypes: [Ingress, Egress]"
# Policies of `shop`, and the connections each refuses, by port.
CASES: dict[str, tuple[str, dict[int, set[tuple[str, str]]]]] = {
    "nothing in": (
        "podSelector: {}\npolicyTypes: [Ingress]",
        {80: to("web") | to("client")},
    ),
    "nothing in to one": (
        "podSelector: {matchLabels: {app: web}}\ningress: []",
        {80: to("web")},
    ),
    "nothing out": (
        "podSelector: {matchLabels: {app: web}}\npolicyTypes: [Egress]",
        {80: of("web")},
    ),
    "everything in": (
        "podSelector: {}\ningress: [{}]",
        {80: set()},
    ),
    "in from a pod": (
        "podSelector: {matchLabels: {app: web}}\ningress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]",
        {80: {("guest", "web")}},
    ),
    "in from a namespace": (
        (
            "podSelector: {matchLabels: {app: web}}\n"
            "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}]"
        ),
        {80: to("web", but="guest")},
    ),
    "in from a pod of a namespace": (
        (
            "podSelector: {matchLabels: {app: web}}\n"
            "ingress: [{from: [{namespaceSelector: {matchLabels: {team: shop}},"
            " podSelector: {matchExpressions: [{key: far, operator: Exists}]}}]}]"
        ),
        {80: to("web", but="far")},
    ),
    "in from either of two": (
        (
            "podSelector: {matchLabels: {app: web}}\n"
            "ingress: [{from: [{podSelector: {matchLabels: {far: 'yes'}}}]},"
            " {from: [{ipBlock: {cidr: 10.244.1.5/32}}]}]"
        ),
        {80: {("client", "web")}},
    ),
    "in to a port": (
        "podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: 8080}, {protocol: UDP, port: 80}]}]",
        {80: to("web"), 8080: set()},
    ),
    "in to a range of ports": (
        "podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: 70, endPort: 90}]}]",
        {80: set(), 81: set(), 8080: to("web")},
    ),
    "in to a named port": (
        "podSelector: {matchLabels: {team: shop}}\ningress: [{ports: [{port: web}]}]",
        {80: to("client"), 8080: set()},
    ),
    "out to a named port": (
        (
            "podSelector: {matchLabels: {app: web}}\npolicyTypes: [Egress]\n"
            "egress: [{to: [{namespaceSelector: {}}], ports: [{port: web}]}]"
        ),
        {80: {("web", "client")}, 81: of("web"), 8080: of("web", but="client")},
    ),
    "out to a block of addresses": (
        (
            "podSelector: {matchLabels: {app: web}}\npolicyTypes: [Egress]\n"
            "egress: [{to: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.5/32]}}]}]"
        ),
        {80: {("web", "guest")}},
    ),
    "out to pods": (
        "podSelector: {matchLabels: {app: web}}\npolicyTypes: [Egress]\negress: [{to: [{podSelector: {}}]}]",
        {80: {("web", "guest")}},
    ),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    assert (BUNDLE / "bundle.json").exists(), "lab bundle build --only kubernetes --only etcd --only network-policy"
    with Node(BUNDLE, tmp_path_factory.mktemp("node")) as node:
        for name, labels in (("shop", {"team": "shop"}), ("other", {})):
            node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        node.pod("shop", "web", {"app": "web"})
        node.pod("shop", "client", {"app": "client", "team": "shop"}, web=8080)
        node.pod("shop", "far", {"app": "client", "far": "yes"}, node="another")
        node.pod("other", "guest", {"app": "web"})
        yield node


@pytest.fixture
def agent(node: Node) -> Iterator[subprocess.Popen[bytes]]:
    """network-policy, from nothing reaching the pods of `shop` on this node."""
    node.policy("shop", CLOSED)
    process = node.enforce()
    closed = to("web") | to("client") | of("web") | of("client")
    wait_until(lambda: refused(node) == closed, "the pods are not closed")
    yield process
    process.kill()
    process.wait()


def refused(node: Node, port: int = 80) -> set[tuple[str, str]]:
    with ThreadPoolExecutor(len(EVERYTHING)) as pool:
        reached = {pair: pool.submit(node.reaches, *pair, port) for pair in EVERYTHING}
    return {pair for pair, answer in reached.items() if not answer.result()}


def test_without_policies_everything_is_reached(node: Node) -> None:
    assert refused(node) == set()


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(("spec", "expected"), CASES.values(), ids=CASES.keys())
def test_a_policy_refuses_what_it_does_not_allow(
    node: Node, spec: str, expected: dict[int, set[tuple[str, str]]]
) -> None:
    node.policy("shop", spec)
    wait_until(
        lambda: {port: refused(node, port) for port in expected} == expected, "the policy is not enforced as expected"
    )


@pytest.mark.usefixtures("agent")
def test_a_node_reaches_its_own_pods_and_a_pod_itself(node: Node) -> None:
    assert node.reaches("web", "web", 80)
    node.inside(sys.executable, "-S", "-c", CLIENT, node.addresses["web"], "80")


@pytest.mark.usefixtures("agent")
def test_labels_and_policies_that_change_or_go_are_followed(node: Node) -> None:
    node.policy("shop", CASES["in from a pod"][0])
    wait_until(lambda: refused(node) == {("guest", "web")}, "the policy is not enforced")
    node.kubectl("label", "pod", "client", "-n", "shop", "app=other", "--overwrite")
    wait_until(lambda: refused(node) == {("guest", "web"), ("client", "web")}, "the label is not seen")
    node.kubectl("label", "pod", "client", "-n", "shop", "app=client", "--overwrite")
    node.kubectl("delete", "networkpolicy", "it", "-n", "shop")
    wait_until(lambda: refused(node) == set(), "the policy stays")


def test_what_was_known_is_enforced_while_it_is_away(node: Node, agent: subprocess.Popen[bytes]) -> None:
    agent.kill()
    agent.wait()
    assert refused(node) >= to("web")
    node.policy("shop", CASES["everything in"][0])
    restarted = node.enforce()
    wait_until(lambda: refused(node) == set(), "the change is not seen after a restart")
    restarted.kill()
    restarted.wait()
