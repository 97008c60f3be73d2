"""The functions (``get...``): look one thing up by what is known of it.

Each takes filters and wants exactly one match; nothing, or more than one, is an error that says what was asked for.
Unlike the official plugin, filters add up: tags narrow a network search instead of replacing the other filters, and
image properties count even if a single image is left.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from providers import schema
from providers.framework import Function, ProviderError
from providers.openstack import images
from providers.openstack.rest import snake
from providers.schema import BOOLEAN, INTEGER, NUMBER, STRING, Field, List, Map, Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from providers.framework import Operation
    from providers.openstack.client import Cloud
    from providers.schema import Kind
    from providers.values import Properties

STRINGS = List(STRING)
TAGS = List(STRING, unordered=True)
IP_MODES = ("slaac", "dhcpv6-stateful", "dhcpv6-stateless")


def _fields(kind: Kind, names: str, **options: Any) -> tuple[Field, ...]:
    return tuple(Field(name, kind, **options) for name in names.split())


def _asked(arguments: Properties) -> str:
    given = {key: value for key, value in arguments.items() if key not in schema.RESERVED and value is not None}
    return ", ".join(f"{key}={value!r}" for key, value in given.items()) or "no filter at all"


def _one(
    what: str, found: Sequence[dict[str, Any]], arguments: Properties, known: Iterable[str] = ()
) -> dict[str, Any]:
    if len(found) == 1:
        return found[0]
    if not found:
        raise ProviderError(
            f"no {what} matches {_asked(arguments)}{schema.did_you_mean(arguments.get('name') or '', known)}",
            remedy="Check the spelling, the region and the project.",
        )
    some = ", ".join(f"{item.get('name') or '(no name)'} ({item['id']})" for item in found[:5])
    raise ProviderError(
        f"{len(found)} {what}s match {_asked(arguments)}: {some}{', ...' if len(found) > 5 else ''}",
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


_ROUTE = List(Object(_fields(STRING, "destinationCidr nextHop")))
_TAG_FIELDS = (Field("tags", TAGS, "All of these tags."),)
_ALL_TAGS = (Field("allTags", STRINGS, output=True), Field("id", output=True))

_IMAGE_FILTERS = (
    *_fields(STRING, "region containerFormat diskFormat owner tag"),
    Field("name", conflicts=("nameRegex",)),
    Field("nameRegex", conflicts=("name",), validate=_regular_expression),
    Field("visibility", choices=("public", "private", "shared", "community")),
    Field("memberStatus", choices=("accepted", "pending", "rejected", "all")),
    *_fields(INTEGER, "sizeMin sizeMax", description="Bytes."),
    Field("sort", description="key:direction[,key:direction...]", default="name:asc"),
    Field("hidden", BOOLEAN),
    Field("properties", Map(STRING), "All of these properties."),
    *_TAG_FIELDS,
)
_IMAGE_RESULTS = (
    *_fields(STRING, "id checksum createdAt updatedAt file schema", output=True),
    *_fields(INTEGER, "minDiskGb minRamMb sizeBytes", output=True),
    Field("metadata", Map(STRING), output=True),
    Field("protected", BOOLEAN, output=True),
)
_NETWORK = (
    *_fields(STRING, "region networkId name description status matchingSubnetCidr tenantId"),
    *_fields(BOOLEAN, "external transparentVlan"),
    Field("mtu", INTEGER),
    *_TAG_FIELDS,
)
_SUBNET = (
    *_fields(STRING, "region name description networkId tenantId gatewayIp cidr subnetId segmentId subnetpoolId"),
    *_fields(BOOLEAN, "dhcpEnabled dnsPublishFixedIp"),
    Field("ipVersion", INTEGER, choices=(4, 6)),
    *_fields(STRING, "ipv6AddressMode ipv6RaMode", choices=IP_MODES),
    *_TAG_FIELDS,
)
_ROUTER = (
    *_fields(STRING, "region routerId name description status tenantId"),
    *_fields(BOOLEAN, "adminStateUp distributed enableSnat"),
    *_TAG_FIELDS,
)
_PORT = (
    *_fields(
        STRING,
        "region portId name description networkId tenantId projectId deviceOwner macAddress deviceId "
        "fixedIp status dnsName",
    ),
    Field("adminStateUp", BOOLEAN),
    Field("securityGroupIds", TAGS, "Any of these groups."),
    *_TAG_FIELDS,
)
_SECURITY_GROUP = (
    *_fields(STRING, "region secgroupId name description tenantId"),
    Field("stateful", BOOLEAN),
    *_TAG_FIELDS,
)
_FLOATING_IP = (
    *_fields(STRING, "region description address pool portId tenantId fixedIp status"),
    *_TAG_FIELDS,
)
_FLAVOR = (
    Field("region"),
    Field("flavorId", conflicts=("minDisk", "minRam", "name")),
    Field("name", conflicts=("flavorId",)),
    *_fields(INTEGER, "minRam minDisk", conflicts=("flavorId",)),
    *_fields(INTEGER, "ram vcpus disk swap"),
    Field("rxTxFactor", NUMBER),
    Field("isPublic", BOOLEAN),
    Field("description"),
)
_KEYPAIR = (Field("region"), Field("name", required=True), Field("userId"))
_ZONES = (Field("region"), Field("state", default="available", choices=("available", "unavailable")))
_SCOPE = (
    Field("region"),
    Field("name", description="Any name; it becomes the result's id.", required=True),
    Field("setTokenId", BOOLEAN, "Return the token as well (a secret)."),
)


def _function(
    name: str,
    arguments: tuple[Field, ...],
    results: tuple[Field, ...],
    call: Callable[[Cloud, Properties, Operation], Properties],
    description: str,
) -> Function[Cloud]:
    return Function(f"openstack:{name}:{name.partition('/')[2]}", arguments, (*arguments, *results), call, description)


TYPES: list[Any] = []
FUNCTIONS: list[Function[Cloud]] = [
    _function(
        "compute/getAvailabilityZones",
        _ZONES,
        (Field("names", STRINGS, output=True), Field("id", output=True)),
        _get_zones,
        "The names of the compute zones.",
    ),
    _function(
        "compute/getFlavor",
        _FLAVOR,
        (Field("extraSpecs", Map(STRING), output=True), Field("id", output=True)),
        _get_flavor,
        "A flavor.",
    ),
    _function(
        "compute/getKeypair",
        _KEYPAIR,
        _fields(STRING, "id fingerprint publicKey", output=True),
        _get_keypair,
        "A key pair.",
    ),
    _function(
        "identity/getAuthScope",
        _SCOPE,
        (
            *_fields(
                STRING,
                "id userId userName userDomainId userDomainName domainId domainName projectId projectName "
                "projectDomainId projectDomainName",
                output=True,
            ),
            Field("tokenId", output=True, secret=True),
            Field("roles", List(Object(_fields(STRING, "roleId roleName"))), output=True),
            Field(
                "serviceCatalogs",
                List(
                    Object(
                        (
                            *_fields(STRING, "id name type"),
                            Field("endpoints", List(Object(_fields(STRING, "id region regionId interface url")))),
                        )
                    )
                ),
                output=True,
            ),
        ),
        _get_auth_scope,
        "Whom the provider's credential is, in which project, with which roles.",
    ),
    _function(
        "images/getImage",
        (*_IMAGE_FILTERS, Field("mostRecent", BOOLEAN, "The newest of several.")),
        _IMAGE_RESULTS,
        _get_image,
        "An active image.",
    ),
    _function(
        "images/getImageIds",
        _IMAGE_FILTERS,
        (Field("id", output=True), Field("ids", STRINGS, output=True)),
        _get_image_ids,
        "The ids of all active images that match.",
    ),
    _function(
        "networking/getFloatingIp",
        _FLOATING_IP,
        (*_ALL_TAGS, *_fields(STRING, "dnsName dnsDomain", output=True)),
        _search(
            "floating IP",
            {"address": "floating_ip_address", "pool": "floating_network_id", "fixedIp": "fixed_ip_address"},
            _floating_ip,
        ),
        "A floating IP.",
    ),
    _function(
        "networking/getNetwork",
        _NETWORK,
        (
            *_ALL_TAGS,
            *_fields(STRING, "adminStateUp shared dnsDomain", output=True),
            *_fields(STRINGS, "availabilityZoneHints subnets", output=True),
            Field(
                "segments",
                List(Object((*_fields(STRING, "networkType physicalNetwork"), Field("segmentationId", INTEGER)))),
                output=True,
            ),
        ),
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
    ),
    _function(
        "networking/getPort",
        _PORT,
        (
            *_ALL_TAGS,
            *_fields(STRINGS, "allFixedIps allSecurityGroupIds", output=True),
            Field("allowedAddressPairs", List(Object(_fields(STRING, "ipAddress macAddress"))), output=True),
            Field(
                "extraDhcpOptions",
                List(Object((*_fields(STRING, "name value"), Field("ipVersion", INTEGER)))),
                output=True,
            ),
            Field(
                "bindings",
                List(Object((*_fields(STRING, "hostId profile vifType vnicType"), Field("vifDetails", Map(STRING))))),
                output=True,
            ),
            Field("dnsAssignments", List(Map(STRING)), output=True),
        ),
        _search("port", {"portId": "id", "fixedIp": "fixed_ips", "securityGroupIds": ""}, _port),
        "A port.",
    ),
    _function(
        "networking/getRouter",
        _ROUTER,
        (
            *_ALL_TAGS,
            *_fields(STRING, "externalNetworkId externalQosPolicyId", output=True),
            Field("availabilityZoneHints", STRINGS, output=True),
            Field("externalFixedIps", List(Object(_fields(STRING, "subnetId ipAddress"))), output=True),
            Field("routes", _ROUTE, output=True),
        ),
        _search("router", {"routerId": "id", "enableSnat": ""}, _router),
        "A router.",
    ),
    _function(
        "networking/getSecGroup",
        _SECURITY_GROUP,
        _ALL_TAGS,
        _search("security group", {"secgroupId": "id"}, _security_group),
        "A security group.",
    ),
    _function(
        "networking/getSubnet",
        _SUBNET,
        (
            *_ALL_TAGS,
            Field("enableDhcp", BOOLEAN, output=True),
            *_fields(STRINGS, "dnsNameservers serviceTypes", output=True),
            Field("allocationPools", List(Object(_fields(STRING, "start end"))), output=True),
            Field("hostRoutes", _ROUTE, output=True),
        ),
        _search("subnet", {"subnetId": "id", "dhcpEnabled": "enable_dhcp"}, _subnet),
        "A subnet.",
    ),
]
