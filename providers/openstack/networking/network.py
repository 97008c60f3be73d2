"""Networks and their subnets."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, ClassVar, Final

from providers.openstack import normal
from providers.openstack.names import references
from providers.openstack.networking.common import ADMIN_STATE_UP, UP_OR_DOWN, empty_fault, needs
from providers.openstack.normal import ADDRESS, CASELESS, NETWORK
from providers.openstack.rest import (
    ALL_TAGS,
    DESCRIPTION,
    NAME,
    REGION,
    TAGS,
    TENANT_ID,
    VALUE_SPECS,
    RestType,
)
from providers.schema import BOOLEAN, INTEGER, STRING, CheckFailure, Field, List, Object
from providers.values import Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from providers.openstack.client import Cloud
    from providers.openstack.names import Reference
    from providers.values import Properties

IPV6_MODES: Final = ("slaac", "dhcpv6-stateful", "dhcpv6-stateless")


def _host_bits_fault(value: str) -> str | None:
    network = normal.network(value)
    given_address = normal.address(value.partition("/")[0])
    return None if given_address == network.network_address else f"has host bits; meant is {network}"


class Network(RestType):
    token = "openstack:networking/network:Network"
    description = "A layer 2 network."
    path, key = "/networks", "network"
    ready = UP_OR_DOWN
    renamed: ClassVar[Mapping[str, str]] = {"external": "router:external", "transparentVlan": "vlan_transparent"}
    fields = (
        REGION,
        NAME,
        DESCRIPTION,
        ADMIN_STATE_UP,
        Field("shared", BOOLEAN, "Whether all projects may use it.", computed=True),
        Field("external", BOOLEAN, "Whether it offers floating IPs.", computed=True),
        TENANT_ID,
        Field(
            "segments",
            List(
                Object(
                    (
                        Field("physicalNetwork"),
                        Field("networkType"),
                        Field("segmentationId", INTEGER, computed=True),
                    )
                ),
                unordered=True,
            ),
            "Provider segments (administrators only).",
            computed=True,
        ),
        VALUE_SPECS,
        TAGS,
        ALL_TAGS,
        Field("availabilityZoneHints", List(STRING, unordered=True), computed=True, force_new=True),
        Field("transparentVlan", BOOLEAN, computed=True, force_new=True),
        Field("portSecurityEnabled", BOOLEAN, "Default of its ports.", computed=True),
        Field("mtu", INTEGER, "Bytes.", computed=True),
        Field("dnsDomain", CASELESS, "With its final dot.", computed=True, validate=normal.final_dot_fault),
        Field("qosPolicyId", computed=True),
    )

    def references(self, inputs: Properties) -> Iterator[Reference]:
        zones = inputs.get("availabilityZoneHints")
        for index, zone in enumerate(zones if isinstance(zones, list) else ()):
            yield from references(f"availabilityZoneHints[{index}]", "availability zone of networks by name", zone)

    @staticmethod
    def _segments(body: Properties) -> Properties:
        segments = [
            {f"provider:{key}": value for key, value in segment.items()} for segment in body.pop("segments", ())
        ]
        return {**body, **(segments[0] if len(segments) == 1 else {"segments": segments} if segments else {})}

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        return self._segments(super().body(client, inputs))

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        return self._segments(super().changes(client, olds, news))

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        segments = found.get("segments") or ([found] if found.get("provider:network_type") else [])
        plain = [
            {name: segment.get(f"provider:{name}") for name in ("physical_network", "network_type", "segmentation_id")}
            for segment in segments
        ]
        return super().attributes(client, {**found, "segments": plain}, state)


class Subnet(RestType):
    token = "openstack:networking/subnet:Subnet"
    description = "An address range of a network."
    path, key = "/subnets", "subnet"
    renamed: ClassVar[Mapping[str, str]] = {"prefixLength": "prefixlen", "dnsPublishFixedIp": "dns_publish_fixed_ip"}
    local = frozenset({"noGateway", "prefixLength"})
    fields = (
        REGION,
        Field("networkId", required=True, force_new=True),
        Field(
            "cidr",
            NETWORK,
            computed=True,
            force_new=True,
            conflicts=("prefixLength",),
            validate=_host_bits_fault,
        ),
        Field("prefixLength", INTEGER, "With subnetpoolId.", force_new=True, conflicts=("cidr",)),
        NAME,
        DESCRIPTION,
        TENANT_ID,
        Field(
            "allocationPools",
            List(
                Object(
                    (
                        Field("start", ADDRESS, required=True, validate=empty_fault),
                        Field("end", ADDRESS, required=True, validate=empty_fault),
                    )
                ),
                unordered=True,
            ),
            "Ranges to give addresses from.",
            computed=True,
        ),
        Field("gatewayIp", ADDRESS, computed=True, conflicts=("noGateway",)),
        Field("noGateway", BOOLEAN, "No gateway at all.", default=False, conflicts=("gatewayIp",)),
        Field("ipVersion", INTEGER, default=4, force_new=True, choices=(4, 6)),
        Field("enableDhcp", BOOLEAN, default=True),
        Field("dnsNameservers", List(ADDRESS)),
        Field("dnsPublishFixedIp", BOOLEAN),
        Field("ipv6AddressMode", computed=True, force_new=True, choices=IPV6_MODES),
        Field("ipv6RaMode", computed=True, force_new=True, choices=IPV6_MODES),
        Field("segmentId"),
        Field("subnetpoolId", force_new=True),
        VALUE_SPECS,
        TAGS,
        Field("serviceTypes", List(STRING, unordered=True), computed=True),
        ALL_TAGS,
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        yield from needs(inputs, ["prefixLength"], "subnetpoolId")
        servers = inputs.get("dnsNameservers") or []
        if isinstance(servers, list):
            known = [server for server in servers if not isinstance(server, Unknown)]
            for server in sorted({server for server in known if known.count(server) > 1}):
                yield CheckFailure("dnsNameservers", f"has {server} twice")

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        body = super().body(client, inputs)
        if inputs.get("noGateway"):
            body["gateway_ip"] = None
        if inputs.get("prefixLength"):
            body["prefixlen"] = inputs["prefixLength"]
        return body

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        body = super().changes(client, olds, news)
        if bool(olds.get("noGateway")) != bool(news.get("noGateway")):
            if news.get("noGateway"):
                body["gateway_ip"] = None
            elif not news.get("gatewayIp"):
                # As Neutron does when it makes a subnet: the first address, and the pool begins behind it.
                network = ipaddress.ip_network(olds["cidr"])
                body["gateway_ip"] = str(network[1])
                if not news.get("allocationPools"):
                    last = -2 if network.version == 4 else -1
                    body["allocation_pools"] = [{"start": str(network[2]), "end": str(network[last])}]
        return body

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        return {**super().attributes(client, found, state), "noGateway": not found.get("gateway_ip")}
