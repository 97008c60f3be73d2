"""Ports, and the security groups of others' ports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, Final

from providers.openstack import normal
from providers.openstack.client import Cloud, CloudError
from providers.openstack.networking.common import ADMIN_STATE_UP, ALL_SECURITY_GROUP_IDS, UP_OR_DOWN, empty_fault
from providers.openstack.normal import ADDRESS, CASELESS, JSON, MAC, NETWORK
from providers.openstack.rest import (
    ALL_TAGS,
    DESCRIPTION,
    NAME,
    REGION,
    TAGS,
    TENANT_ID,
    VALUE_SPECS,
    OpenStackType,
    RestType,
    given,
    to_api,
)
from providers.schema import BOOLEAN, INTEGER, STRING, CheckFailure, Field, List, Map, Object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from providers.framework import Operation
    from providers.values import Properties

VNIC_TYPES: Final = (
    "direct",
    "direct-physical",
    "macvtap",
    "normal",
    "baremetal",
    "virtio-forwarder",
    "remote-managed",
)
_FIXED_IP: Final = Object((Field("subnetId"), Field("ipAddress", ADDRESS, validate=empty_fault)))


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
        Field("macAddress", MAC, computed=True, force_new=True),
        TENANT_ID,
        Field("deviceOwner", computed=True, force_new=True),
        Field("securityGroupIds", List(STRING, unordered=True), "The project's default group if none is given."),
        Field("noSecurityGroups", BOOLEAN, "No security group at all, not even the default one."),
        Field("deviceId", computed=True, force_new=True),
        Field(
            "fixedIps",
            List(_FIXED_IP),
            conflicts=("noFixedIp",),
            same=normal.same_items(_FIXED_IP),
        ),
        Field("noFixedIp", BOOLEAN, "No address at all.", conflicts=("fixedIps",)),
        Field(
            "allowedAddressPairs",
            List(Object((Field("ipAddress", NETWORK, required=True), Field("macAddress", MAC))), unordered=True),
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
                    Field("hostId", computed=True, same=normal.unset),
                    Field("profile", JSON, "A JSON object.", same=lambda old, new: JSON.same(old or "{}", new or "{}")),
                    Field("vifDetails", Map(STRING), output=True),
                    Field("vifType", output=True),
                    Field("vnicType", default="normal", choices=VNIC_TYPES),
                )
            ),
            "Where and how it is plugged (administrators, except vnicType).",
            computed=True,
        ),
        Field("dnsName", CASELESS, computed=True),
        Field("dnsAssignments", List(Map(STRING)), output=True),
        Field("qosPolicyId", computed=True),
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if inputs.get("noSecurityGroups") is True and given(inputs, "securityGroupIds"):
            yield CheckFailure("noSecurityGroups", "cannot be true together with securityGroupIds")

    def normalized(self, properties: Properties, olds: Properties) -> Properties:
        """A pair without a MAC address is one with the port's own."""
        own, pairs = properties.get("macAddress") or olds.get("macAddress"), properties.get("allowedAddressPairs")
        if not own or not isinstance(pairs, list):
            return properties
        plain_pairs = [
            {key: value for key, value in pair.items() if key != "macAddress" or not MAC.same(own, value)}
            if isinstance(pair, dict)
            else pair
            for pair in pairs
        ]
        return {**properties, "allowedAddressPairs": plain_pairs}

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
        changed = self.changed(olds, news)
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


class PortSecGroupAssociate(OpenStackType):
    token = "openstack:networking/portSecGroupAssociate:PortSecGroupAssociate"
    import_id = "<port id>"
    description = "Security groups of a port that something else made. Its id is the port's."
    fields = (
        REGION,
        Field("portId", required=True, force_new=True),
        Field("securityGroupIds", List(STRING, unordered=True), required=True),
        Field("enforce", BOOLEAN, "Remove all other groups.", default=False),
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
        mine = state.get("securityGroupIds", present)  # an import adopts all
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
