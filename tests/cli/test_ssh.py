"""Which node a login goes through."""

from __future__ import annotations

import itertools
from typing import Any

from cli.ssh import node_at

NODES: dict[str, dict[str, Any]] = {
    "control-0": {"role": "control-plane", "address": "10.42.0.10", "floatingIp": "172.25.0.10"},
    "control-1": {"role": "control-plane", "address": "10.42.0.11", "floatingIp": "172.25.0.11"},
    "worker-0": {"role": "worker", "address": "10.42.0.12", "floatingIp": None},
}


def test_the_entry_is_known_by_its_address_whatever_the_order_of_the_nodes() -> None:
    for order in itertools.permutations(NODES):
        assert node_at("172.25.0.10", {name: NODES[name] for name in order}) == "control-0"
    assert node_at("10.42.0.12", NODES) == "worker-0"
    assert node_at("172.25.0.99", NODES) is None
