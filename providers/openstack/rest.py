"""Resource types that are one REST collection: a POST makes an item, a GET reads it, a PUT changes its attributes.

A subclass names the collection and lists its fields; ``snake_case`` of a field's name is the API's attribute unless
``renamed`` says otherwise. What an API does differently goes into the hooks ``body``, ``changes``, ``attributes``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from providers import schema
from providers.framework import NotYetError, Operation, ProviderError, ResourceType
from providers.openstack import names
from providers.openstack.client import Cloud, CloudError, Service
from providers.openstack.normal import FILLED_BY_SERVICE
from providers.schema import BOOLEAN, DEFAULTS, INTEGER, NUMBER, STRING, Field, Kind, List, Map, Object
from providers.values import Unknown, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from providers.openstack.names import Reference
    from providers.schema import CheckFailure, Difference
    from providers.values import Properties

REGION: Final = Field(
    "region", computed=True, force_new=True, description="Region of the resource; the provider's by default."
)
NAME: Final = Field("name", computed=True, autoname=True, description="Name in the cloud.")
DESCRIPTION: Final = Field("description", description="Free text.")
TENANT_ID: Final = Field("tenantId", computed=True, force_new=True, description="Project that owns the resource.")
TAGS: Final = Field("tags", List(STRING, unordered=True), "Tags set by this resource; other tags stay.")
ALL_TAGS: Final = Field("allTags", List(STRING, unordered=True), "All tags, also those set elsewhere.", output=True)
VALUE_SPECS: Final = Field("valueSpecs", Map(STRING), "Further attributes for the create call.", force_new=True)

_EMPTY: Final[Mapping[str, Any]] = {"string": "", "boolean": False, "integer": 0, "number": 0, "array": []}


def snake(name: str) -> str:
    """``adminStateUp`` -> ``admin_state_up``, ``fixedIpV4`` -> ``fixed_ip_v4``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def to_api(kind: Kind, value: Any) -> Any:
    """A property's value in the API's names, without nulls and ``__defaults``."""
    if isinstance(kind, Object) and isinstance(value, dict):
        by_name = {field.name: field for field in kind.fields}
        return {
            snake(key): to_api(by_name[key].kind, item)
            for key, item in value.items()
            if key in by_name and item is not None and item != ""
        }
    if isinstance(kind, List) and isinstance(value, list):
        return [to_api(kind.item, item) for item in value]
    return value


def from_api(kind: Kind, value: Any) -> Any:
    """The API's value in property names; null becomes the kind's empty value, as with the official plugin."""
    if value is None:
        return {} if isinstance(kind, Map) else _EMPTY.get(kind.name)
    if isinstance(kind, Object) and isinstance(value, dict):
        return {field.name: from_api(field.kind, value.get(snake(field.name))) for field in kind.fields}
    if isinstance(kind, List) and isinstance(value, list):
        return [from_api(kind.item, item) for item in value]
    if kind is STRING and not isinstance(value, str):
        return str(value)
    if kind in {INTEGER, NUMBER, BOOLEAN} and value == "":
        return _EMPTY[kind.name]
    return value


def only_candidate(what: str, candidates: Iterable[Properties], operation: Operation) -> Properties | None:
    """The item that the interrupted create can have made; None if there is none.

    Raises ProviderError where there are several.
    """
    found = [
        item
        for item in candidates
        if item["id"] not in operation.others and operation.may_have_made(item.get("created_at") or item.get("created"))
    ]
    if len(found) > 1:
        raise ProviderError(
            f"{len(found)} {what}s may be the one that it made: {', '.join(sorted(str(item['id']) for item in found))}",
            remedy="Delete those that are not needed.",
        )
    return found[0] if found else None


def given(inputs: Properties, *names: str) -> bool:
    """Whether any of the inputs has a value that is not empty."""
    return any(inputs.get(name) not in (None, "", [], {}) for name in names)


def pair(id_: str, what: str) -> tuple[str, str]:
    """The parts of an id ``first/second``; raises ProviderError where it has another form."""
    first, slash, second = id_.partition("/")
    if not (first and slash and second):
        raise ProviderError(f"{id_!r} is not the id of {what}", remedy="It has two parts: <first>/<second>.")
    return first, second


def delete_and_wait(service: Service, path: str, what: str, operation: Operation, **options: Any) -> None:
    """DELETE, repeated while the cloud answers 409 (in use), and wait until a GET finds nothing.

    At the deadline the cloud's own reason is raised.
    """

    def gone() -> bool | None:
        try:
            if not service.delete(path, **options):
                return True
        except CloudError as error:
            if error.status == 409:
                raise NotYetError(error) from error
            raise
        return True if service.find(path, **options) is None else None

    operation.wait(f"{what} to be gone", gone)


def _in_known_region(client: Cloud, inputs: Properties) -> Cloud | None:
    region = inputs.get("region")
    return None if isinstance(region, Unknown) else client.in_region(region)


class OpenStackType(ResourceType[Cloud]):
    """A resource type whose service may store what it is given in another spelling; see ``normalized``.

    filled: properties that the service fills in where they are empty.
    """

    filled: ClassVar[frozenset[str]] = FILLED_BY_SERVICE

    def normalized(self, properties: Properties, olds: Properties) -> Properties:
        """The properties in the form to compare, where a normal form depends on several of them.

        ``olds`` are the outputs that are compared with, or ``properties`` themselves. Values may be unknown.
        """
        return properties

    def references(self, inputs: Properties) -> Iterable[Reference]:
        """What the inputs refer to by a name or an id that only a create resolves. Values may be unknown."""
        return ()

    def check_references(self, client: Cloud, olds: Properties, news: Properties) -> Iterable[CheckFailure]:
        cloud = _in_known_region(client, news)
        return () if cloud is None else names.faults(cloud, self.references(olds), self.references(news))

    def preview(
        self, client: Cloud | None, olds: Properties | None, news: Properties, operation: Operation
    ) -> Properties:
        if client is not None and (cloud := _in_known_region(client, plain(news))):
            names.note(cloud, self.token, plain(news.get("name")))
        return super().preview(client, olds, news, operation)

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        olds, news = plain(olds), plain(news)
        news = {key: None if key in self.filled and value == "" else value for key, value in news.items()}
        return schema.diff(self.fields, self.normalized(olds, olds), self.normalized(news, olds))

    def changed(self, olds: Properties, news: Properties) -> set[str]:
        """The properties in which ``news`` differ."""
        return {schema.top_level(item.path) for item in self.differences(olds, news)}

    def refreshed_inputs(self, client: Cloud, given: Properties, outputs: Properties) -> Properties:
        adopted, differing = super().refreshed_inputs(client, given, outputs), self.changed(outputs, given)
        adopted |= {key: value for key, value in given.items() if key not in differing | schema.RESERVED}
        if isinstance(given.get(DEFAULTS), list):
            adopted[DEFAULTS] = [key for key in given[DEFAULTS] if plain(adopted.get(key)) == plain(given.get(key))]
        return adopted


class RestType(OpenStackType):
    """See the module's docstring.

    service: of openstacksdk's connection. path: of the collection. key: the envelope of one item. local: fields that
    only the state has; the API does not return them. ready: statuses that end the wait after a create; none, no wait.
    failed: statuses that make it fail.
    """

    service: ClassVar[str] = "network"
    path: ClassVar[str]
    key: ClassVar[str]
    renamed: ClassVar[Mapping[str, str]] = {}
    local: ClassVar[frozenset[str]] = frozenset()
    ready: ClassVar[frozenset[str]] = frozenset()
    failed: ClassVar[frozenset[str]] = frozenset({"ERROR"})

    def api(self, client: Cloud, state: Properties) -> Service:
        """The service in the resource's region."""
        return client.in_region(state.get("region")).service(self.service)

    def sent(self) -> list[Field]:
        """The fields that are plain attributes of the item."""
        special = {"region", "tags", "allTags", "valueSpecs"} | self.local
        return [field for field in self.fields if field.name not in special]

    def api_name(self, name: str) -> str:
        """The API's name of a field."""
        return self.renamed.get(name) or snake(name)

    def body(self, client: Cloud, inputs: Properties) -> Properties:
        """The attributes of a create: all inputs that are not empty."""
        attributes = {
            self.api_name(field.name): to_api(field.kind, inputs[field.name])
            for field in self.sent()
            if given(inputs, field.name)
        }
        return {**attributes, **(inputs.get("valueSpecs") or {})}

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        """The attributes to update; removed inputs become empty."""
        changed = self.changed(olds, news)
        return {
            self.api_name(field.name): from_api(field.kind, None)
            if news.get(field.name) is None
            else to_api(field.kind, news[field.name])
            for field in self.sent()
            if field.name in changed and not field.force_new
        }

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        """The properties of an item that was read."""
        return {field.name: from_api(field.kind, found.get(self.api_name(field.name))) for field in self.sent()}

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        service = self.api(client, inputs)
        item = self.post(service, {self.key: self.body(client, inputs)}, inputs, operation)
        id_: str = item["id"]
        operation.created(id_)
        if self.status(item) not in self.ready:
            self.wait_ready(service, id_, operation)
        if given(inputs, "tags"):
            service.put(f"{self.path}/{id_}/tags", {"tags": inputs["tags"]})
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        service = self.api(client, inputs)
        fitting = (item for item in self.candidates(client, service, inputs) if self.fits(client, item, inputs))
        item = only_candidate(self.key.replace("_", " "), fitting, operation)
        if item is None:
            return None
        id_: str = item["id"]
        operation.created(id_)
        if self.status(item) not in self.ready:
            self.wait_ready(service, id_, operation)
        return id_

    def candidates(self, client: Cloud, service: Service, inputs: Properties) -> Iterable[Properties]:
        """The items among which to look for what an interrupted create has made."""
        return service.list(self.path, self.collection(), name=inputs["name"])

    def fits(self, client: Cloud, item: Properties, inputs: Properties) -> bool:
        """Whether a create with these inputs can have made the item, with or without its tags, which are sent later."""
        owner = item.get("project_id") or item.get("tenant_id")
        if owner and owner != (inputs.get("tenantId") or client.in_region(inputs.get("region")).project_id):
            return False
        if set(item.get("tags") or ()) not in (set(), set(inputs.get("tags") or ())):
            return False
        found = self.attributes(client, item, inputs)
        named = [
            field
            for field in self.fields
            if field.name in {"name", "description"} and (given(inputs, field.name) or not field.computed)
        ]
        if not all(field.kind.same(found.get(field.name), inputs.get(field.name)) for field in named):
            return False
        return not any(difference.replace for difference in self.differences({**inputs, **found}, inputs))

    def collection(self) -> str:
        """The envelope of a list."""
        return self.path.rpartition("/")[2].replace("-", "_")

    def post(self, service: Service, body: Properties, inputs: Properties, operation: Operation) -> Properties:
        """POST; returns the item."""
        item: Properties = service.post(self.path, body)[self.key]
        return item

    def wait_ready(self, service: Service, id_: str, operation: Operation) -> None:
        """Wait until the item's status is one of ``ready``."""
        if not self.ready:
            return

        def poll() -> bool | None:
            item = service.get(f"{self.path}/{id_}")[self.key]
            status = self.status(item)
            if status in self.failed:
                raise ProviderError(f"{self.key} {id_} is in status {status}")
            return True if status in self.ready else None

        operation.wait(f"{self.key} {id_} to be ready", poll)

    def status(self, item: Properties) -> str:
        """The status that ``ready`` and ``failed`` list."""
        return str(item.get("status") or "ACTIVE")

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        answer = self.api(client, state).find(f"{self.path}/{id_}")
        if answer is None:
            return None
        found = answer[self.key]
        properties = self.attributes(client, found, state)
        properties["region"] = client.in_region(state.get("region")).region
        if any(field.name == "allTags" for field in self.fields):
            properties["allTags"] = found.get("tags") or []
            if state.get("tags") is not None:
                properties["tags"] = [tag for tag in state["tags"] if tag in properties["allTags"]]
        return properties

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        service = self.api(client, olds)
        if body := self.changes(client, olds, news):
            self.send_changes(service, id_, {self.key: body}, operation)
        before, after = set(olds.get("tags") or ()), set(news.get("tags") or ())
        if before != after:
            present = set(service.get(f"{self.path}/{id_}")[self.key].get("tags") or ())
            service.put(f"{self.path}/{id_}/tags", {"tags": sorted((present - before) | after)})

    def send_changes(self, service: Service, id_: str, body: Properties, operation: Operation) -> None:
        """The call that changes an item."""
        service.put(f"{self.path}/{id_}", body)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        delete_and_wait(self.api(client, state), f"{self.path}/{id_}", f"{self.key} {id_}", operation)
