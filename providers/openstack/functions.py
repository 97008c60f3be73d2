"""The functions (``get...``): look one thing up by what is known of it.

Each takes filters and wants exactly one match; nothing, or more than one, is an error that says what was asked for.
Unlike the official plugin, filters add up: tags narrow a network search instead of replacing the other filters, and
image properties count even if a single image is left.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from providers import schema
from providers.framework import Function, ProviderError
from providers.openstack import images
from providers.openstack.rest import snake
from providers.openstack.sdk import FILE
from providers.schema import BOOLEAN, INTEGER, NUMBER, STRING, Field, List, Map, Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from providers.framework import Operation
    from providers.openstack.client import Cloud
    from providers.schema import Kind
    from providers.values import Properties


def _describe_filters(arguments: Properties) -> str:
    given = {key: value for key, value in arguments.items() if key not in schema.RESERVED and value is not None}
    return ", ".join(f"{key}={value!r}" for key, value in given.items()) or "no filter at all"


def _one(
    what: str, found: Sequence[dict[str, Any]], arguments: Properties, known: Iterable[str] = ()
) -> dict[str, Any]:
    if len(found) == 1:
        return found[0]
    if not found:
        raise ProviderError(
            f"no {what} matches {_describe_filters(arguments)}"
            f"{schema.did_you_mean(arguments.get('name') or '', known)}",
            remedy="Check the spelling, the region and the project.",
        )
    some = ", ".join(f"{item.get('name') or '(no name)'} ({item['id']})" for item in found[:5])
    raise ProviderError(
        f"{len(found)} {what}s match {_describe_filters(arguments)}: {some}{', ...' if len(found) > 5 else ''}",
        remedy=f"Narrow the search, for instance with {'mostRecent' if what == 'image' else 'the id'}.",
    )


def _region(cloud: Cloud, arguments: Properties) -> Cloud:
    return cloud.in_region(arguments.get("region"))


# Networking.


def _search(
    what: str, filters: Mapping[str, str], results: Callable[[Cloud, dict[str, Any]], Properties]
) -> Callable[[Cloud, Properties, Operation], Properties]:
    """A lookup in a Neutron collection; ``filters`` are the arguments whose query parameter has another name."""
    collection = f"{what.replace(' ', '-')}s" if what != "floating IP" else "floatingips"

    def call(cloud: Cloud, arguments: Properties, operation: Operation) -> Properties:
        cloud = _region(cloud, arguments)
        params = {
            filters.get(key, snake(key)): ",".join(value) if key == "tags" else value
            for key, value in arguments.items()
            if key not in schema.RESERVED
            and filters.get(key, key) not in {"", "region"}
            and value not in (None, "", [])
        }
        if "fixed_ips" in params:
            params["fixed_ips"] = f"ip_address={params['fixed_ips']}"
        found = list(cloud.network.list(f"/{collection}", collection.replace("-", "_"), **params))
        if cidr := arguments.get("matchingSubnetCidr"):
            within = {subnet["network_id"] for subnet in cloud.network.list("/subnets", "subnets", cidr=cidr)}
            found = [item for item in found if item["id"] in within]
        if groups := set(arguments.get("securityGroupIds") or ()):
            found = [item for item in found if groups & set(item["security_groups"])]
        item = _one(what, found, arguments)
        return {
            "id": item["id"],
            "name": item.get("name"),
            "description": item.get("description"),
            "tenantId": item.get("tenant_id") or item.get("project_id"),
            "allTags": sorted(item.get("tags") or ()),
            "region": cloud.region,
            **results(cloud, item),
        }

    return call


def _network(cloud: Cloud, item: dict[str, Any]) -> Properties:
    return {
        "networkId": item["id"],
        "status": item["status"],
        # The package declares these two as strings.
        "adminStateUp": "true" if item["admin_state_up"] else "false",
        "shared": "true" if item["shared"] else "false",
        "external": item.get("router:external", False),
        "mtu": item.get("mtu"),
        "dnsDomain": item.get("dns_domain") or "",
        "transparentVlan": item.get("vlan_transparent") or False,
        "availabilityZoneHints": item.get("availability_zone_hints") or [],
        "subnets": item["subnets"],
        "segments": [
            {
                "networkType": segment.get("provider:network_type") or "",
                "physicalNetwork": segment.get("provider:physical_network") or "",
                "segmentationId": segment.get("provider:segmentation_id") or 0,
            }
            for segment in (item.get("segments") or [item])
            if segment.get("provider:network_type")
        ],
    }


def _routes(item: dict[str, Any], key: str) -> list[dict[str, str]]:
    return [{"destinationCidr": route["destination"], "nextHop": route["nexthop"]} for route in item.get(key) or ()]


def _subnet(cloud: Cloud, item: dict[str, Any]) -> Properties:
    return {
        "subnetId": item["id"],
        "networkId": item["network_id"],
        "cidr": item["cidr"],
        "ipVersion": item["ip_version"],
        "gatewayIp": item["gateway_ip"] or "",
        "enableDhcp": item["enable_dhcp"],
        "dnsNameservers": item["dns_nameservers"],
        "allocationPools": item["allocation_pools"],
        "hostRoutes": _routes(item, "host_routes"),
        "serviceTypes": item.get("service_types") or [],
        "dnsPublishFixedIp": item.get("dns_publish_fixed_ip") or False,
        **{
            name: item.get(snake(name)) or "" for name in ("ipv6AddressMode", "ipv6RaMode", "segmentId", "subnetpoolId")
        },
    }


def _router(cloud: Cloud, item: dict[str, Any]) -> Properties:
    gateway = item.get("external_gateway_info") or {}
    return {
        "routerId": item["id"],
        "status": item["status"],
        "adminStateUp": item["admin_state_up"],
        "distributed": item.get("distributed") or False,
        "availabilityZoneHints": item.get("availability_zone_hints") or [],
        "externalNetworkId": gateway.get("network_id") or "",
        "enableSnat": gateway.get("enable_snat") or False,
        "externalQosPolicyId": gateway.get("qos_policy_id") or "",
        "externalFixedIps": [
            {"subnetId": address["subnet_id"], "ipAddress": address["ip_address"]}
            for address in gateway.get("external_fixed_ips") or ()
        ],
        "routes": _routes(item, "routes"),
    }


def _port(cloud: Cloud, item: dict[str, Any]) -> Properties:
    profile = item.get("binding:profile")
    return {
        "portId": item["id"],
        "projectId": item.get("project_id") or item["tenant_id"],
        "adminStateUp": item["admin_state_up"],
        "networkId": item["network_id"],
        "status": item["status"],
        "deviceOwner": item["device_owner"],
        "deviceId": item["device_id"],
        "macAddress": item["mac_address"],
        "allFixedIps": [address["ip_address"] for address in item["fixed_ips"]],
        "allSecurityGroupIds": sorted(item["security_groups"]),
        "allowedAddressPairs": [
            {
                "ipAddress": pair["ip_address"],
                "macAddress": "" if pair["mac_address"] == item["mac_address"] else pair["mac_address"],
            }
            for pair in item.get("allowed_address_pairs") or ()
        ],
        "extraDhcpOptions": [
            {"name": option["opt_name"], "value": option["opt_value"], "ipVersion": option["ip_version"]}
            for option in item.get("extra_dhcp_opts") or ()
        ],
        "bindings": [
            {
                "hostId": item.get("binding:host_id") or "",
                "profile": "" if profile is None else json.dumps(profile),
                "vifDetails": {
                    key: value if isinstance(value, str) else json.dumps(value)
                    for key, value in (item.get("binding:vif_details") or {}).items()
                },
                "vifType": item.get("binding:vif_type") or "",
                "vnicType": item.get("binding:vnic_type") or "",
            }
        ],
        "dnsName": item.get("dns_name") or "",
        "dnsAssignments": item.get("dns_assignment") or [],
    }


def _security_group(cloud: Cloud, item: dict[str, Any]) -> Properties:
    return {"secgroupId": item["id"], "stateful": item.get("stateful", True)}


def _floating_ip(cloud: Cloud, item: dict[str, Any]) -> Properties:
    return {
        "address": item["floating_ip_address"],
        "pool": item["floating_network_id"],
        "portId": item["port_id"] or "",
        "fixedIp": item["fixed_ip_address"] or "",
        "status": item["status"],
        "dnsName": item.get("dns_name") or "",
        "dnsDomain": item.get("dns_domain") or "",
    }


# Compute.


def _get_flavor(cloud: Cloud, arguments: Properties, operation: Operation) -> Properties:
    cloud = _region(cloud, arguments)
    # 2.55 brought the description, 2.61 the extra specs.
    if flavor_id := arguments.get("flavorId"):
        answer = cloud.compute.find(f"/flavors/{quote(flavor_id, safe='')}", microversion="2.61")
        every = [answer["flavor"]] if answer else []
    else:
        params = {"minRam": arguments.get("minRam"), "minDisk": arguments.get("minDisk")}
        # Without a value only public flavors would be listed.
        params["is_public"] = str(arguments.get("isPublic"))
        every = list(cloud.compute.get("/flavors/detail", params=params, microversion="2.61")["flavors"])
    known = [
        {
            "id": flavor["id"],
            "flavorId": flavor["id"],
            "name": flavor["name"],
            "description": flavor["description"] or "",
            "ram": flavor["ram"],
            "vcpus": flavor["vcpus"],
            "disk": flavor["disk"],
            "swap": flavor["swap"] or 0,
            "rxTxFactor": flavor.get("rxtx_factor", 1.0),
            "isPublic": flavor.get("os-flavor-access:is_public", True),
            "extraSpecs": flavor.get("extra_specs") or {},
            "region": cloud.region,
        }
        for flavor in every
    ]
    wanted = {
        key: arguments[key]
        for key in ("name", "description", "ram", "vcpus", "disk", "swap", "rxTxFactor")
        if arguments.get(key) not in (None, "")
    }
    found = [flavor for flavor in known if wanted.items() <= flavor.items()]
    return _one("flavor", found, arguments, (flavor["name"] for flavor in known))


def _get_keypair(cloud: Cloud, arguments: Properties, operation: Operation) -> Properties:
    cloud = _region(cloud, arguments)
    name = arguments["name"]
    answer = cloud.compute.find(
        f"/os-keypairs/{quote(name, safe='')}", params={"user_id": arguments.get("userId")}, microversion="2.10"
    )
    keypair = _one("key pair", [{**answer["keypair"], "id": name}] if answer else [], arguments)
    return {
        "id": name,
        "fingerprint": keypair["fingerprint"],
        "publicKey": keypair["public_key"],
        "userId": keypair["user_id"],
        "region": cloud.region,
    }


def _get_zones(cloud: Cloud, arguments: Properties, operation: Operation) -> Properties:
    cloud = _region(cloud, arguments)
    available = arguments["state"] == "available"
    zones = sorted(
        zone["zoneName"]
        for zone in cloud.compute.get("/os-availability-zone")["availabilityZoneInfo"]
        if zone["zoneState"]["available"] == available
    )
    return {"id": _hash("".join(f"{zone}-" for zone in zones)), "names": zones, "region": cloud.region}


def _hash(text: str) -> str:
    # The id that Terraform's data sources give to a list.
    return str(zlib.crc32(text.encode()))


# Images.


def _images(cloud: Cloud, arguments: Properties) -> list[dict[str, Any]]:
    params = {
        snake(key): arguments.get(key)
        for key in (
            "name",
            "visibility",
            "memberStatus",
            "owner",
            "sizeMin",
            "sizeMax",
            "sort",
            "containerFormat",
            "diskFormat",
        )
    }
    tags = [*(arguments.get("tags") or ()), *([arguments["tag"]] if arguments.get("tag") else ())]
    hidden = "true" if arguments.get("hidden") else None
    found = images.search(cloud, {**params, "tag": tags, "os_hidden": hidden, "status": "active"})
    wanted = arguments.get("properties") or {}
    pattern = re.compile(arguments.get("nameRegex") or "")
    return [
        image
        for image in found
        if wanted.items() <= images.properties_of(image).items() and pattern.search(image["name"] or "")
    ]


def _get_image(cloud: Cloud, arguments: Properties, operation: Operation) -> Properties:
    cloud = _region(cloud, arguments)
    found = _images(cloud, arguments)
    if arguments.get("mostRecent") and found:
        found = [max(found, key=lambda image: image["created_at"])]
    known: list[str] = []
    if not found and arguments.get("name"):
        known = [image["name"] or "" for image in images.search(cloud, {"status": "active"})]
    image = _one("image", found, arguments, known)
    return {"id": image["id"], **images.attributes(image), "region": cloud.region}


def _get_image_ids(cloud: Cloud, arguments: Properties, operation: Operation) -> Properties:
    cloud = _region(cloud, arguments)
    ids = [image["id"] for image in _images(cloud, arguments)]
    return {"id": _hash(",".join(ids)), "ids": ids, "region": cloud.region}


def _regular_expression(value: str) -> str | None:
    try:
        re.compile(value)
    except re.error as error:
        return f"is not a regular expression: {error}"
    return None


# Identity.


def _get_auth_scope(cloud: Cloud, arguments: Properties, operation: Operation) -> Properties:
    cloud = _region(cloud, arguments)
    own = cloud.connection.session.get_token()
    token = cloud.identity.get("/auth/tokens", headers={"X-Subject-Token": own})["token"]
    results: Properties = {
        "id": arguments["name"],
        "region": cloud.region,
        "roles": [{"roleId": role["id"], "roleName": role["name"]} for role in token.get("roles") or ()],
        "serviceCatalogs": [
            {
                **{key: service.get(key) or "" for key in ("id", "name", "type")},
                "endpoints": [
                    {key: endpoint.get(snake(key)) or "" for key in ("id", "region", "regionId", "interface", "url")}
                    for endpoint in service["endpoints"]
                ],
            }
            for service in token.get("catalog") or ()
        ],
        "tokenId": own if arguments.get("setTokenId") else "",
    }
    user, project, domain = token["user"], token.get("project") or {}, token.get("domain") or {}
    for prefix, item in (
        ("user", user),
        ("project", project),
        ("domain", domain),
        ("userDomain", user["domain"]),
        ("projectDomain", project.get("domain") or {}),
    ):
        results |= {f"{prefix}Id": item.get("id", ""), f"{prefix}Name": item.get("name", "")}
    return results


_TYPES: Final = {"string": STRING, "boolean": BOOLEAN, "integer": INTEGER, "number": NUMBER}
_TABLE: Final[dict[str, dict[str, dict[str, Any]]]] = json.loads(FILE.read_text())
_TAGS: Final = {"kind": List(STRING, unordered=True), "description": "All of these tags."}
_IP_MODES: Final = ("slaac", "dhcpv6-stateful", "dhcpv6-stateless")
_IMAGE_FILTERS: Final[dict[str, dict[str, Any]]] = {
    "name": {"conflicts": ("nameRegex",)},
    "nameRegex": {"conflicts": ("name",), "validate": _regular_expression},
    "visibility": {"choices": ("public", "private", "shared", "community")},
    "memberStatus": {"choices": ("accepted", "pending", "rejected", "all")},
    "sizeMin": {"description": "Bytes."},
    "sizeMax": {"description": "Bytes."},
    "sort": {"description": "key:direction[,key:direction...]", "default": "name:asc"},
    "properties": {"description": "All of these properties."},
    "tags": _TAGS,
}


def _kind(form: Any) -> Kind:
    """The kind that a type of the table stands for."""
    if isinstance(form, list):
        return List(_kind(form[0]))
    if isinstance(form, str):
        return _TYPES[form]
    if "*" in form:
        return Map(_kind(form["*"]))
    return Object(tuple(Field(name, _kind(item)) for name, item in form["fields"].items()))


def _function(
    function: str,
    call: Callable[[Cloud, Properties, Operation], Properties],
    about: str,
    /,
    **behaviour: dict[str, Any],
) -> Function[Cloud]:
    """A function of the table. ``behaviour`` has what the SDK does not know, by property: fields of :class:`Field`."""
    token = f"openstack:{function}:{function.partition('/')[2]}"
    arguments, results = _TABLE[token]["arguments"], _TABLE[token]["results"]

    def field(key: str) -> Field:
        return replace(Field(key, _kind(results[key]), output=key not in arguments), **behaviour.get(key, {}))

    return Function(token, tuple(map(field, arguments)), tuple(map(field, results)), call, about)


TYPES: list[Any] = []
FUNCTIONS: list[Function[Cloud]] = [
    _function(
        "compute/getAvailabilityZones",
        _get_zones,
        "The names of the compute zones.",
        state={"default": "available", "choices": ("available", "unavailable")},
    ),
    _function(
        "compute/getFlavor",
        _get_flavor,
        "A flavor.",
        flavorId={"conflicts": ("minDisk", "minRam", "name")},
        name={"conflicts": ("flavorId",)},
        minRam={"conflicts": ("flavorId",)},
        minDisk={"conflicts": ("flavorId",)},
    ),
    _function("compute/getKeypair", _get_keypair, "A key pair.", name={"required": True}),
    _function(
        "identity/getAuthScope",
        _get_auth_scope,
        "The user, project and roles of the provider's credential.",
        name={"required": True, "description": "Any name; it becomes the result's id."},
        setTokenId={"description": "Return the token as well (a secret)."},
        tokenId={"secret": True},
    ),
    _function(
        "images/getImage",
        _get_image,
        "An active image.",
        mostRecent={"description": "The newest of several."},
        **_IMAGE_FILTERS,
    ),
    _function("images/getImageIds", _get_image_ids, "The ids of all active images that match.", **_IMAGE_FILTERS),
    _function(
        "networking/getFloatingIp",
        _search(
            "floating IP",
            {"address": "floating_ip_address", "pool": "floating_network_id", "fixedIp": "fixed_ip_address"},
            _floating_ip,
        ),
        "A floating IP.",
        tags=_TAGS,
    ),
    _function(
        "networking/getNetwork",
        _search(
            "network",
            {
                "networkId": "id",
                "external": "router:external",
                "transparentVlan": "vlan_transparent",
                "matchingSubnetCidr": "",
            },
            _network,
        ),
        "A network.",
        tags=_TAGS,
    ),
    _function(
        "networking/getPort",
        _search("port", {"portId": "id", "fixedIp": "fixed_ips", "securityGroupIds": ""}, _port),
        "A port.",
        securityGroupIds={**_TAGS, "description": "Any of these groups."},
        tags=_TAGS,
    ),
    _function(
        "networking/getRouter",
        _search("router", {"routerId": "id", "enableSnat": ""}, _router),
        "A router.",
        tags=_TAGS,
    ),
    _function(
        "networking/getSecGroup",
        _search("security group", {"secgroupId": "id"}, _security_group),
        "A security group.",
        tags=_TAGS,
    ),
    _function(
        "networking/getSubnet",
        _search("subnet", {"subnetId": "id", "dhcpEnabled": "enable_dhcp"}, _subnet),
        "A subnet.",
        ipVersion={"choices": (4, 6)},
        ipv6AddressMode={"choices": _IP_MODES},
        ipv6RaMode={"choices": _IP_MODES},
        tags=_TAGS,
    ),
]
