"""Instances (servers)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

from providers import schema
from providers.framework import UNRECOVERABLE, DeadlineError, ProviderError, Timeouts
from providers.openstack import names
from providers.openstack.client import Cloud, CloudError
from providers.openstack.compute.actions import GONE, InstanceError, act, detach, reach, remove, switch
from providers.openstack.compute.answers import (
    BOOTED_FROM_VOLUME,
    access_addresses,
    boot_volumes,
    flavor_of,
    image_of,
    needs_image,
    networks_of,
    regrouped,
    security_groups_of,
)
from providers.openstack.compute.attachments import MULTIATTACH
from providers.openstack.names import references
from providers.openstack.normal import ADDRESS, unset
from providers.openstack.rest import (
    ALL_TAGS,
    NAME,
    REGION,
    TAGS,
    OpenStackType,
    given,
    only_candidate,
    snake,
    to_api,
)
from providers.schema import BOOLEAN, INTEGER, STRING, CheckFailure, Difference, Field, List, Map, Object
from providers.values import Unknown, contains, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from providers.framework import Operation
    from providers.openstack.client import Service
    from providers.openstack.names import Reference
    from providers.values import Properties

NETWORK_MODE: Final = "2.37"
TAGS_AT_CREATE: Final = "2.52"
VOLUME_TYPE: Final = "2.67"
HOST_AT_CREATE: Final = "2.74"
TAGS_IN_SERVER: Final = "2.26"  # 2.46 is the last one that returns the flavor's id
POWER_STATES: Final = ("active", "shutoff", "shelved_offloaded", "paused")


def _hash(user_data: str) -> str:
    """The state has the SHA-1 of user data, which may be large, as with the official plugin."""
    return hashlib.sha1(user_data.encode()).hexdigest() if user_data else ""  # noqa: S324 - no secret is protected


def _same_user_data(old: str | None, new: str | None) -> bool:
    """Whether two user data are the same for Nova; base64 is accepted, too."""
    text = new or ""
    decoded = base64.b64decode(text).decode(errors="replace") if _base64(text) == text else text
    spellings = [text, _base64(text), *([decoded] if _base64(decoded) == text else [])]
    return (old or "") in (text, *map(_hash, spellings))


def _same_zone(old: str | None, new: str | None) -> bool:
    """``zone:host:node`` requests a host in a zone; Nova returns only the zone."""
    return old == new or (new is not None and ":" in new and new.partition(":")[0] == old)


def _same_power(old: str | None, new: str | None) -> bool:
    # An instance in these states cannot be switched on or off: that is no reason for an update.
    return old in ("error", "migrating") or (old or "").lower() == (new or "").lower()


_SCHEDULER_HINTS: Final = Object(
    (
        Field("group", description="Id of a server group.", force_new=True),
        Field("differentHosts", List(STRING), force_new=True),
        Field("sameHosts", List(STRING), force_new=True),
        Field("queries", List(STRING), force_new=True),
        Field("targetCell", force_new=True),
        Field("differentCells", List(STRING), force_new=True),
        Field("buildNearHostIp", force_new=True),
        Field("additionalProperties", Map(STRING), "Such as reservation.", force_new=True),
    )
)
_SOURCES: Final = {"image": "image by id", "volume": "volume by id", "snapshot": "volume snapshot by id"}
_HINT_NAMES: Final = {
    "differentHosts": "different_host",
    "sameHosts": "same_host",
    "queries": "query",
    "differentCells": "different_cell",
}
_BLOCK_DEVICE: Final = Object(
    (
        Field("sourceType", required=True, choices=("blank", "image", "snapshot", "volume"), force_new=True),
        Field("uuid", description="Of the image, snapshot or volume.", force_new=True),
        Field("volumeSize", INTEGER, "GB.", force_new=True),
        Field("destinationType", choices=("local", "volume"), force_new=True),
        Field("bootIndex", INTEGER, force_new=True),
        Field("deleteOnTermination", BOOLEAN, default=False, force_new=True),
        Field("guestFormat", force_new=True),
        Field("volumeType", force_new=True),
        Field("deviceType", force_new=True),
        Field("diskBus", force_new=True),
        Field("multiattach", BOOLEAN, default=False, force_new=True),
    )
)
_NETWORK: Final = Object(
    (
        Field("uuid", computed=True, force_new=True, same=unset),
        Field("name", computed=True, force_new=True, same=unset),
        Field("port", computed=True, force_new=True, same=unset),
        Field("fixedIpV4", ADDRESS, computed=True, force_new=True, same=unset),
        Field("fixedIpV6", ADDRESS, computed=True, force_new=True, same=unset),
        Field("mac", output=True),
        Field("accessNetwork", BOOLEAN, "Use its address as the instance's.", default=False),
    )
)


class Instance(OpenStackType):
    token = "openstack:compute/instance:Instance"
    description = "An instance (server)."
    timeouts = Timeouts(create=1800, update=1800, delete=1800)
    fields = (
        REGION,
        NAME,
        Field("imageId", computed=True),
        Field("imageName", computed=True),
        Field("flavorId", computed=True),
        Field("flavorName", computed=True),
        Field("userData", description="cloud-init's; the state keeps its SHA-1.", force_new=True, same=_same_user_data),
        Field("securityGroups", List(STRING, unordered=True), "Names or ids.", computed=True),
        Field("availabilityZoneHints", force_new=True, conflicts=("availabilityZone",)),
        Field(
            "availabilityZone",
            computed=True,
            force_new=True,
            conflicts=("availabilityZoneHints",),
            same=_same_zone,
        ),
        Field("networkMode", force_new=True, choices=("auto", "none"), conflicts=("networks",)),
        Field("networks", List(_NETWORK), computed=True, force_new=True, conflicts=("networkMode",)),
        Field("hypervisorHostname", computed=True, force_new=True, conflicts=("personalities",)),
        Field("metadata", Map(STRING)),
        Field("configDrive", BOOLEAN, force_new=True),
        Field("adminPass", secret=True),
        Field("accessIpV4", output=True),
        Field("accessIpV6", output=True),
        Field("keyPair", force_new=True),
        Field("blockDevices", List(_BLOCK_DEVICE)),
        Field("schedulerHints", List(_SCHEDULER_HINTS, unordered=True)),
        Field(
            "personalities",
            List(Object((Field("file", required=True), Field("content", required=True))), unordered=True),
            conflicts=("hypervisorHostname",),
        ),
        Field("stopBeforeDestroy", BOOLEAN, default=False),
        Field("forceDelete", BOOLEAN, default=False),
        Field("allMetadata", Map(STRING), output=True),
        Field("powerState", default="active", choices=POWER_STATES, same=_same_power),
        TAGS,
        ALL_TAGS,
        Field(
            "vendorOptions",
            Object(
                (
                    Field("ignoreResizeConfirmation", BOOLEAN, default=False),
                    Field("detachPortsBeforeDestroy", BOOLEAN, default=False),
                )
            ),
        ),
        Field("created", output=True),
        Field("updated", output=True),
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if not given(inputs, "flavorId", "flavorName") and not _environment("FLAVOR"):
            yield CheckFailure("flavorId", "is required, or flavorName")
        devices = inputs.get("blockDevices") or []
        if isinstance(devices, Unknown):
            return
        if needs_image(devices) and not given(inputs, "imageId", "imageName") and not _environment("IMAGE"):
            yield CheckFailure("imageId", "is required, or imageName, or a bootable block device")
        for index, device in enumerate(devices):
            source, target = device.get("sourceType"), device.get("destinationType")
            if source != "blank" and not device.get("uuid"):
                yield CheckFailure(f"blockDevices[{index}].uuid", f"is required with the source type {source}")
            sized = (source, target) in {("image", "volume"), ("blank", "local")}
            if sized and not device.get("volumeSize"):
                yield CheckFailure(
                    f"blockDevices[{index}].volumeSize", f"is required for a {target} disk made of source type {source}"
                )
        networks = inputs.get("networks") or []
        for index, network in enumerate(networks if isinstance(networks, list) else ()):
            if isinstance(network, dict) and not given(network, "uuid", "name", "port"):
                yield CheckFailure(f"networks[{index}]", "needs uuid, name or port")
        hints = inputs.get("schedulerHints")
        if isinstance(hints, list) and len(hints) > 1:
            yield CheckFailure("schedulerHints", "has more than one item")

    def references(self, inputs: Properties) -> Iterator[Reference]:
        devices = _known_items(inputs, "blockDevices")
        yield from _flavor(inputs)
        yield from _image(inputs)
        yield from references("keyPair", "key pair by name", inputs.get("keyPair"))
        for name in ("availabilityZone", "availabilityZoneHints"):
            yield from references(name, "availability zone of servers by name", inputs.get(name))
        groups = inputs.get("securityGroups")
        for index, group in enumerate(groups if isinstance(groups, list) else ()):
            yield from references(f"securityGroups[{index}]", "security group by name or id", group)
        for index, network in _known_items(inputs, "networks"):
            if network.get("port"):
                continue
            by, key = ("id", "uuid") if network.get("uuid") else ("name", "name")
            yield from references(f"networks[{index}].{key}", f"network by {by}", network.get(key))
        for index, device in devices:
            if source := _SOURCES.get(device.get("sourceType") or ""):
                yield from references(f"blockDevices[{index}].uuid", source, device.get("uuid"))
            path = f"blockDevices[{index}].volumeType"
            yield from references(path, "volume type by name or id", device.get("volumeType"))
        for index, hints in _known_items(inputs, "schedulerHints"):
            yield from references(f"schedulerHints[{index}].group", "server group by id", hints.get("group"))

    def check_references(self, client: Cloud, olds: Properties, news: Properties) -> Iterator[CheckFailure]:
        found = list(super().check_references(client, olds, news))
        yield from found
        if not found and not isinstance(news.get("region"), Unknown):
            yield from _fit(client.in_region(news.get("region")), olds, news)

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        devices = plain(news.get("blockDevices")) or []
        on_volume = isinstance(devices, list) and not needs_image(devices)
        without_effect = {
            *(("imageId", "imageName") if on_volume else ()),  # the volume has an image's data, the instance has none
            *(("imageName",) if given(news, "imageId") else ()),
            *(("flavorName",) if given(news, "flavorId") else ()),
            *(("networks", "securityGroups") if olds.get("powerState") == "build" else ()),  # not known yet
        }
        for item in super().differences(olds, news):
            property_ = schema.top_level(item.path)
            if property_ in without_effect:
                continue
            # Nova cannot resize from a flavor that was deleted, nor put files on a volume by a rebuild.
            without_flavor = property_ in ("flavorId", "flavorName") and olds.get(property_) == ""
            stuck = property_ == "personalities" and on_volume
            yield Difference(item.path, item.kind, item.replace or without_flavor or stuck)

    def diff(
        self, client: Cloud | None, old_inputs: Properties, olds: Properties, news: Properties, operation: Operation
    ) -> Iterator[Difference]:
        found = list(super().diff(client, old_inputs, olds, news, operation))
        before, after = plain(olds.get("securityGroups")) or [], plain(news.get("securityGroups")) or []
        if client and before and after and not contains(after, Unknown):
            cloud = client.in_region(plain(olds.get("region")))
            if regrouped(cloud, before, after) == ([], []):
                found = [item for item in found if schema.top_level(item.path) != "securityGroups"]
        yield from found

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        cloud = client.in_region(inputs.get("region"))
        compute = cloud.compute
        body, microversion = self._body(cloud, inputs)
        id_: str = compute.post("/servers", body, microversion=microversion)["server"]["id"]
        operation.created(id_)
        try:
            reach(compute, id_, {"ACTIVE"}, operation)
        except InstanceError as error:
            if not error.launched:
                # It never ran, so nothing is lost, and the next update creates it again.
                remove(compute, id_, operation)
                operation.forget()
            raise
        if (wanted := inputs.get("powerState") or "active") != "active":
            switch(compute, id_, ("active", wanted), None, operation)
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        cloud = client.in_region(inputs.get("region"))
        metadata = {key: str(value) for key, value in (inputs.get("metadata") or {}).items()}
        fitting = (
            item
            for item in cloud.compute.list("/servers/detail", "servers", name=f"^{re.escape(inputs['name'])}$")
            if item["name"] == inputs["name"]
            and item["tenant_id"] == cloud.project_id
            and item["metadata"].items() >= metadata.items()
            and (item["key_name"] or "") == (inputs.get("keyPair") or "")
        )
        found = only_candidate("instance", fitting, operation)
        if found is None:
            return None
        id_: str = found["id"]
        operation.created(id_)
        if found["status"] in ("BUILD", "ERROR"):
            try:
                reach(cloud.compute, id_, {"ACTIVE"}, operation)
            except InstanceError as error:
                if error.launched:
                    raise
                operation.created(id_, **{UNRECOVERABLE: "powerState"})  # it never ran: nothing is lost with it
        return id_

    def _body(self, cloud: Cloud, inputs: Properties) -> tuple[Properties, str | None]:
        devices = [_device(device) for device in inputs.get("blockDevices") or ()]
        server: Properties = {
            "name": inputs["name"],
            "flavorRef": _flavor_id(cloud, inputs),
            "imageRef": _image_id(cloud, inputs) if needs_image(inputs.get("blockDevices") or ()) else "",
            "availability_zone": inputs.get("availabilityZone") or inputs.get("availabilityZoneHints"),
            "security_groups": [{"name": name} for name in inputs.get("securityGroups") or ()],
            "key_name": inputs.get("keyPair"),
            "metadata": inputs.get("metadata"),
            "config_drive": inputs.get("configDrive"),
            "adminPass": inputs.get("adminPass"),
            "user_data": _base64(inputs.get("userData") or ""),
            "personality": _files(inputs),
            "tags": inputs.get("tags"),
            "block_device_mapping_v2": devices,
            "hypervisor_hostname": inputs.get("hypervisorHostname"),
        }
        server = {key: value for key, value in server.items() if value not in (None, "", [], {})}
        microversion = max(
            (
                version
                for version, needed in (
                    (NETWORK_MODE, inputs.get("networkMode")),
                    (TAGS_AT_CREATE, inputs.get("tags")),
                    (MULTIATTACH, any(item.get("multiattach") for item in inputs.get("blockDevices") or ())),
                    (VOLUME_TYPE, any(item.get("volume_type") for item in devices)),
                    (HOST_AT_CREATE, inputs.get("hypervisorHostname")),
                )
                if needed
            ),
            default=None,
        )
        networks = inputs.get("networkMode") or [
            _nic(cloud.network, network) for network in inputs.get("networks") or ()
        ]
        # From this version on "auto" is explicit.
        if networks or microversion:
            server["networks"] = networks or "auto"
        body: Properties = {"server": server}
        if hints := inputs.get("schedulerHints"):
            body["os:scheduler_hints"] = _hints(hints[0])
        return body, microversion

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.compute.find(f"/servers/{id_}", microversion=TAGS_IN_SERVER)
        if answer is None or answer["server"]["status"] in GONE:
            return None
        server = answer["server"]
        networks = networks_of(cloud, server, state)
        v4, v6 = access_addresses(networks)
        written: Properties = {}
        if not state:  # An import: the inputs that a program would have.
            written = {"metadata": server["metadata"], "blockDevices": boot_volumes(cloud, server)}
        elif state.get("metadata"):
            written = {"metadata": {k: v for k, v in server["metadata"].items() if k in state["metadata"]}}
        return {
            "name": server["name"],
            "networks": networks,
            "accessIpV4": v4 or server.get("accessIPv4") or "",
            "accessIpV6": v6 or server.get("accessIPv6") or "",
            "allMetadata": server["metadata"],
            "securityGroups": security_groups_of(cloud, server, state),
            "keyPair": server.get("key_name") or "",
            **flavor_of(cloud, server),
            **image_of(cloud, server, {**state, **written}),
            "userData": _hash(state["userData"]) if _is_plain(state.get("userData")) else state.get("userData") or "",
            "availabilityZone": server.get("OS-EXT-AZ:availability_zone") or "",
            "powerState": server["status"].lower(),
            "allTags": server.get("tags") or [],
            **({"tags": [tag for tag in state["tags"] if tag in server["tags"]]} if state.get("tags") else {}),
            **written,
            "hypervisorHostname": server.get("OS-EXT-SRV-ATTR:hypervisor_hostname") or "",
            "created": _go_time(server["created"]),
            "updated": _go_time(server["updated"]),
            "region": cloud.region,
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        cloud = client.in_region(olds.get("region"))
        compute = cloud.compute
        changed = self.changed(olds, news)
        if "name" in changed:
            compute.put(f"/servers/{id_}", {"server": {"name": news["name"]}})
        if "powerState" in changed:
            states = olds.get("powerState") or "", news.get("powerState") or "active"
            switch(compute, id_, states, news.get("availabilityZone"), operation)
        if "metadata" in changed:
            before, after = olds.get("metadata") or {}, news.get("metadata") or {}
            for key in before.keys() - after.keys():
                compute.delete(f"/servers/{id_}/metadata/{key}")
            if after:
                compute.post(f"/servers/{id_}/metadata", {"metadata": after}, repeatable=True)
        if "securityGroups" in changed:
            groups = (of.get("securityGroups") or () for of in (olds, news))
            leave, join = regrouped(cloud, *groups)
            for group in leave:
                act(compute, id_, {"removeSecurityGroup": {"name": group}}, missing_ok=True)
            for group in join:
                act(compute, id_, {"addSecurityGroup": {"name": group}})
        if "adminPass" in changed and given(news, "adminPass"):
            act(compute, id_, {"changePassword": {"adminPass": news["adminPass"]}})
        if changed & {"flavorId", "flavorName"}:
            wanted_flavor = news if "flavorId" in changed else {"flavorName": news.get("flavorName")}
            self._resize(compute, id_, _flavor_id(cloud, wanted_flavor), news, operation)
        if changed & {"imageId", "imageName", "personalities"}:
            wanted_image = {"imageName": news.get("imageName")} if changed & {"imageName"} - {"imageId"} else news
            image = _image_id(cloud, wanted_image if given(wanted_image, "imageId", "imageName") else olds)
            files = {"personality": _files(news)} if given(news, "personalities") else {}
            act(compute, id_, {"rebuild": {"imageRef": image, **files}})
            reach(compute, id_, {"ACTIVE", "SHUTOFF"}, operation, idle=True)
            operation.known["imageName"] = ""  # another one
        if "tags" in changed:
            url = f"/servers/{id_}/tags"
            tags = set(compute.get(url, microversion=TAGS_IN_SERVER)["tags"])
            tags = (tags - set(olds.get("tags") or ())) | set(news.get("tags") or ())
            compute.put(url, {"tags": sorted(tags)}, microversion=TAGS_IN_SERVER)

    @staticmethod
    def _resize(compute: Service, id_: str, flavor: str, news: Properties, operation: Operation) -> None:
        server = compute.get(f"/servers/{id_}")["server"]
        # An update that was interrupted has resized already, and only the confirmation is missing.
        if not (server["status"] == "VERIFY_RESIZE" and server["flavor"]["id"] == flavor):
            act(compute, id_, {"resize": {"flavorRef": flavor}})
        if not (news.get("vendorOptions") or {}).get("ignoreResizeConfirmation"):
            reach(compute, id_, {"VERIFY_RESIZE"}, operation)
            act(compute, id_, {"confirmResize": None})
        reach(compute, id_, {"ACTIVE", "SHUTOFF"}, operation, idle=True)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        compute = client.in_region(state.get("region")).compute
        if state.get("stopBeforeDestroy"):
            try:
                act(compute, id_, {"os-stop": None})
                reach(compute, id_, {"SHUTOFF"}, operation)
            except (CloudError, InstanceError, DeadlineError) as error:
                operation.status(f"could not stop it first: {error}")
        if (state.get("vendorOptions") or {}).get("detachPortsBeforeDestroy"):
            for network in state.get("networks") or ():
                if network.get("port"):
                    detach(compute, f"/servers/{id_}/os-interface/{network['port']}", "port", operation)
        remove(compute, id_, operation, force=bool(state.get("forceDelete")))


def _environment(what: str) -> bool:
    return any(os.environ.get(f"OS_{what}_{part}") for part in ("ID", "NAME"))


def _known_items(inputs: Properties, name: str) -> list[tuple[int, Properties]]:
    items = inputs.get(name)
    return [(i, item) for i, item in enumerate(items) if isinstance(item, dict)] if isinstance(items, list) else []


def _flavor(inputs: Properties) -> Iterator[Reference]:
    if id_ := inputs.get("flavorId") or os.environ.get("OS_FLAVOR_ID"):
        yield from references("flavorId", "flavor by id", id_)
    else:
        name = inputs.get("flavorName") or os.environ.get("OS_FLAVOR_NAME")
        yield from references("flavorName", "flavor by name", name)


def _image(inputs: Properties) -> Iterator[Reference]:
    devices = inputs.get("blockDevices") or []
    if isinstance(devices, Unknown) or not needs_image(devices):
        return
    id_ = inputs.get("imageId") or os.environ.get("OS_IMAGE_ID")
    if id_ and id_ != BOOTED_FROM_VOLUME:
        yield from references("imageId", "image by id", id_)
    else:
        yield from references("imageName", "image by name", inputs.get("imageName") or os.environ.get("OS_IMAGE_NAME"))


def _fit(cloud: Cloud, olds: Properties, news: Properties) -> Iterator[CheckFailure]:
    """Whether the flavor has room for the image, as Nova asks at the create: _validate_flavor_image_nostatus."""
    wanted = [*_image(news), *_flavor(news)]
    if len(wanted) < 2 or wanted == [*_image(olds), *_flavor(olds)]:
        return
    try:
        image, flavor = (names.find(cloud, item) for item in wanted)
    except CloudError:  # what is new was looked up before; of the rest, nothing can be said
        return
    if not image or not flavor:
        return
    memory = image.get("min_ram") or 0
    disk = max(image.get("min_disk") or 0, math.ceil((image.get("size") or 0) / 2**30)) if flavor["disk"] else 0
    if memory > flavor["ram"] or disk > flavor["disk"]:
        yield CheckFailure(
            wanted[1].path,
            f"the flavor has {flavor['ram']} MiB of memory and {flavor['disk']} GiB of disk; "
            f"image {wanted[0].value!r} needs {memory} MiB and {disk} GiB",
        )


def _by_name(what: str, found: list[Properties], name: str) -> str:
    if len(found) != 1:
        raise ProviderError(
            f"{'no' if not found else len(found)} {what}{'s are' if found else ' is'} named {name!r}",
            remedy=f"`openstack {what} list` shows all of them; an id is always unique.",
        )
    id_: str = found[0]["id"]
    return id_


def _image_id(cloud: Cloud, inputs: Properties) -> str:
    id_ = inputs.get("imageId") or os.environ.get("OS_IMAGE_ID")
    if id_ and id_ != BOOTED_FROM_VOLUME:
        return str(id_)
    name = inputs.get("imageName") or os.environ["OS_IMAGE_NAME"]
    return _by_name("image", list(cloud.image.list("/images", "images", name=name)), name)


def _flavor_id(cloud: Cloud, inputs: Properties) -> str:
    if id_ := inputs.get("flavorId") or os.environ.get("OS_FLAVOR_ID"):
        return str(id_)
    name = inputs.get("flavorName") or os.environ["OS_FLAVOR_NAME"]
    flavors = cloud.compute.list("/flavors/detail", "flavors", is_public="None")
    return _by_name("flavor", [flavor for flavor in flavors if flavor["name"] == name], name)


def _base64(text: str) -> str:
    """What is base64 already is left as it is."""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return base64.b64encode(text.encode()).decode()
    return text


def _files(inputs: Properties) -> list[Properties]:
    return [
        {"path": item["file"], "contents": base64.b64encode(item["content"].encode()).decode()}
        for item in inputs.get("personalities") or ()
    ]


def _device(device: Properties) -> Properties:
    body: Properties = {key: value for key, value in to_api(_BLOCK_DEVICE, device).items() if key != "multiattach"}
    return {"boot_index": 0, "delete_on_termination": False, **body}


def _hints(hints: Properties) -> Properties:
    body = {
        _HINT_NAMES.get(key, snake(key)): value
        for key, value in hints.items()
        if key in {field.name for field in _SCHEDULER_HINTS.fields} - {"additionalProperties"} and value
    }
    return {**body, **(hints.get("additionalProperties") or {})}


def _nic(network: Service, wanted: Properties) -> Properties:
    if wanted.get("port"):
        return {"port": wanted["port"]}
    id_ = wanted.get("uuid") or _by_name(
        "network", list(network.list("/networks", "networks", name=wanted["name"])), wanted["name"]
    )
    fixed = wanted.get("fixedIpV4") or wanted.get("fixedIpV6")
    return {"uuid": id_, **({"fixed_ip": fixed} if fixed else {})}


def _is_plain(user_data: str | None) -> bool:
    """Whether this is user data, not its hash in the state."""
    return bool(user_data) and not (len(user_data or "") == 40 and set(user_data or "") <= set("0123456789abcdef"))


def _go_time(stamp: str) -> str:
    """As the official plugin writes it: ``2026-01-31 12:00:00 +0000 UTC``."""
    return datetime.fromisoformat(stamp).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
