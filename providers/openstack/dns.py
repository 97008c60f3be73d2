"""DNS zones and record sets (Designate)."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from providers.framework import Operation, ProviderError, ResourceType
from providers.openstack.normal import CASELESS, RECORD, final_dot_fault
from providers.openstack.rest import (
    DESCRIPTION,
    REGION,
    VALUE_SPECS,
    OpenStackType,
    delete_and_wait,
    from_api,
    given,
    only_candidate,
    pair,
    snake,
)
from providers.schema import BOOLEAN, INTEGER, STRING, Field, List, Map

if TYPE_CHECKING:
    from providers.framework import Function
    from providers.openstack.client import Cloud, Service
    from providers.values import Properties

_PROJECT = Field("projectId", description="Project that owns it, if not one's own.", computed=True, force_new=True)
_TTL = Field("ttl", INTEGER, "Seconds that answers may be cached.", computed=True)
_NO_WAIT = Field("disableStatusCheck", BOOLEAN, "Do not wait for the name servers.", default=False)


class _DnsType(OpenStackType):
    """What zones and record sets have in common. ``sent`` are the fields that go to the API, ``changeable`` those of
    them that an update may change."""

    what: ClassVar[str]
    method: ClassVar[str]
    sent: ClassVar[tuple[str, ...]]
    changeable: ClassVar[tuple[str, ...]]

    @abstractmethod
    def collection(self, state: Properties) -> str:
        """Path to create in."""

    @abstractmethod
    def item(self, id_: str) -> str:
        """Path of one."""

    @staticmethod
    def api(client: Cloud, state: Properties) -> tuple[Service, dict[str, Any]]:
        """The service, and the options that make it act for another project."""
        cloud = client.in_region(state.get("region"))
        project = state.get("projectId")
        foreign = project and project != cloud.project_id
        return cloud.dns, {"headers": {"X-Auth-Sudo-Tenant-ID": project}} if foreign else {}

    def _wait(self, service: Service, id_: str, inputs: Properties, operation: Operation, options: Any) -> None:
        if inputs.get("disableStatusCheck"):
            return

        def active() -> bool | None:
            status = service.get(self.item(id_), **options)["status"]
            if status == "ERROR":
                raise ProviderError(
                    f"{self.what} {id_} is in status ERROR",
                    remedy=f"Try again; if it stays so, replace it: --replace '{operation.urn}'.",
                )
            return True if status == "ACTIVE" else None

        operation.wait(f"{self.what} {id_} to be ACTIVE", active)

    def _body(self, inputs: Properties, names: tuple[str, ...]) -> Properties:
        kinds = {field.name: field.kind for field in self.fields}
        return {snake(name): from_api(kinds[name], inputs.get(name)) for name in names}

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        service, options = self.api(client, inputs)
        names = tuple(name for name in self.sent if given(inputs, name))
        body = {**self._body(inputs, names), **(inputs.get("valueSpecs") or {})}
        made = service.post(self.collection(inputs), body, **options)
        id_ = self.made_id(inputs, made)
        operation.created(id_)
        self._wait(service, id_, inputs, operation, options)
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        service, options = self.api(client, inputs)
        query = {name: inputs[name] for name in ("name", "type") if given(inputs, name)}
        answer = service.get(self.collection(inputs), params=query, **options)
        # Designate has one of a name and type.
        fitting = (
            item for item in answer[self.what.replace(" ", "") + "s"] if CASELESS.same(item["name"], inputs["name"])
        )
        found = only_candidate(self.what, fitting, operation)
        if found is None:
            return None
        id_ = self.made_id(inputs, found)
        operation.created(id_)
        self._wait(service, id_, inputs, operation, options)
        return id_

    def made_id(self, inputs: Properties, made: Properties) -> str:
        """The resource's id."""
        return str(made["id"])

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        service, options = self.api(client, state)
        found = service.find(self.item(id_), **options)
        if found is None or found["status"] == "DELETED":
            return None
        kinds = {field.name: field.kind for field in self.fields}
        return {
            **{name: from_api(kinds[name], found.get(snake(name))) for name in self.sent},
            "projectId": found["project_id"],
            "region": client.in_region(state.get("region")).region,
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        service, options = self.api(client, olds)
        changed = self.changed(olds, news)
        names = tuple(name for name in self.changeable if name in changed)
        if names:
            service.request(self.method, self.item(id_), self._body(news, names), **options)
        self._wait(service, id_, news, operation, options)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        service, options = self.api(client, state)
        if state.get("disableStatusCheck"):
            service.delete(self.item(id_), **options)
        else:
            delete_and_wait(service, self.item(id_), f"{self.what} {id_}", operation, **options)


class Zone(_DnsType):
    """A zone."""

    token = "openstack:dns/zone:Zone"
    import_id = "<id> or <id>:<project id>"
    description = "A DNS zone."
    what = "zone"
    method = "PATCH"
    sent = ("name", "email", "type", "attributes", "ttl", "description", "masters")
    changeable = ("email", "ttl", "description", "masters")
    fields = (
        REGION,
        _PROJECT,
        Field(
            "name", CASELESS, "Ends with a dot.", computed=True, autoname=True, force_new=True, validate=final_dot_fault
        ),
        Field("email", description="Whom to write to about the zone."),
        Field("type", computed=True, force_new=True, choices=("PRIMARY", "SECONDARY")),
        Field("attributes", Map(STRING), "Hints for the choice of a pool.", force_new=True),
        _TTL,
        DESCRIPTION,
        Field("masters", List(STRING, unordered=True), "Primary servers of a SECONDARY zone."),
        VALUE_SPECS,
        _NO_WAIT,
    )

    def collection(self, state: Properties) -> str:
        return "/zones"

    def item(self, id_: str) -> str:
        return f"/zones/{id_}"

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        zone, _, project = id_.partition(":")
        found = super().read(client, zone, {**state, "projectId": project} if project else state, operation)
        return found and {**found, "id": zone}


class RecordSet(_DnsType):
    """A record set; its id is ``<zone id>/<record set id>``."""

    token = "openstack:dns/recordSet:RecordSet"
    import_id = "<zone id>/<id> or <project id>/<zone id>/<id>"
    description = "A DNS record set."
    what = "record set"
    method = "PUT"
    sent = ("name", "description", "records", "ttl", "type")
    changeable = ("description", "records", "ttl")
    fields = (
        REGION,
        _PROJECT,
        Field("zoneId", required=True, force_new=True),
        Field(
            "name", CASELESS, "Ends with a dot.", computed=True, autoname=True, force_new=True, validate=final_dot_fault
        ),
        DESCRIPTION,
        Field("records", List(RECORD, unordered=True), "The records' data.", required=True),
        _TTL,
        Field("type", description="A, AAAA, CNAME...", computed=True, force_new=True),
        VALUE_SPECS,
        _NO_WAIT,
    )

    def collection(self, state: Properties) -> str:
        return f"/zones/{state['zoneId']}/recordsets"

    def item(self, id_: str) -> str:
        zone, record_set = pair(id_, "a record set")
        return f"/zones/{zone}/recordsets/{record_set}"

    def made_id(self, inputs: Properties, made: Properties) -> str:
        return f"{inputs['zoneId']}/{made['id']}"

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        if id_.count("/") == 2:
            project, _, id_ = id_.partition("/")
            state = {**state, "projectId": project}
        found = super().read(client, id_, state, operation)
        return found and {**found, "id": id_, "zoneId": pair(id_, "a record set")[0]}


TYPES: list[ResourceType[Cloud]] = [Zone(), RecordSet()]
FUNCTIONS: list[Function[Cloud]] = []
