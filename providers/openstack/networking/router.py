"""Routers and their interfaces."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, ClassVar, Final

from providers.framework import NotYetError
from providers.openstack import normal
from providers.openstack.client import Cloud, CloudError
from providers.openstack.names import references
from providers.openstack.networking.common import ADMIN_STATE_UP, UP_OR_DOWN, needs
from providers.openstack.normal import ADDRESS, FILLED_BY_SERVICE
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
    from_api,
    given,
    to_api,
)
from providers.schema import BOOLEAN, STRING, CheckFailure, Field, List, Object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from providers.framework import Operation
    from providers.openstack.client import Service
    from providers.openstack.names import Reference
    from providers.values import Properties

_GATEWAY_ADDRESS: Final = Object((Field("subnetId", computed=True), Field("ipAddress", ADDRESS, computed=True)))


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
            List(_GATEWAY_ADDRESS),
            "Addresses of the gateway.",
            computed=True,
            conflicts=("externalSubnetIds",),
            same=normal.same_items(_GATEWAY_ADDRESS),
        ),
        Field("externalSubnetIds", List(STRING), "Subnets to try for the gateway.", conflicts=("externalFixedIps",)),
        TENANT_ID,
        VALUE_SPECS,
        Field("availabilityZoneHints", List(STRING), computed=True, force_new=True),
        Field("vendorOptions", Object((Field("setRouterGatewayAfterCreate", BOOLEAN, default=False),))),
        TAGS,
        ALL_TAGS,
    )

    def references(self, inputs: Properties) -> Iterator[Reference]:
        zones = inputs.get("availabilityZoneHints")
        for index, zone in enumerate(zones if isinstance(zones, list) else ()):
            yield from references(f"availabilityZoneHints[{index}]", "availability zone of routers by name", zone)

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        names = ("externalQosPolicyId", "enableSnat", "externalFixedIps", "externalSubnetIds")
        return needs(inputs, names, "externalNetworkId")

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
        changed = self.changed(olds, news) & set(self._gateway)
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


class RouterInterface(OpenStackType):
    token = "openstack:networking/routerInterface:RouterInterface"
    import_id = "<port id>"
    description = "A router's port on a subnet. Its id is the port's."
    filled = FILLED_BY_SERVICE | {"subnetId", "portId"}
    fields = (
        REGION,
        Field("routerId", required=True, force_new=True),
        Field("subnetId", computed=True, force_new=True),
        Field("portId", computed=True, force_new=True),
        Field("forceDestroy", BOOLEAN, "Remove routes that use the interface.", default=False),
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if not given(inputs, "subnetId", "portId"):
            yield CheckFailure("subnetId", "is required, or portId")

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
        """``forceDestroy`` is in the state only."""

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
