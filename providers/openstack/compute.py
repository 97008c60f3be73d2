"""Compute (Nova): key pairs, instances, server groups, and what is attached to instances."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from providers import schema
from providers.framework import LOST, DeadlineError, NotYetError, ProviderError, ResourceType, Timeouts
from providers.openstack.client import Cloud, CloudError, remedy_for
from providers.openstack.rest import (
    ALL_TAGS,
    NAME,
    REGION,
    TAGS,
    VALUE_SPECS,
    given,
    pair,
    snake,
    the_one,
    to_api,
)
from providers.schema import BOOLEAN, INTEGER, STRING, Difference, Fault, Field, List, Map, Object
from providers.values import Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from providers.framework import Function, Operation
    from providers.openstack.client import Service
    from providers.values import Properties

# Microversions, the lowest that has the feature (nova/api/openstack/compute/rest_api_version_history.rst).
KEYPAIR_OF_USER: Final = "2.10"
NETWORK_MODE: Final = "2.37"
VOLUME_TAG: Final = "2.49"
TAGS_AT_CREATE: Final = "2.52"
MULTIATTACH: Final = "2.60"
GROUP_POLICY: Final = "2.64"
VOLUME_TYPE: Final = "2.67"
HOST_AT_CREATE: Final = "2.74"
TAGS_IN_SERVER: Final = "2.26"  # the last but one that still tells the flavor's id is 2.46

IDLE_LIMIT: Final = 20.0  # seconds
DETACH_AGAIN: Final = 30.0  # seconds; a detach is asynchronous, and its failure shows nowhere

BOOTED_FROM_VOLUME: Final = "Attempt to boot from volume - no image supplied"
IMAGE_GONE: Final = "Image not found"
POWER_STATES: Final = ("active", "shutoff", "shelved_offloaded", "paused")


class Keypair(ResourceType[Cloud]):
    token = "openstack:compute/keypair:Keypair"
    import_id = "<name>"
    description = "An SSH key pair. Without publicKey the cloud makes one, and the private key is an output."
    fields = (
        REGION,
        Field("name", computed=True, autoname=True, force_new=True),
        Field(
            "publicKey",
            computed=True,
            force_new=True,
            same=lambda old, new: (old or "").strip() == (new or "").strip(),
        ),
        VALUE_SPECS,
        Field("privateKey", output=True, secret=True),
        Field("fingerprint", output=True),
        Field("userId", description="Another user's (administrators only).", computed=True, force_new=True),
    )

    @staticmethod
    def _options(state: Properties) -> dict[str, Any]:
        if not state.get("userId"):
            return {}
        return {"microversion": KEYPAIR_OF_USER, "params": {"user_id": state["userId"]}}

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        body = {
            "name": inputs["name"],
            **{snake(key): inputs[key] for key in ("publicKey", "userId") if given(inputs, key)},
            **(inputs.get("valueSpecs") or {}),
        }
        microversion = self._options(inputs).get("microversion")
        compute = client.in_region(inputs.get("region")).compute
        made = compute.post("/os-keypairs", {"keypair": body}, microversion=microversion)["keypair"]
        operation.created(made["name"], privateKey=made.get("private_key") or "")
        return str(made["name"])

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        name: str = inputs["name"]
        answer = client.in_region(inputs.get("region")).compute.find(f"/os-keypairs/{name}", **self._options(inputs))
        if answer is None or not operation.may_have_made(answer["keypair"]["created_at"]):
            return None
        if given(inputs, "publicKey"):
            return name if answer["keypair"]["public_key"].strip() == inputs["publicKey"].strip() else None
        # The private key was told to nobody.
        if operation.began is None and "name" not in operation.defaults:
            raise ProviderError(
                f"the key pair {name} exists, and its private key was told only when it was made",
                remedy=f"If nobody uses it: `openstack keypair delete {name}`.",
            )
        operation.created(name, **{LOST: "privateKey"})
        return name

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.compute.find(f"/os-keypairs/{id_}", **self._options(state))
        if answer is None:
            return None
        found = answer["keypair"]
        return {
            "name": found["name"],
            "publicKey": found["public_key"],
            "fingerprint": found["fingerprint"],
            "privateKey": state.get("privateKey") or "",
            "userId": state.get("userId") or "",
            "region": cloud.region,
        }

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        client.in_region(state.get("region")).compute.delete(f"/os-keypairs/{id_}", **self._options(state))


class ServerGroup(ResourceType[Cloud]):
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

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        body = {"name": inputs["name"], "policy": inputs.get("policies"), **(inputs.get("valueSpecs") or {})}
        if given(inputs, "rules") and inputs.get("policies") == "anti-affinity":
            body["rules"] = {"max_server_per_host": inputs["rules"]["maxServerPerHost"]}
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
        found = the_one("server group", fitting, operation)
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


def _hash(user_data: str) -> str:
    """What the state holds instead of user data, which may be large: its SHA-1, as the official plugin."""
    return hashlib.sha1(user_data.encode()).hexdigest() if user_data else ""  # noqa: S324 - no secret is protected


def _same_user_data(old: str | None, new: str | None) -> bool:
    return (old or "") in ((new or ""), _hash(new or ""))


def _same_zone(old: str | None, new: str | None) -> bool:
    """``zone:host:node`` asks for a place in a zone; Nova tells only the zone."""
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
        Field("uuid", computed=True, force_new=True),
        Field("name", computed=True, force_new=True),
        Field("port", computed=True, force_new=True),
        Field("fixedIpV4", computed=True, force_new=True),
        Field("fixedIpV6", computed=True, force_new=True),
        Field("mac", output=True),
        Field("accessNetwork", BOOLEAN, "Use its address as the instance's.", default=False),
    )
)


class Instance(ResourceType[Cloud]):
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
        Field("securityGroups", List(STRING, unordered=True), "Names.", computed=True),
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

    def check(self, inputs: Properties) -> Iterable[Fault]:
        if not given(inputs, "flavorId", "flavorName") and not _environment("FLAVOR"):
            yield Fault("flavorId", "is required, or flavorName")
        devices = inputs.get("blockDevices") or []
        if isinstance(devices, Unknown):
            return
        if _needs_image(devices) and not given(inputs, "imageId", "imageName") and not _environment("IMAGE"):
            yield Fault("imageId", "is required, or imageName, or a bootable block device")
        for index, device in enumerate(devices):
            source, target = device.get("sourceType"), device.get("destinationType")
            if source != "blank" and not device.get("uuid"):
                yield Fault(f"blockDevices[{index}].uuid", f"is required with the source type {source}")
            sized = (source, target) in {("image", "volume"), ("blank", "local")}
            if sized and not device.get("volumeSize"):
                yield Fault(
                    f"blockDevices[{index}].volumeSize", f"is required for a {target} disk made of source type {source}"
                )
        networks = inputs.get("networks") or []
        for index, network in enumerate(networks if isinstance(networks, list) else ()):
            if isinstance(network, dict) and not given(network, "uuid", "name", "port"):
                yield Fault(f"networks[{index}]", "needs uuid, name or port")
        hints = inputs.get("schedulerHints")
        if isinstance(hints, list) and len(hints) > 1:
            yield Fault("schedulerHints", "has more than one item")

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        building = olds.get("powerState") == "build"
        for item in super().differences(olds, news):
            property_ = schema.top_level(item.path)
            if building and property_ in ("networks", "securityGroups"):
                continue  # not known yet
            # Nova cannot resize from a flavor that was deleted.
            orphaned = property_ in ("flavorId", "flavorName") and olds.get(property_) == ""
            yield Difference(item.path, item.kind, item.replace or orphaned)

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        cloud = client.in_region(inputs.get("region"))
        compute = cloud.compute
        body, microversion = self._body(cloud, inputs)
        id_: str = compute.post("/servers", body, microversion=microversion)["server"]["id"]
        operation.created(id_)
        try:
            _reach(compute, id_, {"ACTIVE"}, operation)
        except _InstanceError as error:
            if not error.launched:
                # It never ran: nothing is lost with it, and the next update can simply try again.
                _remove(compute, id_, operation)
                operation.forget()
            raise
        if (wanted := inputs.get("powerState") or "active") != "active":
            _switch(compute, id_, ("active", wanted), None, operation)
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
        found = the_one("instance", fitting, operation)
        if found is None:
            return None
        id_: str = found["id"]
        operation.created(id_)
        if found["status"] in ("BUILD", "ERROR"):
            try:
                _reach(cloud.compute, id_, {"ACTIVE"}, operation)
            except _InstanceError as error:
                if error.launched:
                    raise
                operation.created(id_, **{LOST: "powerState"})  # it never ran: nothing is lost with it
        return id_

    def _body(self, cloud: Cloud, inputs: Properties) -> tuple[Properties, str | None]:
        devices = [_device(device) for device in inputs.get("blockDevices") or ()]
        server: Properties = {
            "name": inputs["name"],
            "flavorRef": _flavor_id(cloud, inputs),
            "imageRef": _image_id(cloud, inputs) if _needs_image(inputs.get("blockDevices") or ()) else "",
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
        # From this version on the API wants to be told that the choice is its own.
        if networks or microversion:
            server["networks"] = networks or "auto"
        body: Properties = {"server": server}
        if hints := inputs.get("schedulerHints"):
            body["os:scheduler_hints"] = _hints(hints[0])
        return body, microversion

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.compute.find(f"/servers/{id_}", microversion=TAGS_IN_SERVER)
        if answer is None or answer["server"]["status"] in _GONE:
            return None
        server = answer["server"]
        networks = _networks(cloud, server, state)
        v4, v6 = _access_addresses(networks)
        written: Properties = {}
        if not state:  # What a program would say, where there is no program yet.
            written = {"metadata": server["metadata"], "blockDevices": _boot_volumes(cloud, server)}
        elif state.get("metadata"):
            written = {"metadata": {k: v for k, v in server["metadata"].items() if k in state["metadata"]}}
        return {
            "name": server["name"],
            "networks": networks,
            "accessIpV4": v4 or server.get("accessIPv4") or "",
            "accessIpV6": v6 or server.get("accessIPv6") or "",
            "allMetadata": server["metadata"],
            "securityGroups": list(dict.fromkeys(group["name"] for group in server.get("security_groups") or ())),
            "keyPair": server.get("key_name") or "",
            **_flavor(cloud, server),
            **_image(cloud, server, {**state, **written}),
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
        changed = {schema.top_level(item.path) for item in self.differences(olds, news)}
        if "name" in changed:
            compute.put(f"/servers/{id_}", {"server": {"name": news["name"]}})
        if "powerState" in changed:
            states = olds.get("powerState") or "", news.get("powerState") or "active"
            _switch(compute, id_, states, news.get("availabilityZone"), operation)
        if "metadata" in changed:
            before, after = olds.get("metadata") or {}, news.get("metadata") or {}
            for key in before.keys() - after.keys():
                compute.delete(f"/servers/{id_}/metadata/{key}")
            if after:
                compute.post(f"/servers/{id_}/metadata", {"metadata": after}, repeatable=True)
        if "securityGroups" in changed:
            present, wanted = set(olds.get("securityGroups") or ()), set(news.get("securityGroups") or ())
            for name in sorted(present - wanted):
                _act(compute, id_, {"removeSecurityGroup": {"name": name}}, absent_is_fine=True)
            for name in sorted(wanted - present):
                _act(compute, id_, {"addSecurityGroup": {"name": name}})
        if "adminPass" in changed and given(news, "adminPass"):
            _act(compute, id_, {"changePassword": {"adminPass": news["adminPass"]}})
        if changed & {"flavorId", "flavorName"}:
            wanted_flavor = news if "flavorId" in changed else {"flavorName": news.get("flavorName")}
            self._resize(compute, id_, _flavor_id(cloud, wanted_flavor), news, operation)
        if changed & {"imageId", "imageName", "personalities"}:
            wanted_image = {"imageName": news.get("imageName")} if changed & {"imageName"} - {"imageId"} else news
            image = _image_id(cloud, wanted_image if given(wanted_image, "imageId", "imageName") else olds)
            files = {"personality": _files(news)} if given(news, "personalities") else {}
            _act(compute, id_, {"rebuild": {"imageRef": image, **files}})
            _reach(compute, id_, {"ACTIVE", "SHUTOFF"}, operation, settled=True)
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
            _act(compute, id_, {"resize": {"flavorRef": flavor}})
        if not (news.get("vendorOptions") or {}).get("ignoreResizeConfirmation"):
            _reach(compute, id_, {"VERIFY_RESIZE"}, operation)
            _act(compute, id_, {"confirmResize": None})
        _reach(compute, id_, {"ACTIVE", "SHUTOFF"}, operation, settled=True)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        compute = client.in_region(state.get("region")).compute
        if state.get("stopBeforeDestroy"):
            try:
                _act(compute, id_, {"os-stop": None})
                _reach(compute, id_, {"SHUTOFF"}, operation)
            except (CloudError, _InstanceError, DeadlineError) as error:
                operation.status(f"could not stop it first: {error}")
        if (state.get("vendorOptions") or {}).get("detachPortsBeforeDestroy"):
            for network in state.get("networks") or ():
                if network.get("port"):
                    _detach(compute, f"/servers/{id_}/os-interface/{network['port']}", "port", operation)
        _remove(compute, id_, operation, force=bool(state.get("forceDelete")))


class _InstanceError(ProviderError):
    """The instance is in status ERROR; ``launched`` says whether it ever ran."""

    def __init__(self, server: Properties) -> None:
        reason = (server.get("fault") or {}).get("message") or "the cloud gives no reason"
        super().__init__(
            f"instance {server['name']} ({server['id']}) is in status ERROR: {reason}", remedy=remedy_for(reason)
        )
        self.launched = bool(server.get("OS-SRV-USG:launched_at"))


_GONE: Final = frozenset({"DELETED", "SOFT_DELETED"})
# Target power state -> the action by the current one ("" for any other) and the status that ends it.
_SWITCHES: Final[dict[str, tuple[dict[str, str], str]]] = {
    "active": ({"paused": "unpause", "shelved": "unshelve", "shelved_offloaded": "unshelve", "": "os-start"}, "ACTIVE"),
    "shutoff": ({"": "os-stop"}, "SHUTOFF"),
    "paused": ({"": "pause"}, "PAUSED"),
    "shelved_offloaded": ({"": "shelve"}, "SHELVED_OFFLOADED"),
}


def _act(compute: Service, id_: str, action: Properties, *, absent_is_fine: bool = False) -> None:
    try:
        compute.post(f"/servers/{id_}/action", action)
    except CloudError as error:
        if not (absent_is_fine and error.status == 404):
            raise


def _reach(compute: Service, id_: str, statuses: set[str], operation: Operation, *, settled: bool = False) -> None:
    """Wait for one of the statuses; ``settled``: and for no task to be under way.

    An instance that is in another status and does nothing is given up on: Nova tells failed actions nowhere else.
    """
    idle_since: float | None = None

    def poll() -> bool | None:
        nonlocal idle_since
        server = compute.get(f"/servers/{id_}")["server"]
        status, task = server["status"], server.get("OS-EXT-STS:task_state")
        if status == "ERROR":
            raise _InstanceError(server)
        if status in statuses:
            return True if task is None or not settled else None
        if task is not None or status == "BUILD":
            idle_since = None
        elif idle_since is None:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > IDLE_LIMIT:
            raise _stalled(compute, server)
        return None

    operation.wait(f"instance {id_} to become {' or '.join(sorted(statuses)).lower()}", poll, most=3)


def _stalled(compute: Service, server: Properties) -> ProviderError:
    actions = compute.get(f"/servers/{server['id']}/os-instance-actions")["instanceActions"]
    failed = [action for action in actions if action["message"]] or actions
    last = max(failed, key=lambda action: str(action["start_time"]), default=None)
    message = f"instance {server['name']} ({server['id']}) stays {server['status'].lower()}"
    if last:
        message += (
            f": its last action was {last['action']} ({last['request_id']}), {last['message'] or 'no error told'}"
        )
    return ProviderError(message, remedy=f"`openstack server event list {server['id']}` shows what happened to it.")


def _switch(compute: Service, id_: str, states: tuple[str, str], zone: str | None, operation: Operation) -> None:
    """Bring an instance from the first power state to the second. ``zone`` is where to unshelve it."""
    current, wanted = (state.lower() for state in states)
    actions, status = _SWITCHES[wanted]
    action = actions.get(current, actions[""])
    if current != "build":
        _act(compute, id_, {action: {"availability_zone": zone} if zone and action == "unshelve" else None})
    _reach(compute, id_, {status}, operation)


def _remove(compute: Service, id_: str, operation: Operation, *, force: bool = False) -> None:
    if force:
        _act(compute, id_, {"forceDelete": None}, absent_is_fine=True)
    else:
        compute.delete(f"/servers/{id_}")

    def gone() -> bool | None:
        answer = compute.find(f"/servers/{id_}")
        if answer is None or answer["server"]["status"] in _GONE:
            return True
        if answer["server"]["status"] == "ERROR" and answer["server"].get("OS-EXT-STS:task_state") is None:
            raise _InstanceError(answer["server"])
        return None

    operation.wait(f"instance {id_} to be gone", gone, most=3)


def _detach(compute: Service, path: str, what: str, operation: Operation) -> None:
    """DELETE, and wait until a GET finds nothing; again while the cloud says not yet, or forgets about it."""
    asked = -DETACH_AGAIN

    def gone() -> bool | None:
        nonlocal asked
        if compute.find(path) is None:
            return True
        if time.monotonic() - asked >= DETACH_AGAIN:
            try:
                compute.delete(path)
            except CloudError as error:
                if error.status in (400, 409):
                    raise NotYetError(error) from error
                raise
            asked = time.monotonic()
        return None

    operation.wait(f"the {what} to be detached", gone)


def _environment(what: str) -> bool:
    return any(os.environ.get(f"OS_{what}_{part}") for part in ("ID", "NAME"))


def _needs_image(devices: Iterable[Properties]) -> bool:
    """Block devices replace the image, unless one is a local disk made of it."""
    devices = list(devices)
    local = any(item.get("sourceType") == "image" and item.get("destinationType") == "local" for item in devices)
    return local or not devices


def _by_name(what: str, found: list[Properties], name: str) -> str:
    if len(found) != 1:
        raise ProviderError(
            f"{'no' if not found else len(found)} {what}{'s are' if found else ' is'} named {name!r}",
            remedy=f"`openstack {what} list` shows what there is; an id is always unique.",
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


def _networks(cloud: Cloud, server: Properties, state: Properties) -> list[Properties]:
    """The interfaces in the order of the state's networks; all of them where the state has none."""
    answer = cloud.compute.find(f"/servers/{server['id']}/os-interface")
    interfaces = list(answer["interfaceAttachments"]) if answer else []
    names = {
        address.get("OS-EXT-IPS-MAC:mac_addr"): name
        for name, addresses in server["addresses"].items()
        for address in addresses
    }
    wanted = state.get("networks") or []
    if not wanted:
        return [
            {
                **_interface(cloud, found, names),
                "uuid": found["net_id"],
                "port": found["port_id"] if not state else "",
                "accessNetwork": False,
            }
            for found in interfaces
        ]

    def fits(item: Properties, interface: Properties) -> bool:
        if item.get("port"):
            return bool(item["port"] == interface["port_id"])
        return item.get("uuid") == interface["net_id"] or item.get("name") == names.get(interface["mac_addr"])

    properties = []
    # Ports are certain, so they choose first; an id or a name takes the next interface on that network.
    for item in sorted(wanted, key=lambda item: not item.get("port")):
        found = next((candidate for candidate in interfaces if fits(item, candidate)), None)
        if found is None:
            continue
        interfaces.remove(found)
        known = {
            **_interface(cloud, found, names),
            "uuid": found["net_id"],
            "port": item.get("port") or "",
            "accessNetwork": bool(item.get("accessNetwork")),
        }
        properties.append((wanted.index(item), known))
    return [known for _, known in sorted(properties, key=lambda entry: entry[0])]


def _interface(cloud: Cloud, found: Properties, names: dict[str, str]) -> Properties:
    addresses = [address["ip_address"] for address in found.get("fixed_ips") or ()]
    network = found["net_id"]
    name = names.get(found["mac_addr"]) or cloud.network.get(f"/networks/{network}")["network"]["name"]
    return {
        "name": name,
        "fixedIpV4": next((address for address in addresses if ":" not in address), ""),
        "fixedIpV6": next((address for address in addresses if ":" in address), ""),
        "mac": found["mac_addr"],
    }


def _access_addresses(networks: list[Properties]) -> tuple[str, str]:
    """The first address of each family; an access network's goes before, the last one's if there are several."""

    def best(family: str) -> str:
        of_access: list[str] = [item[family] for item in networks if item["accessNetwork"] and item[family]]
        return (of_access[-1:] or [item[family] for item in networks if item[family]] or [""])[0]

    return best("fixedIpV4"), best("fixedIpV6")


def _flavor(cloud: Cloud, server: Properties) -> Properties:
    id_ = server["flavor"]["id"]

    def name() -> str:
        answer = cloud.compute.find(f"/flavors/{id_}")
        return str(answer["flavor"]["name"]) if answer else ""

    found = cloud.remember(("flavor", id_), name)
    return {"flavorId": id_ if found else "", "flavorName": found}


def _image(cloud: Cloud, server: Properties, state: Properties) -> Properties:
    if state.get("blockDevices") and not _needs_image(state["blockDevices"]):
        return {"imageId": BOOTED_FROM_VOLUME, "imageName": state.get("imageName") or ""}
    id_ = (server.get("image") or {}).get("id")
    if not id_:
        return {}
    answer = cloud.image.find(f"/images/{id_}")
    return {"imageId": id_, "imageName": answer["name"] if answer else IMAGE_GONE}


def _boot_volumes(cloud: Cloud, server: Properties) -> list[Properties]:
    """The block devices that an instance was booted from, as far as its volumes tell."""
    devices = []
    for index, attached in enumerate(server.get("os-extended-volumes:volumes_attached") or ()):
        volume = cloud.block_storage.get(f"/volumes/{attached['id']}")["volume"]
        if volume["bootable"] == "true":
            devices.append(
                {
                    "sourceType": "image",
                    "uuid": (volume.get("volume_image_metadata") or {}).get("image_id") or "",
                    "destinationType": "volume",
                    "volumeSize": volume["size"],
                    "bootIndex": index,
                    "deleteOnTermination": bool(attached.get("delete_on_termination", True)),
                }
            )
    return devices


def _is_plain(user_data: str | None) -> bool:
    """Whether this is user data, not the hash of it that a state holds."""
    return bool(user_data) and not (len(user_data or "") == 40 and set(user_data or "") <= set("0123456789abcdef"))


def _go_time(stamp: str) -> str:
    """As the official plugin writes it: ``2026-01-31 12:00:00 +0000 UTC``."""
    return datetime.fromisoformat(stamp).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


class VolumeAttach(ResourceType[Cloud]):
    token = "openstack:compute/volumeAttach:VolumeAttach"
    import_id = "<instance id>/<volume id>"
    description = "A volume attached to an instance. Its id is <instance>/<attachment>."
    fields = (
        REGION,
        Field("instanceId", required=True, force_new=True),
        Field("volumeId", required=True, force_new=True),
        Field("device", description="A wish only; the hypervisor decides.", computed=True),
        Field("multiattach", BOOLEAN, force_new=True),
        Field("tag", force_new=True),
        Field(
            "vendorOptions",
            Object((Field("ignoreVolumeConfirmation", BOOLEAN, default=False),)),
            force_new=True,
        ),
    )

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        cloud = client.in_region(inputs.get("region"))
        compute, server, volume = cloud.compute, inputs["instanceId"], inputs["volumeId"]
        path = f"/servers/{server}/os-volume_attachments"
        body = {"volumeId": volume, **{key: inputs[key] for key in ("device", "tag") if given(inputs, key)}}
        microversion = MULTIATTACH if inputs.get("multiattach") else VOLUME_TAG if body.get("tag") else None

        def attach() -> Properties | None:
            try:
                made: Properties = compute.post(path, {"volumeAttachment": body}, microversion=microversion)[
                    "volumeAttachment"
                ]
            except CloudError as error:
                # A volume that is being attached elsewhere is refused until that is done.
                if error.status == 400 and inputs.get("multiattach"):
                    raise NotYetError(error) from error
                raise
            return made

        id_ = f"{server}/{operation.wait(f'volume {volume} to be attachable', attach)['id']}"
        operation.created(id_)
        if not (inputs.get("vendorOptions") or {}).get("ignoreVolumeConfirmation"):
            operation.wait(f"volume {volume} to be attached", lambda: self._in_use(cloud, volume, operation))
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        cloud = client.in_region(inputs.get("region"))
        found = self._attachment(cloud.compute, inputs["instanceId"], inputs["volumeId"])
        if found is None:
            return None
        id_ = f"{inputs['instanceId']}/{found['id']}"
        operation.created(id_)
        operation.wait(
            f"volume {inputs['volumeId']} to be attached", lambda: self._in_use(cloud, inputs["volumeId"], operation)
        )
        return id_

    @staticmethod
    def _attachment(compute: Service, server: str, volume: str) -> Properties | None:
        found = compute.find(f"/servers/{server}/os-volume_attachments") or {"volumeAttachments": []}
        return next((item for item in found["volumeAttachments"] if item["volumeId"] == volume), None)

    @staticmethod
    def _in_use(cloud: Cloud, id_: str, operation: Operation) -> bool | None:
        status = cloud.block_storage.get(f"/volumes/{id_}")["volume"]["status"]
        if status == "available":
            operation.forget()  # Nova gave up, and took the attachment back
        if status in ("error", "available"):
            raise ProviderError(
                f"volume {id_} could not be attached: it is {status}",
                remedy=f"`openstack volume show {id_}` and the instance's event list may say why.",
            )
        return True if status == "in-use" else None

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        server, attachment = pair(id_, "a volume attachment")
        answer = cloud.compute.find(f"/servers/{server}/os-volume_attachments/{attachment}")
        if answer is None:
            return None
        found = answer["volumeAttachment"]
        return {
            "instanceId": found["serverId"],
            "volumeId": found["volumeId"],
            "device": found.get("device") or "",
            "region": cloud.region,
        }

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        """``device`` is only a wish at the start."""

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        server, attachment = pair(id_, "a volume attachment")
        compute = client.in_region(state.get("region")).compute
        _detach(compute, f"/servers/{server}/os-volume_attachments/{attachment}", "volume", operation)


class InterfaceAttach(ResourceType[Cloud]):
    token = "openstack:compute/interfaceAttach:InterfaceAttach"
    import_id = "<instance id>/<port id>"
    description = "A port or network attached to an instance. Its id is <instance>/<port>."
    fields = (
        REGION,
        Field("portId", computed=True, force_new=True, conflicts=("networkId", "fixedIp")),
        Field("networkId", computed=True, force_new=True, conflicts=("portId",)),
        Field("instanceId", required=True, force_new=True),
        Field("fixedIp", computed=True, force_new=True, conflicts=("portId",)),
    )

    def check(self, inputs: Properties) -> Iterable[Fault]:
        if not given(inputs, "portId", "networkId"):
            yield Fault("networkId", "is required, or portId")

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        compute, server = client.in_region(inputs.get("region")).compute, inputs["instanceId"]
        body: Properties = {}
        if given(inputs, "portId"):
            body["port_id"] = inputs["portId"]
        else:
            body["net_id"] = inputs["networkId"]
            if given(inputs, "fixedIp"):
                body["fixed_ips"] = [{"ip_address": inputs["fixedIp"]}]
        path = f"/servers/{server}/os-interface"
        port = compute.post(path, {"interfaceAttachment": body})["interfaceAttachment"]["port_id"]
        operation.created(f"{server}/{port}")
        operation.wait(f"port {port} to be attached", lambda: compute.find(f"{path}/{port}"))
        return f"{server}/{port}"

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        cloud, server = client.in_region(inputs.get("region")), inputs["instanceId"]
        path, address = f"/servers/{server}/os-interface", inputs.get("fixedIp")
        if given(inputs, "portId"):
            return f"{server}/{inputs['portId']}" if cloud.compute.find(f"{path}/{inputs['portId']}") else None
        answer = cloud.compute.find(path)
        if answer is None:
            return None
        # The ports that the instance was made with are older than its launch; to the second, as Neutron tells it.
        launched = (cloud.compute.get(f"/servers/{server}")["server"].get("OS-SRV-USG:launched_at") or "")[:19]
        ports = (
            cloud.network.get(f"/ports/{item['port_id']}")["port"]
            for item in answer["interfaceAttachments"]
            if item["net_id"] == inputs["networkId"]
            and (not address or address in {fixed["ip_address"] for fixed in item["fixed_ips"]})
        )
        new = (port for port in ports if port["created_at"] >= launched)
        unknown = (port for port in new if f"{server}/{port['id']}" not in operation.others)
        found = the_one("interface", unknown, operation)
        return f"{server}/{found['id']}" if found else None

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        server, port = pair(id_, "an interface attachment")
        answer = cloud.compute.find(f"/servers/{server}/os-interface/{port}")
        if answer is None:
            return None
        found = answer["interfaceAttachment"]
        addresses = [address["ip_address"] for address in found.get("fixed_ips") or ()]
        return {
            "instanceId": server,
            "portId": found["port_id"],
            "networkId": found["net_id"],
            "fixedIp": (addresses or [state.get("fixedIp") or ""])[0],
            "region": cloud.region,
        }

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        server, port = pair(id_, "an interface attachment")
        compute = client.in_region(state.get("region")).compute
        _detach(compute, f"/servers/{server}/os-interface/{port}", "port", operation)


TYPES: list[ResourceType[Cloud]] = [Keypair(), Instance(), ServerGroup(), VolumeAttach(), InterfaceAttach()]
FUNCTIONS: list[Function[Cloud]] = []
