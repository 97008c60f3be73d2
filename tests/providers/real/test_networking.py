"""Networking types on a real cloud: create, read, update, replace, import, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from providers.values import Secret, plain
from tests.providers.plugin import CallError, changed
from tests.providers.real.lifecycle import Life, live

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.providers.plugin import Plugin, Resource
    from tests.providers.real.conftest import Maker

NETWORK = "openstack:networking/network:Network"
SUBNET = "openstack:networking/subnet:Subnet"
ROUTER = "openstack:networking/router:Router"
ROUTER_INTERFACE = "openstack:networking/routerInterface:RouterInterface"
PORT = "openstack:networking/port:Port"
PORT_GROUPS = "openstack:networking/portSecGroupAssociate:PortSecGroupAssociate"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
FLOATING_IP_ASSOCIATE = "openstack:networking/floatingIpAssociate:FloatingIpAssociate"
GROUP = "openstack:networking/secGroup:SecGroup"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
TRUNK = "openstack:networking/trunk:Trunk"


@pytest.fixture
def network(make: Maker) -> Resource:
    return make(NETWORK, {})


@pytest.fixture
def subnet(make: Maker, network: Resource) -> Resource:
    return make(SUBNET, {"networkId": network.id, "cidr": "10.88.0.0/24"})


@pytest.fixture
def external(sdk: Connection) -> tuple[str, str]:
    """Name and id of a network that gives floating IPs."""
    found = next(sdk.network.networks(is_router_external=True))
    return found.name, found.id


def test_network(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    def seen(resource: Resource) -> None:
        found = sdk.network.get_network(resource.id)
        outputs = resource.outputs
        assert found.name == outputs["name"]
        assert found.description == outputs["description"]
        assert found.is_admin_state_up == outputs["adminStateUp"]
        assert found.mtu == outputs["mtu"]
        assert set(found.tags) == set(outputs["tags"]) == set(outputs["allTags"])

    life = Life(
        NETWORK,
        {"description": "one", "tags": ["a", "b"]},
        update={"description": "two", "adminStateUp": False, "mtu": 1400, "tags": ["b", "c"]},
        paths=frozenset({"description", "adminStateUp", "mtu", "tags[1]", "tags[0]"}),
        replace={"tenantId": "another", "availabilityZoneHints": ["elsewhere"]},
        replacement={"availabilityZoneHints": ["nova"]},
        unread=frozenset({"tags"}),
    )
    resource = live(plugin, make, life, seen)
    assert str(resource.outputs["name"]).startswith("test-")


def test_network_name_is_kept_and_replaced_first(plugin: Plugin, make: Maker) -> None:
    automatic = make(NETWORK, {})
    assert not plugin.diff(automatic, {"tenantId": "x"}).deleteBeforeReplace
    assert plugin.update(automatic, {"description": "new"}).outputs["name"] == automatic.outputs["name"]
    given = make(NETWORK, {"name": f"{automatic.name}-given"})
    assert plugin.diff(given, {"name": f"{automatic.name}-given", "tenantId": "x"}).deleteBeforeReplace


def test_foreign_tags_stay(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    resource = make(NETWORK, {"tags": ["mine"]})
    sdk.network.set_tags(sdk.network.get_network(resource.id), ["mine", "theirs"])
    refreshed = plugin.read(resource)
    assert refreshed
    assert set(refreshed.outputs["allTags"]) == {"mine", "theirs"}
    assert not changed(plugin.diff(refreshed, {"tags": ["mine"]}))
    plugin.update(refreshed, {"tags": ["new"]})
    assert set(sdk.network.get_network(resource.id).tags) == {"new", "theirs"}


def test_drift_and_disappearance(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    resource = make(NETWORK, {"description": "as written"})
    sdk.network.update_network(resource.id, description="by hand")
    refreshed = plugin.read(resource)
    assert refreshed
    assert refreshed.inputs["description"] == "by hand"
    assert changed(plugin.diff(refreshed, {"description": "as written"})) == {"description"}
    sdk.network.delete_network(resource.id)
    assert plugin.read(resource) is None
    with pytest.raises(CallError, match="404"):
        plugin.update(resource, {"description": "too late"})


def test_subnet(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    def seen(resource: Resource) -> None:
        found = sdk.network.get_subnet(resource.id)
        outputs = resource.outputs
        assert found.cidr == outputs["cidr"]
        assert (found.gateway_ip or "") == outputs["gatewayIp"]
        assert found.dns_nameservers == outputs["dnsNameservers"]
        assert found.is_dhcp_enabled == outputs["enableDhcp"]
        assert found.allocation_pools == outputs["allocationPools"]
        assert set(found.tags) == set(outputs["allTags"])

    live(
        plugin,
        make,
        Life(
            SUBNET,
            {
                "networkId": network.id,
                "cidr": "10.88.1.0/24",
                "allocationPools": [{"start": "10.88.1.10", "end": "10.88.1.20"}],
                "dnsNameservers": ["192.0.2.1", "192.0.2.2"],
                "tags": ["a"],
            },
            update={
                "name": "test-subnet-renamed",
                "allocationPools": [{"start": "10.88.1.10", "end": "10.88.1.30"}],
                "dnsNameservers": ["192.0.2.2"],
                "enableDhcp": False,
                "gatewayIp": "10.88.1.254",
                "tags": None,
            },
            paths=frozenset(
                {
                    "name",
                    "allocationPools[0]",
                    "dnsNameservers[0]",
                    "dnsNameservers[1]",
                    "enableDhcp",
                    "gatewayIp",
                    "tags",
                }
            ),
            replace={"cidr": "10.88.2.0/24", "networkId": "another", "ipVersion": 6},
            replacement={"cidr": "10.88.0.0/16"},
            exclusive=True,
        ),
        seen,
    )


def test_subnet_without_gateway(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    inputs = {"networkId": network.id, "cidr": "10.88.3.0/24", "noGateway": True}
    subnet = make(SUBNET, inputs)
    assert sdk.network.get_subnet(subnet.id).gateway_ip is None
    wanted = {**inputs, "noGateway": False}
    assert changed(plugin.diff(subnet, wanted)) == {"noGateway"}
    subnet = make.changed(subnet, plugin.update(subnet, wanted))
    assert sdk.network.get_subnet(subnet.id).gateway_ip == "10.88.3.1"
    assert not changed(plugin.diff(subnet, wanted))


def test_subnet_ipv6(plugin: Plugin, make: Maker, network: Resource) -> None:
    inputs = {
        "networkId": network.id,
        "cidr": "2001:DB8:0:0::/64",
        "ipVersion": 6,
        "ipv6AddressMode": "slaac",
        "ipv6RaMode": "slaac",
    }
    subnet = make(SUBNET, inputs)
    refreshed = plugin.read(subnet)
    assert refreshed
    assert not changed(plugin.diff(refreshed, inputs)), "the same CIDR in another spelling"


def test_router(plugin: Plugin, make: Maker, sdk: Connection, external: tuple[str, str]) -> None:
    def seen(resource: Resource) -> None:
        found = sdk.network.get_router(resource.id)
        gateway = found.external_gateway_info or {}
        assert found.name == resource.outputs["name"]
        assert found.is_admin_state_up == resource.outputs["adminStateUp"]
        assert gateway.get("network_id", "") == resource.outputs["externalNetworkId"]
        addresses = [item["ip_address"] for item in gateway.get("external_fixed_ips", [])]
        assert addresses == [item["ipAddress"] for item in resource.outputs["externalFixedIps"]]

    live(
        plugin,
        make,
        Life(
            ROUTER,
            {"tags": ["r"]},
            update={"externalNetworkId": external[1], "adminStateUp": False, "description": "now with a way out"},
            paths=frozenset({"externalNetworkId", "adminStateUp", "description"}),
            replace={"tenantId": "another"},
            replacement={"availabilityZoneHints": ["nova"]},
            unread=frozenset({"tags"}),
        ),
        seen,
    )


def test_router_gateway_is_cleared(plugin: Plugin, make: Maker, sdk: Connection, external: tuple[str, str]) -> None:
    router = make(ROUTER, {"externalNetworkId": external[1]})
    assert not changed(plugin.diff(router, {})), "what the user no longer says stays as it is"
    router = make.changed(router, plugin.update(router, {"externalNetworkId": ""}))
    assert sdk.network.get_router(router.id).external_gateway_info is None


def test_router_interface(plugin: Plugin, make: Maker, sdk: Connection, network: Resource, subnet: Resource) -> None:
    router = make(ROUTER, {})
    other = make(SUBNET, {"networkId": network.id, "cidr": "10.88.4.0/24"})

    def seen(resource: Resource) -> None:
        port = sdk.network.get_port(resource.id)
        assert port.device_id == router.id
        assert port.id == resource.outputs["portId"]
        assert [item["subnet_id"] for item in port.fixed_ips] == [resource.inputs["subnetId"]]

    live(
        plugin,
        make,
        Life(
            ROUTER_INTERFACE,
            {"routerId": router.id, "subnetId": subnet.id},
            update={"forceDestroy": True},
            paths=frozenset({"forceDestroy"}),
            replace={"routerId": "another", "subnetId": "another"},
            replacement={"subnetId": other.id},
            unread=frozenset({"forceDestroy"}),
        ),
        seen,
    )


def test_router_interface_of_a_port(make: Maker, sdk: Connection, network: Resource, subnet: Resource) -> None:
    router = make(ROUTER, {})
    port = make(PORT, {"networkId": network.id, "fixedIps": [{"subnetId": subnet.id, "ipAddress": "10.88.0.77"}]})
    interface = make(ROUTER_INTERFACE, {"routerId": router.id, "portId": port.id})
    assert interface.id == port.id
    assert sdk.network.get_port(port.id).device_id == router.id


def test_forced_router_interface(plugin: Plugin, make: Maker, sdk: Connection, subnet: Resource) -> None:
    """A route through the subnet holds the interface; forceDestroy drops that route, and no other."""
    router = make(ROUTER, {})
    inputs = {"routerId": router.id, "subnetId": subnet.id}
    held = make(ROUTER_INTERFACE, inputs)
    route = {"destination": "10.99.0.0/24", "nexthop": "10.88.0.9"}
    sdk.network.update_router(router.id, routes=[route])
    with pytest.raises(CallError, match="409"):
        plugin.delete(held, timeout=3)
    make.changed(held, plugin.update(held, {**inputs, "forceDestroy": True}))


def test_port(plugin: Plugin, make: Maker, sdk: Connection, network: Resource, subnet: Resource) -> None:
    group = make(GROUP, {})

    def seen(resource: Resource) -> None:
        found = sdk.network.get_port(resource.id)
        outputs = resource.outputs
        assert found.mac_address == outputs["macAddress"]
        assert [item["ip_address"] for item in found.fixed_ips] == outputs["allFixedIps"]
        assert set(found.security_group_ids) == set(outputs["allSecurityGroupIds"])
        assert {item["ip_address"] for item in found.allowed_address_pairs} == {
            item["ipAddress"] for item in outputs["allowedAddressPairs"]
        }
        assert {item["opt_name"]: item["opt_value"] for item in found.extra_dhcp_opts} == {
            item["name"]: item["value"] for item in outputs["extraDhcpOptions"]
        }
        assert found.binding_vnic_type == outputs["binding"]["vnicType"]

    live(
        plugin,
        make,
        Life(
            PORT,
            {
                "networkId": network.id,
                "fixedIps": [{"subnetId": subnet.id, "ipAddress": "10.88.0.50"}],
                "securityGroupIds": [group.id],
                "allowedAddressPairs": [{"ipAddress": "10.244.0.0/16"}],
                "extraDhcpOptions": [{"name": "mtu", "value": "1400"}, {"name": "domain-name", "value": "a"}],
                "tags": ["p"],
            },
            update={
                "fixedIps": [{"subnetId": subnet.id, "ipAddress": "10.88.0.51"}],
                "securityGroupIds": None,
                "noSecurityGroups": True,
                "allowedAddressPairs": [
                    {"ipAddress": "10.244.0.0/16"},
                    {"ipAddress": "10.96.0.0/12", "macAddress": "fa:16:3e:00:00:01"},
                ],
                "extraDhcpOptions": [{"name": "mtu", "value": "1450"}],
                "description": "changed",
            },
            paths=frozenset(
                {
                    "fixedIps[0].ipAddress",
                    "securityGroupIds",
                    "noSecurityGroups",
                    "allowedAddressPairs[1]",
                    "extraDhcpOptions[0]",
                    "extraDhcpOptions[1]",
                    "description",
                }
            ),
            replace={"macAddress": "fa:16:3e:12:34:56", "networkId": "another"},
            replacement={"macAddress": "fa:16:3e:12:34:56"},
            exclusive=True,
            unread=frozenset({"tags", "fixedIps", "securityGroupIds", "noSecurityGroups"}),
        ),
        seen,
    )


def test_port_without_security(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    inputs = {"networkId": network.id, "noSecurityGroups": True, "portSecurityEnabled": False, "noFixedIp": True}
    port = make(PORT, inputs)
    found = sdk.network.get_port(port.id)
    assert (found.security_group_ids, found.is_port_security_enabled, found.fixed_ips) == ([], False, [])
    refreshed = plugin.read(port)
    assert refreshed
    assert not changed(plugin.diff(refreshed, inputs))


def test_address_in_use(plugin: Plugin, make: Maker, network: Resource, subnet: Resource) -> None:
    inputs = {"networkId": network.id, "fixedIps": [{"subnetId": subnet.id, "ipAddress": "10.88.0.60"}]}
    make(PORT, inputs)
    with pytest.raises(CallError) as caught:
        plugin.create(PORT, inputs)
    message = str(caught.value)
    assert "POST network/ports answered 409" in message
    assert "10.88.0.60" in message
    assert "req-" in message
    assert "delete_before_replace" in message
    assert "Traceback" not in message


def test_port_security_groups(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    first, second = make(GROUP, {}), make(GROUP, {})
    port, other = make(PORT, {"networkId": network.id}), make(PORT, {"networkId": network.id})
    default = sdk.network.get_port(port.id).security_group_ids

    def seen(resource: Resource) -> None:
        present = sdk.network.get_port(resource.inputs["portId"]).security_group_ids
        assert set(present) == {*default, *resource.inputs["securityGroupIds"]}
        assert set(resource.outputs["allSecurityGroupIds"]) == set(present)

    live(
        plugin,
        make,
        Life(
            PORT_GROUPS,
            {"portId": port.id, "securityGroupIds": [first.id]},
            update={"securityGroupIds": [second.id]},
            paths=frozenset({"securityGroupIds[0]"}),
            replace={"portId": "another"},
            replacement={"portId": other.id},
            unread=frozenset({"securityGroupIds"}),
        ),
        seen,
    )
    make.clean_last()
    for released in (port, other):
        assert sdk.network.get_port(released.id).security_group_ids == default
    enforced = make(PORT_GROUPS, {"portId": port.id, "securityGroupIds": [first.id], "enforce": True})
    assert sdk.network.get_port(port.id).security_group_ids == [first.id]
    assert enforced.outputs["allSecurityGroupIds"] == [first.id]


def test_floating_ip(plugin: Plugin, make: Maker, sdk: Connection, external: tuple[str, str]) -> None:
    def seen(resource: Resource) -> None:
        found = sdk.network.get_ip(resource.id)
        assert found.floating_ip_address == resource.outputs["address"]
        assert found.floating_network_id == external[1]
        assert found.description == resource.outputs["description"]
        assert resource.outputs["pool"] == external[0]

    live(
        plugin,
        make,
        Life(
            FLOATING_IP,
            {"pool": external[0], "description": "one", "tags": ["f"]},
            update={"description": "two", "tags": ["f", "g"]},
            paths=frozenset({"description", "tags[1]"}),
            replace={"pool": "another", "address": "192.0.2.1"},
            unread=frozenset({"tags"}),
        ),
        seen,
    )


def test_floating_ip_of_an_unknown_pool(plugin: Plugin, external: tuple[str, str]) -> None:
    with pytest.raises(CallError, match="no network is named 'pubic'") as caught:
        plugin.create(FLOATING_IP, {"pool": "pubic"})
    assert external[0] in str(caught.value)


def test_floating_ip_by_the_id_of_its_pool(plugin: Plugin, make: Maker, external: tuple[str, str]) -> None:
    address = make(FLOATING_IP, {"pool": external[1]})
    refreshed = plugin.read(address)
    assert refreshed
    assert not changed(plugin.diff(refreshed, {"pool": external[1]}))


def test_floating_ip_associate(
    make: Maker, sdk: Connection, network: Resource, subnet: Resource, external: tuple[str, str]
) -> None:
    plugin = make.plugin
    router = make(ROUTER, {"externalNetworkId": external[1]})
    make(ROUTER_INTERFACE, {"routerId": router.id, "subnetId": subnet.id})
    first, second = make(PORT, {"networkId": network.id}), make(PORT, {"networkId": network.id})
    address, other = make(FLOATING_IP, {"pool": external[0]}), make(FLOATING_IP, {"pool": external[0]})

    def seen(resource: Resource) -> None:
        found = sdk.network.get_ip(resource.id)
        assert found.floating_ip_address == resource.inputs["floatingIp"]
        assert found.port_id == resource.outputs["portId"] == resource.inputs["portId"]
        assert found.fixed_ip_address == resource.outputs["fixedIp"]

    live(
        plugin,
        make,
        Life(
            FLOATING_IP_ASSOCIATE,
            {"floatingIp": address.outputs["address"], "portId": first.id},
            update={"portId": second.id},
            paths=frozenset({"portId"}),
            replace={"floatingIp": "192.0.2.1"},
            replacement={"floatingIp": other.outputs["address"]},
            exclusive=True,
        ),
        seen,
    )
    refreshed = plugin.read(other)
    assert refreshed
    assert refreshed.outputs["portId"] == second.id
    assert not changed(plugin.diff(refreshed, {"pool": external[0]})), "the association is not the address's business"


def test_security_group(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    def seen(resource: Resource) -> None:
        found = sdk.network.get_security_group(resource.id)
        assert (found.name, found.description) == (resource.outputs["name"], resource.outputs["description"])
        assert set(found.tags) == set(resource.outputs["allTags"])
        assert found.security_group_rules == []

    live(
        plugin,
        make,
        Life(
            GROUP,
            {"description": "one", "deleteDefaultRules": True, "tags": ["g"]},
            update={"description": "two", "name": "test-group-renamed", "tags": ["h"]},
            paths=frozenset({"description", "name", "tags[0]"}),
            replace={"tenantId": "another", "deleteDefaultRules": False},
            unread=frozenset({"tags", "deleteDefaultRules"}),
        ),
        seen,
    )


@pytest.mark.parametrize(
    "rule",
    [
        {"protocol": "tcp", "portRangeMin": 22, "portRangeMax": 22, "remoteIpPrefix": "192.0.2.0/24"},
        {"protocol": "icmp", "description": "ping"},
        {"protocol": "icmp", "portRangeMin": 8, "portRangeMax": 0},
        {"protocol": "any", "remoteIpPrefix": "0.0.0.0/0"},
        {"protocol": "112"},
        {},
    ],
    ids=["tcp", "icmp", "ping", "any", "number", "all"],
)
def test_security_group_rule(plugin: Plugin, make: Maker, sdk: Connection, rule: dict[str, object]) -> None:
    group = make(GROUP, {"deleteDefaultRules": True})

    def seen(resource: Resource) -> None:
        found = sdk.network.get_security_group_rule(resource.id)
        assert found.security_group_id == group.id
        assert (found.port_range_min or 0) == rule.get("portRangeMin", 0)
        assert (found.protocol or "any") == rule.get("protocol", "any")

    live(
        plugin,
        make,
        Life(
            RULE,
            {"direction": "ingress", "ethertype": "IPv4", "securityGroupId": group.id, **rule},
            replace={"direction": "egress", "securityGroupId": "another"},
            replacement={"direction": "egress"},
            unread=frozenset({"protocol"}) if rule.get("protocol") == "any" else frozenset(),
        ),
        seen,
    )


def test_trunk(plugin: Plugin, make: Maker, sdk: Connection, network: Resource) -> None:
    if not any(extension.alias == "trunk" for extension in sdk.network.extensions()):
        pytest.skip("this cloud has no trunks")
    parent, other, first, second = (make(PORT, {"networkId": network.id}) for _ in range(4))

    def sub_port(port: Resource, tag: int) -> dict[str, object]:
        return {"portId": port.id, "segmentationType": "vlan", "segmentationId": tag}

    def seen(resource: Resource) -> None:
        found = sdk.network.get_trunk(resource.id)
        assert (found.name, found.port_id) == (resource.outputs["name"], resource.inputs["portId"])
        assert found.is_admin_state_up == resource.outputs["adminStateUp"]
        assert {(item["port_id"], item["segmentation_id"]) for item in found.sub_ports} == {
            (item["portId"], item["segmentationId"]) for item in resource.outputs["subPorts"]
        }
        assert {item["portId"] for item in resource.inputs["subPorts"]} == {
            item["portId"] for item in resource.outputs["subPorts"]
        }

    live(
        plugin,
        make,
        Life(
            TRUNK,
            {"portId": parent.id, "subPorts": [sub_port(first, 10)], "tags": ["t"]},
            update={"subPorts": [sub_port(second, 20)], "description": "two", "tags": ["u"]},
            paths=frozenset({"subPorts[0]", "description", "tags[0]"}),
            replace={"portId": "another"},
            replacement={"portId": other.id},
            exclusive=True,
            unread=frozenset({"tags"}),
        ),
        seen,
    )


def test_deletion_waits_for_users(plugin: Plugin, make: Maker, network: Resource, subnet: Resource) -> None:
    """What is in use is refused with the cloud's reason when the time is up, and nothing is lost."""
    make(PORT, {"networkId": network.id})
    with pytest.raises(CallError) as caught:
        plugin.delete(subnet, timeout=2)
    assert "answered 409" in str(caught.value)
    assert "One or more ports" in str(caught.value)
    assert plugin.read(subnet)


def test_secret_inputs_stay_secret(plugin: Plugin, make: Maker) -> None:
    network = make(NETWORK, {"description": Secret("hush")})
    assert network.outputs["description"] == Secret("hush")
    refreshed = plugin.read(network)
    assert refreshed
    assert refreshed.outputs["description"] == Secret("hush")
    assert refreshed.inputs["description"] == Secret("hush")
    assert plain(plugin.update(network, {"description": Secret("more")}).outputs["description"]) == "more"
