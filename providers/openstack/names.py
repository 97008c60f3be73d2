"""What inputs refer to by a name or an id: whether the cloud has it, once, and can use it.

The cloud itself says so only when it creates the resource. A resource that is replaced may be deleted by then, so a
preview asks first. It asks for what is new or has changed: an existing server keeps running without its image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from providers.openstack.client import CloudError
from providers.openstack.normal import is_uuid
from providers.schema import CheckFailure, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from providers.openstack.client import Cloud
    from providers.values import Properties

MADE_HERE: Final = {
    "openstack:images/image:Image": "image by name",
    "openstack:compute/keypair:Keypair": "key pair by name",
    "openstack:networking/network:Network": "network by name",
    "openstack:networking/secGroup:SecGroup": "security group by name or id",
}
"""The types whose resources others refer to by a name: a preview remembers the names of those it would create."""

_HIDDEN: Final = frozenset({403, 404})
"""Statuses of a collection that this cloud does not have, or does not show: nothing can be said then."""
_LISTED: Final = 8


@dataclass(frozen=True)
class Reference:
    """An input at ``path`` that refers to something by ``value``, as ``what`` (a key of ``_LOOKUPS``) says."""

    path: str
    what: str
    value: str


def references(path: str, what: str, value: Any) -> Iterator[Reference]:
    """The reference, where the value is known and not empty."""
    if isinstance(value, str) and value:
        yield Reference(path, what, value)


def note(cloud: Cloud, token: str, name: Any) -> None:
    """Remember a name that a preview would create, and that the cloud does not have yet."""
    if token in MADE_HERE and isinstance(name, str):
        cloud.known[MADE_HERE[token], name] = {}


def faults(cloud: Cloud, before: Iterable[Reference], now: Iterable[Reference]) -> Iterator[CheckFailure]:
    """What is wrong with the references that were not there before; ``before`` is empty for a create."""
    unchanged = {(item.what, item.value) for item in before}
    for item in now:
        if (item.what, item.value) not in unchanged and (reason := _fault(cloud, item)):
            yield CheckFailure(item.path, reason)


def find(cloud: Cloud, item: Reference) -> Properties | None:
    """What is referred to; None where that is not one thing. Empty where this program would create it."""
    key = item.what, item.value
    if key not in cloud.known:
        found, _ = _LOOKUPS[item.what](cloud, item.value)
        if len(found) != 1:
            return None
        cloud.known[key] = found[0]
    return cloud.known[key]


def _fault(cloud: Cloud, item: Reference) -> str | None:
    try:
        if find(cloud, item) is not None:
            return None
        found, known = _LOOKUPS[item.what](cloud, item.value)
        noun, _, by = item.what.partition(" by ")
        if found:
            ids = ", ".join(sorted(str(one["id"]) for one in found))
            return f"{len(found)} {noun}s of this cloud are named {item.value!r} ({ids}); an id is always unique"
        names = sorted(known())
    except CloudError as error:
        if error.status in _HIDDEN:
            return None
        raise
    hint = did_you_mean(item.value, names)
    listed = f"; there are {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}" if names else ""
    return f"no {noun} of this cloud has the {by} {item.value!r}{hint or listed}"


_Lookup = tuple[list["Properties"], "Callable[[], Iterable[str]]"]


def _nothing() -> list[str]:
    return []


def _image_name(cloud: Cloud, value: str) -> _Lookup:
    def known() -> list[str]:
        return [image["name"] or "" for image in cloud.image.list("/images", "images")]

    return list(cloud.image.list("/images", "images", name=value)), known


def _by_id(service: str, path: str, key: str = "") -> Callable[[Cloud, str], _Lookup]:
    def look_up(cloud: Cloud, value: str) -> _Lookup:
        answer = cloud.service(service).find(f"{path}/{quote(value, safe='')}")
        return ([answer[key] if key else answer] if answer else []), _nothing

    return look_up


def _flavor_name(cloud: Cloud, value: str) -> _Lookup:
    every = list(cloud.compute.list("/flavors/detail", "flavors", is_public="None"))
    return [item for item in every if item["name"] == value], lambda: [item["name"] for item in every]


def _key_pair(cloud: Cloud, value: str) -> _Lookup:
    def known() -> list[str]:
        return [item["keypair"]["name"] for item in cloud.compute.get("/os-keypairs")["keypairs"]]

    answer = cloud.compute.find(f"/os-keypairs/{quote(value, safe='')}")
    return ([answer["keypair"]] if answer else []), known


def _network_name(cloud: Cloud, value: str) -> _Lookup:
    def known() -> list[str]:
        return [item["name"] for item in cloud.network.list("/networks", "networks")]

    return list(cloud.network.list("/networks", "networks", name=value)), known


def _pool(cloud: Cloud, value: str) -> _Lookup:
    """An external network by its name or id."""

    def known() -> list[str]:
        return [item["name"] for item in cloud.network.list("/networks", "networks", **{"router:external": True})]

    found = list(cloud.network.list("/networks", "networks", name=value))
    return found or list(cloud.network.list("/networks", "networks", id=value)), known


def _security_group(cloud: Cloud, value: str) -> _Lookup:
    """A group of the project, by its name or id."""
    path, key = "/security-groups", "security_groups"
    if value == "default":  # Neutron makes it when the project first needs one
        return [{}], _nothing
    found = list(cloud.network.list(path, key, id=value)) if is_uuid(value) else []

    def known() -> list[str]:
        return [item["name"] for item in cloud.network.list(path, key)]

    return found or list(cloud.network.list(path, key, name=value, project_id=cloud.project_id)), known


def _zone(service: str) -> Callable[[Cloud, str], _Lookup]:
    def look_up(cloud: Cloud, value: str) -> _Lookup:
        every = [
            item["zoneName"]
            for item in cloud.service(service).get("/os-availability-zone")["availabilityZoneInfo"]
            if item["zoneState"]["available"]
        ]
        # Nova takes zone:host:node, too.
        return [{"id": name} for name in every if name == value.partition(":")[0]], lambda: every

    return look_up


def _network_zone(resource: str) -> Callable[[Cloud, str], _Lookup]:
    def look_up(cloud: Cloud, value: str) -> _Lookup:
        every = {
            item["name"]
            for item in cloud.network.list("/availability_zones", "availability_zones")
            if item["resource"] == resource
        }
        return [{"id": name} for name in every if name == value], lambda: every

    return look_up


def _volume_type(cloud: Cloud, value: str) -> _Lookup:
    every = list(cloud.block_storage.list("/types", "volume_types", is_public="None"))
    return [item for item in every if value in (item["name"], item["id"])], lambda: [item["name"] for item in every]


_LOOKUPS: Final[dict[str, Callable[[Cloud, str], _Lookup]]] = {
    "image by name": _image_name,
    "image by id": _by_id("image", "/images"),
    "flavor by name": _flavor_name,
    "flavor by id": _by_id("compute", "/flavors", "flavor"),
    "key pair by name": _key_pair,
    "server group by id": _by_id("compute", "/os-server-groups", "server_group"),
    "network by name": _network_name,
    "network by id": _by_id("network", "/networks", "network"),
    "external network by name or id": _pool,
    "security group by name or id": _security_group,
    "availability zone of servers by name": _zone("compute"),
    "availability zone of volumes by name": _zone("block_storage"),
    "availability zone of networks by name": _network_zone("network"),
    "availability zone of routers by name": _network_zone("router"),
    "volume type by name or id": _volume_type,
    "volume by id": _by_id("block_storage", "/volumes", "volume"),
    "volume snapshot by id": _by_id("block_storage", "/snapshots", "snapshot"),
    "backup by id": _by_id("block_storage", "/backups", "backup"),
}
"""What can be looked up: the thing, and what it is known by."""
