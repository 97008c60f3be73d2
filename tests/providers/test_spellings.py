"""Another spelling of what a service stores is no change; something else is."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest

from providers.openstack.__main__ import package
from providers.openstack.normal import Normalized
from providers.schema import BOOLEAN, List, Object, top_level
from providers.values import UNKNOWN, plain
from tests.providers.plugin import Plugin, Resource, changed
from tests.providers.recorder import whatever

if TYPE_CHECKING:
    from collections.abc import Iterator

    from providers.schema import Field
    from providers.values import Properties
    from tests.providers.recorder import Recorder

NETWORK = "openstack:networking/network:Network"
SUBNET = "openstack:networking/subnet:Subnet"
ROUTER = "openstack:networking/router:Router"
PORT = "openstack:networking/port:Port"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
FLOATING_IP_ASSOCIATE = "openstack:networking/floatingIpAssociate:FloatingIpAssociate"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
TRUNK = "openstack:networking/trunk:Trunk"
INSTANCE = "openstack:compute/instance:Instance"
KEYPAIR = "openstack:compute/keypair:Keypair"
INTERFACE_ATTACH = "openstack:compute/interfaceAttach:InterfaceAttach"
VOLUME_ATTACH = "openstack:compute/volumeAttach:VolumeAttach"
VOLUME = "openstack:blockstorage/volume:Volume"
CREDENTIAL = "openstack:identity/applicationCredential:ApplicationCredential"
CONTAINER = "openstack:objectstorage/container:Container"
OBJECT = "openstack:objectstorage/containerObject:ContainerObject"
ZONE = "openstack:dns/zone:Zone"
RECORDS = "openstack:dns/recordSet:RecordSet"
BALANCER = "openstack:loadbalancer/loadBalancer:LoadBalancer"
LISTENER = "openstack:loadbalancer/listener:Listener"
MEMBER = "openstack:loadbalancer/member:Member"
MEMBERS = "openstack:loadbalancer/members:Members"
GROUP_ID = "0d6e4f7a-5d0c-4c43-9d6f-3a1f0f6c2b11"
OTHER_ID = "7f3a3c1e-1b52-4c39-8a0f-2d9be0a6c2f4"

# What a type needs besides.
NEEDED: dict[str, Properties] = {
    SUBNET: {"networkId": "n", "cidr": "2001:db8::/64", "ipVersion": 6},
    PORT: {"networkId": "n"},
    ROUTER: {"externalNetworkId": "x"},
    FLOATING_IP: {"pool": "public"},
    FLOATING_IP_ASSOCIATE: {"floatingIp": "192.0.2.9", "portId": "p"},
    TRUNK: {"portId": "p"},
    INSTANCE: {"flavorId": "f", "imageId": "i"},
    INTERFACE_ATTACH: {"instanceId": "i", "networkId": "n"},
    VOLUME_ATTACH: {"instanceId": "i", "volumeId": "v"},
    VOLUME: {"size": 1},
    OBJECT: {"containerName": "c", "content": ""},
    ZONE: {"email": "me@example.org"},
    RECORDS: {"zoneId": "z", "records": ["10.0.0.1"]},
    BALANCER: {"vipSubnetId": "s"},
    LISTENER: {"loadbalancerId": "l", "protocol": "TCP", "protocolPort": 80},
    MEMBER: {"poolId": "p", "address": "10.0.0.1", "protocolPort": 80},
    MEMBERS: {"poolId": "p"},
}


def rule(ethertype: str = "IPv4", **more: object) -> Properties:
    return {"direction": "ingress", "ethertype": ethertype, "securityGroupId": "g", **more}


def pool(start: str, end: str) -> Properties:
    return {"start": start, "end": end}


def at(subnet: str, address: str) -> Properties:
    return {"subnetId": subnet, "ipAddress": address}


def pair(address: str, mac: str = "") -> Properties:
    return {"ipAddress": address, **({"macAddress": mac} if mac else {})}


def member(address: str) -> Properties:
    return {"address": address, "protocolPort": 80, "weight": 1, "adminStateUp": True}


# Type, what is stored, another spelling of it, something else.
SPELLINGS: list[tuple[str, Properties, Properties, Properties]] = [
    (NETWORK, {"dnsDomain": "example.org."}, {"dnsDomain": "Example.ORG."}, {"dnsDomain": "example.net."}),
    (NETWORK, {"tags": ["a", "b"]}, {"tags": ["b", "a", "b"]}, {"tags": ["a"]}),
    (SUBNET, {"cidr": "2001:db8::/64"}, {"cidr": "2001:0DB8:0::0/64"}, {"cidr": "2001:db8:0:1::/64"}),
    (SUBNET, {"cidr": "10.0.0.0/24"}, {"cidr": "10.0.0.0/255.255.255.0"}, {"cidr": "10.0.0.0/25"}),
    (SUBNET, {"gatewayIp": "2001:db8::1"}, {"gatewayIp": "2001:DB8:0:0::1"}, {"gatewayIp": "2001:db8::2"}),
    (
        SUBNET,
        {"dnsNameservers": ["2001:db8::53", "192.0.2.1"]},
        {"dnsNameservers": ["2001:db8:0::0053", "192.0.2.1"]},
        {"dnsNameservers": ["192.0.2.1", "2001:db8::53"]},
    ),
    (
        SUBNET,
        {
            "allocationPools": [
                pool("2001:db8::a", "2001:db8::f"),
                pool("2001:db8::2", "2001:db8::3"),
            ]
        },
        {
            "allocationPools": [
                pool("2001:DB8::2", "2001:DB8::3"),
                pool("2001:DB8::A", "2001:DB8::F"),
            ]
        },
        {
            "allocationPools": [
                pool("2001:db8::a", "2001:db8::f"),
                pool("2001:db8::2", "2001:db8::4"),
            ]
        },
    ),
    (SUBNET, {"serviceTypes": ["a:b", "c:d"]}, {"serviceTypes": ["c:d", "a:b"]}, {"serviceTypes": ["a:b"]}),
    (
        ROUTER,
        {
            "externalFixedIps": [
                at("s", "2001:db8::1"),
                at("s", "2001:db8::2"),
            ]
        },
        {"externalFixedIps": [at("s", "2001:DB8::2"), pair("2001:DB8:0::1")]},
        {
            "externalFixedIps": [
                at("s", "2001:db8::1"),
                at("s", "2001:db8::3"),
            ]
        },
    ),
    *(
        (PORT, {"macAddress": "fa:16:3e:00:0a:01"}, {"macAddress": mac}, {"macAddress": "fa:16:3e:00:0a:02"})
        for mac in ("FA:16:3E:00:0A:01", "fa-16-3e-00-0a-01", "fa16.3e00.0a01", "fa163e000a01", "fa:16:3e:0:a:1")
    ),
    (
        PORT,
        {"fixedIps": [at("s", "2001:db8::1"), at("t", "10.0.0.9")]},
        {"fixedIps": [at("t", "10.0.0.9"), at("s", "2001:DB8:0::1")]},
        {"fixedIps": [at("s", "2001:db8::1"), at("t", "10.0.0.8")]},
    ),
    (
        PORT,
        {
            "allowedAddressPairs": [
                pair("10.1.0.0/16"),
                pair("2001:db8::5", "fa:16:3e:00:00:0b"),
            ]
        },
        {
            "allowedAddressPairs": [
                pair("2001:DB8:0::5/128", "FA-16-3E-00-00-0B"),
                pair("10.1.0.0/16"),
            ]
        },
        {
            "allowedAddressPairs": [
                pair("10.1.0.0/16"),
                pair("2001:db8::5", "fa:16:3e:00:00:0c"),
            ]
        },
    ),
    (
        PORT,
        {"macAddress": "fa:16:3e:00:0a:01", "allowedAddressPairs": [pair("10.1.0.0/16")]},
        {"allowedAddressPairs": [pair("10.1.0.0/16", "FA:16:3E:00:0A:01")]},
        {"allowedAddressPairs": [pair("10.1.0.0/16", "fa:16:3e:00:0a:02")]},
    ),
    (PORT, {"dnsName": "node"}, {"dnsName": "Node"}, {"dnsName": "node."}),
    (
        PORT,
        {"binding": {"profile": '{"a":[1,2],"b":"c"}', "vnicType": "normal"}},
        {"binding": {"profile": '{ "b": "c", "a": [1, 2] }'}},
        {"binding": {"profile": '{ "b": "c", "a": [2, 1] }'}},
    ),
    (FLOATING_IP, {"fixedIp": "2001:db8::5"}, {"fixedIp": "2001:DB8::0:5"}, {"fixedIp": "2001:db8::6"}),
    (FLOATING_IP, {"address": "2001:db8::5"}, {"address": "2001:DB8::0:5"}, {"address": "2001:db8::6"}),
    (FLOATING_IP, {"dnsName": "node"}, {"dnsName": "NODE"}, {"dnsName": "mode"}),
    (FLOATING_IP, {"dnsDomain": "example.org."}, {"dnsDomain": "EXAMPLE.org."}, {"dnsDomain": "example.net."}),
    (FLOATING_IP_ASSOCIATE, {"fixedIp": "2001:db8::5"}, {"fixedIp": "2001:DB8::0:5"}, {"fixedIp": "2001:db8::6"}),
    (
        FLOATING_IP_ASSOCIATE,
        {"floatingIp": "2001:db8::5"},
        {"floatingIp": "2001:DB8::0:5"},
        {"floatingIp": "2001:db8::6"},
    ),
    (
        RULE,
        rule(protocol="tcp", portRangeMin=0, portRangeMax=0),
        {"portRangeMin": 1, "portRangeMax": 65535},
        {"portRangeMin": 1, "portRangeMax": 65534},
    ),
    (RULE, rule("IPv6", protocol="ipv6-icmp"), {"protocol": "icmp"}, {"protocol": "tcp"}),
    (RULE, rule("IPv6", protocol="ipv6-icmp"), {"protocol": "icmpv6"}, {"protocol": "udp"}),
    (RULE, rule("IPv6", protocol="58"), {"protocol": "1"}, {"protocol": "6"}),
    (RULE, rule("IPv6", protocol="ipv6-icmp"), {"protocol": "58"}, {"protocol": "59"}),
    (RULE, rule(protocol="tcp"), {"protocol": "6"}, {"protocol": "17"}),
    (RULE, rule(protocol="icmp"), {"protocol": "1"}, {"protocol": "igmp"}),
    (RULE, rule(protocol="vrrp"), {"protocol": "112"}, {"protocol": "113"}),
    (RULE, rule(protocol="tcp"), {"portRangeMin": 0, "portRangeMax": 0}, {"portRangeMin": 1, "portRangeMax": 1}),
    (RULE, rule(protocol=""), {"protocol": "any"}, {"protocol": "tcp"}),
    (RULE, rule(remoteIpPrefix="10.0.0.5/24"), {"remoteIpPrefix": "10.0.0.0/24"}, {"remoteIpPrefix": "10.0.0.5/25"}),
    (RULE, rule(remoteIpPrefix="10.0.0.5/32"), {"remoteIpPrefix": "10.0.0.5"}, {"remoteIpPrefix": "10.0.0.6"}),
    (
        RULE,
        rule("IPv6", remoteIpPrefix="2001:db8::/32"),
        {"remoteIpPrefix": "2001:0DB8:0::0/32"},
        {"remoteIpPrefix": "2001:db8::/33"},
    ),
    (
        TRUNK,
        {"subPorts": [{"portId": "a", "segmentationType": "vlan", "segmentationId": 7}]},
        {"subPorts": [{"portId": "a", "segmentationType": "inherit", "segmentationId": 0}]},
        {"subPorts": [{"portId": "b", "segmentationType": "inherit", "segmentationId": 0}]},
    ),
    (
        INSTANCE,
        {"networks": [{"uuid": "n", "fixedIpV6": "2001:db8::5", "mac": "m"}]},
        {"networks": [{"uuid": "n", "fixedIpV6": "2001:DB8:0::5"}]},
        {"networks": [{"uuid": "n", "fixedIpV6": "2001:db8::6"}]},
    ),
    (INSTANCE, {"securityGroups": ["a", "b"]}, {"securityGroups": ["b", "a", "a"]}, {"securityGroups": ["b"]}),
    (
        INSTANCE,
        {"userData": hashlib.sha1(b"#!/bin/sh\n").hexdigest()},  # noqa: S324
        {"userData": base64.b64encode(b"#!/bin/sh\n").decode()},
        {"userData": base64.b64encode(b"#!/bin/bash\n").decode()},
    ),
    (
        INSTANCE,
        {"userData": hashlib.sha1(base64.b64encode(b"#!/bin/sh\n")).hexdigest()},  # noqa: S324
        {"userData": "#!/bin/sh\n"},
        {"userData": "#!/bin/bash\n"},
    ),
    (
        KEYPAIR,
        {"publicKey": "ssh-ed25519 A me"},
        {"publicKey": "ssh-ed25519 A me\n"},
        {"publicKey": "ssh-ed25519 B me"},
    ),
    (INTERFACE_ATTACH, {"fixedIp": "2001:db8::5"}, {"fixedIp": "2001:DB8:0::5"}, {"fixedIp": "2001:db8::6"}),
    (VOLUME, {"description": "data"}, {"description": "data\n"}, {"description": "dat a"}),
    (VOLUME, {"name": "data"}, {"name": " data"}, {"name": "date"}),
    (
        CREDENTIAL,
        {"expiresAt": "2027-01-31T12:00:00.500000Z"},
        {"expiresAt": "2027-01-31T13:00:00.5+01:00"},
        {"expiresAt": "2027-01-31T12:00:00Z"},
    ),
    (
        CONTAINER,
        {"containerRead": ".r:*,.rlistings,a:b"},
        {"containerRead": ".referrer : *, .rlistings,, a:b"},
        {"containerRead": ".r:-*,.rlistings,a:b"},
    ),
    (
        OBJECT,
        {"deleteAt": "2027-01-31T12:00:00Z"},
        {"deleteAt": "2027-01-31T13:00:00.9+01:00"},
        {"deleteAt": "2027-01-31T12:00:01Z"},
    ),
    (ZONE, {"name": "example.org."}, {"name": "Example.org."}, {"name": "example.net."}),
    (ZONE, {"masters": ["10.0.0.1", "10.0.0.2"]}, {"masters": ["10.0.0.2", "10.0.0.1"]}, {"masters": ["10.0.0.1"]}),
    (RECORDS, {"name": "a.example.org."}, {"name": "A.Example.org."}, {"name": "b.example.org."}),
    (
        RECORDS,
        {"type": "AAAA", "records": ["2001:db8::1", "2001:db8::2"]},
        {"records": ["2001:DB8:0::2", "2001:0db8::1"]},
        {"records": ["2001:db8::1", "2001:db8::3"]},
    ),
    (RECORDS, {"type": "TXT", "records": ['"A b"']}, {"records": ['"A b"', '"A b"']}, {"records": ['"a b"']}),
    (BALANCER, {"vipAddress": "2001:db8::1"}, {"vipAddress": "2001:DB8:0::1"}, {"vipAddress": "2001:db8::2"}),
    (
        LISTENER,
        {"allowedCidrs": ["10.0.0.0/8", "2001:db8::/32"]},
        {"allowedCidrs": ["2001:DB8:0::/32", "10.1.2.3/8"]},
        {"allowedCidrs": ["10.0.0.0/9", "2001:db8::/32"]},
    ),
    (MEMBER, {"address": "2001:db8::1"}, {"address": "2001:DB8:0::1"}, {"address": "2001:db8::2"}),
    (MEMBER, {"monitorAddress": "2001:db8::1"}, {"monitorAddress": "2001:DB8:0::1"}, {"monitorAddress": "2001:db8::2"}),
    (
        MEMBERS,
        {
            "members": [
                member("2001:db8::1"),
                member("10.0.0.2"),
            ]
        },
        {"members": [member("10.0.0.2"), member("2001:DB8:0::1")]},
        {"members": [member("10.0.0.3"), member("2001:db8::1")]},
    ),
    (VOLUME, {"volumeType": "fast"}, {"volumeType": ""}, {"volumeType": "slow"}),
    (VOLUME, {"availabilityZone": "nova"}, {"availabilityZone": ""}, {"availabilityZone": "other"}),
    (SUBNET, {"gatewayIp": "2001:db8::1"}, {"gatewayIp": ""}, {"gatewayIp": "2001:db8::2"}),
    (PORT, {"macAddress": "fa:16:3e:00:0a:01"}, {"macAddress": ""}, {"macAddress": "fa:16:3e:00:0a:02"}),
    (PORT, {"deviceId": "i", "deviceOwner": "o"}, {"deviceId": "", "deviceOwner": ""}, {"deviceId": "j"}),
    (
        PORT,
        {"binding": {"hostId": "h", "vnicType": "normal"}},
        {"binding": {"hostId": ""}},
        {"binding": {"hostId": "i"}},
    ),
    (NETWORK, {"tenantId": "p", "region": "r"}, {"tenantId": "", "region": ""}, {"tenantId": "q"}),
    (INTERFACE_ATTACH, {"fixedIp": "10.0.0.5"}, {"fixedIp": ""}, {"fixedIp": "10.0.0.6"}),
    (
        INSTANCE,
        {"networks": [{"uuid": "n", "name": "m", "fixedIpV4": "10.0.0.5"}]},
        {"networks": [{"uuid": "n", "name": "", "port": "", "fixedIpV4": "", "fixedIpV6": ""}]},
        {"networks": [{"uuid": "", "name": "o"}]},
    ),
    (INSTANCE, {"availabilityZone": "nova"}, {"availabilityZone": ""}, {"availabilityZone": "other"}),
    (KEYPAIR, {"publicKey": "ssh-rsa A me"}, {"publicKey": ""}, {"publicKey": "ssh-rsa B me"}),
    (BALANCER, {"vipNetworkId": "n", "vipPortId": "p"}, {"vipNetworkId": "", "vipPortId": ""}, {"vipPortId": "q"}),
    (CREDENTIAL, {"roles": ["member", "reader"]}, {"roles": ["Reader", "member"]}, {"roles": ["reader"]}),
    (
        CREDENTIAL,
        {"accessRules": [{"id": "a", "path": "/v3", "method": "GET", "service": "compute"}]},
        {"accessRules": [{"path": "/v3", "method": "GET", "service": "Compute"}]},
        {"accessRules": [{"path": "/v2", "method": "GET", "service": "compute"}]},
    ),
]
IDS = [
    f"{token.rpartition(':')[2]}-{'-'.join(other)}-{number}" for number, (token, _, other, _) in enumerate(SPELLINGS)
]


def stored(plugin: Plugin, token: str, inputs: Properties, outputs: Properties) -> Resource:
    """A resource as the state holds it: its inputs, and what the cloud has made of them."""
    kind = next(kind for kind in package().types if kind.token == token)
    known = {name: outputs[name] for name in {field.name for field in kind.fields if not field.output} & outputs.keys()}
    inputs = plugin.check(token, {**NEEDED.get(token, {}), **known, **inputs})
    return Resource(token, "thing", "id-1", inputs, {**inputs, **outputs})


@pytest.mark.parametrize(("token", "outputs", "other", "different"), SPELLINGS, ids=IDS)
def test_spelling(offline: Plugin, token: str, outputs: Properties, other: Properties, different: Properties) -> None:
    needed = {**NEEDED.get(token, {}), **(outputs if token == RULE else {})}
    resource = stored(offline, token, other, outputs)
    assert not changed(offline.diff(resource, {**needed, **other})), "another spelling"
    found = {top_level(path) for path in changed(offline.diff(resource, {**needed, **different}))}
    assert found, "something else"
    assert found <= set(different)


def written(fields: tuple[Field, ...], path: str) -> Iterator[tuple[str, Field]]:
    """Every property that a user may write, also those of nested objects."""
    for field in fields:
        if not field.output:
            yield path + field.name, field
            kind = field.kind
            while isinstance(kind, List):
                kind = kind.item
            if isinstance(kind, Object):
                yield from written(kind.fields, f"{path}{field.name}.")


def test_every_address_has_a_normal_form() -> None:
    """No type compares by its text what services spell their own way."""
    compared_as_text = {
        name
        for kind in package().types
        for name, field in written(kind.fields, f"{kind.token}.")
        if field.kind is not BOOLEAN
        and re.search(r"(?i)(ip|ipv?[46]|address|cidrs?|ipprefix|mac|dnsname|dnsdomain|nameservers|ipaddress)$", name)
        and not isinstance(field.kind.item if isinstance(field.kind, List) else field.kind, Normalized)
    }
    assert compared_as_text == {f"{INSTANCE}.schedulerHints.buildNearHostIp"}  # the scheduler's, and told nowhere


def test_what_is_no_spelling_at_all_is_refused(offline: Plugin) -> None:
    _, failures = offline.check_failures(
        PORT,
        {
            "networkId": "n",
            "macAddress": "fa:16:3e:00:00",
            "fixedIps": [pair("10.0.0.256")],
            "allowedAddressPairs": [pair("10/8", "fa:16-3e:00:00:01")],
        },
    )
    assert failures == {
        "macAddress": "must be a MAC address such as fa:16:3e:00:00:01, not 'fa:16:3e:00:00'",
        "fixedIps[0].ipAddress": "must be an IP address, not '10.0.0.256'",
        "allowedAddressPairs[0].ipAddress": "must be a CIDR such as 10.0.0.0/24, not '10/8'",
        "allowedAddressPairs[0].macAddress": "must be a MAC address such as fa:16:3e:00:00:01, not 'fa:16-3e:00:00:01'",
    }


@pytest.mark.parametrize(
    ("before", "stored_type", "after", "difference"),
    [
        ({}, None, {}, set()),
        ({}, None, {"portRangeMin": 0}, {"portRangeMin"}),
        ({"portRangeMin": 0}, 0, {}, {"portRangeMin"}),
        ({"portRangeMin": 0}, 0, {"portRangeMin": 0}, set()),
        ({"portRangeMin": 0}, 0, {"portRangeMin": 8}, {"portRangeMin"}),
        ({}, 0, {}, set()),  # the official plugin's state
    ],
)
def test_an_icmp_type_of_0_is_not_none(
    offline: Plugin, before: Properties, stored_type: int | None, after: Properties, difference: set[str]
) -> None:
    inputs = offline.check(RULE, rule(protocol="icmp", **before))
    resource = Resource(RULE, "thing", "id-1", inputs, {**inputs, "portRangeMin": stored_type, "portRangeMax": None})
    answer = offline.diff(resource, rule(protocol="icmp", **after))
    assert changed(answer) == set(answer.replaces) == difference


BOOT_VOLUME = {"sourceType": "image", "destinationType": "volume", "uuid": "i", "volumeSize": 9}
NO_IMAGE = "Attempt to boot from volume - no image supplied"


@pytest.mark.parametrize(
    "device",
    [
        BOOT_VOLUME,
        {"sourceType": "volume", "destinationType": "volume", "uuid": "v"},
        {"sourceType": "snapshot", "destinationType": "volume", "uuid": "s"},
    ],
    ids=["image", "volume", "snapshot"],
)
@pytest.mark.parametrize("image", [{"imageId": "i"}, {"imageName": "m"}, {"imageId": "i", "imageName": "m"}, {}])
def test_the_image_of_an_instance_on_a_volume_changes_nothing(
    offline: Plugin, device: Properties, image: Properties
) -> None:
    """Nova tells no image of such an instance, and a rebuild would wipe the volume."""
    inputs = {"name": "i", "flavorId": "f", "blockDevices": [device], **image}
    resource = stored(offline, INSTANCE, inputs, {"imageId": NO_IMAGE, "imageName": ""})
    assert not changed(offline.diff(resource, inputs))
    assert not changed(offline.diff(resource, {**inputs, "imageId": "another"}))
    answer = offline.diff(resource, {**inputs, "blockDevices": [{**device, "uuid": "another"}]})
    assert list(answer.replaces) == ["blockDevices"]
    answer = offline.diff(resource, {**inputs, "personalities": [{"file": "/a", "content": "b"}]})
    assert list(answer.replaces) == ["personalities"], "Nova puts no files on a volume"


def test_the_image_of_a_local_disk_is_the_instances(offline: Plugin) -> None:
    device = {"sourceType": "image", "destinationType": "local", "uuid": "i"}
    inputs = {"name": "i", "flavorId": "f", "imageId": "i", "blockDevices": [device]}
    resource = stored(offline, INSTANCE, inputs, {"imageId": "i", "imageName": "m"})
    assert not changed(offline.diff(resource, inputs))
    assert changed(offline.diff(resource, {**inputs, "imageId": "another"})) == {"imageId"}


def test_an_id_wins_over_a_name(offline: Plugin) -> None:
    inputs = {"name": "i", "flavorId": "f", "flavorName": "small", "imageId": "i", "imageName": "mine"}
    resource = stored(offline, INSTANCE, inputs, {"imageName": "CC-Debian12", "flavorName": "m1.small"})
    assert not changed(offline.diff(resource, inputs))
    assert changed(offline.diff(resource, {**inputs, "imageId": "j"})) == {"imageId"}
    by_name = {key: value for key, value in inputs.items() if not key.endswith("Id")}
    assert changed(offline.diff(resource, by_name)) == {"imageName", "flavorName"}


@pytest.mark.parametrize("device", ["/dev/vdb", "/dev/vdc", None])
def test_the_device_of_a_volume_is_a_wish(offline: Plugin, device: str | None) -> None:
    attached = {**NEEDED[VOLUME_ATTACH], "device": "/dev/sdb"}
    resource = stored(offline, VOLUME_ATTACH, attached, {"device": "/dev/vdb"})
    assert not changed(offline.diff(resource, {**NEEDED[VOLUME_ATTACH], "device": device}))


def test_what_is_not_known_yet_is_a_change(offline: Plugin) -> None:
    pairs = [{"ipAddress": "10.1.0.0/16", "macAddress": UNKNOWN}, UNKNOWN]
    inputs = {"networkId": "n", "macAddress": "fa:16:3e:00:0a:01"}
    resource = stored(offline, PORT, inputs, {"allowedAddressPairs": [pair("10.1.0.0/16")]})
    assert changed(offline.diff(resource, {**inputs, "allowedAddressPairs": pairs})) == {"allowedAddressPairs"}
    resource = stored(offline, RULE, rule(protocol="tcp"), {})
    assert changed(offline.diff(resource, rule(protocol=UNKNOWN))) == {"protocol"}


def test_what_may_be_empty_can_be_emptied(offline: Plugin) -> None:
    """An empty string takes away what a service does without."""
    for token, stored_as in (
        (ROUTER, {"externalNetworkId": "x"}),
        (FLOATING_IP, {"portId": "p"}),
        (NETWORK, {"dnsDomain": "example.org."}),
        (RULE, {"remoteGroupId": "g"}),
    ):
        needed = (
            rule() if token == RULE else {key: value for key, value in NEEDED.get(token, {}).items() if key == "pool"}
        )
        resource = stored(offline, token, needed, stored_as)
        (name,) = stored_as
        assert changed(offline.diff(resource, {**needed, name: ""})) == {name}


def port(**more: Any) -> dict[str, Any]:
    found = {"id": "i", "name": "n", "status": "DOWN", "network_id": "n", "project_id": "p", "tags": []}
    return {"port": {**found, "mac_address": "fa:16:3e:00:0a:01", "device_id": "", **more}}


def test_a_refresh_keeps_the_spelling(recorder: Recorder, recorded: Plugin) -> None:
    """Inputs are what the user wrote, outputs what is stored; only what is something else is taken over."""
    pairs = [{"ip_address": "2001:db8::5", "mac_address": "fa:16:3e:00:0a:01"}]
    recorder.answer("GET", "/ports/i", 200, port(allowed_address_pairs=pairs))
    inputs = {
        "networkId": "n",
        "name": "n",
        "macAddress": "FA:16:3E:00:0A:01",
        "allowedAddressPairs": [pair("2001:DB8:0::5", "FA:16:3E:00:0A:01")],
    }
    checked = recorded.check(PORT, inputs)
    refreshed = recorded.read(Resource(PORT, "thing", "i", checked, inputs))
    assert refreshed
    assert refreshed.inputs == checked
    assert refreshed.outputs["macAddress"] == "fa:16:3e:00:0a:01"
    assert refreshed.outputs["allowedAddressPairs"] == [pair("2001:db8::5")]
    assert not changed(recorded.diff(refreshed, inputs))


def test_the_spelling_of_the_user_is_sent(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/ports", 201, port())
    recorder.answer("GET", "/ports/i", 200, port())
    inputs = {"networkId": "n", "macAddress": "FA-16-3E-00-0A-01"}
    made = recorded.create(PORT, inputs)
    assert recorder.sent("POST")[0].body["port"]["mac_address"] == "FA-16-3E-00-0A-01"
    assert (made.inputs["macAddress"], made.outputs["macAddress"]) == ("FA-16-3E-00-0A-01", "fa:16:3e:00:0a:01")


def test_a_made_rule_is_found_by_what_is_stored(recorder: Recorder, recorded: Plugin) -> None:
    """After a lost answer."""
    found: Properties = {"id": "r", "direction": "ingress", "ethertype": "IPv6", "security_group_id": "g"}
    found |= {"protocol": "ipv6-icmp", "port_range_min": None, "port_range_max": None, "tenant_id": "p"}
    recorder.answer("GET", "/security-group-rules?security_group_id=g", 200, {"security_group_rules": [found]})
    recorder.answer("GET", "/security-group-rules/r", 200, {"security_group_rule": found})
    wanted = rule("IPv6", protocol="icmp", tenantId="p")
    lost = Resource(RULE, "thing", "", recorded.check(RULE, wanted), {})
    recovered = recorded.recover(lost, None)
    assert recovered
    assert recovered.id == "r"
    assert plain(recovered.inputs["protocol"]) == "icmp"


def test_trunk_updates_take_what_is_stored(recorder: Recorder, recorded: Plugin) -> None:
    """A sub-port that inherits its segmentation is neither removed nor added again."""
    sub_port = {"portId": "a", "segmentationType": "vlan", "segmentationId": 7}
    inputs = {"name": "t", "portId": "p", "subPorts": [{**sub_port, "segmentationType": "inherit"}]}
    resource = stored(recorded, TRUNK, inputs, {"subPorts": [sub_port], "region": "r"})
    found = {"id": "id-1", "name": "t", "port_id": "p", "status": "ACTIVE", "sub_ports": [], "tags": []}
    recorder.answer("PUT", "/trunks/id-1", 200, {"trunk": found})
    recorder.answer("GET", "/trunks/id-1", 200, {"trunk": found})
    recorded.update(resource, {**inputs, "description": "new"})
    assert [put.body for put in recorder.sent("PUT")] == [{"trunk": {"description": "new"}}]


@pytest.mark.parametrize("given", ["fast", GROUP_ID])
def test_a_volume_type_by_its_id(recorder: Recorder, recorded: Plugin, given: str) -> None:
    """Cinder tells its name."""
    volume = {"id": "v", "name": "n", "status": "available", "size": 1, "volume_type": "fast", "attachments": []}
    recorder.answer("GET", "/volumes/v", 200, {"volume": volume})
    recorder.answer("GET", f"/types/{GROUP_ID}", 200, {"volume_type": {"id": GROUP_ID, "name": "fast"}})
    recorder.answer("GET", f"/types/{OTHER_ID}", 200, {"volume_type": {"id": OTHER_ID, "name": "slow"}})
    types = [{"id": GROUP_ID, "name": "fast"}, {"id": OTHER_ID, "name": "slow"}]
    recorder.answer("GET", "/types?is_public=None", 200, {"volume_types": types})
    inputs = {"name": "n", "size": 1, "volumeType": given}
    checked = recorded.check(VOLUME, inputs)
    refreshed = recorded.read(Resource(VOLUME, "thing", "v", checked, checked))
    assert refreshed
    assert refreshed.inputs["volumeType"] == given
    for other, difference in (("fast", set()), (GROUP_ID, set()), (OTHER_ID, {"volumeType"}), ("slow", {"volumeType"})):
        assert changed(recorded.diff(refreshed, {**inputs, "volumeType": other})) == difference
    recorded.update(refreshed, {**inputs, "volumeType": GROUP_ID})
    assert not recorder.sent("POST"), "no retype"


def server(**more: Any) -> dict[str, Any]:
    found = {"id": "i", "name": "n", "status": "ACTIVE", "metadata": {}, "addresses": {}, "flavor": {"id": "f"}}
    times = {"created": "2027-01-31T12:00:00Z", "updated": "2027-01-31T12:00:00Z"}
    return {"server": {**found, **times, "image": {"id": "1"}, "tags": [], **more}}


@pytest.fixture
def compute(recorder: Recorder) -> Recorder:
    recorder.answer("GET", "/servers/i/os-interface", 200, {"interfaceAttachments": []})
    recorder.answer("GET", "/flavors/f", 200, {"flavor": {"id": "f", "name": "small", "ram": 2048, "disk": 0}})
    recorder.look_up = whatever
    recorder.answer("GET", f"/security-groups/{GROUP_ID}", 200, {"security_group": {"id": GROUP_ID, "name": "web"}})
    recorder.answer("GET", f"/security-groups/{OTHER_ID}", 200, {"security_group": {"id": OTHER_ID, "name": "db"}})
    return recorder


@pytest.mark.parametrize("given", ["web", GROUP_ID])
def test_a_security_group_by_its_id(compute: Recorder, recorded: Plugin, given: str) -> None:
    """Nova tells its name."""
    compute.answer("GET", "/servers/i", 200, server(security_groups=[{"name": "web"}, {"name": "web"}]))
    compute.answer("GET", "/images/1", 200, {"id": "1", "name": "m"})
    inputs = {"name": "n", "flavorId": "f", "imageId": "1", "securityGroups": [given]}
    refreshed = recorded.read(Resource(INSTANCE, "thing", "i", recorded.check(INSTANCE, inputs), inputs))
    assert refreshed
    assert refreshed.inputs["securityGroups"] == [given]
    for other in ("web", GROUP_ID):
        assert not changed(recorded.diff(refreshed, {**inputs, "securityGroups": [other]}))
    for other in ("db", OTHER_ID):
        assert changed(recorded.diff(refreshed, {**inputs, "securityGroups": [other]}))
    compute.answer("POST", "/servers/i/action", 202)
    recorded.update(refreshed, {**inputs, "securityGroups": ["web", OTHER_ID]})
    assert [post.body for post in compute.sent("POST")] == [{"addSecurityGroup": {"name": OTHER_ID}}]


@pytest.mark.parametrize("answer", [(200, {"id": "1", "name": "m-2026-01"}), (404, {})], ids=["renamed", "deleted"])
def test_an_image_that_is_renamed_or_deleted_rebuilds_nothing(
    compute: Recorder, recorded: Plugin, answer: tuple[int, dict[str, str]]
) -> None:
    """Publishers give the name to the next image."""
    compute.answer("GET", "/servers/i", 200, server())
    compute.answer("GET", "/images/1", *answer)
    inputs = {"name": "n", "flavorId": "f", "imageName": "m"}
    outputs = {**inputs, "imageId": "1", "created": "2027-01-31 12:00:00 +0000 UTC"}
    refreshed = recorded.read(Resource(INSTANCE, "thing", "i", recorded.check(INSTANCE, inputs), outputs))
    assert refreshed
    assert not changed(recorded.diff(refreshed, inputs))
    assert changed(recorded.diff(refreshed, {**inputs, "imageName": "other"})) == {"imageName"}


def test_the_image_of_a_rebuilt_instance_is_drift(compute: Recorder, recorded: Plugin) -> None:
    compute.answer("GET", "/servers/i", 200, server(image={"id": "2"}))
    compute.answer("GET", "/images/2", 200, {"id": "2", "name": "by-hand"})
    inputs = {"name": "n", "flavorId": "f", "imageName": "m"}
    outputs = {**inputs, "imageId": "1", "created": "2027-01-31 12:00:00 +0000 UTC"}
    refreshed = recorded.read(Resource(INSTANCE, "thing", "i", recorded.check(INSTANCE, inputs), outputs))
    assert refreshed
    assert changed(recorded.diff(refreshed, inputs)) == {"imageName"}


def test_a_rebuild_tells_the_new_name(compute: Recorder, recorded: Plugin) -> None:
    compute.answer("GET", "/servers/i", 200, server(image={"id": "2"}))
    compute.answer("GET", "/images/2", 200, {"id": "2", "name": "next"})
    compute.answer("POST", "/servers/i/action", 202)
    inputs = {"name": "n", "flavorId": "f", "imageId": "1"}
    outputs = {**inputs, "imageName": "m", "created": "2027-01-31 12:00:00 +0000 UTC"}
    resource = Resource(INSTANCE, "thing", "i", recorded.check(INSTANCE, inputs), outputs)
    assert recorded.update(resource, {**inputs, "imageId": "2"}).outputs["imageName"] == "next"


def test_an_interface_with_several_addresses(compute: Recorder, recorded: Plugin) -> None:
    fixed = [{"ip_address": "10.0.0.5"}, {"ip_address": "2001:db8::5"}]
    found = {"port_id": "p", "net_id": "n", "fixed_ips": fixed, "mac_addr": "m"}
    compute.answer("GET", "/servers/s/os-interface/p", 200, {"interfaceAttachment": found})
    inputs = {"instanceId": "s", "networkId": "n", "fixedIp": "2001:DB8:0::5"}
    checked = recorded.check(INTERFACE_ATTACH, inputs)
    refreshed = recorded.read(Resource(INTERFACE_ATTACH, "thing", "s/p", checked, inputs))
    assert refreshed
    assert not changed(recorded.diff(refreshed, inputs))
