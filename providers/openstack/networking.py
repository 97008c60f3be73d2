"""Networking (Neutron): networks, subnets, routers, ports, floating IPs, security groups, trunks."""

from __future__ import annotations

import ipaddress
import json
import os
from typing import TYPE_CHECKING, Any, ClassVar, Final

from providers import schema
from providers.framework import LOST, NotYetError, ProviderError, ResourceType, Timeouts
from providers.openstack.client import Cloud, CloudError
from providers.openstack.rest import (
    ALL_TAGS,
    DESCRIPTION,
    NAME,
    REGION,
    TAGS,
    TENANT_ID,
    VALUE_SPECS,
    RestType,
    delete_and_wait,
    from_api,
    given,
    to_api,
)
from providers.schema import BOOLEAN, INTEGER, STRING, Fault, Field, List, Map, Object
from providers.values import Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from providers.framework import Function, Operation
    from providers.openstack.client import Service
    from providers.values import Properties

ADMIN_STATE_UP: Final = Field("adminStateUp", BOOLEAN, "Whether it forwards traffic; true by default.", computed=True)
ALL_SECURITY_GROUP_IDS: Final = Field(
    "allSecurityGroupIds", List(STRING, unordered=True), "All security groups in effect.", output=True
)
UP_OR_DOWN: Final = frozenset({"ACTIVE", "DOWN"})
IPV6_MODES: Final = ("slaac", "dhcpv6-stateful", "dhcpv6-stateless")
VNIC_TYPES: Final = (
    "direct",
    "direct-physical",
    "macvtap",
    "normal",
    "baremetal",
    "virtio-forwarder",
    "remote-managed",
)
# The names that Neutron knows (its constants' IP_PROTOCOL_MAP); numbers from 0 to 255 are fine too.
PROTOCOLS: Final = frozenset(
    [
        "ah",
        "any",
        "dccp",
        "egp",
        "esp",
        "gre",
        "icmp",
        "icmpv6",
        "igmp",
        "ipip",
        "ipv6-encap",
        "ipv6-frag",
        "ipv6-icmp",
        "ipv6-nonxt",
        "ipv6-opts",
        "ipv6-route",
        "ospf",
        "pgm",
        "rsvp",
        "sctp",
        "tcp",
        "udp",
        "udplite",
        "vrrp",
    ]
)
ICMP: Final = ("icmp", "icmpv6", "ipv6-icmp", "1", "58")


def _cidr_fault(value: str) -> str | None:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return f"must be a CIDR such as 10.0.0.0/24, not {value!r}"
    given_address = ipaddress.ip_address(value.partition("/")[0])
    return None if given_address == network.network_address else f"has host bits; meant is {network}"


def _address_fault(value: str) -> str | None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return f"must be an IP address, not {value!r}"
    return None


def _domain_fault(value: str) -> str | None:
    return None if value in ("", ".") or value.endswith(".") else f"must end with a dot: {value + '.'!r}"


def _port_fault(value: int) -> str | None:
    return None if 0 <= value <= 65535 else f"must be a port number (0 to 65535), not {value}"


def _protocol_fault(value: str) -> str | None:
    if value in PROTOCOLS or value == "" or (value.isdigit() and int(value) <= 255):
        return None
    return f"must be a protocol or its number (0 to 255), not {value!r}{schema.did_you_mean(value, PROTOCOLS)}"


def _same_network(old: str | None, new: str | None) -> bool:
    try:
        return ipaddress.ip_network(old or "", strict=False) == ipaddress.ip_network(new or "", strict=False)
    except ValueError:
        return (old or "") == (new or "")


def _same_json(old: str | None, new: str | None) -> bool:
    try:
        return bool(json.loads(old or "{}") == json.loads(new or "{}"))
    except ValueError:
        return old == new


def _json_fault(value: str) -> str | None:
    try:
        return None if isinstance(json.loads(value or "{}"), dict) else "must be a JSON object"
    except ValueError as error:
        return f"is not JSON: {error}"


def _needs(inputs: Properties, names: Iterable[str], required: str) -> Iterator[Fault]:
    for name in names:
        if given(inputs, name) and not given(inputs, required):
            yield Fault(name, f"needs {required}, too")


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
        Field("dnsDomain", description="With its final dot.", computed=True, validate=_domain_fault),
        Field("qosPolicyId", computed=True),
    )

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
            computed=True,
            force_new=True,
            conflicts=("prefixLength",),
            validate=_cidr_fault,
            same=_same_network,
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
                        Field("start", required=True, validate=_address_fault),
                        Field("end", required=True, validate=_address_fault),
                    )
                ),
                unordered=True,
            ),
            "Ranges to give addresses from.",
            computed=True,
        ),
        Field("gatewayIp", computed=True, conflicts=("noGateway",)),
        Field("noGateway", BOOLEAN, "No gateway at all.", default=False, conflicts=("gatewayIp",)),
        Field("ipVersion", INTEGER, default=4, force_new=True, choices=(4, 6)),
        Field("enableDhcp", BOOLEAN, default=True),
        Field("dnsNameservers", List(STRING)),
        Field("dnsPublishFixedIp", BOOLEAN),
        Field("ipv6AddressMode", computed=True, force_new=True, choices=IPV6_MODES),
        Field("ipv6RaMode", computed=True, force_new=True, choices=IPV6_MODES),
        Field("segmentId"),
        Field("subnetpoolId", force_new=True),
        VALUE_SPECS,
        TAGS,
        Field("serviceTypes", List(STRING), computed=True),
        ALL_TAGS,
    )

    def check(self, inputs: Properties) -> Iterable[Fault]:
        yield from _needs(inputs, ["prefixLength"], "subnetpoolId")
        servers = inputs.get("dnsNameservers") or []
        if isinstance(servers, list):
            known = [server for server in servers if not isinstance(server, Unknown)]
            for server in sorted({server for server in known if known.count(server) > 1}):
                yield Fault("dnsNameservers", f"has {server} twice")

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


class Router(RestType):
    token = "openstack:networking/router:Router"
    description = "A router between networks, and to an external one."
    path, key = "/routers", "router"
    ready = frozenset({"ACTIVE"})
    local = frozenset(
        {
            "externalNetworkId",
            "externalQosPolicyId",
            "enableSnat",
            "externalFixedIps",
            "externalSubnetIds",
            "vendorOptions",
        }
    )
    _gateway: ClassVar[Mapping[str, str]] = {
        "externalNetworkId": "network_id",
        "externalQosPolicyId": "qos_policy_id",
        "enableSnat": "enable_snat",
        "externalFixedIps": "external_fixed_ips",
    }
    fields = (
        REGION,
        NAME,
        DESCRIPTION,
        ADMIN_STATE_UP,
        Field("distributed", BOOLEAN, computed=True, force_new=True),
        Field("externalNetworkId", description="External network of the gateway.", computed=True),
        Field("externalQosPolicyId", computed=True),
        Field("enableSnat", BOOLEAN, "Source NAT on the gateway.", computed=True),
        Field(
            "externalFixedIps",
            List(Object((Field("subnetId", computed=True), Field("ipAddress", computed=True)))),
            "Addresses of the gateway.",
            computed=True,
            conflicts=("externalSubnetIds",),
        ),
        Field("externalSubnetIds", List(STRING), "Subnets to try for the gateway.", conflicts=("externalFixedIps",)),
        TENANT_ID,
        VALUE_SPECS,
        Field("availabilityZoneHints", List(STRING), computed=True, force_new=True),
        Field("vendorOptions", Object((Field("setRouterGatewayAfterCreate", BOOLEAN, default=False),))),
        TAGS,
        ALL_TAGS,
    )

    def check(self, inputs: Properties) -> Iterable[Fault]:
        names = ("externalQosPolicyId", "enableSnat", "externalFixedIps", "externalSubnetIds")
        return _needs(inputs, names, "externalNetworkId")

    def _gateway_info(self, properties: Properties, names: Iterable[str]) -> Properties:
        kinds = {field.name: field.kind for field in self.fields}
        return {self._gateway[name]: to_api(kinds[name], properties[name]) for name in names if given(properties, name)}

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        gateway = self._gateway_info(inputs, self._gateway)
        after = (inputs.get("vendorOptions") or {}).get("setRouterGatewayAfterCreate")
        id_ = super().create(client, {**inputs, "gateway": None if after else gateway}, operation)
        if after and gateway:
            self.api(client, inputs).put(f"{self.path}/{id_}", {"router": {"external_gateway_info": gateway}})
        return id_

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        body = super().body(client, inputs)
        return {**body, "external_gateway_info": inputs["gateway"]} if inputs.get("gateway") else body

    def post(self, service: Service, body: Properties, inputs: Properties, operation: Operation) -> Properties:
        subnets = inputs.get("externalSubnetIds") or [None]
        for subnet in subnets:
            if subnet and "external_gateway_info" in body["router"]:
                body["router"]["external_gateway_info"]["external_fixed_ips"] = [{"subnet_id": subnet}]
            try:
                return super().post(service, body, inputs, operation)
            except CloudError as error:
                if error.status != 409 or subnet == subnets[-1]:
                    raise
        raise AssertionError  # the last subnet returned or raised

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        body = super().changes(client, olds, news)
        changed = {schema.top_level(item.path) for item in schema.diff(self.fields, olds, news)} & set(self._gateway)
        if changed:
            current = {**olds, **news}
            body["external_gateway_info"] = self._gateway_info(current, {"externalNetworkId", *changed})
        return body

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        gateway = found.get("external_gateway_info") or {}
        properties = super().attributes(client, found, state)
        for field in self.fields:
            if field.name in self._gateway:
                properties[field.name] = from_api(field.kind, gateway.get(self._gateway[field.name]))
        return properties

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        with client.locked(id_):
            super().update(client, id_, olds, news, operation)


class RouterInterface(ResourceType[Cloud]):
    token = "openstack:networking/routerInterface:RouterInterface"
    import_id = "<port id>"
    description = "A router's port on a subnet. Its id is the port's."
    fields = (
        REGION,
        Field("routerId", required=True, force_new=True),
        Field("subnetId", computed=True, force_new=True),
        Field("portId", computed=True, force_new=True),
        Field("forceDestroy", BOOLEAN, "Remove routes that hold the interface.", default=False),
    )

    def check(self, inputs: Properties) -> Iterable[Fault]:
        if not given(inputs, "subnetId", "portId"):
            yield Fault("subnetId", "is required, or portId")

    @staticmethod
    def _network(client: Cloud, state: Properties) -> Service:
        return client.in_region(state.get("region")).network

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        network, router = self._network(client, inputs), inputs["routerId"]
        which = {"port_id": inputs["portId"]} if given(inputs, "portId") else {"subnet_id": inputs["subnetId"]}
        with client.locked(router):
            id_ = network.put(f"/routers/{router}/add_router_interface", which, repeatable=False)["port_id"]
        operation.created(id_)

        def up() -> bool | None:
            return True if network.get(f"/ports/{id_}")["port"]["status"] in UP_OR_DOWN else None

        operation.wait(f"router interface {id_}", up)
        return str(id_)

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        network = self._network(client, inputs)
        query = (
            {"id": inputs["portId"]} if given(inputs, "portId") else {"fixed_ips": f"subnet_id={inputs['subnetId']}"}
        )
        ports = network.list("/ports", "ports", device_id=inputs["routerId"], **query)
        return next((port["id"] for port in ports), None)

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        answer = self._network(client, state).find(f"/ports/{id_}")
        if answer is None or not answer["port"]["device_id"]:
            return None
        port = answer["port"]
        subnets = [address["subnet_id"] for address in port["fixed_ips"]]
        return {
            "routerId": port["device_id"],
            "portId": id_,
            "region": client.in_region(state.get("region")).region,
            **({"subnetId": subnets[0]} if len(subnets) == 1 else {}),
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        """``forceDestroy`` lives in the state only."""

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        network, router, subnet = self._network(client, state), state["routerId"], state.get("subnetId")

        def gone() -> bool | None:
            try:
                with client.locked(router):
                    network.put(
                        f"/routers/{router}/remove_router_interface",
                        {"subnet_id": subnet} if subnet else {"port_id": id_},
                    )
            except CloudError as error:
                if error.status == 404:
                    return True
                if error.status != 409:
                    raise
                if state.get("forceDestroy") and subnet:
                    self._drop_routes(network, router, subnet)
                raise NotYetError(error) from error
            return True if network.find(f"/ports/{id_}") is None else None

        operation.wait(f"router interface {id_} to be gone", gone)

    @staticmethod
    def _drop_routes(network: Service, router: str, subnet: str) -> None:
        """Keep only the routes that do not go through the subnet."""
        cidr = ipaddress.ip_network(network.get(f"/subnets/{subnet}")["subnet"]["cidr"])
        routes = network.get(f"/routers/{router}")["router"].get("routes") or []
        kept = [route for route in routes if ipaddress.ip_address(route["nexthop"]) not in cidr]
        network.put(f"/routers/{router}", {"router": {"routes": kept}})


class Port(RestType):
    token = "openstack:networking/port:Port"
    description = "A connection to a network: a MAC address, IP addresses and security groups."
    path, key = "/ports", "port"
    ready = UP_OR_DOWN
    local = frozenset(
        {
            "securityGroupIds",
            "noSecurityGroups",
            "fixedIps",
            "noFixedIp",
            "allFixedIps",
            "allSecurityGroupIds",
            "binding",
            "extraDhcpOptions",
        }
    )
    renamed: ClassVar[Mapping[str, str]] = {"dnsAssignments": "dns_assignment"}
    fields = (
        REGION,
        NAME,
        DESCRIPTION,
        Field("networkId", required=True, force_new=True),
        ADMIN_STATE_UP,
        Field("macAddress", computed=True, force_new=True),
        TENANT_ID,
        Field("deviceOwner", computed=True, force_new=True),
        Field("securityGroupIds", List(STRING, unordered=True), "The project's default group if none is given."),
        Field("noSecurityGroups", BOOLEAN, "No security group at all, not even the default one."),
        Field("deviceId", computed=True, force_new=True),
        Field(
            "fixedIps",
            List(Object((Field("subnetId"), Field("ipAddress", validate=_address_fault)))),
            conflicts=("noFixedIp",),
        ),
        Field("noFixedIp", BOOLEAN, "No address at all.", conflicts=("fixedIps",)),
        Field(
            "allowedAddressPairs",
            List(Object((Field("ipAddress", required=True), Field("macAddress"))), unordered=True),
            "Further addresses that may pass port security.",
        ),
        Field(
            "extraDhcpOptions",
            List(
                Object(
                    (
                        Field("name", required=True),
                        Field("value", required=True),
                        Field("ipVersion", INTEGER, default=4),
                    )
                ),
                unordered=True,
            ),
        ),
        VALUE_SPECS,
        Field("allFixedIps", List(STRING), "All its addresses.", output=True),
        ALL_SECURITY_GROUP_IDS,
        TAGS,
        ALL_TAGS,
        Field("portSecurityEnabled", BOOLEAN, computed=True),
        Field(
            "binding",
            Object(
                (
                    Field("hostId", computed=True),
                    Field("profile", description="A JSON object.", validate=_json_fault, same=_same_json),
                    Field("vifDetails", Map(STRING), output=True),
                    Field("vifType", output=True),
                    Field("vnicType", default="normal", choices=VNIC_TYPES),
                )
            ),
            "Where and how it is plugged (administrators, except vnicType).",
            computed=True,
        ),
        Field("dnsName", computed=True),
        Field("dnsAssignments", List(Map(STRING)), output=True),
        Field("qosPolicyId", computed=True),
    )

    def check(self, inputs: Properties) -> Iterable[Fault]:
        if inputs.get("noSecurityGroups") is True and given(inputs, "securityGroupIds"):
            yield Fault("noSecurityGroups", "cannot be true together with securityGroupIds")

    def _fixed_ips(self, inputs: Properties) -> list[Properties]:
        kind = next(field.kind for field in self.fields if field.name == "fixedIps")
        wanted: list[Properties] = to_api(kind, inputs.get("fixedIps") or [])
        return [item for item in wanted if item]

    @staticmethod
    def _binding(inputs: Properties) -> Properties:
        binding = inputs.get("binding") or {}
        body = {"binding:vnic_type": binding.get("vnicType"), "binding:host_id": binding.get("hostId")}
        if binding.get("profile"):
            body["binding:profile"] = json.loads(binding["profile"])
        return {key: value for key, value in body.items() if value}

    @staticmethod
    def _dhcp_options(options: Iterable[Properties] | None) -> list[Properties]:
        return [
            {"opt_name": item["name"], "opt_value": item["value"], "ip_version": item.get("ipVersion") or 4}
            for item in options or ()
        ]

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        body = {**super().body(client, inputs), **self._binding(inputs)}
        if inputs.get("noFixedIp"):
            body["fixed_ips"] = []
        elif given(inputs, "fixedIps"):
            body["fixed_ips"] = self._fixed_ips(inputs)
        if inputs.get("noSecurityGroups"):
            body["security_groups"] = []
        elif given(inputs, "securityGroupIds"):
            body["security_groups"] = inputs["securityGroupIds"]
        if given(inputs, "extraDhcpOptions"):
            body["extra_dhcp_opts"] = self._dhcp_options(inputs["extraDhcpOptions"])
        return body

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        body = super().changes(client, olds, news)
        changed = {schema.top_level(item.path) for item in schema.diff(self.fields, olds, news)}
        if changed & {"securityGroupIds", "noSecurityGroups"}:
            body["security_groups"] = [] if news.get("noSecurityGroups") else news.get("securityGroupIds") or []
        if changed & {"fixedIps", "noFixedIp"} and (news.get("noFixedIp") or given(news, "fixedIps")):
            body["fixed_ips"] = [] if news.get("noFixedIp") else self._fixed_ips(news)
        if "binding" in changed:
            body |= {"binding:profile": {}, **self._binding(news)}
        if "extraDhcpOptions" in changed:
            wanted = self._dhcp_options(news.get("extraDhcpOptions"))
            names = {item["opt_name"] for item in wanted}
            dropped = {item["name"] for item in olds.get("extraDhcpOptions") or ()} - names
            body["extra_dhcp_opts"] = wanted + [{"opt_name": name, "opt_value": None} for name in sorted(dropped)]
        return body

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        properties = super().attributes(client, found, state)
        properties["allFixedIps"] = [address["ip_address"] for address in found.get("fixed_ips") or ()]
        properties["allSecurityGroupIds"] = found.get("security_groups") or []
        # Neutron fills in the port's own MAC address; the user gave none then.
        properties["allowedAddressPairs"] = [
            {"ipAddress": item["ip_address"]}
            | ({"macAddress": item["mac_address"]} if item["mac_address"] != found["mac_address"] else {})
            for item in found.get("allowed_address_pairs") or ()
        ]
        properties["extraDhcpOptions"] = [
            {"name": item["opt_name"], "value": item["opt_value"], "ipVersion": item.get("ip_version", 4)}
            for item in found.get("extra_dhcp_opts") or ()
        ]
        properties["binding"] = {
            "hostId": found.get("binding:host_id") or "",
            "profile": json.dumps(found.get("binding:profile") or {}, separators=(",", ":")),
            "vifDetails": {
                key: value if isinstance(value, str) else json.dumps(value)
                for key, value in (found.get("binding:vif_details") or {}).items()
            },
            "vifType": found.get("binding:vif_type") or "",
            "vnicType": found.get("binding:vnic_type") or "",
        }
        return properties


class PortSecGroupAssociate(ResourceType[Cloud]):
    token = "openstack:networking/portSecGroupAssociate:PortSecGroupAssociate"
    import_id = "<port id>"
    description = "Security groups of a port that something else made. Its id is the port's."
    fields = (
        REGION,
        Field("portId", required=True, force_new=True),
        Field("securityGroupIds", List(STRING, unordered=True), required=True),
        Field("enforce", BOOLEAN, "Take away all other groups.", default=False),
        ALL_SECURITY_GROUP_IDS,
    )

    @staticmethod
    def _change(client: Cloud, port: str, state: Properties, remove: set[str], add: set[str], *, only: bool) -> None:
        network = client.in_region(state.get("region")).network
        with client.locked(port):
            present = set(network.get(f"/ports/{port}")["port"]["security_groups"])
            wanted = add if only else (present - remove) | add
            network.put(f"/ports/{port}", {"port": {"security_groups": sorted(wanted)}})

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        port: str = inputs["portId"]
        self._change(client, port, inputs, set(), set(inputs["securityGroupIds"]), only=bool(inputs.get("enforce")))
        return port

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        port: str = inputs["portId"]
        found = self.read(client, port, inputs, operation)
        return port if found and set(found["securityGroupIds"]) == set(inputs["securityGroupIds"]) else None

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.network.find(f"/ports/{id_}")
        if answer is None:
            return None
        present = answer["port"]["security_groups"]
        enforce = bool(state.get("enforce"))
        mine = state.get("securityGroupIds", present)  # an import takes over all
        return {
            "portId": id_,
            "allSecurityGroupIds": present,
            "securityGroupIds": present if enforce else [group for group in mine if group in present],
            "enforce": enforce,
            "region": cloud.region,
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        before, after = set(olds.get("securityGroupIds") or ()), set(news["securityGroupIds"])
        self._change(client, id_, olds, before, after, only=bool(news.get("enforce")))

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        try:
            groups = set(state.get("securityGroupIds") or ())
            self._change(client, id_, state, groups, set(), only=bool(state.get("enforce")))
        except CloudError as error:
            if error.status != 404:
                raise


class FloatingIp(RestType):
    token = "openstack:networking/floatingIp:FloatingIp"
    description = "An address of an external network that can be mapped to a port."
    path, key = "/floatingips", "floatingip"
    ready = UP_OR_DOWN
    local = frozenset({"pool", "subnetId", "subnetIds"})
    renamed: ClassVar[Mapping[str, str]] = {"address": "floating_ip_address", "fixedIp": "fixed_ip_address"}
    fields = (
        REGION,
        DESCRIPTION,
        Field("address", computed=True, force_new=True, validate=_address_fault),
        Field(
            "pool",
            description="Name or id of the external network.",
            required=True,
            force_new=True,
            default=lambda: os.environ.get("OS_POOL_NAME"),
        ),
        Field("portId", computed=True),
        TENANT_ID,
        Field("fixedIp", computed=True),
        Field("subnetId", computed=True, conflicts=("subnetIds",)),
        Field("subnetIds", List(STRING), "Subnets to try, in order.", conflicts=("subnetId",)),
        VALUE_SPECS,
        TAGS,
        ALL_TAGS,
        Field("dnsName", computed=True, force_new=True),
        Field("dnsDomain", computed=True, force_new=True, validate=_domain_fault),
    )

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        pool = _network_id(client.in_region(inputs.get("region")).network, inputs["pool"])
        subnet = {"subnet_id": inputs["subnetId"]} if given(inputs, "subnetId") else {}
        return {**super().body(client, inputs), "floating_network_id": pool, **subnet}

    def post(self, service: Service, body: Properties, inputs: Properties, operation: Operation) -> Properties:
        subnets = inputs.get("subnetIds") or []
        for subnet in subnets[:-1]:
            try:
                return super().post(
                    service, {"floatingip": {**body["floatingip"], "subnet_id": subnet}}, inputs, operation
                )
            except CloudError as error:
                if error.status != 409:
                    raise
        if subnets:
            body["floatingip"]["subnet_id"] = subnets[-1]
        return super().post(service, body, inputs, operation)

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        marked = given(inputs, "address", "description", "portId")
        if operation.began is None and not marked:
            raise ProviderError("nothing tells a floating IP without description, address and port from others")
        return super().find(client, inputs, operation)

    def candidates(self, client: Cloud, service: Service, inputs: Properties) -> Iterable[Properties]:
        pool = _network_id(service, inputs["pool"])
        return service.list(self.path, self.collection(), floating_network_id=pool)

    def fits(self, client: Cloud, item: Properties, inputs: Properties) -> bool:
        mapped = item["port_id"] or "", item["fixed_ip_address"] or ""
        port = inputs.get("portId") or ""
        wanted = port, inputs.get("fixedIp") or (mapped[1] if port else "")
        return mapped == wanted and super().fits(client, item, inputs)

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        body = super().changes(client, olds, news)
        if body.keys() & {"port_id", "fixed_ip_address"}:
            body["port_id"] = body.get("port_id") or news.get("portId") or olds.get("portId") or None
        return body

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        network = client.in_region(state.get("region")).network
        id_ = found["floating_network_id"]
        pool = network.find(f"/networks/{id_}")
        name = pool["network"]["name"] if pool else id_
        # The user may have named the pool by its id, and meant the same.
        kept = state.get("pool") if state.get("pool") == id_ else name
        return {**super().attributes(client, found, state), "pool": kept, "subnetId": state.get("subnetId") or ""}


def _network_id(network: Service, name: str) -> str:
    """The id of the one network of this name or id."""
    found = list(network.list("/networks", "networks", name=name)) or list(
        network.list("/networks", "networks", id=name)
    )
    if len(found) != 1:
        names = sorted(item["name"] for item in network.list("/networks", "networks", **{"router:external": True}))
        raise ProviderError(
            f"{'no network is' if not found else f'{len(found)} networks are'} named {name!r}",
            remedy=f"External networks here: {', '.join(names) or 'none'}. An id is always unique.",
        )
    id_: str = found[0]["id"]
    return id_


class FloatingIpAssociate(ResourceType[Cloud]):
    token = "openstack:networking/floatingIpAssociate:FloatingIpAssociate"
    import_id = "<floating IP id>"
    description = "A floating IP's mapping to a port. Its id is the floating IP's."
    fields = (
        REGION,
        Field("floatingIp", description="The address.", required=True, force_new=True),
        Field("portId", required=True),
        Field("fixedIp", computed=True),
    )

    @staticmethod
    def _put(client: Cloud, state: Properties, id_: str, port: str | None, fixed: str | None = None) -> None:
        body = {"port_id": port, **({"fixed_ip_address": fixed} if fixed else {})}
        client.in_region(state.get("region")).network.put(f"/floatingips/{id_}", {"floatingip": body})

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        network = client.in_region(inputs.get("region")).network
        found = list(network.list("/floatingips", "floatingips", floating_ip_address=inputs["floatingIp"]))
        if len(found) != 1:
            raise ProviderError(
                f"no floating IP of this project is {inputs['floatingIp']}",
                remedy="`openstack floating ip list` shows them.",
            )
        id_: str = found[0]["id"]
        self._put(client, inputs, id_, inputs["portId"], inputs.get("fixedIp"))
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        network = client.in_region(inputs.get("region")).network
        query = {"floating_ip_address": inputs["floatingIp"], "port_id": inputs["portId"]}
        return next((str(item["id"]) for item in network.list("/floatingips", "floatingips", **query)), None)

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.network.find(f"/floatingips/{id_}")
        if answer is None:
            return None
        found = answer["floatingip"]
        return {
            "floatingIp": found["floating_ip_address"],
            "portId": found["port_id"] or "",
            "fixedIp": found["fixed_ip_address"] or "",
            "region": cloud.region,
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        self._put(client, olds, id_, news["portId"], news.get("fixedIp"))

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        current = self.read(client, id_, state, operation)
        if current and current["portId"] == state.get("portId"):
            self._put(client, state, id_, None)


class SecGroup(RestType):
    token = "openstack:networking/secGroup:SecGroup"
    description = "A security group: a set of firewall rules."
    path, key = "/security-groups", "security_group"
    local = frozenset({"deleteDefaultRules"})
    fields = (
        REGION,
        NAME,
        Field("description", description="Free text.", computed=True),
        TENANT_ID,
        Field("deleteDefaultRules", BOOLEAN, "Start without the rules that let all traffic out.", force_new=True),
        Field("stateful", BOOLEAN, computed=True),
        TAGS,
        ALL_TAGS,
    )

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        id_ = super().create(client, inputs, operation)
        if inputs.get("deleteDefaultRules"):
            network = self.api(client, inputs)
            for rule in network.get(f"{self.path}/{id_}")["security_group"]["security_group_rules"]:
                network.delete(f"/security-group-rules/{rule['id']}")
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        id_ = super().find(client, inputs, operation)
        if id_ and inputs.get("deleteDefaultRules"):
            group = self.api(client, inputs).get(f"{self.path}/{id_}")["security_group"]
            if group["security_group_rules"]:  # nobody else knew of the group: they are the default ones
                operation.created(id_, **{LOST: "deleteDefaultRules"})
        return id_


class SecGroupRule(RestType):
    token = "openstack:networking/secGroupRule:SecGroupRule"
    description = "A rule of a security group."
    path, key = "/security-group-rules", "security_group_rule"
    fields = (
        REGION,
        Field("description", description="Free text.", force_new=True),
        Field("direction", required=True, force_new=True, choices=("ingress", "egress")),
        Field("ethertype", required=True, force_new=True, choices=("IPv4", "IPv6")),
        Field("portRangeMin", INTEGER, force_new=True, validate=_port_fault),
        Field("portRangeMax", INTEGER, force_new=True, validate=_port_fault),
        Field("protocol", force_new=True, validate=_protocol_fault),
        Field(
            "remoteGroupId",
            computed=True,
            force_new=True,
            conflicts=("remoteIpPrefix", "remoteAddressGroupId"),
        ),
        Field(
            "remoteIpPrefix",
            computed=True,
            force_new=True,
            conflicts=("remoteGroupId", "remoteAddressGroupId"),
            same=_same_network,
        ),
        Field(
            "remoteAddressGroupId",
            computed=True,
            force_new=True,
            conflicts=("remoteGroupId", "remoteIpPrefix"),
        ),
        Field("securityGroupId", required=True, force_new=True),
        TENANT_ID,
    )

    def check(self, inputs: Properties) -> Iterable[Fault]:
        protocol = inputs.get("protocol")
        for name, other in (("portRangeMin", "portRangeMax"), ("portRangeMax", "portRangeMin")):
            # For ICMP these are type and code, of which one may be left open, and which have no order.
            needed = ["protocol"] if protocol in ICMP else ["protocol", other]
            missing = [item for item in needed if inputs.get(item) is None]
            if inputs.get(name) is not None and missing:
                yield Fault(name, f"needs {' and '.join(missing)}, too")
        low, high = inputs.get("portRangeMin"), inputs.get("portRangeMax")
        if isinstance(low, int) and isinstance(high, int) and low > high and protocol not in ICMP:
            yield Fault("portRangeMin", f"is {low}, above portRangeMax {high}")

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        body = super().body(client, inputs)
        if body.get("protocol") == "any":
            del body["protocol"]
        return body

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        properties = super().attributes(client, found, state)
        if state.get("protocol") == "any" and not properties["protocol"]:
            properties["protocol"] = "any"
        return properties

    def candidates(self, client: Cloud, service: Service, inputs: Properties) -> Iterable[Properties]:
        return service.list(self.path, self.collection(), security_group_id=inputs["securityGroupId"])

    def fits(self, client: Cloud, item: Properties, inputs: Properties) -> bool:
        found = self.attributes(client, item, inputs)
        # What is not given is open, and that it is makes another rule.
        names = ("remoteGroupId", "remoteIpPrefix", "remoteAddressGroupId")
        return not any(given(found, name) != given(inputs, name) for name in names) and super().fits(
            client, item, inputs
        )

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        delete_and_wait(self.api(client, state), f"{self.path}/{id_}", f"security group rule {id_}", operation)


class Trunk(RestType):
    token = "openstack:networking/trunk:Trunk"
    description = "A port that carries further ports' traffic, each with its VLAN tag."
    path, key = "/trunks", "trunk"
    ready = UP_OR_DOWN
    timeouts = Timeouts(create=300, delete=300)
    fields = (
        REGION,
        NAME,
        DESCRIPTION,
        Field("portId", required=True, force_new=True),
        ADMIN_STATE_UP,
        TENANT_ID,
        Field(
            "subPorts",
            List(
                Object(
                    (
                        Field("portId", required=True),
                        Field("segmentationType", required=True),
                        Field("segmentationId", INTEGER, required=True),
                    )
                ),
                unordered=True,
            ),
        ),
        TAGS,
        ALL_TAGS,
    )

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        body = super().changes(client, olds, news)
        body.pop("sub_ports", None)
        return body

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        super().update(client, id_, olds, news, operation)
        network = self.api(client, olds)
        kind = next(field.kind for field in self.fields if field.name == "subPorts")
        before: list[Any] = to_api(kind, olds.get("subPorts") or [])
        after: list[Any] = to_api(kind, news.get("subPorts") or [])
        if removed := [{"port_id": item["port_id"]} for item in before if item not in after]:
            network.put(f"{self.path}/{id_}/remove_subports", {"sub_ports": removed})
        if added := [item for item in after if item not in before]:
            network.put(f"{self.path}/{id_}/add_subports", {"sub_ports": added})


TYPES: list[ResourceType[Cloud]] = [
    Network(),
    Subnet(),
    Router(),
    RouterInterface(),
    Port(),
    PortSecGroupAssociate(),
    FloatingIp(),
    FloatingIpAssociate(),
    SecGroup(),
    SecGroupRule(),
    Trunk(),
]
FUNCTIONS: list[Function[Cloud]] = []
