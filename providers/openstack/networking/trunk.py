"""Trunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from providers.framework import Timeouts
from providers.openstack.networking.common import ADMIN_STATE_UP, UP_OR_DOWN
from providers.openstack.rest import (
    ALL_TAGS,
    DESCRIPTION,
    NAME,
    REGION,
    TAGS,
    TENANT_ID,
    RestType,
    to_api,
)
from providers.schema import INTEGER, Field, List, Object

if TYPE_CHECKING:
    from providers.framework import Operation
    from providers.openstack.client import Cloud
    from providers.values import Properties


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

    def normalized(self, properties: Properties, olds: Properties) -> Properties:
        """A sub-port that inherits its network's segmentation is stored with that."""
        ports = properties.get("subPorts")
        if not isinstance(ports, list):
            return properties
        stored = {port["portId"]: port for port in olds.get("subPorts") or () if isinstance(port, dict)}
        resolved = [
            {**port, **{key: stored[port["portId"]][key] for key in ("segmentationType", "segmentationId")}}
            if isinstance(port, dict) and port.get("segmentationType") == "inherit" and port.get("portId") in stored
            else port
            for port in ports
        ]
        return {**properties, "subPorts": resolved}

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        body = super().changes(client, olds, news)
        body.pop("sub_ports", None)
        return body

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        super().update(client, id_, olds, news, operation)
        news = self.normalized(news, olds)
        network = self.api(client, olds)
        kind = next(field.kind for field in self.fields if field.name == "subPorts")
        before: list[Any] = to_api(kind, olds.get("subPorts") or [])
        after: list[Any] = to_api(kind, news.get("subPorts") or [])
        if removed := [{"port_id": item["port_id"]} for item in before if item not in after]:
            network.put(f"{self.path}/{id_}/remove_subports", {"sub_ports": removed})
        if added := [item for item in after if item not in before]:
            network.put(f"{self.path}/{id_}/add_subports", {"sub_ports": added})
