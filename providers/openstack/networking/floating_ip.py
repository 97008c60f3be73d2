"""Floating IPs, and what they are mapped to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from providers.framework import ProviderError
from providers.openstack import normal
from providers.openstack.client import Cloud, CloudError
from providers.openstack.names import references
from providers.openstack.networking.common import UP_OR_DOWN, empty_fault
from providers.openstack.normal import ADDRESS, CASELESS
from providers.openstack.rest import (
    ALL_TAGS,
    DESCRIPTION,
    REGION,
    TAGS,
    TENANT_ID,
    VALUE_SPECS,
    OpenStackType,
    RestType,
    given,
)
from providers.schema import STRING, Field, List

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from providers.framework import Operation
    from providers.openstack.client import Service
    from providers.openstack.names import Reference
    from providers.values import Properties


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
        Field("address", ADDRESS, computed=True, force_new=True, validate=empty_fault),
        Field(
            "pool",
            description="Name or id of the external network.",
            required=True,
            force_new=True,
            default=lambda: os.environ.get("OS_POOL_NAME"),
        ),
        Field("portId", computed=True),
        TENANT_ID,
        Field("fixedIp", ADDRESS, computed=True),
        Field("subnetId", computed=True, conflicts=("subnetIds",)),
        Field("subnetIds", List(STRING), "Subnets to try, in order.", conflicts=("subnetId",)),
        VALUE_SPECS,
        TAGS,
        ALL_TAGS,
        Field("dnsName", CASELESS, computed=True, force_new=True),
        Field("dnsDomain", CASELESS, computed=True, force_new=True, validate=normal.final_dot_fault),
    )

    def references(self, inputs: Properties) -> Iterator[Reference]:
        yield from references("pool", "external network by name or id", inputs.get("pool"))

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
            raise ProviderError("a floating IP without description, address and port cannot be identified")
        return super().find(client, inputs, operation)

    def candidates(self, client: Cloud, service: Service, inputs: Properties) -> Iterable[Properties]:
        pool = _network_id(service, inputs["pool"])
        return service.list(self.path, self.collection(), floating_network_id=pool)

    def fits(self, client: Cloud, item: Properties, inputs: Properties) -> bool:
        port, mapped = inputs.get("portId") or "", item["fixed_ip_address"] or ""
        wanted = inputs.get("fixedIp") or (mapped if port else "")
        return (item["port_id"] or "") == port and ADDRESS.same(mapped, wanted) and super().fits(client, item, inputs)

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
        # The user may have given the pool by its id.
        kept = state.get("pool") if state.get("pool") == id_ else name
        return {**super().attributes(client, found, state), "pool": kept, "subnetId": state.get("subnetId") or ""}


def _network_id(network: Service, name: str) -> str:
    """The id of the only network with this name or id."""
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


class FloatingIpAssociate(OpenStackType):
    token = "openstack:networking/floatingIpAssociate:FloatingIpAssociate"
    import_id = "<floating IP id>"
    description = "A floating IP's mapping to a port. Its id is the floating IP's."
    fields = (
        REGION,
        Field("floatingIp", ADDRESS, "The address.", required=True, force_new=True),
        Field("portId", required=True),
        Field("fixedIp", ADDRESS, computed=True),
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
