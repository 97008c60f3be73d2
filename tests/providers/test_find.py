"""What the plugin finds of a create that was cut off, and what it refuses to take for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.plugin import CallError, Plugin, Resource, changed, shown

if TYPE_CHECKING:
    from providers.values import Properties
    from tests.providers.recorder import Recorder

BEGAN = "2026-11-23T12:00:00.000000Z"
LATER = "2026-11-23T12:00:03Z"
BEFORE = "2026-11-23T11:00:00Z"
NETWORK = "openstack:networking/network:Network"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
LB = "openstack:loadbalancer/loadBalancer:LoadBalancer"
OBJECT = "openstack:objectstorage/containerObject:ContainerObject"
IMAGE = "openstack:images/image:Image"
GROUP = "openstack:networking/secGroup:SecGroup"


def found(plugin: Plugin, token: str, inputs: Properties, *, began: str | None = BEGAN) -> Resource | None:
    """What a run finds after one that was killed in the create of these inputs."""
    return plugin.recover(Resource(token, "thing", "", plugin.check(token, inputs), {}), began)


def network(id_: str = "n1", **more: Any) -> dict[str, Any]:
    return {"id": id_, "name": "lab", "status": "ACTIVE", "project_id": "p", "tags": [], "created_at": LATER, **more}


def networks(recorder: Recorder, *items: dict[str, Any]) -> None:
    recorder.answer("GET", "/networks?name=lab", 200, {"networks": list(items)})
    for item in items:
        recorder.answer("GET", f"/networks/{item['id']}", 200, {"network": item})


def test_what_is_missing_is_a_difference(recorder: Recorder, recorded: Plugin) -> None:
    """The tags go in a second request, which was not sent any more."""
    inputs = {"name": "lab", "tags": ["a"]}
    networks(recorder, network())
    made = found(recorded, NETWORK, inputs)
    assert made
    assert (made.id, shown(made.inputs)) == ("n1", {"name": "lab", "tags": []})
    answer = recorded.diff(made, inputs)
    assert changed(answer) == {"tags[0]"}
    assert not answer.replaces
    assert recorder.sent("POST", "PUT", "DELETE") == []


def test_a_whole_one_has_no_difference(recorder: Recorder, recorded: Plugin) -> None:
    networks(recorder, network(tags=["a"]))
    made = found(recorded, NETWORK, {"name": "lab", "tags": ["a"]})
    assert made
    assert not changed(recorded.diff(made, {"name": "lab", "tags": ["a"]}))


def test_a_request_that_is_still_under_way_is_waited_for(recorder: Recorder, recorded: Plugin) -> None:
    """The cloud carries a request out although who sent it is dead."""
    now = datetime.now(UTC).isoformat()
    recorder.answer("GET", "/networks?name=lab", 200, {"networks": []})
    networks(recorder, network(created_at=now))
    made = found(recorded, NETWORK, {"name": "lab"}, began=now)
    assert made
    assert made.id == "n1"


@pytest.mark.parametrize(
    "other",
    [
        {"created_at": BEFORE},
        {"created_at": "2026-11-24T12:00:00Z"},
        {"tags": ["a", "another's"]},
        {"project_id": "q"},
        {"description": "another's"},
    ],
)
def test_what_another_made_is_left_alone(recorder: Recorder, recorded: Plugin, other: dict[str, Any]) -> None:
    networks(recorder, network(**other))
    assert found(recorded, NETWORK, {"name": "lab", "tags": ["a"]}) is None


def test_two_of_a_name_are_not_guessed_about(recorder: Recorder, recorded: Plugin) -> None:
    networks(recorder, network(), network("n2"))
    with pytest.raises(CallError, match=r"2 networks may be the one that it made: n1, n2\n.*Delete") as caught:
        found(recorded, NETWORK, {"name": "lab"})
    assert caught.value.partial is None


def floating_ips(recorder: Recorder, *items: dict[str, Any]) -> None:
    recorder.answer("GET", "/networks?name=public", 200, {"networks": [{"id": "e", "name": "public"}]})
    recorder.answer("GET", "/networks/e", 200, {"network": {"id": "e", "name": "public"}})
    every: list[dict[str, Any]] = [
        {
            "floating_network_id": "e",
            "floating_ip_address": "172.24.4.9",
            "port_id": None,
            "fixed_ip_address": None,
            "status": "DOWN",
            "description": "",
            **network(item.pop("id", "f1"), **item),
        }
        for item in items
    ]
    recorder.answer("GET", "/floatingips?floating_network_id=e", 200, {"floatingips": every})
    for item in every:
        recorder.answer("GET", f"/floatingips/{item['id']}", 200, {"floatingip": item})


def test_a_floating_ip_is_told_by_its_description(recorder: Recorder, recorded: Plugin) -> None:
    floating_ips(recorder, {"description": "entry"}, {"id": "f2", "description": "another"}, {"id": "f3"})
    made = found(recorded, FLOATING_IP, {"pool": "public", "description": "entry"}, began=None)
    assert made
    assert made.id == "f1"


def test_a_floating_ip_without_a_mark_is_told_by_its_time(recorder: Recorder, recorded: Plugin) -> None:
    floating_ips(
        recorder,
        {"created_at": BEFORE},
        {"id": "f2"},
        {"id": "f3", "port_id": "p1", "fixed_ip_address": "10.0.0.4"},
        {"id": "f4", "tags": ["another's"]},
    )
    made = found(recorded, FLOATING_IP, {"pool": "public"})
    assert made
    assert made.id == "f2"
    with pytest.raises(CallError, match="a floating IP without description, address and port cannot be identified"):
        found(recorded, FLOATING_IP, {"pool": "public"}, began=None)


def test_a_rule_is_told_by_all_it_says(recorder: Recorder, recorded: Plugin) -> None:
    rule = {
        "security_group_id": "g",
        "direction": "ingress",
        "ethertype": "IPv4",
        "protocol": "tcp",
        "port_range_min": 22,
        "port_range_max": 22,
        "remote_ip_prefix": None,
        "remote_group_id": None,
        "project_id": "p",
        "description": "",
    }
    others: list[dict[str, Any]] = [
        {"remote_ip_prefix": "10.0.0.0/8"},
        {"remote_group_id": "g"},
        {"protocol": "udp"},
        {"ethertype": "IPv6"},
        {"port_range_min": 1},
    ]
    every = [{**rule, **other, "id": f"other-{index}"} for index, other in enumerate(others)]
    every.append({**rule, "id": "mine"})
    recorder.answer("GET", "/security-group-rules?security_group_id=g", 200, {"security_group_rules": every})
    recorder.answer("GET", "/security-group-rules/mine", 200, {"security_group_rule": every[-1]})
    inputs = {"securityGroupId": "g", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
    made = found(recorded, RULE, {**inputs, "portRangeMin": 22, "portRangeMax": 22})
    assert made
    assert made.id == "mine"
    assert found(recorded, RULE, {**inputs, "portRangeMin": 23, "portRangeMax": 23}) is None


def test_what_cannot_be_made_good_is_replaced(recorder: Recorder, recorded: Plugin) -> None:
    """The rules that a group starts with were to be deleted one by one; by now others may rely on them."""
    group = {**network("g1"), "security_group_rules": [{"id": "r"}]}
    recorder.answer("GET", "/security-groups?name=lab", 200, {"security_groups": [group]})
    recorder.answer("GET", "/security-groups/g1", 200, {"security_group": group})
    inputs = {"name": "lab", "deleteDefaultRules": True}
    made = found(recorded, GROUP, inputs)
    assert made
    assert list(recorded.diff(made, inputs).replaces) == ["deleteDefaultRules"]
    group["security_group_rules"] = []
    whole = found(recorded, GROUP, inputs)
    assert whole
    assert not recorded.diff(whole, inputs).replaces


def test_a_load_balancer_in_error_is_not_lost(recorder: Recorder, recorded: Plugin) -> None:
    item = network("lb", provisioning_status="ERROR", vip_subnet_id="s")
    recorder.answer("GET", "/lbaas/loadbalancers?name=lab", 200, {"loadbalancers": [item]})
    recorder.answer("GET", "/lbaas/loadbalancers/lb", 200, {"loadbalancer": item})
    with pytest.raises(CallError, match="is in status ERROR") as caught:
        found(recorded, LB, {"name": "lab", "vipSubnetId": "s"})
    assert caught.value.partial
    assert caught.value.partial.id == "lb"


def test_an_object_that_was_to_be_overwritten_is_not_the_new_one(recorder: Recorder, recorded: Plugin) -> None:
    inputs = {"containerName": "c", "name": "o", "content": "x"}
    recorder.answer("HEAD", "/c/o", 200, None, Last_Modified="Mon, 23 Nov 2026 11:00:00 GMT")
    assert found(recorded, OBJECT, inputs) is None
    recorder.forget()
    recorder.answer("HEAD", "/c/o", 200, None, Last_Modified="Mon, 23 Nov 2026 12:00:02 GMT")
    made = found(recorded, OBJECT, inputs)
    assert made
    assert made.id == "c/o"


def test_an_image_without_data_gets_it(recorder: Recorder, recorded: Plugin) -> None:
    image: dict[str, Any] = {
        **dict.fromkeys(("checksum", "size", "owner")),
        **network("i", status="queued", container_format="bare", disk_format="raw", visibility="private"),
        "min_disk": 0,
        "min_ram": 0,
        "protected": False,
        "updated_at": LATER,
        "file": "f",
        "schema": "s",
    }
    recorder.answer("GET", "/images?name=lab&owner=p", 200, {"images": [image]})
    recorder.answer("GET", "/images/i", 200, image)
    inputs = {"name": "lab", "containerFormat": "bare", "diskFormat": "raw", "localFilePath": __file__}
    with pytest.raises(CallError, match="image i has no data yet") as caught:
        found(recorded, IMAGE, inputs)
    assert caught.value.partial
    assert caught.value.partial.id == "i"
    image["status"] = "active"
    made = found(recorded, IMAGE, inputs)
    assert made
    assert made.id == "i"
