"""The functions, compared with what openstacksdk finds on a real cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pulumi.runtime.proto import provider_pb2

from providers.values import Secret, marshal, plain
from tests.providers.plugin import CallError

if TYPE_CHECKING:
    from pathlib import Path

    from openstack.connection import Connection

    from tests.providers.plugin import Plugin
    from tests.providers.real.conftest import Maker


def test_image_by_name(plugin: Plugin, sdk: Connection) -> None:
    image = next(sdk.image.images(status="active"))
    found = plugin.invoke("openstack:images/getImage:getImage", {"name": image.name})
    assert found["id"] == image.id
    assert found["checksum"] == image.checksum
    assert found["sizeBytes"] == image.size
    assert found["minDiskGb"] == image.min_disk
    assert found["createdAt"] == image.created_at
    assert found["sort"] == "name:asc"


def test_image_filters(plugin: Plugin, make: Maker, sdk: Connection, tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(bytes(512))
    for _ in range(2):
        make(
            "openstack:images/image:Image",
            {"containerFormat": "bare", "diskFormat": "raw", "localFilePath": str(file)},
        )
    images = list(sdk.image.images(status="active"))
    newest = max(images, key=lambda image: image.created_at)
    found = plugin.invoke("openstack:images/getImage:getImage", {"nameRegex": ".", "mostRecent": True})
    assert found["createdAt"] == newest.created_at
    with pytest.raises(CallError, match=f"{len(images)} images match nameRegex='.'"):
        plugin.invoke("openstack:images/getImage:getImage", {"nameRegex": "."})
    with pytest.raises(CallError, match="no image matches"):
        plugin.invoke("openstack:images/getImage:getImage", {"name": images[0].name, "properties": {"x-none": "1"}})


def test_image_misspelt(plugin: Plugin, sdk: Connection) -> None:
    name = next(sdk.image.images(status="active")).name
    with pytest.raises(CallError, match=f"did you mean '{name}'"):
        plugin.invoke("openstack:images/getImage:getImage", {"name": name[:-1]})


def test_image_ids(plugin: Plugin, sdk: Connection) -> None:
    found = plugin.invoke("openstack:images/getImageIds:getImageIds", {"sort": "created_at:desc"})
    assert set(found["ids"]) == {image.id for image in sdk.image.images(status="active")}


def test_bad_arguments(plugin: Plugin) -> None:
    given = {"name": "a", "nameRegex": "(", "visiblity": "all"}
    request = provider_pb2.InvokeRequest(tok="openstack:images/getImage:getImage", args=marshal(given))
    failures = {failure.property: failure.reason for failure in plugin.call("Invoke", request).failures}
    assert "cannot be given together" in failures["name"]
    assert "is not a regular expression" in failures["nameRegex"]
    assert "did you mean 'visibility'" in failures["visiblity"]


def test_flavor(plugin: Plugin, sdk: Connection) -> None:
    flavor = next(sdk.compute.flavors())
    found = plugin.invoke("openstack:compute/getFlavor:getFlavor", {"name": flavor.name})
    assert (found["id"], found["ram"], found["vcpus"], found["disk"]) == (
        flavor.id, flavor.ram, flavor.vcpus, flavor.disk)  # fmt: skip
    assert found["extraSpecs"] == flavor.extra_specs
    assert plugin.invoke("openstack:compute/getFlavor:getFlavor", {"flavorId": flavor.id})["name"] == flavor.name
    same = plugin.invoke(
        "openstack:compute/getFlavor:getFlavor", {"ram": flavor.ram, "vcpus": flavor.vcpus, "disk": flavor.disk}
    )
    assert same["id"] == flavor.id
    with pytest.raises(CallError, match=f"did you mean '{flavor.name}'"):
        plugin.invoke("openstack:compute/getFlavor:getFlavor", {"name": f"{flavor.name}l"})
    with pytest.raises(CallError, match="no flavor matches flavorId='none'"):
        plugin.invoke("openstack:compute/getFlavor:getFlavor", {"flavorId": "none"})


def test_zones(plugin: Plugin, sdk: Connection) -> None:
    zones = sorted(zone.name for zone in sdk.compute.availability_zones() if zone.state["available"])
    assert plugin.invoke("openstack:compute/getAvailabilityZones:getAvailabilityZones", {})["names"] == zones


def test_auth_scope(plugin: Plugin, sdk: Connection) -> None:
    found = plugin.invoke("openstack:identity/getAuthScope:getAuthScope", {"name": "me"})
    assert found["id"] == "me"
    assert (found["projectId"], found["userId"]) == (sdk.current_project_id, sdk.current_user_id)
    assert plain(found["tokenId"]) == ""
    assert "identity" in {service["type"] for service in found["serviceCatalogs"]}
    assert all(role["roleId"] and role["roleName"] for role in found["roles"])
    assert found["roles"]


def test_the_token_is_secret(plugin: Plugin) -> None:
    found = plugin.invoke("openstack:identity/getAuthScope:getAuthScope", {"name": "me", "setTokenId": True})
    assert isinstance(found["tokenId"], Secret)
    assert len(plain(found["tokenId"])) > 20


def test_keypair(plugin: Plugin, make: Maker) -> None:
    made = make("openstack:compute/keypair:Keypair", {})
    found = plugin.invoke("openstack:compute/getKeypair:getKeypair", {"name": made.id})
    assert found["fingerprint"] == made.outputs["fingerprint"]
    assert found["publicKey"] == made.outputs["publicKey"]
    with pytest.raises(CallError, match="no key pair matches name='none'"):
        plugin.invoke("openstack:compute/getKeypair:getKeypair", {"name": "none"})


def test_network_subnet_port_router(plugin: Plugin, make: Maker) -> None:
    network = make("openstack:networking/network:Network", {"tags": ["blue", "tall"], "description": "of a test"})
    subnet = make(
        "openstack:networking/subnet:Subnet",
        {"networkId": network.id, "cidr": "10.77.0.0/24", "dnsNameservers": ["9.9.9.9"],
         "allocationPools": [{"start": "10.77.0.10", "end": "10.77.0.99"}]},
    )  # fmt: skip
    port = make(
        "openstack:networking/port:Port",
        {"networkId": network.id, "fixedIps": [{"subnetId": subnet.id, "ipAddress": "10.77.0.20"}],
         "allowedAddressPairs": [{"ipAddress": "10.78.0.0/16"}]},
    )  # fmt: skip
    router = make("openstack:networking/router:Router", {})

    by_name = plugin.invoke("openstack:networking/getNetwork:getNetwork", {"name": network.inputs["name"]})
    assert by_name["id"] == network.id
    assert (by_name["adminStateUp"], by_name["shared"], by_name["external"]) == ("true", "false", False)
    assert by_name["subnets"] == [subnet.id]
    assert by_name["allTags"] == ["blue", "tall"]
    for asked in ({"matchingSubnetCidr": "10.77.0.0/24", "name": network.inputs["name"]},
                  {"networkId": network.id}, {"tags": ["tall"], "name": network.inputs["name"]}):  # fmt: skip
        assert plugin.invoke("openstack:networking/getNetwork:getNetwork", asked)["id"] == network.id
    with pytest.raises(CallError, match="no network matches"):
        plugin.invoke("openstack:networking/getNetwork:getNetwork", {"tags": ["red"], "name": network.inputs["name"]})

    found = plugin.invoke("openstack:networking/getSubnet:getSubnet", {"networkId": network.id, "dhcpEnabled": True})
    assert found["id"] == subnet.id
    assert (found["cidr"], found["gatewayIp"], found["ipVersion"]) == ("10.77.0.0/24", "10.77.0.1", 4)
    assert found["allocationPools"] == [{"start": "10.77.0.10", "end": "10.77.0.99"}]
    assert found["dnsNameservers"] == ["9.9.9.9"]
    with pytest.raises(CallError, match="no subnet matches"):
        plugin.invoke("openstack:networking/getSubnet:getSubnet", {"networkId": network.id, "dhcpEnabled": False})

    found = plugin.invoke("openstack:networking/getPort:getPort", {"networkId": network.id, "fixedIp": "10.77.0.20"})
    assert found["id"] == port.id
    assert found["allFixedIps"] == ["10.77.0.20"]
    assert found["allowedAddressPairs"] == [{"ipAddress": "10.78.0.0/16", "macAddress": ""}]
    groups = found["allSecurityGroupIds"]
    asked = {"networkId": network.id, "securityGroupIds": groups, "adminStateUp": True, "fixedIp": "10.77.0.20"}
    assert plugin.invoke("openstack:networking/getPort:getPort", asked)["id"] == port.id
    with pytest.raises(CallError, match="no port matches"):
        plugin.invoke("openstack:networking/getPort:getPort", {"networkId": network.id, "fixedIp": "10.77.0.21"})

    found = plugin.invoke("openstack:networking/getRouter:getRouter", {"name": router.inputs["name"]})
    assert (found["id"], found["externalNetworkId"]) == (router.id, "")


def test_security_group(plugin: Plugin, make: Maker) -> None:
    group = make("openstack:networking/secGroup:SecGroup", {"description": "of a test"})
    found = plugin.invoke("openstack:networking/getSecGroup:getSecGroup", {"name": group.inputs["name"]})
    assert (found["id"], found["description"], found["stateful"]) == (group.id, "of a test", True)


def test_floating_ip(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    pool = next(sdk.network.networks(is_router_external=True))
    made = make("openstack:networking/floatingIp:FloatingIp", {"pool": pool.name, "description": "of a test"})
    found = plugin.invoke("openstack:networking/getFloatingIp:getFloatingIp", {"address": made.outputs["address"]})
    assert (found["id"], found["pool"], found["portId"]) == (made.id, pool.id, "")
    with pytest.raises(CallError, match="no floating IP matches"):
        plugin.invoke("openstack:networking/getFloatingIp:getFloatingIp", {"address": "192.0.2.7"})
