"""Containers and objects (Swift, or another service that speaks its API)."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import quote

from providers.framework import Operation, ProviderError, ResourceType
from providers.openstack.client import Cloud, CloudError
from providers.openstack.normal import ACCESS_LIST, SECOND, instant
from providers.openstack.rest import REGION, OpenStackType, given, pair
from providers.schema import BOOLEAN, INTEGER, STRING, CheckFailure, Field, Map, Object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from providers.framework import Function
    from providers.values import Properties

# Headers of a container that a POST changes and an empty value removes.
_HEADERS: Final = {
    "containerRead": "X-Container-Read",
    "containerWrite": "X-Container-Write",
    "containerSyncTo": "X-Container-Sync-To",
    "containerSyncKey": "X-Container-Sync-Key",
    "contentType": "Content-Type",
}
_LEGACY: Final = {"versions": "X-Versions-Location", "history": "X-History-Location"}


def _metadata(prefix: str, headers: Mapping[str, str], known: Mapping[str, str] | None) -> dict[str, str]:
    """The metadata among the headers. Swift changes the case of keys: those that are known keep theirs."""
    spelled = {key.lower(): key for key in known or ()}
    found = {
        key.lower().removeprefix(prefix): value for key, value in headers.items() if key.lower().startswith(prefix)
    }
    return {spelled.get(key, key): value for key, value in found.items() if known is None or key in spelled}


class Container(OpenStackType):
    """A container; its id is its name.

    A change of the name replaces it. (The official plugin accepts the change and then does nothing.)
    """

    token = "openstack:objectstorage/container:Container"
    import_id = "<name>"
    description = "A container of objects."
    fields = (
        REGION,
        Field(
            "name",
            computed=True,
            autoname=True,
            force_new=True,
            validate=lambda name: "must not contain a slash" if "/" in name else None,
        ),
        Field("containerRead", ACCESS_LIST, "Who may read, such as .r:*"),
        Field("containerWrite", ACCESS_LIST, "Who may write."),
        Field("containerSyncTo"),
        Field("containerSyncKey"),
        Field("contentType"),
        Field("versioning", BOOLEAN, "Keep old versions of objects.", default=False, conflicts=("versioningLegacy",)),
        Field(
            "versioningLegacy",
            Object(
                (
                    Field("type", required=True, choices=tuple(_LEGACY)),
                    Field("location", description="Container of the old versions.", required=True),
                )
            ),
            conflicts=("versioning",),
        ),
        Field("metadata", Map(STRING)),
        Field("forceDestroy", BOOLEAN, "Delete it with all its objects.", default=False),
        Field("storagePolicy", computed=True, force_new=True),
        Field("storageClass", description="Ceph only.", computed=True, force_new=True),
    )

    @staticmethod
    def _path(name: str) -> str:
        return f"/{quote(name, safe='')}"

    @staticmethod
    def _headers(olds: Properties, news: Properties) -> dict[str, str]:
        headers = {
            header: news.get(name) or ""
            for name, header in _HEADERS.items()
            if (news.get(name) or "") != (olds.get(name) or "")
        }
        before, after = olds.get("metadata") or {}, news.get("metadata") or {}
        for key in before.keys() | after.keys():
            if before.get(key) != after.get(key):
                headers[f"X-Container-Meta-{key}"] = after.get(key, "")
        if bool(olds.get("versioning")) != bool(news.get("versioning")):
            headers["X-Versions-Enabled"] = str(bool(news.get("versioning"))).lower()
        was, now = olds.get("versioningLegacy") or {}, news.get("versioningLegacy") or {}
        if was.get("type") and was.get("type") != now.get("type"):
            headers[f"X-Remove-{_LEGACY[was['type']].removeprefix('X-')}"] = "true"
        if now and now != was:
            headers[_LEGACY[now["type"]]] = now["location"]
        return headers

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        store = client.in_region(inputs.get("region")).object_store
        headers = {key: value for key, value in self._headers({}, inputs).items() if value}
        for field, header in (("storagePolicy", "X-Storage-Policy"), ("storageClass", "X-Object-Storage-Class")):
            if given(inputs, field):
                headers[header] = inputs[field]
        name: str = inputs["name"]
        store.request("PUT", self._path(name), headers=headers)
        return name

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        name: str = inputs["name"]
        return name if _head(client.in_region(inputs.get("region")), self._path(name)) is not None else None

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        headers = _head(cloud, self._path(id_))
        if headers is None:
            return None
        legacy = next(
            ({"type": kind, "location": headers[header]} for kind, header in _LEGACY.items() if headers.get(header)),
            None,
        )
        return {
            "name": id_,
            "containerRead": headers.get("X-Container-Read", ""),
            "containerWrite": headers.get("X-Container-Write", ""),
            "metadata": _metadata("x-container-meta-", headers, state.get("metadata") or {} if state else None),
            "versioning": headers.get("X-Versions-Enabled", "").lower() == "true",
            **({"versioningLegacy": legacy} if legacy or state.get("versioningLegacy") else {}),
            "storagePolicy": headers.get("X-Storage-Policy", ""),
            "storageClass": headers.get("X-Storage-Class", ""),
            "region": cloud.region,
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        store = client.in_region(olds.get("region")).object_store
        headers = self._headers(olds, news)
        # One kind of versioning has to be off before the other can be turned on.
        off = {
            key: value
            for key, value in headers.items()
            if key.startswith("X-Remove-") or (key == "X-Versions-Enabled" and value == "false")
        }
        for some in (off, {key: value for key, value in headers.items() if key not in off}):
            if some:
                store.request("POST", self._path(id_), headers=some)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        store = client.in_region(state.get("region")).object_store
        path = self._path(id_)

        def gone() -> bool | None:
            try:
                store.delete(path)
            except CloudError as error:
                if error.status != 409:
                    raise
                if not state.get("forceDestroy"):
                    raise ProviderError(
                        f"container {id_} is not empty: {error.args[0]}",
                        remedy="Delete its objects, or set forceDestroy to true and update first.",
                    ) from error
                self._empty(client, id_, state, operation)
                return None
            return True

        operation.wait(f"container {id_} to be gone", gone)

    def _empty(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        store = client.in_region(state.get("region")).object_store
        params = {"format": "json", "limit": 1000, **({"versions": "true"} if state.get("versioning") else {})}
        while listed := store.get(self._path(id_), params=params):
            operation.status(f"deleting the objects of container {id_}")
            for item in listed:
                operation.check(f"the objects of container {id_} to be deleted")
                version = {"version-id": item["version_id"]} if item.get("version_id") else None
                store.delete(f"{self._path(id_)}/{quote(item['name'])}", params=version)


def _head(cloud: Cloud, path: str) -> Mapping[str, str] | None:
    try:
        return cloud.object_store.request("HEAD", path).headers
    except CloudError as error:
        if error.status == 404:
            return None
        raise


_SOURCES: Final = ("content", "copyFrom", "objectManifest", "source")
_OBJECT_HEADERS: Final = {
    "contentDisposition": "Content-Disposition",
    "contentEncoding": "Content-Encoding",
    "contentType": "Content-Type",
    "deleteAfter": "X-Delete-After",
    "objectManifest": "X-Object-Manifest",
    "copyFrom": "X-Copy-From",
    "etag": "ETag",
}


def _is_time(value: str) -> str | None:
    try:
        return None if datetime.fromisoformat(value).tzinfo else "must have a time zone"
    except ValueError:
        return "must be a time (RFC 3339), such as 2027-01-31T12:00:00Z"


class ContainerObject(OpenStackType):
    """An object; its id is ``<container>/<name>``."""

    token = "openstack:objectstorage/containerObject:ContainerObject"
    import_id = "<container>/<name>"
    description = "An object of a container."
    fields = (
        REGION,
        Field("containerName", required=True, force_new=True),
        Field("name", computed=True, autoname=True, force_new=True),
        Field("content", description="The data itself.", conflicts=("copyFrom", "objectManifest", "source")),
        Field("source", description="File with the data.", conflicts=("content", "copyFrom", "objectManifest")),
        Field(
            "copyFrom",
            description="<container>/<object> to copy.",
            conflicts=("content", "contentDisposition", "contentEncoding", "contentType", "objectManifest", "source"),
        ),
        Field(
            "objectManifest",
            description="<container>/<prefix> of the segments.",
            computed=True,
            conflicts=("content", "copyFrom", "source"),
        ),
        *(
            Field(name, computed=True, conflicts=("copyFrom",))
            for name in ("contentDisposition", "contentEncoding", "contentType")
        ),
        Field("deleteAfter", INTEGER, "Seconds."),
        Field("deleteAt", SECOND, "RFC 3339.", computed=True, validate=_is_time),
        Field("detectContentType", BOOLEAN, default=False),
        Field("etag", description="MD5 of the data; a change uploads it again.", computed=True),
        Field("metadata", Map(STRING)),
        Field("contentLength", INTEGER, output=True),
        *(Field(name, output=True) for name in ("date", "lastModified", "transId")),
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if not given(inputs, *_SOURCES) and inputs.get("content") is None:
            yield CheckFailure("content", "or source, copyFrom or objectManifest is required")

    @staticmethod
    def _path(id_: str) -> str:
        container, name = pair(id_, "an object")
        return f"/{quote(container, safe='')}/{quote(name)}"

    def _put(self, client: Cloud, inputs: Properties, path: str, operation: Operation) -> None:
        headers = {header: str(inputs[name]) for name, header in _OBJECT_HEADERS.items() if given(inputs, name)}
        if "etag" in operation.defaults:
            headers.pop("ETag", None)
        if given(inputs, "deleteAt"):
            headers["X-Delete-At"] = str(int(instant(inputs["deleteAt"]).timestamp()))
        if inputs.get("detectContentType"):
            headers["X-Detect-Content-Type"] = "true"
        headers |= {f"X-Object-Meta-{key}": value for key, value in (inputs.get("metadata") or {}).items()}
        with closing(_data(inputs)) as data:
            client.in_region(inputs.get("region")).object_store.request("PUT", path, data=data, headers=headers)

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        id_ = f"{inputs['containerName']}/{inputs['name']}"
        self._put(client, inputs, self._path(id_), operation)
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        id_ = f"{inputs['containerName']}/{inputs['name']}"
        headers = _head(client.in_region(inputs.get("region")), self._path(id_))
        # An older object of that name is the one that the create was to overwrite.
        if headers is None or not operation.may_have_made(parsedate_to_datetime(headers["Last-Modified"]).isoformat()):
            return None
        return id_

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        headers = _head(cloud, self._path(id_))
        if headers is None:
            return None
        container, name = pair(id_, "an object")
        expires = headers.get("X-Delete-At")
        return {
            "containerName": container,
            "name": name,
            "contentDisposition": headers.get("Content-Disposition", ""),
            "contentEncoding": headers.get("Content-Encoding", ""),
            "contentType": headers.get("Content-Type", ""),
            "contentLength": int(headers.get("Content-Length", 0)),
            "deleteAt": _rfc3339(datetime.fromtimestamp(int(expires), UTC)) if expires else "",
            "etag": headers.get("ETag", "").strip('"'),
            "metadata": _metadata("x-object-meta-", headers, state.get("metadata") or {} if state else None),
            "objectManifest": headers.get("X-Object-Manifest", ""),
            "date": _rfc3339(parsedate_to_datetime(headers["Date"])) if "Date" in headers else "",
            "lastModified": _rfc3339(parsedate_to_datetime(headers["Last-Modified"])),
            "transId": headers.get("X-Trans-Id", ""),
            "region": cloud.region,
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        self._put(client, {**news, "region": olds.get("region")}, self._path(id_), operation)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        client.in_region(state.get("region")).object_store.delete(self._path(id_))


def _data(inputs: Properties) -> IO[bytes]:
    if not given(inputs, "source"):
        return BytesIO((inputs.get("content") or "").encode())
    try:
        return Path(inputs["source"]).expanduser().open("rb")
    except OSError as error:
        raise ProviderError(f"cannot read {inputs['source']}: {error.strerror}") from error


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


TYPES: list[ResourceType[Cloud]] = [Container(), ContainerObject()]
FUNCTIONS: list[Function[Cloud]] = []
