"""Compute types on a real cloud: create, read, update, replace, import, delete."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from providers.values import Secret, plain
from tests.providers.plugin import CallError, changed
from tests.providers.real.conftest import Maker
from tests.providers.real.lifecycle import Life, live

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openstack.connection import Connection

    from providers.values import Properties
    from tests.providers.plugin import Plugin, Resource

KEYPAIR = "openstack:compute/keypair:Keypair"
INSTANCE = "openstack:compute/instance:Instance"
SERVER_GROUP = "openstack:compute/serverGroup:ServerGroup"
VOLUME_ATTACH = "openstack:compute/volumeAttach:VolumeAttach"
INTERFACE_ATTACH = "openstack:compute/interfaceAttach:InterfaceAttach"
NETWORK = "openstack:networking/network:Network"
SUBNET = "openstack:networking/subnet:Subnet"
PORT = "openstack:networking/port:Port"
GROUP = "openstack:networking/secGroup:SecGroup"
VOLUME = "openstack:blockstorage/volume:Volume"

IMAGE = os.environ.get("LAB_TEST_IMAGE", "CC-Debian12")
FLAVOR = os.environ.get("LAB_TEST_FLAVOR", "m1.tiny")
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKwnJeUYjZJgvOsRXHWMCh5VWqWwbDzYEkBzlTIhcKsL test"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVngKYkrZLfoTzkaXCoD2HNgvu4Ly1fPdQeD9vLh0kC other"
USER_DATA = "#cloud-config\nhostname: test\n"


@pytest.fixture(scope="module")
def shared(plugin: Plugin) -> Iterator[Maker]:
    """What several tests use; deleted at the end of the module."""
    maker = Maker(plugin)
    yield maker
    maker.clean()


@pytest.fixture(scope="module")
def network(shared: Maker) -> Resource:
    network = shared(NETWORK, {})
    shared(SUBNET, {"networkId": network.id, "cidr": "10.89.0.0/24"})
    return network


@pytest.fixture(scope="module")
def instance(shared: Maker, network: Resource) -> Resource:
    """A plain instance on a port of its own."""
    port = shared(PORT, {"networkId": network.id})
    return shared(INSTANCE, {"imageName": IMAGE, "flavorName": FLAVOR, "networks": [{"port": port.id}]})


def test_keypair(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    def seen(resource: Resource) -> None:
        found = sdk.compute.get_keypair(resource.id)
        assert (found.name, found.fingerprint) == (resource.outputs["name"], resource.outputs["fingerprint"])
        assert plain(resource.outputs["privateKey"]) == ""

    live(
        plugin,
        make,
        Life(
            KEYPAIR,
            {"publicKey": PUBLIC_KEY + "\n"},
            replace={"name": "another", "publicKey": "ssh-ed25519 other"},
            replacement={"publicKey": OTHER_KEY},
        ),
        seen,
    )


def test_keypair_made_by_the_cloud(plugin: Plugin, make: Maker) -> None:
    made = make(KEYPAIR, {})
    assert isinstance(made.outputs["privateKey"], Secret)
    assert "PRIVATE KEY" in plain(made.outputs["privateKey"])
    refreshed = plugin.read(made)
    assert refreshed
    assert refreshed.outputs["privateKey"] == made.outputs["privateKey"], "a refresh keeps what only create told"


def test_server_group(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    def seen(resource: Resource) -> None:
        answer = sdk.compute.get(f"/os-server-groups/{resource.id}", microversion="2.64").json()
        found = answer["server_group"]
        assert (found["name"], found["policy"]) == (resource.outputs["name"], "anti-affinity")
        assert found["rules"] == {"max_server_per_host": resource.inputs["rules"]["maxServerPerHost"]}

    live(
        plugin,
        make,
        Life(
            SERVER_GROUP,
            {"policies": "anti-affinity", "rules": {"maxServerPerHost": 2}},
            replace={"rules": {"maxServerPerHost": 3}, "name": "another"},
            replacement={"rules": {"maxServerPerHost": 3}},
        ),
        seen,
    )


def test_instance(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    key = make(KEYPAIR, {"publicKey": PUBLIC_KEY})
    placement = make(SERVER_GROUP, {"policies": "soft-anti-affinity"})
    first, second = make(GROUP, {}), make(GROUP, {})

    def seen(resource: Resource) -> None:
        found = sdk.compute.get_server(resource.id)
        outputs = resource.outputs
        assert found.name == outputs["name"]
        assert found.status == outputs["powerState"].upper()
        assert found.metadata == outputs["metadata"] == outputs["allMetadata"]
        tags = sdk.compute.get(f"/servers/{resource.id}/tags", microversion="2.26").json()["tags"]
        assert set(tags) == set(outputs["allTags"]) == set(outputs["tags"])
        assert {group["name"] for group in found.security_groups} == set(outputs["securityGroups"])
        assert found.key_name == key.id
        addresses = [item["addr"] for item in found.addresses[plain(network.outputs["name"])]]
        assert [outputs["accessIpV4"]] == addresses == [item["fixedIpV4"] for item in outputs["networks"]]
        assert outputs["networks"][0]["uuid"] == network.id
        assert outputs["networks"][0]["name"] == network.outputs["name"]
        assert outputs["userData"] == hashlib.sha1(plain(resource.inputs["userData"]).encode()).hexdigest()  # noqa: S324
        assert outputs["flavorName"] == FLAVOR
        assert outputs["imageName"] == IMAGE

    inputs: Properties = {
        "imageName": IMAGE,
        "flavorName": FLAVOR,
        "networks": [{"uuid": network.id}],
        "keyPair": key.id,
        "securityGroups": [first.outputs["name"]],
        "schedulerHints": [{"group": placement.id}],
        "userData": USER_DATA,
        "metadata": {"stack": "one", "role": "node"},
        "tags": ["a", "b"],
    }
    resource = live(
        plugin,
        make,
        Life(
            INSTANCE,
            inputs,
            update={
                "name": "test-renamed",
                "metadata": {"stack": "two"},
                "tags": ["b", "c"],
                "securityGroups": [second.outputs["name"]],
                "powerState": "shutoff",
            },
            paths=frozenset(
                {
                    "name",
                    "metadata.stack",
                    "metadata.role",
                    "tags[0]",
                    "tags[1]",
                    "securityGroups[0]",
                    "powerState",
                }
            ),
            replace={
                "userData": "#cloud-config\nhostname: other\n",
                "keyPair": "another",
                "configDrive": True,
                "schedulerHints": [],
                "networks": [{"uuid": "another"}],
                "region": "elsewhere",
            },
            replacement={"userData": "#cloud-config\nhostname: third\n", "powerState": "active"},
            unread=frozenset({"userData", "schedulerHints", "tags", "networks"}),
        ),
        seen,
    )
    imported = plugin.import_(INSTANCE, resource.id)
    assert imported
    known = {"networks": inputs["networks"], "name": "test-renamed", "metadata": {"stack": "two"}, "keyPair": key.id}
    assert not changed(plugin.diff(imported, {**known, "flavorName": FLAVOR, "imageName": IMAGE}))


def test_instance_on_a_port(instance: Resource, sdk: Connection) -> None:
    network = instance.outputs["networks"][0]
    port = sdk.network.get_port(network["port"])
    assert port.device_id == instance.id
    assert port.mac_address == network["mac"]
    assert [item["ip_address"] for item in port.fixed_ips] == [network["fixedIpV4"]]


def test_instance_from_a_volume(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    image = next(sdk.image.images(name=IMAGE))
    inputs: Properties = {
        "flavorName": FLAVOR,
        "networks": [{"uuid": network.id}],
        "blockDevices": [
            {
                "sourceType": "image",
                "destinationType": "volume",
                "uuid": image.id,
                "volumeSize": 2,
                "bootIndex": 0,
                "deleteOnTermination": True,
            }
        ],
    }
    resource = make(INSTANCE, inputs)
    assert resource.outputs["powerState"] == "active"
    attached = sdk.compute.get_server(resource.id).attached_volumes
    assert [sdk.block_storage.get_volume(item["id"]).size for item in attached] == [2]
    refreshed = plugin.read(resource)
    assert refreshed
    assert not changed(plugin.diff(refreshed, inputs))
    imported = plugin.import_(INSTANCE, resource.id)
    assert imported
    known = {"name": resource.outputs["name"], "imageId": imported.inputs["imageId"]}
    assert not changed(plugin.diff(imported, {**inputs, **known}))
    larger = {**inputs["blockDevices"][0], "volumeSize": 3}
    assert list(plugin.diff(resource, {**inputs, "blockDevices": [larger]}).replaces) == ["blockDevices"]


def test_volume_attach(plugin: Plugin, make: Maker, sdk: Connection, instance: Resource) -> None:
    volume, other = make(VOLUME, {"size": 1}), make(VOLUME, {"size": 1})

    def seen(resource: Resource) -> None:
        found = sdk.block_storage.get_volume(resource.inputs["volumeId"])
        assert found.status == "in-use"
        assert [item["server_id"] for item in found.attachments] == [instance.id]
        assert resource.id == f"{instance.id}/{found.id}"

    live(
        plugin,
        make,
        Life(
            VOLUME_ATTACH,
            {"instanceId": instance.id, "volumeId": volume.id},
            replace={"instanceId": "another", "volumeId": "another"},
            replacement={"volumeId": other.id},
        ),
        seen,
    )
    make.clean_last()
    assert {sdk.block_storage.get_volume(one.id).status for one in (volume, other)} == {"available"}


@pytest.mark.parametrize("by", ["port", "network"])
def test_interface_attach(make: Maker, sdk: Connection, network: Resource, instance: Resource, by: str) -> None:
    plugin = make.plugin
    ports = [make(PORT, {"networkId": network.id}).id for _ in range(2)] if by == "port" else []

    def seen(resource: Resource) -> None:
        found = sdk.network.get_port(resource.outputs["portId"])
        assert found.device_id == instance.id
        assert [item["ip_address"] for item in found.fixed_ips] == [resource.outputs["fixedIp"]]
        assert found.id == resource.inputs.get("portId", found.id)

    given = {"portId": ports[0]} if ports else {"networkId": network.id}
    live(
        plugin,
        make,
        Life(
            INTERFACE_ATTACH,
            {"instanceId": instance.id, **given},
            replace={"instanceId": "another"},
            replacement={"portId": ports[1]} if ports else {},
        ),
        seen,
    )
    refreshed = plugin.read(instance)
    assert refreshed
    assert refreshed.outputs["networks"] == instance.outputs["networks"], (
        "the attachment is not the instance's business"
    )


def test_instance_that_cannot_be_placed(plugin: Plugin, sdk: Connection, network: Resource) -> None:
    """The scheduler's reason is shown, and nothing stays behind."""
    with pytest.raises(CallError) as caught:
        plugin.create(
            INSTANCE,
            {
                "name": "test-unplaceable",
                "imageName": IMAGE,
                "flavorName": FLAVOR,
                "networks": [{"uuid": network.id}],
                "schedulerHints": [{"additionalProperties": {"reservation": "00000000-0000-4000-8000-000000000000"}}],
            },
        )
    assert "is in status ERROR" in str(caught.value)
    assert "No valid host" in str(caught.value)
    assert caught.value.partial is None
    assert not list(sdk.compute.servers(name="test-unplaceable"))


def test_instance_that_is_not_ready_in_time(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    """The engine is told the id of what was begun, so that it can be deleted, or finished by the next update."""
    inputs = {"imageName": IMAGE, "flavorName": FLAVOR, "networks": [{"uuid": network.id}]}
    with pytest.raises(CallError) as caught:
        plugin.create(INSTANCE, inputs, name="test-slow", timeout=1)
    assert "gave up after 1 s waiting for instance" in str(caught.value)
    assert "custom_timeouts" in str(caught.value)
    partial = caught.value.partial
    assert partial
    resource = make.keep_partial(INSTANCE, "test-slow", inputs, partial)
    assert sdk.compute.get_server(resource.id).name == resource.outputs["name"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"imageName": "no such image", "flavorName": FLAVOR}, "no image is named 'no such image'"),
        ({"imageName": IMAGE, "flavorName": "no such flavor"}, "no flavor is named 'no such flavor'"),
        ({"imageName": IMAGE, "flavorId": "4242"}, "Flavor 4242 could not be found"),
        ({"imageName": IMAGE, "flavorName": FLAVOR, "keyPair": "no such key"}, "Invalid key_name provided"),
    ],
    ids=["image", "flavor", "flavor-id", "key"],
)
def test_what_is_not_there(plugin: Plugin, network: Resource, inputs: Properties, message: str) -> None:
    with pytest.raises(CallError) as caught:
        plugin.create(INSTANCE, {**inputs, "networks": [{"uuid": network.id}]})
    assert message in str(caught.value)
    assert "list` shows" in str(caught.value)
