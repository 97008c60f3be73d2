"""Volumes and interfaces that are attached to instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from providers.framework import NotYetError, ProviderError
from providers.openstack.client import Cloud, CloudError
from providers.openstack.compute.actions import detach
from providers.openstack.compute.answers import chosen
from providers.openstack.normal import ADDRESS, FILLED_BY_SERVICE
from providers.openstack.rest import (
    REGION,
    OpenStackType,
    given,
    only_candidate,
    pair,
)
from providers.schema import BOOLEAN, CheckFailure, Field, Object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from providers.framework import Operation
    from providers.openstack.client import Service
    from providers.values import Properties

VOLUME_TAG: Final = "2.49"
MULTIATTACH: Final = "2.60"


class VolumeAttach(OpenStackType):
    token = "openstack:compute/volumeAttach:VolumeAttach"
    import_id = "<instance id>/<volume id>"
    description = "A volume attached to an instance. Its id is <instance>/<attachment>."
    fields = (
        REGION,
        Field("instanceId", required=True, force_new=True),
        Field("volumeId", required=True, force_new=True),
        Field(
            "device", description="A hint only; the hypervisor decides.", computed=True, same=lambda _old, _new: True
        ),
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
            operation.forget()  # Nova failed, and removed the attachment
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
        """Not called: ``device`` is only a hint at the start."""

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        server, attachment = pair(id_, "a volume attachment")
        compute = client.in_region(state.get("region")).compute
        detach(compute, f"/servers/{server}/os-volume_attachments/{attachment}", "volume", operation)


class InterfaceAttach(OpenStackType):
    token = "openstack:compute/interfaceAttach:InterfaceAttach"
    import_id = "<instance id>/<port id>"
    description = "A port or network attached to an instance. Its id is <instance>/<port>."
    filled = FILLED_BY_SERVICE | {"portId", "networkId", "fixedIp"}
    fields = (
        REGION,
        Field("portId", computed=True, force_new=True, conflicts=("networkId", "fixedIp")),
        Field("networkId", computed=True, force_new=True, conflicts=("portId",)),
        Field("instanceId", required=True, force_new=True),
        Field("fixedIp", ADDRESS, computed=True, force_new=True, conflicts=("portId",)),
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if not given(inputs, "portId", "networkId"):
            yield CheckFailure("networkId", "is required, or portId")

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
        # The instance's own ports are older than its launch; Neutron has seconds only.
        launched = (cloud.compute.get(f"/servers/{server}")["server"].get("OS-SRV-USG:launched_at") or "")[:19]
        ports = (
            cloud.network.get(f"/ports/{item['port_id']}")["port"]
            for item in answer["interfaceAttachments"]
            if item["net_id"] == inputs["networkId"]
            and (not address or any(ADDRESS.same(fixed["ip_address"], address) for fixed in item["fixed_ips"]))
        )
        new = (port for port in ports if port["created_at"] >= launched)
        unknown = (port for port in new if f"{server}/{port['id']}" not in operation.others)
        found = only_candidate("interface", unknown, operation)
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
            "fixedIp": chosen(addresses, state.get("fixedIp")) or state.get("fixedIp") or "",
            "region": cloud.region,
        }

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        server, port = pair(id_, "an interface attachment")
        compute = client.in_region(state.get("region")).compute
        detach(compute, f"/servers/{server}/os-interface/{port}", "port", operation)
