"""Check: types, defaults, names, and all failures of a resource at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from pulumi.runtime.proto import provider_pb2

from providers.values import UNKNOWN, Secret
from tests.providers.plugin import CallError

if TYPE_CHECKING:
    from providers.values import Properties
    from tests.providers.plugin import Plugin

NETWORK = "openstack:networking/network:Network"
SUBNET = "openstack:networking/subnet:Subnet"
ROUTER = "openstack:networking/router:Router"
PORT = "openstack:networking/port:Port"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
INSTANCE = "openstack:compute/instance:Instance"
KEYPAIR = "openstack:compute/keypair:Keypair"
SERVER_GROUP = "openstack:compute/serverGroup:ServerGroup"
Naming = provider_pb2.CheckRequest.AutonamingOptions


def test_automatic_name(offline: Plugin) -> None:
    checked = offline.check(NETWORK, {}, name="nodes")
    assert re.fullmatch(r"nodes-[0-9a-f]{7}", checked["name"])
    assert checked["__defaults"] == ["name"]
    assert offline.check(NETWORK, {}, name="nodes")["name"] == checked["name"], "the seed decides, not chance"
    assert offline.check(NETWORK, {}, name="nodes", randomSeed=b"8" * 32)["name"] != checked["name"]


def test_automatic_name_lasts(offline: Plugin) -> None:
    olds = {"name": "nodes-0000000", "__defaults": ["name"]}
    assert offline.check(NETWORK, {}, olds=olds)["name"] == "nodes-0000000"
    written = {"name": "by-hand", "__defaults": []}
    assert offline.check(NETWORK, {}, name="nodes", olds=written)["name"].startswith("nodes-")


def test_given_name(offline: Plugin) -> None:
    assert offline.check(NETWORK, {"name": "mine"}) == {"name": "mine", "__defaults": []}


@pytest.mark.parametrize(
    ("mode", "name"), [(Naming.PROPOSE, "proposed"), (Naming.ENFORCE, "proposed")], ids=["propose", "enforce"]
)
def test_autonaming_settings(offline: Plugin, mode: Naming.Mode.ValueType, name: str) -> None:
    options = Naming(proposed_name=name, mode=mode)
    assert offline.check(NETWORK, {}, autonaming=options)["name"] == name


def test_autonaming_refused(offline: Plugin) -> None:
    _, failures = offline.check_failures(NETWORK, {}, autonaming=Naming(mode=Naming.DISABLE))
    assert failures == {"name": "is required: automatic naming is disabled for this stack"}
    _, failures = offline.check_failures(NETWORK, {}, name="n" * 250)
    assert "longer than 255 characters" in failures["name"]


def test_defaults(offline: Plugin) -> None:
    checked = offline.check(SUBNET, {"networkId": "n", "cidr": "10.0.0.0/24"})
    assert (checked["ipVersion"], checked["enableDhcp"]) == (4, True)
    assert checked["__defaults"] == ["enableDhcp", "ipVersion", "name"]
    assert "noGateway" not in checked, "a default that says nothing is not written"


def test_defaults_in_nested_objects(offline: Plugin) -> None:
    checked = offline.check(PORT, {"networkId": "n", "extraDhcpOptions": [{"name": "mtu", "value": "1400"}]})
    assert checked["extraDhcpOptions"] == [
        {"name": "mtu", "value": "1400", "ipVersion": 4, "__defaults": ["ipVersion"]}
    ]


def test_default_from_the_environment(offline: Plugin) -> None:
    _, failures = offline.check_failures(FLOATING_IP, {})
    assert failures == {"pool": "is required"}


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ({"mtu": "1400"}, {"mtu": 1400}),
        ({"adminStateUp": "true"}, {"adminStateUp": True}),
        ({"description": 7}, {"description": "7"}),
        ({"description": True}, {"description": "true"}),
        ({"tags": [1, "b"]}, {"tags": ["1", "b"]}),
        ({"description": None}, {}),
        ({"mtu": UNKNOWN}, {"mtu": UNKNOWN}),
        ({"tags": ["a", UNKNOWN, UNKNOWN]}, {"tags": ["a", UNKNOWN, UNKNOWN]}),
        ({"tags": ["a", "b", "a"]}, {"tags": ["a", "b"]}),
        ({"description": Secret(7)}, {"description": Secret("7")}),
    ],
)
def test_types_are_settled(offline: Plugin, given: Properties, settled: Properties) -> None:
    assert offline.check(NETWORK, {"name": "n", **given}) == {"name": "n", "__defaults": [], **settled}


def test_all_faults_at_once(offline: Plugin) -> None:
    _, failures = offline.check_failures(
        SUBNET,
        {
            "netwrokId": "n",
            "cidr": "10.0.0.1/24",
            "ipVersion": 5,
            "enableDhcp": "perhaps",
            "dnsNameservers": "192.0.2.1",
            "allocationPools": [{"start": "10.0.0.10"}, {"start": "ten", "end": "10.0.0.20", "strat": 2}],
            "allTags": ["x"],
            "gatewayIp": "10.0.0.1",
            "noGateway": True,
        },
    )
    assert failures == {
        "netwrokId": "is not a known property; did you mean 'networkId'?",
        "networkId": "is required",
        "cidr": "has host bits; meant is 10.0.0.0/24",
        "ipVersion": "must be one of 4, 6, not 5",
        "enableDhcp": "must be true or false, not the string 'perhaps'",
        "dnsNameservers": "must be a list, not the string '192.0.2.1'",
        "allocationPools[0].end": "is required",
        "allocationPools[1].start": "must be an IP address, not 'ten'",
        "allocationPools[1].strat": "is not a known property; did you mean 'start'?",
        "allTags": "is set by the cloud and cannot be given",
        "gatewayIp": "cannot be given together with noGateway",
    }


@pytest.mark.parametrize(
    ("token", "inputs", "fault"),
    [
        (SUBNET, {"networkId": "n", "cidr": "ten"}, ("cidr", "must be a CIDR")),
        (SUBNET, {"networkId": "n", "prefixLength": 24}, ("prefixLength", "needs subnetpoolId, too")),
        (SUBNET, {"networkId": "n", "dnsNameservers": ["::1", "::1"]}, ("dnsNameservers", "has ::1 twice")),
        (ROUTER, {"enableSnat": True}, ("enableSnat", "needs externalNetworkId, too")),
        (PORT, {"networkId": "n", "binding": {"vnicType": "nromal"}}, ("binding.vnicType", "did you mean 'normal'")),
        (PORT, {"networkId": "n", "binding": {"profile": "{"}}, ("binding.profile", "must be a JSON object, not '{'")),
        (
            PORT,
            {"networkId": "n", "noSecurityGroups": True, "securityGroupIds": ["g"]},
            ("noSecurityGroups", "cannot be true together with securityGroupIds"),
        ),
        (NETWORK, {"dnsDomain": "example.org"}, ("dnsDomain", "must end with a dot")),
        (NETWORK, {"mtu": 1400.5}, ("mtu", "must be an integer")),
        (
            SERVER_GROUP,
            {"policies": "soft-affinity", "rules": {"maxServerPerHost": 1}},
            ("rules", "is for the policy anti-affinity alone"),
        ),
        (INSTANCE, {"imageId": "i"}, ("flavorId", "is required, or flavorName")),
        (INSTANCE, {"flavorId": "f"}, ("imageId", "is required, or imageName, or a bootable block device")),
        (INSTANCE, {"flavorId": "f", "imageId": "i", "networks": [{}]}, ("networks[0]", "needs uuid, name or port")),
        (INSTANCE, {"flavorId": "f", "imageId": "i", "powerState": "of"}, ("powerState", "must be one of active")),
        (
            INSTANCE,
            {"flavorId": "f", "blockDevices": [{"sourceType": "image", "destinationType": "volume", "uuid": "i"}]},
            ("blockDevices[0].volumeSize", "is required for a volume disk made of source type image"),
        ),
    ],
)
def test_fault(offline: Plugin, token: str, inputs: Properties, fault: tuple[str, str]) -> None:
    _, failures = offline.check_failures(token, inputs)
    assert set(failures) == {fault[0]}
    assert fault[1] in failures[fault[0]]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"direction": "in"}, ("direction", "must be one of ingress, egress, not 'in'")),
        ({"protocol": "tpc"}, ("protocol", "did you mean 'tcp'")),
        ({"protocol": "256"}, ("protocol", "0 to 255")),
        ({"portRangeMin": 22, "portRangeMax": 22}, None),
        ({"protocol": "tcp", "portRangeMin": 22}, ("portRangeMin", "needs portRangeMax, too")),
        ({"protocol": "tcp", "portRangeMin": 80, "portRangeMax": 22}, ("portRangeMin", "is 80, above portRangeMax 22")),
        ({"protocol": "tcp", "portRangeMin": 0, "portRangeMax": 70000}, ("portRangeMax", "not 70000")),
        ({"remoteIpPrefix": "0.0.0.0/0", "remoteGroupId": "g"}, ("remoteGroupId", "together with remoteIpPrefix")),
    ],
)
def test_rule_fault(offline: Plugin, rule: Properties, fault: tuple[str, str] | None) -> None:
    _, failures = offline.check_failures(
        RULE, {"direction": "ingress", "ethertype": "IPv4", "securityGroupId": "g", **rule}
    )
    if fault is None:
        assert failures == dict.fromkeys(("portRangeMin", "portRangeMax"), "needs protocol, too")
    else:
        assert set(failures) == {fault[0]}
        assert fault[1] in failures[fault[0]]


def test_unknowns_are_not_judged(offline: Plugin) -> None:
    """A preview knows little, and refuses only what is surely wrong."""
    offline.check(SUBNET, {"networkId": UNKNOWN, "cidr": UNKNOWN, "ipVersion": UNKNOWN, "allocationPools": UNKNOWN})
    offline.check(
        INSTANCE,
        {
            "flavorName": UNKNOWN,
            "imageId": UNKNOWN,
            "networks": [{"port": UNKNOWN}],
            "blockDevices": [{"sourceType": "image", "destinationType": "volume", "uuid": UNKNOWN, "volumeSize": 9}],
        },
    )
    offline.check(INSTANCE, {"flavorName": "f", "imageId": "i", "networks": UNKNOWN, "blockDevices": UNKNOWN})


def test_secrets_by_declaration(offline: Plugin) -> None:
    checked = offline.check(INSTANCE, {"flavorId": "f", "imageId": "i", "adminPass": "hush"})
    assert checked["adminPass"] == Secret("hush")


def test_unknown_type(offline: Plugin) -> None:
    with pytest.raises(
        CallError, match=r"no resource type 'openstack:networking/netwrok:Network'; did you mean"
    ) as caught:
        offline.check("openstack:networking/netwrok:Network", {})
    assert NETWORK in str(caught.value)
