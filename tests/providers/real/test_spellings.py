"""Every spelling that a service stores in another: the second `up` has nothing to do, nor has one after a refresh."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from tests.providers.plugin import changed
from tests.providers.real import test_compute
from tests.providers.real.test_compute import FLAVOR, IMAGE, INSTANCE, INTERFACE_ATTACH, VOLUME, VOLUME_ATTACH
from tests.providers.real.test_identity import CREDENTIAL
from tests.providers.real.test_networking import GROUP, NETWORK, PORT, RULE, SUBNET, TRUNK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openstack.connection import Connection

    from providers.values import Properties
    from tests.providers.plugin import Plugin, Resource
    from tests.providers.real.conftest import Maker

shared = test_compute.shared
MACS = ("FA:16:3E:0A:00:{:02X}", "fa-16-3e-0a-00-{:02x}", "fa16.3e0a.00{:02x}", "fa163e0a00{:02x}", "fa:16:3e:a:0:{:x}")


@pytest.fixture(scope="module")
def network(shared: Maker) -> Resource:
    network = shared(NETWORK, {})
    shared(SUBNET, {"networkId": network.id, "cidr": "10.90.0.0/24"})
    return network


@pytest.fixture(scope="module")
def subnet6(shared: Maker, network: Resource) -> Resource:
    inputs = {
        "networkId": network.id,
        "ipVersion": 6,
        "cidr": "2001:0DB8:0:90::0/64",
        "gatewayIp": "2001:DB8:0:90:0::1",
        "allocationPools": [
            {"start": "2001:DB8:0:90::00B0", "end": "2001:DB8:0:90::BF"},
            {"start": "2001:0db8:0:90::10", "end": "2001:0db8:0:90::0AF"},
        ],
        "dnsNameservers": ["2001:DB8:0:90:0:0:0:53", "2001:db8:0:90::0054"],
    }
    subnet = shared(SUBNET, inputs)
    steady(shared.plugin, subnet, inputs)
    return subnet


def steady(plugin: Plugin, resource: Resource, inputs: Properties) -> None:
    """See that there is nothing to do, and that a refresh leaves the inputs as they are written."""
    assert not changed(plugin.diff(resource, inputs)), "the second up changes it"
    refreshed = plugin.read(resource)
    assert refreshed
    assert refreshed.inputs == resource.inputs
    assert not changed(plugin.diff(refreshed, inputs)), "an up after a refresh changes it"


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ({"protocol": "tcp", "portRangeMin": 1, "portRangeMax": 65535}, {"portRangeMin": 2}),
        ({"protocol": "udp", "portRangeMin": 1, "portRangeMax": 65535}, {"portRangeMax": 65534}),
        ({"protocol": "tcp", "portRangeMin": 0, "portRangeMax": 0}, {"portRangeMin": 1, "portRangeMax": 1}),
        ({"protocol": "6", "portRangeMin": 22, "portRangeMax": 22}, {"protocol": "17"}),
        ({"ethertype": "IPv6", "protocol": "icmp"}, {"protocol": "tcp"}),
        ({"ethertype": "IPv6", "protocol": "icmpv6"}, {"protocol": "udp"}),
        ({"ethertype": "IPv6", "protocol": "ipv6-icmp"}, {"protocol": "59"}),
        ({"ethertype": "IPv6", "protocol": "1"}, {"protocol": "6"}),
        ({"ethertype": "IPv6", "protocol": "58"}, {"protocol": "60"}),
        ({"ethertype": "IPv6", "protocol": "icmpv6", "portRangeMin": 128, "portRangeMax": 0}, {"portRangeMin": 129}),
        ({"protocol": "icmp", "portRangeMin": 0}, {"portRangeMin": 8}),
        ({"protocol": "icmp"}, {"portRangeMin": 0}),
        ({"protocol": "any"}, {"protocol": "tcp"}),
        ({"protocol": "0"}, {"protocol": "tcp"}),
        ({"protocol": "vrrp"}, {"protocol": "51"}),
        ({"protocol": ""}, {"protocol": "tcp"}),
        ({"remoteIpPrefix": "10.1.2.3/24"}, {"remoteIpPrefix": "10.1.3.3/24"}),
        ({"remoteIpPrefix": "10.1.2.3"}, {"remoteIpPrefix": "10.1.2.4"}),
        ({"remoteIpPrefix": "10.1.2.0/255.255.255.0"}, {"remoteIpPrefix": "10.1.2.0/25"}),
        ({"remoteIpPrefix": "0.0.0.0/0"}, {"remoteIpPrefix": "0.0.0.0/1"}),
        ({"ethertype": "IPv6", "remoteIpPrefix": "2001:0DB8:0:0::5/32"}, {"remoteIpPrefix": "2001:db9::/32"}),
        ({"ethertype": "IPv6", "remoteIpPrefix": "2001:DB8::5"}, {"remoteIpPrefix": "2001:DB8::6"}),
        ({"ethertype": "IPv6", "remoteIpPrefix": "::ffff:10.0.0.1"}, {"remoteIpPrefix": "::ffff:10.0.0.2"}),
    ],
)
def test_rule(plugin: Plugin, make: Maker, rule: Properties, other: Properties) -> None:
    group = make(GROUP, {"deleteDefaultRules": True})
    inputs = {"direction": "ingress", "ethertype": "IPv4", "securityGroupId": group.id, **rule}
    made = make(RULE, inputs)
    steady(plugin, made, inputs)
    assert set(plugin.diff(made, {**inputs, **other}).replaces) >= set(other)


def test_subnet(plugin: Plugin, subnet6: Resource) -> None:
    written = {key: value for key, value in subnet6.inputs.items() if key != "__defaults"}
    assert subnet6.outputs["gatewayIp"] == "2001:db8:0:90::1"
    other = {
        "gatewayIp": "2001:db8:0:90::2",
        "dnsNameservers": ["2001:db8:0:90::53"],
        "allocationPools": [{"start": "2001:DB8:0:90::00B0", "end": "2001:DB8:0:90::BF"}],
    }
    for key, value in other.items():
        assert {path.partition("[")[0] for path in changed(plugin.diff(subnet6, {**written, key: value}))} == {key}


def test_an_empty_string_is_none(plugin: Plugin, make: Maker, network: Resource) -> None:
    """Where the cloud decides on a value."""
    for token, inputs in (
        (VOLUME, {"size": 1, "volumeType": "", "availabilityZone": ""}),
        (SUBNET, {"networkId": network.id, "cidr": "10.92.0.0/24", "gatewayIp": "", "tenantId": "", "region": ""}),
        (PORT, {"networkId": network.id, "macAddress": "", "deviceId": "", "binding": {"hostId": ""}}),
    ):
        steady(plugin, make(token, inputs), inputs)


def test_service_types_of_a_subnet(plugin: Plugin, make: Maker) -> None:
    network = make(NETWORK, {})
    types = ["network:floatingip", "compute:nova", "compute:az2"]
    inputs = {"networkId": network.id, "cidr": "10.91.0.0/24", "serviceTypes": types}
    subnet = make(SUBNET, inputs)
    steady(plugin, subnet, inputs)
    assert not changed(plugin.diff(subnet, {**inputs, "serviceTypes": types[::-1]}))


@pytest.mark.parametrize("number", range(len(MACS)))
def test_port(plugin: Plugin, make: Maker, network: Resource, subnet6: Resource, number: int) -> None:
    mac, address = MACS[number].format(number), f"2001:DB8:0:90:0::{0x40 + number:04X}"
    inputs: Properties = {
        "networkId": network.id,
        "macAddress": mac,
        "fixedIps": [{"subnetId": subnet6.id, "ipAddress": address}],
        "allowedAddressPairs": [
            {"ipAddress": "2001:DB8:0::0/48", "macAddress": MACS[number].format(0x90)},
            {"ipAddress": "10.244.0.0/16", "macAddress": mac},
            {"ipAddress": "10.96.0.1"},
            {"ipAddress": "2001:DB8:0:91::0005/128"},
        ],
        "tags": ["b", "a", "b"],
    }
    port = make(PORT, inputs)
    assert not changed(plugin.diff(port, {**inputs, "macAddress": f"fa:16:3e:0a:00:{number:02x}"}))
    assert port.outputs["allFixedIps"] == [f"2001:db8:0:90::{0x40 + number:x}"]
    steady(plugin, port, inputs)
    backwards = {**inputs, "allowedAddressPairs": inputs["allowedAddressPairs"][::-1]}
    assert not changed(plugin.diff(port, backwards))
    assert list(plugin.diff(port, {**inputs, "macAddress": "fa:16:3e:0a:00:ee"}).replaces) == ["macAddress"]
    make.changed(port, plugin.update(port, {**backwards, "description": "changed"}))


def test_addresses_in_another_order(plugin: Plugin, make: Maker, network: Resource, subnet6: Resource) -> None:
    """Neutron sorts them."""
    fixed = [{"subnetId": subnet6.id, "ipAddress": f"2001:DB8:0:90::{last}"} for last in ("0071", "70")]
    inputs: Properties = {"networkId": network.id, "fixedIps": fixed}
    port = make(PORT, inputs)
    assert port.outputs["allFixedIps"] == ["2001:db8:0:90::70", "2001:db8:0:90::71"]
    steady(plugin, port, inputs)
    assert not changed(plugin.diff(port, {**inputs, "fixedIps": fixed[::-1]}))


def test_network(plugin: Plugin, make: Maker) -> None:
    inputs = {"tags": ["b", "a", "b"], "name": " blanks stay ", "description": "two\nlines\n"}
    made = make(NETWORK, inputs)
    steady(plugin, made, inputs)
    assert changed(plugin.diff(made, {**inputs, "name": "blanks stay"})) == {"name"}


def test_trunk(plugin: Plugin, make: Maker, network: Resource) -> None:
    ports = [make(PORT, {"networkId": network.id}).id for _ in range(3)]
    tagged = [
        {"portId": port, "segmentationType": "vlan", "segmentationId": tag}
        for port, tag in ((ports[1], 9), (ports[2], 7))
    ]
    inputs = {"portId": ports[0], "subPorts": tagged}
    trunk = make(TRUNK, inputs)
    steady(plugin, trunk, inputs)
    assert not changed(plugin.diff(trunk, {**inputs, "subPorts": tagged[::-1]}))


def test_volume(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    kind = next(iter(sdk.block_storage.types()))
    inputs = {"size": 1, "name": " test-blanks ", "description": "two\nlines\n", "volumeType": kind.id}
    volume = make(VOLUME, inputs)
    steady(plugin, volume, inputs)
    assert not changed(plugin.diff(volume, {**inputs, "volumeType": kind.name}))
    other = next(one for one in sdk.block_storage.types() if one.id != kind.id)
    assert changed(plugin.diff(volume, {**inputs, "volumeType": other.id})) == {"volumeType"}
    volume = make.changed(volume, plugin.update(volume, {**inputs, "metadata": {"a": "b"}}))
    assert sdk.block_storage.get_volume(volume.id).volume_type == kind.name


@pytest.mark.parametrize("expires", ["2099-01-31T13:00:00.25+01:00", "2099-01-31T12:00:00Z"])
def test_credential(plugin: Plugin, make: Maker, expires: str) -> None:
    rules = [{"path": "/v2.1/servers", "method": method, "service": "compute"} for method in ("POST", "GET", "DELETE")]
    inputs = {"expiresAt": expires, "accessRules": rules, "roles": ["Reader", "member", "Reader"]}
    made = make(CREDENTIAL, inputs)
    steady(plugin, made, inputs)
    assert changed(plugin.diff(made, {**inputs, "expiresAt": "2099-01-31T12:00:00.5Z"})) == {"expiresAt"}


@pytest.fixture(scope="module")
def group(shared: Maker) -> Resource:
    return shared(GROUP, {})


@pytest.mark.usefixtures("subnet6")
def test_instance(plugin: Plugin, make: Maker, network: Resource, group: Resource) -> None:
    inputs: Properties = {
        "imageName": IMAGE,
        "flavorName": FLAVOR,
        "networks": [{"uuid": network.id, "fixedIpV6": "2001:DB8:0:90:0::0080"}],
        "securityGroups": [group.id],
        "userData": base64.b64encode(b"#cloud-config\n{}\n").decode(),
        "tags": ["b", "a"],
        "availabilityZone": "nova",
    }
    instance = make(INSTANCE, inputs)
    assert instance.outputs["networks"][0]["fixedIpV6"] == "2001:db8:0:90::80"
    steady(plugin, instance, inputs)
    same = {"userData": "#cloud-config\n{}\n", "securityGroups": [group.outputs["name"]], "tags": ["a", "b", "a"]}
    assert not changed(plugin.diff(instance, {**inputs, **same}))
    by_id = {key: value for key, value in inputs.items() if key not in ("imageName", "flavorName")}
    ids = {key: instance.outputs[key] for key in ("imageId", "flavorId")}
    assert not changed(plugin.diff(instance, {**by_id, **ids}))

    instance = make.changed(instance, plugin.update(instance, {**inputs, "metadata": {"a": "b"}}))
    assert instance.outputs["securityGroups"] == [group.id]

    attached = {"instanceId": instance.id, "networkId": network.id, "fixedIp": "2001:DB8:0:90:0::0081"}
    steady(plugin, make(INTERFACE_ATTACH, attached), attached)
    volume = make(VOLUME, {"size": 1})
    attached = {"instanceId": instance.id, "volumeId": volume.id, "device": "/dev/sdz"}
    steady(plugin, make(VOLUME_ATTACH, attached), attached)


@pytest.fixture
def device(request: pytest.FixtureRequest, shared: Maker, sdk: Connection) -> Iterator[Properties]:
    """A block device with the data of the image, of the source that the test names."""
    image = next(sdk.image.images(name=IMAGE)).id
    device = {"sourceType": request.param, "destinationType": "volume", "deleteOnTermination": True}
    if request.param == "image":
        yield {**device, "uuid": image, "volumeSize": 2}
        return
    volume = shared(VOLUME, {"size": 2, "imageId": image})
    if request.param == "volume":
        yield {**device, "uuid": volume.id}
        return
    snapshot = sdk.block_storage.create_snapshot(volume_id=volume.id)
    yield {**device, "uuid": sdk.block_storage.wait_for_status(snapshot, "available", interval=1).id}
    sdk.block_storage.delete_snapshot(str(snapshot.id))
    sdk.block_storage.wait_for_delete(snapshot, interval=1)


@pytest.mark.parametrize(
    ("device", "by"),
    [
        ("image", ("imageId",)),
        ("image", ("imageName",)),
        ("image", ()),
        ("volume", ("imageId", "imageName")),
        ("snapshot", ("imageId",)),
    ],
    indirect=["device"],
)
def test_instance_on_a_volume(
    device: Properties, make: Maker, sdk: Connection, network: Resource, by: tuple[str, ...]
) -> None:
    """Nova tells no image of it: that the program names one is no reason for a rebuild, which would wipe the volume."""
    plugin = make.plugin
    named = {"imageId": next(sdk.image.images(name=IMAGE)).id, "imageName": IMAGE}
    inputs: Properties = {
        "flavorName": FLAVOR,
        "networks": [{"uuid": network.id}],
        "blockDevices": [device],
        **{key: named[key] for key in by},
    }
    instance = make(INSTANCE, inputs)
    steady(plugin, instance, inputs)
    assert not changed(plugin.diff(instance, {**inputs, "imageId": "another"}))
    make.changed(instance, plugin.update(instance, {**inputs, "metadata": {"a": "b"}}))
    assert "rebuild" not in {action.action for action in sdk.compute.server_actions(instance.id)}
