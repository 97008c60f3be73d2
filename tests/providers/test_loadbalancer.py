"""What the load balancer types send when an Octavia is busy, broken or refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.plugin import CallError, Plugin, Resource, changed

if TYPE_CHECKING:
    from tests.providers.recorder import Recorder

LB = "openstack:loadbalancer/loadBalancer:LoadBalancer"
LISTENER = "openstack:loadbalancer/listener:Listener"
POOL = "openstack:loadbalancer/pool:Pool"
MEMBER = "openstack:loadbalancer/member:Member"
MEMBERS = "openstack:loadbalancer/members:Members"
MONITOR = "openstack:loadbalancer/monitor:Monitor"


def balancer(status: str = "ACTIVE", **more: Any) -> dict[str, Any]:
    found = {"id": "lb", "name": "n", "provisioning_status": status, "vip_port_id": "vip", "project_id": "p"}
    return {"loadbalancer": {**found, "admin_state_up": True, "provider": "ovn", "tags": [], **more}}


def item(key: str, status: str = "ACTIVE", **more: Any) -> dict[str, Any]:
    found = {"id": "i", "name": "n", "provisioning_status": status, "project_id": "p", "admin_state_up": True}
    return {key: {**found, "loadbalancers": [{"id": "lb"}], "listeners": [], "tags": [], **more}}


def test_load_balancer_waits_and_guards_its_port(recorder: Recorder, recorded: Plugin) -> None:
    port = {"port": {"security_groups": ["b", "a"]}}
    recorder.answer("POST", "/lbaas/loadbalancers", 201, balancer("PENDING_CREATE"))
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer("PENDING_CREATE"))
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer())
    recorder.answer("PUT", "/ports/vip", 200, port)
    recorder.answer("GET", "/ports/vip", 200, port)
    inputs = {"vipSubnetId": "s", "securityGroupIds": ["a", "b"], "tags": ["x"], "loadbalancerProvider": "ovn"}
    made = recorded.create(LB, inputs)
    post, put = recorder.sent("POST", "PUT")
    assert post.body == {
        "loadbalancer": {
            "name": made.inputs["name"],
            "vip_subnet_id": "s",
            "admin_state_up": True,
            "provider": "ovn",
            "tags": ["x"],
        }
    }
    assert put.body == {"port": {"security_groups": ["a", "b"]}}
    assert (made.id, made.outputs["securityGroupIds"], made.outputs["vipPortId"]) == ("lb", ["a", "b"], "vip")


def test_a_load_balancer_that_fails_is_not_lost(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/lbaas/loadbalancers", 201, balancer("PENDING_CREATE"))
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer("ERROR"))
    with pytest.raises(CallError, match=r"is in status ERROR\n.*--replace") as caught:
        recorded.create(LB, {"vipSubnetId": "s"})
    assert caught.value.partial
    assert caught.value.partial.id == "lb"


def test_load_balancer_needs_a_place(offline: Plugin) -> None:
    assert "vipSubnetId" in offline.check_failures(LB, {})[1]


def test_listener_waits_while_the_balancer_is_immutable(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer("PENDING_UPDATE"))
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer())
    recorder.answer("POST", "/lbaas/listeners", 409, {"faultstring": "Load Balancer lb is immutable"})
    recorder.answer("POST", "/lbaas/listeners", 201, item("listener", "PENDING_CREATE"))
    found = item("listener", protocol="HTTP", protocol_port=80, client_authentication="NONE", connection_limit=-1)
    recorder.answer("GET", "/lbaas/listeners/i", 200, found)
    inputs = {
        "loadbalancerId": "lb",
        "protocol": "HTTP",
        "protocolPort": 80,
        "insertHeaders": {"X-Forwarded-For": "true"},
        "allowedCidrs": ["10.0.0.0/8"],
        "timeoutClientData": 5000,
    }
    made = recorded.create(LISTENER, inputs)
    first, second = recorder.sent("POST")
    assert first.body == second.body
    assert second.body["listener"] == {
        "name": made.inputs["name"],
        "loadbalancer_id": "lb",
        "protocol": "HTTP",
        "protocol_port": 80,
        "insert_headers": {"X-Forwarded-For": "true"},
        "allowed_cidrs": ["10.0.0.0/8"],
        "timeout_client_data": 5000,
        "admin_state_up": True,
    }
    # What Octavia makes of nothing is no difference.
    assert "clientAuthentication" not in changed(recorded.diff(made, inputs))


def test_other_conflicts_are_told_at_once(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer())
    recorder.answer("POST", "/lbaas/listeners", 409, {"faultstring": "Another Listener uses port 80"})
    with pytest.raises(CallError, match="Another Listener uses port 80") as caught:
        recorded.create(LISTENER, {"loadbalancerId": "lb", "protocol": "HTTP", "protocolPort": 80})
    assert caught.value.partial is None


def test_a_broken_balancer_takes_no_changes(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer("ERROR"))
    with pytest.raises(CallError, match=r"load balancer lb is in status ERROR and accepts no changes\n.*Replace"):
        recorded.create(LISTENER, {"loadbalancerId": "lb", "protocol": "HTTP", "protocolPort": 80})
    assert not recorder.sent("POST")


def test_listener_update_and_delete(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer())
    recorder.answer("GET", "/lbaas/listeners/i", 200, item("listener", protocol="HTTP", protocol_port=80))
    recorder.answer("PUT", "/lbaas/listeners/i", 200, item("listener"))
    inputs = {"name": "n", "loadbalancerId": "lb", "protocol": "HTTP", "protocolPort": 80}
    outputs = {**inputs, "clientAuthentication": "OPTIONAL", "defaultPoolId": "a", "tags": ["x"], "adminStateUp": True}
    old = Resource(LISTENER, "thing", "i", recorded.check(LISTENER, inputs), outputs)
    recorded.update(old, {**inputs, "defaultPoolId": "b"})
    (put,) = recorder.sent("PUT")
    assert put.body == {"listener": {"default_pool_id": "b", "client_authentication": "NONE", "tags": []}}

    recorder.answers.clear()
    recorder.answer("GET", "/lbaas/listeners/i", 200, item("listener"))
    recorder.answer("GET", "/lbaas/listeners/i", 200, item("listener", "PENDING_DELETE"))
    recorder.answer("GET", "/lbaas/listeners/i", 404)
    recorder.answer("DELETE", "/lbaas/listeners/i", 204)
    recorded.delete(old)
    assert len(recorder.sent("DELETE")) == 1


def test_delete_says_the_clouds_reason_at_the_deadline(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/lbaas/pools/i", 200, item("pool"))
    recorder.answer("DELETE", "/lbaas/pools/i", 409, {"faultstring": "Pool i is in use by a policy"})
    with pytest.raises(CallError, match="Pool i is in use by a policy"):
        recorded.delete(Resource(POOL, "thing", "i", {}, {}), timeout=1)


def test_pool_member_monitor(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer())
    recorder.answer("GET", "/lbaas/listeners/l", 200, item("listener"))
    recorder.answer("POST", "/lbaas/pools", 201, item("pool"))
    pool = item("pool", lb_algorithm="ROUND_ROBIN", protocol="HTTP", session_persistence=None)
    recorder.answer("GET", "/lbaas/pools/i", 200, pool)
    recorder.answer("POST", "/lbaas/pools/i/members", 201, item("member"))
    recorder.answer(
        "GET", "/lbaas/pools/i/members/i", 200, item("member", address="10.0.0.1", protocol_port=80, weight=1)
    )
    recorder.answer("POST", "/lbaas/healthmonitors", 201, item("healthmonitor"))
    monitor = item("healthmonitor", type="HTTP", delay=5, timeout=3, max_retries=2, http_version=1.1)
    monitor["healthmonitor"]["pools"] = [{"id": "i"}]
    recorder.answer("GET", "/lbaas/healthmonitors/i", 200, monitor)

    made = recorded.create(
        POOL,
        {
            "listenerId": "l",
            "protocol": "HTTP",
            "lbMethod": "ROUND_ROBIN",
            "persistence": {"type": "APP_COOKIE", "cookieName": "c"},
        },
    )
    assert recorder.sent("POST")[-1].body["pool"] == {
        "name": made.inputs["name"],
        "listener_id": "l",
        "protocol": "HTTP",
        "lb_algorithm": "ROUND_ROBIN",
        "session_persistence": {"type": "APP_COOKIE", "cookie_name": "c"},
        "admin_state_up": True,
    }
    assert "loadbalancerId" not in made.outputs

    member = recorded.create(MEMBER, {"poolId": "i", "address": "10.0.0.1", "protocolPort": 80, "weight": 0})
    assert recorder.sent("POST")[-1].body["member"] == {
        "name": member.inputs["name"],
        "address": "10.0.0.1",
        "protocol_port": 80,
        "weight": 0,
        "admin_state_up": True,
    }
    imported = recorded.import_(MEMBER, "i/i")
    assert imported
    assert (imported.id, imported.outputs["poolId"]) == ("i", "i")

    inputs = {"poolId": "i", "type": "HTTP", "delay": 5, "timeout": 3, "maxRetries": 2, "httpVersion": "1.1"}
    made = recorded.create(MONITOR, inputs)
    assert recorder.sent("POST")[-1].body["healthmonitor"]["http_version"] == "1.1"
    assert not changed(recorded.diff(made, {**inputs, "name": "n"}))
    imported = recorded.import_(MONITOR, "i/i")
    assert imported
    assert imported.id == "i"


def test_all_members_at_once(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, balancer())
    recorder.answer("GET", "/lbaas/pools/i", 200, item("pool"))
    recorder.answer("PUT", "/lbaas/pools/i/members", 202)
    found = [
        {"id": "2", "address": "10.0.0.2", "protocol_port": 80, "weight": 5, "admin_state_up": True, "subnet_id": None},
        {"id": "1", "address": "10.0.0.1", "protocol_port": 80, "weight": 1, "admin_state_up": True, "subnet_id": None},
    ]
    recorder.answer("GET", "/lbaas/pools/i/members", 200, {"members": found})
    members = [{"address": "10.0.0.1", "protocolPort": 80}, {"address": "10.0.0.2", "protocolPort": 80, "weight": 5}]
    made = recorded.create(MEMBERS, {"poolId": "i", "members": members})
    assert recorder.sent("PUT")[0].body == {
        "members": [
            {"address": "10.0.0.1", "protocol_port": 80, "weight": 1, "admin_state_up": True},
            {"address": "10.0.0.2", "protocol_port": 80, "weight": 5, "admin_state_up": True},
        ]
    }
    assert made.id == "i"
    assert not changed(recorded.diff(made, {"poolId": "i", "members": members}))
    recorded.delete(made)
    assert recorder.sent("PUT")[-1].body == {"members": []}


@pytest.mark.parametrize(
    ("token", "inputs", "path"),
    [
        (POOL, {"protocol": "HTTP", "lbMethod": "ROUND_ROBIN"}, "loadbalancerId"),
        (POOL, {"protocol": "HTTP", "lbMethod": "ROUND", "listenerId": "l"}, "lbMethod"),
        (POOL, {"protocol": "HTTP", "lbMethod": "SOURCE_IP", "listenerId": "l", "loadbalancerId": "b"}, "listenerId"),
        (
            POOL,
            {"protocol": "HTTP", "lbMethod": "SOURCE_IP", "listenerId": "l", "persistence": {"type": "APP_COOKIE"}},
            "persistence.cookieName",
        ),
        (POOL, {"protocol": "TCP", "lbMethod": "SOURCE_IP", "listenerId": "l", "tlsVersions": ["1.2"]}, "tlsVersions"),
        (LISTENER, {"protocol": "HTTP", "protocolPort": 0, "loadbalancerId": "b"}, "protocolPort"),
        (LISTENER, {"protocol": "HTTP", "protocolPort": 1, "loadbalancerId": "b", "hstsPreload": True}, "hstsPreload"),
        (MEMBER, {"poolId": "p", "address": "10.0.0.5", "protocolPort": 80, "weight": 257}, "weight"),
        (MONITOR, {"poolId": "p", "type": "TCP", "delay": 1, "timeout": 1, "maxRetries": 11}, "maxRetries"),
    ],
)
def test_faults(offline: Plugin, token: str, inputs: dict[str, Any], path: str) -> None:
    assert set(offline.check_failures(token, inputs)[1]) == {path}
