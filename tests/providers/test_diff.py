"""Diff: what changes, what replaces, and what is nobody's business."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from pulumi.runtime.proto import provider_pb2

from providers.values import UNKNOWN, Secret, marshal
from tests.providers.plugin import Resource, changed

if TYPE_CHECKING:
    from providers.values import Properties
    from tests.providers.plugin import Plugin

NETWORK = "openstack:networking/network:Network"
SUBNET = "openstack:networking/subnet:Subnet"
PORT = "openstack:networking/port:Port"
INSTANCE = "openstack:compute/instance:Instance"
Kind = provider_pb2.PropertyDiff.Kind


def state(token: str, inputs: Properties, **outputs: object) -> Resource:
    return Resource(token, "thing", "id-1", {**inputs, "__defaults": []}, {**inputs, **outputs})


def kinds(answer: provider_pb2.DiffResponse) -> dict[str, str]:
    return {path: Kind.Name(item.kind) for path, item in answer.detailedDiff.items()}


NET = state(
    NETWORK,
    {"name": "n", "description": "d", "tags": ["a", "b"], "mtu": 1400},
    allTags=["a", "b", "c"],
    adminStateUp=True,
    shared=False,
    tenantId="t",
    segments=[],
)


@pytest.mark.parametrize(
    ("news", "expected"),
    [
        ({}, {}),
        ({"description": "e"}, {"description": "UPDATE"}),
        ({"description": None}, {"description": "DELETE"}),
        ({"tags": ["b", "a"]}, {}),
        ({"tags": ["b", "x"]}, {"tags[0]": "DELETE", "tags[1]": "ADD"}),
        ({"tags": None}, {"tags": "DELETE"}),
        ({"mtu": None}, {}),
        ({"adminStateUp": False}, {"adminStateUp": "UPDATE"}),
        ({"shared": False}, {}),
        ({"qosPolicyId": ""}, {}),
        ({"qosPolicyId": "q"}, {"qosPolicyId": "ADD"}),
        ({"tenantId": "u"}, {"tenantId": "UPDATE_REPLACE"}),
        ({"valueSpecs": {"a": "1"}}, {"valueSpecs": "ADD_REPLACE"}),
        ({"tenantId": UNKNOWN}, {"tenantId": "UPDATE_REPLACE"}),
        ({"description": UNKNOWN}, {"description": "UPDATE"}),
        ({"description": Secret("d")}, {}),
        ({"description": Secret("e")}, {"description": "UPDATE"}),
    ],
)
def test_network(offline: Plugin, news: Properties, expected: dict[str, str]) -> None:
    answer = offline.diff(NET, {key: value for key, value in {**NET.inputs, **news}.items() if value is not None})
    assert kinds(answer) == expected
    assert list(answer.replaces) == [path for path, kind in expected.items() if "REPLACE" in kind]


def test_drift_shows_against_what_the_cloud_has(offline: Plugin) -> None:
    drifted = Resource(NETWORK, "thing", "id-1", NET.inputs, {**NET.outputs, "description": "by hand"})
    assert kinds(offline.diff(drifted, NET.inputs)) == {"description": "UPDATE"}


def test_ignored_changes(offline: Plugin) -> None:
    wanted = {**NET.inputs, "description": "e", "mtu": 9000}
    assert changed(offline.diff(NET, wanted, ignore=("description",))) == {"mtu"}


@pytest.mark.parametrize(("name", "first"), [("given", True), (None, False)], ids=["given", "automatic"])
def test_a_given_name_is_deleted_first(offline: Plugin, name: str | None, first: bool) -> None:
    automatic = {"name": "n-0000000", "__defaults": ["name"]}
    resource = Resource(NETWORK, "thing", "id-1", automatic, {"name": "n-0000000", "tenantId": "t"})
    answer = offline.diff(resource, {"tenantId": "u", **({"name": name} if name else {})})
    assert answer.deleteBeforeReplace is first


def test_nested_changes(offline: Plugin) -> None:
    port = state(
        PORT,
        {
            "networkId": "n",
            "name": "p",
            "fixedIps": [{"subnetId": "s", "ipAddress": "10.0.0.5"}],
            "allowedAddressPairs": [{"ipAddress": "10.1.0.0/16"}, {"ipAddress": "10.2.0.0/16"}],
        },
        binding={"hostId": "h", "profile": "{}", "vifType": "bridge", "vnicType": "normal", "vifDetails": {"a": "b"}},
    )
    assert kinds(offline.diff(port, {**port.inputs, "binding": {"vnicType": "normal"}})) == {}
    assert kinds(offline.diff(port, {**port.inputs, "binding": {"profile": "{ }"}})) == {}
    wanted = {
        **port.inputs,
        "fixedIps": [{"subnetId": "s", "ipAddress": "10.0.0.6"}, {"subnetId": "t"}],
        "allowedAddressPairs": [
            {"ipAddress": "10.2.0.0/16"},
            {"ipAddress": "10.1.0.0/16", "macAddress": "fa:16:3e:00:00:01"},
        ],
        "binding": {"vnicType": "direct"},
    }
    assert kinds(offline.diff(port, wanted)) == {
        "fixedIps[0].ipAddress": "UPDATE",
        "fixedIps[1]": "ADD",
        "allowedAddressPairs[1]": "ADD",
        "allowedAddressPairs[0]": "DELETE",
        "binding.vnicType": "UPDATE",
    }


DATA = "#cloud-config\n"
SERVER = state(
    INSTANCE,
    {
        "name": "i",
        "flavorName": "f",
        "imageName": "m",
        "networks": [{"uuid": "n"}],
        "metadata": {"a": "1"},
        "userData": DATA,
        "schedulerHints": [{"group": "g"}],
        "availabilityZone": "nova:host",
        "powerState": "active",
    },
    flavorId="1",
    imageId="2",
    accessIpV4="10.0.0.5",
)
SERVER.outputs.update(
    userData=hashlib.sha1(DATA.encode()).hexdigest(),  # noqa: S324
    availabilityZone="nova",
    networks=[{"uuid": "n", "name": "net", "fixedIpV4": "10.0.0.5", "mac": "m", "port": "", "accessNetwork": False}],
)


@pytest.mark.parametrize(
    ("news", "expected"),
    [
        ({}, {}),
        ({"userData": "#cloud-config\nx"}, {"userData": "UPDATE_REPLACE"}),
        ({"networks": [{"uuid": "o"}]}, {"networks[0].uuid": "UPDATE_REPLACE"}),
        ({"networks": [{"uuid": "n", "accessNetwork": True}]}, {"networks[0].accessNetwork": "UPDATE"}),
        ({"networks": [{"uuid": "n"}, {"uuid": "o"}]}, {"networks[1]": "ADD_REPLACE"}),
        ({"networks": None}, {}),
        ({"metadata": {"a": "2", "b.c": "3"}}, {"metadata.a": "UPDATE", 'metadata["b.c"]': "ADD"}),
        ({"flavorName": "bigger"}, {"flavorName": "UPDATE"}),
        ({"imageName": "newer"}, {"imageName": "UPDATE"}),
        ({"schedulerHints": [{"group": "h"}]}, {"schedulerHints[0]": "UPDATE_REPLACE"}),
        ({"availabilityZone": "nova:other"}, {}),
        ({"availabilityZone": "elsewhere"}, {"availabilityZone": "UPDATE_REPLACE"}),
        ({"powerState": "shutoff"}, {"powerState": "UPDATE"}),
        ({"stopBeforeDestroy": True}, {"stopBeforeDestroy": "ADD"}),
        ({"blockDevices": [{"sourceType": "volume", "uuid": "v"}]}, {"blockDevices": "ADD_REPLACE"}),
        ({"configDrive": True}, {"configDrive": "ADD_REPLACE"}),
        ({"configDrive": False}, {}),
    ],
)
def test_instance(offline: Plugin, news: Properties, expected: dict[str, str]) -> None:
    answer = offline.diff(SERVER, {key: value for key, value in {**SERVER.inputs, **news}.items() if value is not None})
    assert kinds(answer) == expected


@pytest.mark.parametrize(
    ("outputs", "news", "expected"),
    [
        ({"powerState": "error"}, {}, {}),
        ({"powerState": "build", "networks": [], "securityGroups": ["a"]}, {"securityGroups": ["b"]}, {}),
        ({"flavorName": ""}, {}, {"flavorName": "UPDATE_REPLACE"}),
    ],
    ids=["error", "build", "flavor deleted"],
)
def test_instance_in_a_special_state(
    offline: Plugin, outputs: Properties, news: Properties, expected: dict[str, str]
) -> None:
    resource = Resource(INSTANCE, "thing", "id-1", SERVER.inputs, {**SERVER.outputs, **outputs})
    found = kinds(offline.diff(resource, {**SERVER.inputs, **news}))
    assert {path: kind for path, kind in found.items() if path != "powerState"} == expected


def test_state_of_the_official_plugin(offline: Plugin) -> None:
    """Its outputs hold bookkeeping of its own and nulls; that is no difference."""
    outputs = {
        **NET.outputs,
        "__meta": '{"schema_version":"1"}',
        "__pulumi_raw_state_delta": {"obj": {}},
        "valueSpecs": None,
        "availabilityZoneHints": [],
        "dnsDomain": "",
    }
    resource = Resource(NETWORK, "thing", "id-1", NET.inputs, outputs)
    assert kinds(offline.diff(resource, NET.inputs)) == {}


def test_configuration(offline: Plugin) -> None:
    """Nothing in it needs other resources; text and JSON text mean the same."""

    def compare(old: Properties, new: Properties) -> provider_pb2.DiffResponse:
        request = provider_pb2.DiffRequest(olds=marshal(old), old_inputs=marshal(old), news=marshal(new))
        answer: provider_pb2.DiffResponse = offline.call("DiffConfig", request)
        return answer

    assert not compare(
        {"cloud": "a", "insecure": "true", "version": "1"}, {"cloud": "a", "insecure": True}
    ).detailedDiff
    answer = compare({"cloud": "a", "region": "r"}, {"cloud": "a", "region": "s"})
    assert kinds(answer) == {"region": "UPDATE"}
    assert not answer.replaces
