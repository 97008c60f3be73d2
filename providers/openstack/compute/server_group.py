"""Server groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from providers.openstack.rest import (
    REGION,
    VALUE_SPECS,
    OpenStackType,
    only_candidate,
)
from providers.schema import INTEGER, STRING, CheckFailure, Field, List, Object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from providers.framework import Operation
    from providers.openstack.client import Cloud
    from providers.values import Properties

GROUP_POLICY: Final = "2.64"


class ServerGroup(OpenStackType):
    token = "openstack:compute/serverGroup:ServerGroup"
    description = "Instances to place together, or apart."
    fields = (
        REGION,
        Field("name", computed=True, autoname=True, force_new=True),
        Field(
            "policies",
            description="affinity, anti-affinity, soft-affinity, soft-anti-affinity or one of the cloud's own.",
            force_new=True,
        ),
        Field(
            "rules",
            Object(
                (
                    Field(
                        "maxServerPerHost",
                        INTEGER,
                        force_new=True,
                        validate=lambda value: None if value >= 1 else f"must be at least 1, not {value}",
                    ),
                )
            ),
            "Only for anti-affinity.",
            computed=True,
            force_new=True,
        ),
        Field("members", List(STRING), "Ids of its instances.", output=True),
        VALUE_SPECS,
    )

    @staticmethod
    def _limit(properties: Properties) -> int | None:
        rules = properties.get("rules")
        return rules.get("maxServerPerHost") if isinstance(rules, dict) else None

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        policy = inputs.get("policies")
        if self._limit(inputs) is not None and isinstance(policy, str | None) and policy != "anti-affinity":
            yield CheckFailure("rules", "is for the policy anti-affinity alone")

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        body = {"name": inputs["name"], "policy": inputs.get("policies"), **(inputs.get("valueSpecs") or {})}
        if limit := self._limit(inputs):
            body["rules"] = {"max_server_per_host": limit}
        compute = client.in_region(inputs.get("region")).compute
        made = compute.post("/os-server-groups", {"server_group": body}, microversion=GROUP_POLICY)
        return str(made["server_group"]["id"])

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        cloud = client.in_region(inputs.get("region"))
        groups = cloud.compute.get("/os-server-groups", microversion=GROUP_POLICY)["server_groups"]
        # Nobody can have used it yet.
        wanted = inputs["name"], inputs.get("policies"), cloud.project_id
        fitting = (
            item
            for item in groups
            if (item["name"], item["policy"], item["project_id"]) == wanted and not item["members"]
        )
        found = only_candidate("server group", fitting, operation)
        return str(found["id"]) if found else None

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.compute.find(f"/os-server-groups/{id_}", microversion=GROUP_POLICY)
        if answer is None:
            return None
        found = answer["server_group"]
        limit = (found.get("rules") or {}).get("max_server_per_host")
        return {
            "name": found["name"],
            "policies": found["policy"],
            "rules": {"maxServerPerHost": limit} if limit else None,
            "members": found["members"],
            "region": cloud.region,
        }

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        client.in_region(state.get("region")).compute.delete(f"/os-server-groups/{id_}")
