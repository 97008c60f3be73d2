"""Security groups and their rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from providers import schema
from providers.framework import UNRECOVERABLE
from providers.openstack import normal
from providers.openstack.normal import NETWORK
from providers.openstack.rest import (
    ALL_TAGS,
    NAME,
    REGION,
    TAGS,
    TENANT_ID,
    RestType,
    delete_and_wait,
    given,
)
from providers.schema import BOOLEAN, INTEGER, CheckFailure, Difference, Field
from providers.values import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from providers.framework import Operation
    from providers.openstack.client import Cloud, Service
    from providers.values import Properties


def _port_fault(value: int) -> str | None:
    return None if 0 <= value <= 65535 else f"must be a port number (0 to 65535), not {value}"


def _protocol_fault(value: str) -> str | None:
    if value in normal.PROTOCOLS or value == "" or (re.fullmatch("0|[1-9][0-9]{0,2}", value) and int(value) <= 255):
        return None
    return f"must be a protocol or its number (0 to 255), not {value!r}{schema.did_you_mean(value, normal.PROTOCOLS)}"


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
            if group["security_group_rules"]:  # the group is new: these are its default rules
                operation.created(id_, **{UNRECOVERABLE: "deleteDefaultRules"})
        return id_


class SecGroupRule(RestType):
    token = "openstack:networking/secGroupRule:SecGroupRule"
    description = "A rule of a security group."
    path, key = "/security-group-rules", "security_group_rule"
    _ports = ("portRangeMin", "portRangeMax")
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
            NETWORK,
            computed=True,
            force_new=True,
            conflicts=("remoteGroupId", "remoteAddressGroupId"),
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

    @staticmethod
    def _protocol(properties: Properties) -> int | str | None:
        """The protocol in its normal form; None for any, and for one that is not known yet."""
        protocol, ethertype = properties.get("protocol"), properties.get("ethertype")
        return normal.protocol(protocol, ethertype) if isinstance(protocol, str) else None

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        icmp = self._protocol(inputs) in normal.ICMP
        for name, other in (("portRangeMin", "portRangeMax"), ("portRangeMax", "portRangeMin")):
            # For ICMP these are type and code, of which one may be left open, and which have no order.
            needed = ["protocol"] if icmp else ["protocol", other]
            missing = [item for item in needed if inputs.get(item) is None]
            if inputs.get(name) is not None and missing:
                yield CheckFailure(name, f"needs {' and '.join(missing)}, too")
        low, high = inputs.get("portRangeMin"), inputs.get("portRangeMax")
        if isinstance(low, int) and isinstance(high, int) and low > high and not icmp:
            yield CheckFailure("portRangeMin", f"is {low}, above portRangeMax {high}")

    def normalized(self, properties: Properties, olds: Properties) -> Properties:
        """All ports are no range (neutron.db.securitygroups_db: _make_canonical_port_range), a protocol is a number."""
        rule = dict(properties)
        if isinstance(rule.get("protocol"), str):
            protocol = self._protocol(rule)
            rule["protocol"] = "" if protocol is None else str(protocol)
        if tuple(rule.get(name) for name in self._ports) == normal.ALL_PORTS:
            rule |= dict.fromkeys(self._ports)
        return rule

    def diff(
        self, client: Cloud | None, old_inputs: Properties, olds: Properties, news: Properties, operation: Operation
    ) -> Iterator[Difference]:
        yield from super().diff(client, old_inputs, olds, news, operation)
        # An ICMP type or code of 0 is not the same as none; the official plugin's outputs hold 0 for both.
        if self._protocol(plain(news)) in normal.ICMP:
            for name in self._ports:
                before, after = plain(olds.get(name, 0)), plain(news.get(name))
                if before is None and after == 0:
                    yield Difference(name, "ADD", replace=True)
                elif before == 0 and after is None and plain(old_inputs.get(name)) == 0:
                    yield Difference(name, "DELETE", replace=True)

    def import_inputs(self, outputs: Properties) -> Properties:
        inputs = super().import_inputs(outputs)
        if self._protocol(outputs) in normal.ICMP:
            inputs |= {name: 0 for name in self._ports if outputs.get(name) == 0}
        return inputs

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        body = super().body(client, inputs)
        if body.get("protocol") == "any":
            del body["protocol"]
        if self._protocol(inputs) not in normal.ICMP and not any(inputs.get(name) for name in self._ports):
            body = {key: value for key, value in body.items() if not key.startswith("port_range_")}  # 0 is no port
        return body

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        properties = super().attributes(client, found, state)
        if state.get("protocol") == "any" and not properties["protocol"]:
            properties["protocol"] = "any"
        if self._protocol(properties) in normal.ICMP:
            properties |= {name: found[self.api_name(name)] for name in self._ports}
        return properties

    def candidates(self, client: Cloud, service: Service, inputs: Properties) -> Iterable[Properties]:
        return service.list(self.path, self.collection(), security_group_id=inputs["securityGroupId"])

    def fits(self, client: Cloud, item: Properties, inputs: Properties) -> bool:
        found = self.attributes(client, item, inputs)
        # A missing input means any value, and is a difference.
        names = ("remoteGroupId", "remoteIpPrefix", "remoteAddressGroupId")
        return not any(given(found, name) != given(inputs, name) for name in names) and super().fits(
            client, item, inputs
        )

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        delete_and_wait(self.api(client, state), f"{self.path}/{id_}", f"security group rule {id_}", operation)
