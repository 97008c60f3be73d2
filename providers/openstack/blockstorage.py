"""Volumes (Cinder)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from providers.framework import CancelledError, DeadlineError, Operation, ProviderError, ResourceType
from providers.openstack.client import Cloud, CloudError, Service
from providers.openstack.names import references
from providers.openstack.normal import TRIMMED, is_uuid
from providers.openstack.rest import REGION, RestType, given, to_api
from providers.schema import BOOLEAN, INTEGER, STRING, Difference, Field, List, Map, Object
from providers.values import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from providers.framework import Function
    from providers.openstack.names import Reference
    from providers.values import Properties

# Microversions of the block storage API: extend a volume in use; make one of a backup.
_ONLINE_RESIZE: Final = "3.42"
_FROM_BACKUP: Final = "3.47"
# cinder.api.api_utils.add_visible_admin_metadata
_ADMIN_METADATA: Final = frozenset({"attached_mode", "readonly"})
_SOURCES: Final = ("backupId", "imageId", "snapshotId", "sourceVolId")
_MOVING: Final = frozenset(
    {
        "creating",
        "downloading",
        "attaching",
        "detaching",
        "extending",
        "retyping",
        "uploading",
        "reserved",
        "backing-up",
        "restoring-backup",
        "maintenance",
    }
)

_REFERENCES: Final = {
    "imageId": "image by id",
    "snapshotId": "volume snapshot by id",
    "sourceVolId": "volume by id",
    "backupId": "backup by id",
    "volumeType": "volume type by name or id",
    "availabilityZone": "availability zone of volumes by name",
}
_HINTS: Final = Object(
    (
        Field("differentHosts", List(STRING), "Volumes whose hosts to avoid.", force_new=True),
        Field("sameHosts", List(STRING), "Volumes whose host to share.", force_new=True),
        Field("query", description="Conditional statement that the host has to meet.", force_new=True),
        Field("localToInstance", description="Instance whose host to use.", force_new=True),
        Field("additionalProperties", Map(STRING), "Further hints.", force_new=True),
    )
)


def _at_least_one(value: int) -> str | None:
    return None if value > 0 else "must be at least 1 (GiB)"


class Volume(RestType):
    """A volume. Growing it is an update; it cannot shrink."""

    token = "openstack:blockstorage/volume:Volume"
    description = "A volume of block storage."
    service = "block_storage"
    path = "/volumes"
    key = "volume"
    ready: ClassVar = frozenset({"available", "in-use"})
    failed: ClassVar = frozenset({"error", "error_extending", "error_restoring"})
    local: ClassVar = frozenset({"enableOnlineResize", "volumeRetypePolicy", "schedulerHints"})
    renamed: ClassVar = {
        "sourceVolId": "source_volid",
        "imageId": "imageRef",
        "consistencyGroupId": "consistencygroup_id",
    }
    fields = (
        REGION,
        Field("name", TRIMMED, "Name in the cloud.", computed=True, autoname=True),
        Field("description", TRIMMED, "Free text."),
        Field("size", INTEGER, "GiB.", required=True, validate=_at_least_one),
        Field("availabilityZone", computed=True, force_new=True),
        Field("metadata", Map(STRING), "Key and value pairs.", computed=True),
        *(
            Field(name, force_new=True, conflicts=tuple(other for other in _SOURCES if other != name))
            for name in _SOURCES
        ),
        Field("volumeType", computed=True),
        Field(
            "volumeRetypePolicy",
            description="Whether a change of volumeType may move the data.",
            default="never",
            choices=("never", "on-demand"),
        ),
        Field("enableOnlineResize", BOOLEAN, "Allow growing it while it is attached."),
        Field("consistencyGroupId", force_new=True),
        Field("sourceReplica", force_new=True),
        Field("schedulerHints", List(_HINTS, unordered=True), force_new=True),
        Field(
            "attachments",
            List(Object((Field("id"), Field("instanceId"), Field("device"))), unordered=True),
            output=True,
        ),
    )

    def references(self, inputs: Properties) -> Iterator[Reference]:
        for name, what in _REFERENCES.items():
            yield from references(name, what, inputs.get(name))

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        # What Cinder shows among the metadata of an attached volume is no difference.
        wanted, present = plain(news.get("metadata")), plain(olds.get("metadata"))
        if isinstance(wanted, dict) and isinstance(present, dict):
            own = {key: value for key, value in present.items() if key in wanted or key not in _ADMIN_METADATA}
            olds = {**olds, "metadata": own}
        return super().differences(olds, news)

    def diff(
        self, client: Cloud | None, old_inputs: Properties, olds: Properties, news: Properties, operation: Operation
    ) -> Iterator[Difference]:
        types = [plain(of.get("volumeType")) for of in (olds, news)]
        for item in super().diff(client, old_inputs, olds, news, operation):
            if item.path == "volumeType" and client and any(map(is_uuid, types)):
                service = self.api(client, plain(olds))
                if _type_name(service, types[0]) == _type_name(service, types[1]):
                    continue
            yield item

    def candidates(self, client: Cloud, service: Service, inputs: Properties) -> Iterable[Properties]:
        return service.list(f"{self.path}/detail", self.collection(), name=inputs["name"].strip())

    def fits(self, client: Cloud, item: Properties, inputs: Properties) -> bool:
        return item["size"] == inputs["size"] and super().fits(client, item, inputs)

    def post(self, service: Service, body: Properties, inputs: Properties, operation: Operation) -> Properties:
        for hints in (inputs.get("schedulerHints") or ())[:1]:
            found = to_api(_HINTS, hints)
            extra = found.pop("additional_properties", {})
            named = {key.removesuffix("s") if key.endswith("_hosts") else key: value for key, value in found.items()}
            body = {**body, "OS-SCH-HNT:scheduler_hints": {**named, **extra}}
        if given(inputs, "backupId"):
            item: Properties = service.post(self.path, body, microversion=_FROM_BACKUP)["volume"]
            return item
        return super().post(service, body, inputs, operation)

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        names = [
            "name",
            "description",
            "size",
            "availabilityZone",
            "metadata",
            "snapshotId",
            "sourceVolId",
            "volumeType",
        ]
        known = super().attributes(client, found, state)
        properties: Properties = {name: known[name] for name in names}
        if is_uuid(state.get("volumeType")):
            service = self.api(client, state)
            if _type_name(service, state["volumeType"]) == properties["volumeType"]:
                properties["volumeType"] = state["volumeType"]
        # An import finds the image here; but a volume made of a snapshot has its origin's image there too.
        image = (found.get("volume_image_metadata") or {}).get("image_id")
        if image and not state and not given(properties, "snapshotId", "sourceVolId"):
            properties["imageId"] = image
        properties["attachments"] = [
            {"id": item["id"], "instanceId": item["server_id"], "device": item["device"]}
            for item in found["attachments"]
        ]
        return properties

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        service = self.api(client, olds)
        volume = service.get(f"{self.path}/{id_}")[self.key]
        if volume["status"] in _MOVING:  # a create that timed out has left it so
            self.wait_ready(service, id_, operation)
        if volume["status"] in self.failed:
            raise ProviderError(
                f"volume {id_} is in status {volume['status']}",
                remedy=f"Replace it: run the update with --replace '{operation.urn}'.",
            )
        if news["size"] != volume["size"]:
            self._extend(service, volume, news, operation)
        wanted_type = _type_name(service, news.get("volumeType"))
        if wanted_type and wanted_type != volume["volume_type"]:
            retype = {"new_type": news["volumeType"], "migration_policy": news.get("volumeRetypePolicy") or "never"}
            service.post(f"{self.path}/{id_}/action", {"os-retype": retype})
            self.wait_ready(service, id_, operation)
            now = service.get(f"{self.path}/{id_}")[self.key]["volume_type"]
            if now != wanted_type:
                raise ProviderError(
                    f"volume {id_} is still of type {now}: the cloud did not retype it",
                    remedy="volumeRetypePolicy 'on-demand' allows to move the data to another backend.",
                )
        changed = self.changes(client, olds, news)
        body = {key: changed[key] for key in ("name", "description", "metadata") if key in changed}
        if body:
            service.put(f"{self.path}/{id_}", {"volume": body})

    def _extend(self, service: Service, volume: dict[str, Any], news: Properties, operation: Operation) -> None:
        id_ = volume["id"]
        if news["size"] < volume["size"]:
            raise ProviderError(
                f"volume {id_} has {volume['size']} GiB and cannot shrink to {news['size']}",
                remedy=f"Restore the size, or replace the volume (its data is lost): --replace '{operation.urn}'.",
            )
        attached = volume["status"] == "in-use"
        if attached and not news.get("enableOnlineResize"):
            raise ProviderError(
                f"volume {id_} is attached and cannot grow",
                remedy="Set enableOnlineResize to true, or detach it first.",
            )
        service.post(
            f"{self.path}/{id_}/action",
            {"os-extend": {"new_size": news["size"]}},
            microversion=_ONLINE_RESIZE if attached else None,
        )
        self.wait_ready(service, id_, operation)

    def wait_ready(self, service: Service, id_: str, operation: Operation) -> None:
        try:
            super().wait_ready(service, id_, operation)
        except (DeadlineError, CancelledError, CloudError):
            raise
        except ProviderError as error:
            reason = _reason(service, id_)
            raise ProviderError(
                f"{error}: {reason}" if reason else str(error),
                remedy=f"When its cause is gone, replace it: run the update with --replace '{operation.urn}'.",
            ) from error

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        service = self.api(client, state)
        compute = client.in_region(state.get("region")).compute
        detached: set[str] = set()
        asked = False

        def gone() -> bool | None:
            nonlocal asked
            answer = service.find(f"{self.path}/{id_}")
            if answer is None:
                return True
            volume = answer["volume"]
            for server in {item["server_id"] for item in volume["attachments"]} - detached:
                detached.add(server)
                try:
                    compute.delete(f"/servers/{server}/os-volume_attachments/{id_}")
                except CloudError as error:
                    if error.status != 409:  # somebody else is detaching it already
                        raise
            if volume["attachments"] or volume["status"] in _MOVING:
                return None
            if not asked:
                asked = True
                service.delete(f"{self.path}/{id_}")
            elif volume["status"] == "error_deleting":
                raise ProviderError(
                    f"the cloud could not delete volume {id_} (status error_deleting): {_reason(service, id_)}",
                    remedy="Try again; if it stays so, the cloud's operators have to delete it.",
                )
            return None

        operation.wait(f"volume {id_} to be gone", gone)


def _type_name(service: Service, given_type: str | None) -> str | None:
    """The name of a volume type that may be given by its id; Cinder returns the name."""
    answer = service.find(f"/types/{given_type}") if is_uuid(given_type) else None
    return answer["volume_type"]["name"] if answer else given_type


def _reason(service: Service, id_: str) -> str:
    """The cloud's message about the volume's last failure, if any (API 3.3)."""
    try:
        messages = service.get(
            "/messages", params={"resource_uuid": id_, "sort": "created_at:desc"}, microversion="3.5"
        )
    except CloudError:
        return ""
    return "; ".join(message["user_message"] for message in messages["messages"][:1])


TYPES: list[ResourceType[Cloud]] = [Volume()]
FUNCTIONS: list[Function[Cloud]] = []
