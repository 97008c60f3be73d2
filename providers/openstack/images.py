"""Images (Glance): made of a local file, of a URL fetched here, or of a URL that the cloud fetches itself."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import tempfile
import time
import uuid
from email.message import Message
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

import requests
import urllib3

from providers.framework import PROGRESS_SECONDS, Operation, ProviderError, ResourceType, Timeouts
from providers.openstack.client import Cloud, CloudError
from providers.openstack.rest import REGION, OpenStackType, delete_and_wait, from_api, given, only_candidate
from providers.schema import BOOLEAN, INTEGER, STRING, CheckFailure, Difference, Field, List, Map
from providers.values import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from providers.framework import Function
    from providers.values import Properties

VISIBILITIES: Final = ("public", "private", "shared", "community")
CHUNK: Final = 1024 * 1024  # bytes read at once
_READ_TIMEOUT: Final = 60.0  # without a byte from the server that an image is fetched from

# Attributes of an image that are not among its free properties.
_KNOWN: Final = frozenset(
    [
        "id",
        "name",
        "status",
        "tags",
        "container_format",
        "disk_format",
        "min_disk",
        "min_ram",
        "owner",
        "protected",
        "visibility",
        "os_hidden",
        "checksum",
        "size",
        "virtual_size",
        "metadata",
        "created_at",
        "updated_at",
        "file",
        "schema",
        "self",
        "locations",
    ]
)
# Properties that Glance keeps for itself: _disallowed_, _readonly_ and _reserved_properties in glance/api/v2/images.py.
_READ_ONLY: Final = frozenset(
    [
        "direct_url",
        "self",
        "file",
        "schema",
        "stores",
        "created_at",
        "updated_at",
        "status",
        "checksum",
        "size",
        "virtual_size",
        "id",
        "os_hash_algo",
        "os_hash_value",
        "location",
        "deleted",
        "deleted_at",
    ]
)
_RENAMED: Final = {"min_disk": "minDiskGb", "min_ram": "minRamMb", "os_hidden": "hidden"}
_CHANGEABLE: Final = {
    "visibility": "visibility",
    "protected": "protected",
    "hidden": "os_hidden",
    "minDiskGb": "min_disk",
    "minRamMb": "min_ram",
    "name": "name",
    "tags": "tags",
}


def search(cloud: Cloud, params: Properties) -> list[dict[str, Any]]:
    """All images that Glance's own filters find."""
    found: list[dict[str, Any]] = []
    while True:
        page = cloud.image.get("/images", params=params)
        found += page["images"]
        if not page.get("next"):
            return found
        params = {**params, "marker": page["images"][-1]["id"]}


def properties_of(image: dict[str, Any]) -> dict[str, str]:
    """An image's free properties."""
    return {key: value for key, value in image.items() if key not in _KNOWN and isinstance(value, str)}


def attributes(image: dict[str, Any]) -> Properties:
    """What the package says of an image, less its region."""
    return {
        "name": image["name"] or "",
        "containerFormat": image["container_format"] or "",
        "diskFormat": image["disk_format"] or "",
        "minDiskGb": image["min_disk"],
        "minRamMb": image["min_ram"],
        "protected": image["protected"],
        "hidden": image.get("os_hidden", False),
        "visibility": image["visibility"],
        "tags": sorted(image["tags"]),
        "properties": properties_of(image),
        "checksum": image["checksum"] or "",
        "createdAt": image["created_at"],
        "updatedAt": image["updated_at"],
        "file": image["file"],
        "metadata": {},
        "owner": image["owner"] or "",
        "schema": image["schema"],
        "sizeBytes": image["size"] or 0,
    }


def _read_only(key: str) -> bool:
    return key in _READ_ONLY or key.startswith("os_glance")


def _is_uuid(value: str) -> str | None:
    try:
        uuid.UUID(value)
    except ValueError:
        return "must be a UUID"
    return None


def _not_negative(value: int) -> str | None:
    return "must not be negative" if value < 0 else None


def _cache() -> str:
    return f"{os.environ.get('HOME', '')}/.terraform/image_cache"


class Image(OpenStackType):
    """An image and its data."""

    token = "openstack:images/image:Image"
    description = "An image, of a local file or of a URL."
    timeouts = Timeouts(create=1800)
    fields = (
        REGION,
        Field("name", computed=True, autoname=True),
        Field(
            "containerFormat",
            required=True,
            force_new=True,
            choices=("bare", "ovf", "aki", "ari", "ami", "ova", "docker", "compressed"),
        ),
        Field(
            "diskFormat",
            required=True,
            force_new=True,
            choices=("raw", "vhd", "vhdx", "vmdk", "vdi", "iso", "ploop", "qcow2", "aki", "ari", "ami"),
        ),
        Field("imageId", description="The id to create it with.", computed=True, force_new=True, validate=_is_uuid),
        Field(
            "localFilePath",
            description="File to upload.",
            force_new=True,
            conflicts=("imageSourceUrl", "imageSourceUsername", "imageSourcePassword", "webDownload"),
        ),
        Field("imageSourceUrl", description="URL of the data.", force_new=True, conflicts=("localFilePath",)),
        Field("imageSourceUsername", description="User at the URL, for a download here.", conflicts=("localFilePath",)),
        Field("imageSourcePassword", description="Password at the URL.", secret=True, conflicts=("localFilePath",)),
        Field(
            "imageCachePath",
            description="Folder that keeps what was downloaded here.",
            default=_cache,
            same=lambda _old, _new: True,
        ),
        Field(
            "webDownload",
            BOOLEAN,
            "Let the cloud fetch the URL itself.",
            conflicts=("localFilePath", "verifyChecksum", "decompress"),
        ),
        Field(
            "decompress",
            BOOLEAN,
            "Unpack what is downloaded here (gzip, bzip2, xz).",
            force_new=True,
            conflicts=("webDownload",),
        ),
        Field(
            "verifyChecksum",
            BOOLEAN,
            "Compare the cloud's MD5 with the file's; on unless false.",
            conflicts=("webDownload",),
        ),
        Field("minDiskGb", INTEGER, "GB of disk that an instance needs.", default=0, validate=_not_negative),
        Field("minRamMb", INTEGER, "MB of memory that an instance needs.", default=0, validate=_not_negative),
        Field("protected", BOOLEAN, "Refuse to delete it.", default=False),
        Field("hidden", BOOLEAN, "Hide it from lists.", default=False),
        Field("visibility", default="private", choices=VISIBILITIES),
        Field("tags", List(STRING, unordered=True)),
        Field("properties", Map(STRING), "Free properties, such as hw_disk_bus.", computed=True),
        *(
            Field(name, output=True)
            for name in ("checksum", "createdAt", "updatedAt", "file", "owner", "schema", "status")
        ),
        Field("metadata", Map(STRING), output=True),
        Field("sizeBytes", INTEGER, output=True),
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if inputs.get("webDownload") and not given(inputs, "imageSourceUrl"):
            yield CheckFailure("imageSourceUrl", "is required by webDownload")

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        # Properties that Glance adds are no difference.
        wanted, present = plain(news.get("properties")), plain(olds.get("properties"))
        if isinstance(wanted, dict) and isinstance(present, dict):
            own = {key: value for key, value in present.items() if not (_read_only(key) and key not in wanted)}
            olds = {**olds, "properties": own}
        return super().differences(olds, news)

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        # Not a check failure: an imported image has no source, and that of an old one may be gone.
        if not given(inputs, "localFilePath", "imageSourceUrl"):
            raise ProviderError("an image needs localFilePath or imageSourceUrl")
        if given(inputs, "localFilePath") and not Path(inputs["localFilePath"]).is_file():
            raise ProviderError(f"localFilePath is not a file: {inputs['localFilePath']}")
        service = client.in_region(inputs.get("region")).image
        body = {
            **(inputs.get("properties") or {}),
            **{key: inputs.get(name) for name, key in _CHANGEABLE.items() if given(inputs, name)},
            "container_format": inputs["containerFormat"],
            "disk_format": inputs["diskFormat"],
        }
        if given(inputs, "imageId"):
            body["id"] = inputs["imageId"]
        id_: str = service.post("/images", body)["id"]
        operation.created(id_)
        self._fill(client, id_, inputs, operation)
        return id_

    def _fill(self, client: Cloud, id_: str, inputs: Properties, operation: Operation) -> None:
        """Upload the data of an image that has none."""
        service = client.in_region(inputs.get("region")).image
        checksum = None
        if inputs.get("webDownload"):
            method = {"name": "web-download", "uri": inputs["imageSourceUrl"]}
            service.post(f"/images/{id_}/import", {"method": method})
        else:
            path = Path(inputs["localFilePath"]) if given(inputs, "localFilePath") else _download(inputs, operation)
            data = _Upload(path, operation)
            with data:
                service.request(
                    "PUT", f"/images/{id_}/file", data=data, headers={"Content-Type": "application/octet-stream"}
                )
            checksum = data.checksum()
        image = self._wait_active(client, id_, inputs, operation)
        if checksum and inputs.get("verifyChecksum", True) and image["checksum"] != checksum:
            raise ProviderError(
                f"image {id_} arrived damaged: its checksum is {image['checksum']}, the file's {checksum}",
                remedy=f"Replace it: run the update with --replace '{operation.urn}'.",
            )

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        cloud = client.in_region(inputs.get("region"))
        wanted = inputs["containerFormat"], inputs["diskFormat"], inputs.get("imageId") or None
        fitting = (
            image
            for image in search(cloud, {"name": inputs["name"], "owner": cloud.project_id})
            if (image["container_format"], image["disk_format"], wanted[2] and image["id"]) == wanted
        )
        found = only_candidate("image", fitting, operation)
        if found is None:
            return None
        id_: str = found["id"]
        operation.created(id_)
        if found["status"] == "queued":
            raise ProviderError(f"image {id_} has no data yet", remedy="The next update sends it.")
        self._wait_active(client, id_, inputs, operation)
        return id_

    @staticmethod
    def _wait_active(client: Cloud, id_: str, inputs: Properties, operation: Operation) -> dict[str, Any]:
        service = client.in_region(inputs.get("region")).image

        def active() -> dict[str, Any] | None:
            image: dict[str, Any] = service.get(f"/images/{id_}")
            if image["status"] == "active":
                return image
            if image["status"] in {"killed", "deleted", "pending_delete"} or image.get("os_glance_failed_import"):
                raise ProviderError(
                    f"image {id_} could not be filled (status {image['status']}){_import_failure(client, id_, inputs)}",
                    remedy="Check that the cloud can reach the URL and allows the web-download method.",
                )
            return None

        return operation.wait(f"image {id_} to be active", active)

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        image = cloud.image.find(f"/images/{quote(id_, safe='')}")
        if image is None or image["status"] in {"deleted", "pending_delete"}:
            return None
        return {**attributes(image), "imageId": id_, "status": image["status"], "region": cloud.region}

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        service = client.in_region(olds.get("region")).image

        def settled() -> dict[str, Any] | None:
            found: dict[str, Any] = service.get(f"/images/{id_}")
            return None if found["status"] in {"saving", "uploading", "importing"} else found

        image = operation.wait(f"image {id_} to be settled", settled)
        changed = self.changed(olds, news)
        kinds = {field.name: field.kind for field in self.fields}
        patch = [
            {"op": "replace", "path": f"/{key}", "value": from_api(kinds[name], news.get(name))}
            for name, key in _CHANGEABLE.items()
            if name in changed
        ]
        if news.get("properties") is not None:
            patch += _property_patch(properties_of(image), news["properties"])
        if patch:
            service.patch(
                f"/images/{id_}", patch, headers={"Content-Type": "application/openstack-images-v2.1-json-patch"}
            )
        if image["status"] == "queued":  # its create was interrupted before the upload
            self._fill(client, id_, {**news, "region": olds.get("region")}, operation)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        service = client.in_region(state.get("region")).image
        if (service.find(f"/images/{id_}") or {}).get("protected"):
            raise ProviderError(f"image {id_} is protected", remedy="Set protected to false and update first.")
        delete_and_wait(service, f"/images/{id_}", f"image {id_}", operation)


def _property_patch(present: dict[str, str], wanted: dict[str, str]) -> Iterator[dict[str, Any]]:
    for key, value in wanted.items():
        if present.get(key) != value and not _read_only(key):
            yield {"op": "replace" if key in present else "add", "path": _pointer(key), "value": value}
    for key in present:
        if key not in wanted and not _read_only(key):
            yield {"op": "remove", "path": _pointer(key)}


def _pointer(key: str) -> str:
    # JSON pointer, RFC 6901.
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _import_failure(client: Cloud, id_: str, inputs: Properties) -> str:
    """The error of the image's task after a failed import; empty where the cloud has none."""
    try:
        tasks = client.in_region(inputs.get("region")).image.get(f"/images/{id_}/tasks")["tasks"]
    except CloudError:
        return ""
    return "".join(f": {task['message']}" for task in tasks[:1] if task.get("message"))


class _Upload:
    """A file as a request's body, which reports progress and computes the checksum."""

    def __init__(self, path: Path, operation: Operation) -> None:
        self._path = path
        self._operation = operation
        self._sum = hashlib.md5(usedforsecurity=False)
        self._sent = 0
        self._reported = time.monotonic()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Upload:
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise ProviderError(f"cannot read {self._path}: {error.strerror}") from error
        self._size = os.fstat(self._file.fileno()).st_size
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = CHUNK) -> bytes:
        self._operation.check(f"the upload of {self._path.name}")
        assert self._file
        chunk = self._file.read(max(size, CHUNK))
        self._sum.update(chunk)
        self._sent += len(chunk)
        if time.monotonic() - self._reported > PROGRESS_SECONDS:
            self._reported = time.monotonic()
            self._operation.status(f"uploaded {self._sent >> 20} of {self._size >> 20} MiB")
        return chunk

    def checksum(self) -> str:
        return self._sum.hexdigest()


def _download(inputs: Properties, operation: Operation) -> Path:
    """The image's data, fetched into the cache unless it is there already."""
    url, unpack = inputs["imageSourceUrl"], bool(inputs.get("decompress"))
    folder = Path(inputs.get("imageCachePath") or _cache())
    # The official plugin's file name for the same download, so that both share it.
    digest = hashlib.md5(f"{url}{str(unpack).lower()}".encode(), usedforsecurity=False).hexdigest()
    target = folder / f"{digest}.img"
    if target.is_file() and target.stat().st_size:
        return target
    user, password = inputs.get("imageSourceUsername"), inputs.get("imageSourcePassword")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tempfile.NamedTemporaryFile(dir=folder, prefix=f"{digest}.") as file,
            requests.get(
                url,
                stream=True,
                timeout=_READ_TIMEOUT,
                auth=(user, password) if user and password else None,
                headers={"Accept-Encoding": "identity"},
            ) as response,
        ):
            response.raise_for_status()
            source = _unpacked(response) if unpack else response.raw
            reported = time.monotonic()
            while chunk := source.read(CHUNK):
                operation.check(f"the download of {url}")
                file.write(chunk)
                if time.monotonic() - reported > PROGRESS_SECONDS:
                    reported = time.monotonic()
                    operation.status(f"downloaded {file.tell() >> 20} MiB")
            file.flush()
            os.fsync(file.fileno())
            target.unlink(missing_ok=True)
            os.link(file.name, target)
    except FileExistsError:  # another image with the same URL has fetched it meanwhile
        pass
    # Failures of requests are OSErrors, those of the stream below it urllib3's.
    except (OSError, EOFError, lzma.LZMAError, urllib3.exceptions.HTTPError) as error:
        raise ProviderError(
            f"cannot download {url}: {error}", remedy="Check the URL, its user and password, and the space on the disk."
        ) from error
    return target


def _unpacked(response: requests.Response) -> gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile:
    disposition = Message()
    disposition["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    name = disposition.get_filename() or ""
    kinds = [response.headers.get("Content-Type", "").partition(";")[0], Path(name).suffix.lstrip(".")]
    raw: Any = response.raw
    for kind in kinds:
        match kind.removeprefix("application/").removeprefix("x-"):
            case "gz" | "gzip":
                return gzip.GzipFile(fileobj=raw)
            case "bz2" | "bzip2":
                return bz2.BZ2File(raw)
            case "xz":
                return lzma.LZMAFile(raw)
            case "zst" | "zstd":
                raise ProviderError("zstd images cannot be unpacked here", remedy="Unpack it and use localFilePath.")
    raise ProviderError(
        f"the compression of {response.url} is not known: type {kinds[0] or 'none'}, file name {name or 'none'}",
        remedy="Leave decompress out, or unpack it and use localFilePath.",
    )


TYPES: list[ResourceType[Cloud]] = [Image()]
FUNCTIONS: list[Function[Cloud]] = []
