"""An instance's properties in the responses of Nova and other services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from providers.openstack.normal import ADDRESS, is_uuid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from providers.openstack.client import Cloud
    from providers.values import Properties

BOOTED_FROM_VOLUME: Final = "Attempt to boot from volume - no image supplied"
IMAGE_NOT_FOUND: Final = "Image not found"


def needs_image(devices: Iterable[Properties]) -> bool:
    """Block devices replace the image, unless one is a local disk made of it."""
    devices = list(devices)
    local = any(item.get("sourceType") == "image" and item.get("destinationType") == "local" for item in devices)
    return local or not devices


def _group_name(cloud: Cloud, group: str) -> str:
    """The name of a security group that may be given by its id."""
    answer = cloud.network.find(f"/security-groups/{group}") if is_uuid(group) else None
    return str(answer["security_group"]["name"]) if answer else group


def regrouped(cloud: Cloud, before: Iterable[str], after: Iterable[str]) -> tuple[list[str], list[str]]:
    """The security groups to leave and to join; a group by its id is the one of that name."""
    leave, join = sorted(set(before) - set(after)), sorted(set(after) - set(before))
    if not any(map(is_uuid, [*leave, *join])):
        return leave, join
    name = {group: _group_name(cloud, group) for group in (*leave, *join)}
    same = [
        (one, other) for one in leave for other in join if name[one] == name[other] and is_uuid(one) != is_uuid(other)
    ]
    return (
        [group for group in leave if group not in {one for one, _ in same}],
        [group for group in join if group not in {other for _, other in same}],
    )


def security_groups_of(cloud: Cloud, server: Properties, state: Properties) -> list[str]:
    """The instance's groups, of which Nova returns the names; as ids where the user gave ids."""
    names = list(dict.fromkeys(group["name"] for group in server.get("security_groups") or ()))
    given_ids = [group for group in state.get("securityGroups") or () if is_uuid(group) and group not in names]
    name = {group: _group_name(cloud, group) for group in given_ids}
    return [group for group in given_ids if name[group] in names] + [one for one in names if one not in name.values()]


def networks_of(cloud: Cloud, server: Properties, state: Properties) -> list[Properties]:
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
                **_interface(cloud, found, names, {}),
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
    # Ports are unambiguous, so they are matched first; a network's id or name takes the next interface on it.
    for item in sorted(wanted, key=lambda item: not item.get("port")):
        found = next((candidate for candidate in interfaces if fits(item, candidate)), None)
        if found is None:
            continue
        interfaces.remove(found)
        known = {
            **_interface(cloud, found, names, item),
            "uuid": found["net_id"],
            "port": item.get("port") or "",
            "accessNetwork": bool(item.get("accessNetwork")),
        }
        properties.append((wanted.index(item), known))
    return [known for _, known in sorted(properties, key=lambda entry: entry[0])]


def chosen(addresses: list[str], wanted: str | None) -> str:
    """The requested address, where there are several."""
    fitting = [address for address in addresses if wanted and ADDRESS.same(address, wanted)]
    return next(iter([*fitting, *addresses]), "")


def _interface(cloud: Cloud, found: Properties, names: dict[str, str], wanted: Properties) -> Properties:
    addresses = [address["ip_address"] for address in found.get("fixed_ips") or ()]
    network = found["net_id"]
    name = names.get(found["mac_addr"]) or cloud.network.get(f"/networks/{network}")["network"]["name"]
    return {
        "name": name,
        "fixedIpV4": chosen([address for address in addresses if ":" not in address], wanted.get("fixedIpV4")),
        "fixedIpV6": chosen([address for address in addresses if ":" in address], wanted.get("fixedIpV6")),
        "mac": found["mac_addr"],
    }


def access_addresses(networks: list[Properties]) -> tuple[str, str]:
    """The first address of each family; an access network's goes before, the last one's if there are several."""

    def best(family: str) -> str:
        of_access: list[str] = [item[family] for item in networks if item["accessNetwork"] and item[family]]
        return (of_access[-1:] or [item[family] for item in networks if item[family]] or [""])[0]

    return best("fixedIpV4"), best("fixedIpV6")


def flavor_of(cloud: Cloud, server: Properties) -> Properties:
    id_ = server["flavor"]["id"]

    def name() -> str:
        answer = cloud.compute.find(f"/flavors/{id_}")
        return str(answer["flavor"]["name"]) if answer else ""

    found = cloud.remember(("flavor", id_), name)
    return {"flavorId": id_ if found else "", "flavorName": found}


def image_of(cloud: Cloud, server: Properties, state: Properties) -> Properties:
    if state.get("blockDevices") and not needs_image(state["blockDevices"]):
        return {"imageId": BOOTED_FROM_VOLUME, "imageName": state.get("imageName") or ""}
    id_ = (server.get("image") or {}).get("id")
    if not id_:
        return {}
    if id_ == state.get("imageId") and state.get("imageName") and state.get("created"):
        # An image renamed or deleted since is no difference.
        return {"imageId": id_, "imageName": state["imageName"]}
    answer = cloud.image.find(f"/images/{id_}")
    return {"imageId": id_, "imageName": answer["name"] if answer else IMAGE_NOT_FOUND}


def boot_volumes(cloud: Cloud, server: Properties) -> list[Properties]:
    """The block devices that an instance was booted from, as far as its volumes show."""
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
