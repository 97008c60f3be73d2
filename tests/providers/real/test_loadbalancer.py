"""Load balancers on a real Octavia."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import openstack.exceptions
import pytest
from keystoneauth1 import exceptions as ksa

from tests.providers.plugin import CallError, changed, shown

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.providers.plugin import Plugin, Resource
    from tests.providers.real.conftest import Maker

LB = "openstack:loadbalancer/loadBalancer:LoadBalancer"
LISTENER = "openstack:loadbalancer/listener:Listener"
POOL = "openstack:loadbalancer/pool:Pool"
MEMBER = "openstack:loadbalancer/member:Member"
MEMBERS = "openstack:loadbalancer/members:Members"
MONITOR = "openstack:loadbalancer/monitor:Monitor"


@pytest.fixture(scope="module", autouse=True)
def _octavia(sdk: Connection) -> None:
    try:
        list(sdk.load_balancer.load_balancers())
    except (openstack.exceptions.SDKException, ksa.ClientException):
        pytest.skip("this cloud has no load balancers")


@pytest.fixture
def balancer(make: Maker) -> Resource:
    network = make("openstack:networking/network:Network", {})
    subnet = make("openstack:networking/subnet:Subnet", {"networkId": network.id, "cidr": "10.76.0.0/24"})
    return make(LB, {"vipSubnetId": subnet.id, "tags": ["blue"], "description": "of a test"})


@pytest.fixture
def listener(make: Maker, balancer: Resource) -> Resource:
    return make(LISTENER, {"loadbalancerId": balancer.id, "protocol": "HTTP", "protocolPort": 80})


@pytest.fixture
def pool(make: Maker, listener: Resource) -> Resource:
    return make(POOL, {"listenerId": listener.id, "protocol": "HTTP", "lbMethod": "ROUND_ROBIN"})


def test_load_balancer(plugin: Plugin, make: Maker, balancer: Resource, sdk: Connection) -> None:
    found = sdk.load_balancer.get_load_balancer(balancer.id)
    assert (found.name, found.description) == (balancer.inputs["name"], "of a test")
    assert balancer.outputs["vipAddress"] == found.vip_address
    inputs = {"vipSubnetId": balancer.inputs["vipSubnetId"], "name": "other", "tags": ["tall"], "adminStateUp": False}
    difference = plugin.diff(balancer, inputs)
    assert changed(difference) == {"name", "description", "tags[0]", "adminStateUp"}
    assert not difference.replaces
    updated = make.changed(balancer, plugin.update(balancer, inputs))
    found = sdk.load_balancer.get_load_balancer(balancer.id)
    assert (found.name, found.description, found.is_admin_state_up) == ("other", "", False)
    assert not changed(plugin.diff(updated, inputs))
    imported = plugin.import_(LB, balancer.id)
    assert imported
    assert shown(imported.outputs) == shown(updated.outputs)
    assert list(plugin.diff(updated, {**inputs, "vipAddress": "10.76.0.9"}).replaces) == ["vipAddress"]


def test_listener(plugin: Plugin, make: Maker, balancer: Resource, listener: Resource) -> None:
    assert listener.outputs["connectionLimit"] == -1
    inputs = {"loadbalancerId": balancer.id, "protocol": "HTTP", "protocolPort": 80}
    wanted = {
        **inputs,
        "name": "web",
        "connectionLimit": 10,
        "timeoutClientData": 5000,
        "insertHeaders": {"X-Forwarded-For": "true"},
        "allowedCidrs": ["10.0.0.0/8"],
        "tags": ["blue"],
    }
    updated = make.changed(listener, plugin.update(listener, wanted))
    for name in ("name", "connectionLimit", "timeoutClientData", "insertHeaders", "allowedCidrs", "tags"):
        assert updated.outputs[name] == wanted[name]
    assert not changed(plugin.diff(updated, wanted))
    again = make.changed(updated, plugin.update(updated, inputs))
    assert (again.outputs["insertHeaders"], again.outputs["allowedCidrs"], again.outputs["tags"]) == ({}, [], [])
    imported = plugin.import_(LISTENER, listener.id)
    assert imported
    assert imported.outputs["loadbalancerId"] == balancer.id
    with pytest.raises(CallError, match=r"answered 409: .*already using.*80"):
        plugin.create(LISTENER, inputs)


def test_pool(plugin: Plugin, make: Maker, pool: Resource, listener: Resource) -> None:
    wanted = {
        "listenerId": listener.id,
        "protocol": "HTTP",
        "lbMethod": "LEAST_CONNECTIONS",
        "persistence": {"type": "APP_COOKIE", "cookieName": "session"},
        "tags": ["blue"],
    }
    updated = make.changed(pool, plugin.update(pool, wanted))
    assert updated.outputs["lbMethod"] == "LEAST_CONNECTIONS"
    assert shown(updated.outputs["persistence"]) == wanted["persistence"]
    assert not changed(plugin.diff(updated, wanted))
    without = {key: value for key, value in wanted.items() if key != "persistence"}
    again = make.changed(updated, plugin.update(updated, without))
    assert not changed(plugin.diff(again, without))
    imported = plugin.import_(POOL, pool.id)
    assert imported
    assert imported.outputs["listenerId"] == listener.id


def test_member(plugin: Plugin, make: Maker, pool: Resource) -> None:
    inputs = {"poolId": pool.id, "address": "10.76.0.5", "protocolPort": 8080, "weight": 5, "monitorPort": 9090}
    made = make(MEMBER, inputs)
    imported = plugin.import_(MEMBER, f"{pool.id}/{made.id}")
    assert imported
    assert shown(imported.outputs) == shown(made.outputs)
    wanted = {"poolId": pool.id, "address": "10.76.0.5", "protocolPort": 8080, "weight": 0, "backup": True}
    updated = make.changed(made, plugin.update(made, wanted))
    assert (updated.outputs["weight"], updated.outputs["backup"], updated.outputs["monitorPort"]) == (0, True, 0)
    assert not changed(plugin.diff(updated, wanted))


def test_all_members_at_once(plugin: Plugin, make: Maker, pool: Resource, sdk: Connection) -> None:
    members = [{"address": f"10.76.0.{number}", "protocolPort": 80} for number in (5, 6, 7)]
    made = make(MEMBERS, {"poolId": pool.id, "members": members})
    assert made.id == pool.id
    wanted = {"poolId": pool.id, "members": [*members[1:], {"address": "10.76.0.8", "protocolPort": 80, "weight": 9}]}
    updated = plugin.update(made, wanted)
    assert not changed(plugin.diff(updated, wanted))
    found = {member.address: member.weight for member in sdk.load_balancer.members(pool.id)}
    assert found == {"10.76.0.6": 1, "10.76.0.7": 1, "10.76.0.8": 9}
    plugin.delete(updated)
    assert not list(sdk.load_balancer.members(pool.id))


def test_monitor(plugin: Plugin, make: Maker, pool: Resource) -> None:
    inputs = {"poolId": pool.id, "type": "HTTP", "delay": 5, "timeout": 3, "maxRetries": 2, "httpVersion": "1.1"}
    made = make(MONITOR, {**inputs, "domainName": "example.org", "urlPath": "/healthz"})
    assert (made.outputs["httpMethod"], made.outputs["expectedCodes"]) == ("GET", "200")
    imported = plugin.import_(MONITOR, made.id)
    assert imported
    assert shown(imported.outputs) == shown(made.outputs)
    wanted = {key: value for key, value in inputs.items() if key != "httpVersion"} | {
        "delay": 7,
        "expectedCodes": "204",
    }
    updated = make.changed(made, plugin.update(made, wanted))
    assert (updated.outputs["delay"], updated.outputs["expectedCodes"]) == (7, "204")
    assert not changed(plugin.diff(updated, wanted))


def test_nothing_of_a_missing_balancer(plugin: Plugin) -> None:
    inputs = {"loadbalancerId": str(uuid.uuid4()), "protocol": "HTTP", "protocolPort": 80}
    with pytest.raises(CallError, match="answered 404") as caught:
        plugin.create(LISTENER, inputs)
    assert caught.value.partial is None
