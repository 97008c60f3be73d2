"""Normal forms: the spellings of a value that are the same to a service, which stores one of them.

Inputs stay as the user writes them, and are sent so; outputs are what the service stores. They are compared by their
normal forms, so another spelling of a value is not a change: in a preview, after a refresh, or in the search for what
an interrupted create has made.

Each kind names what it was derived from in the services' sources. What takes more than one property to tell (a port
range by its protocol) is in the types themselves, in ``OpenStackType.normalized``.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from providers.schema import STRING, CheckFailure, Difference, Kind, List

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Normalized(Kind):
    """A string with more than one spelling.

    normal: the normal form; raises ValueError for an invalid value. what: what a value must be, with its article; empty
    where any text is valid.
    """

    normal: Callable[[str], object]
    what: str = ""
    name = "string"

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:
        text, valid = STRING.coerce(value, path, failures), True
        if self.what and text and isinstance(text, str):
            try:
                self.normal(text)
            except ValueError:
                valid = False
        if not valid:
            failures.append(CheckFailure(path, f"must be {self.what}, not {text!r}"))
        return text

    def schema(self, owner: str, types: dict[str, Any]) -> dict[str, Any]:
        return {"type": self.name}

    def differences(self, path: str, old: Any, new: Any) -> Iterator[Difference]:
        if self._normal(old) != self._normal(new):
            yield Difference(path, "UPDATE")

    def _normal(self, value: Any) -> object:
        try:
            return self.normal(value) if isinstance(value, str) else value
        except ValueError:
            return value


def is_uuid(value: object) -> bool:
    """Whether it is an id, where a name is accepted too."""
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value))


def same_items(item: Kind) -> Callable[[list[Any] | None, list[Any] | None], bool]:
    """For lists that the service sorts its own way: whether both hold the same items."""
    kind = List(item, unordered=True)

    def same(old: list[Any] | None, new: list[Any] | None) -> bool:
        # The most specific items are matched first.
        wanted = sorted(new or (), key=lambda one: -len([part for part in one.values() if part]))
        return kind.same(old or [], wanted)

    return same


def address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IP address."""
    return ipaddress.ip_address(value)


def network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network of a CIDR, whatever its host bits; a plain address is a network of one."""
    return ipaddress.ip_network(value, strict=False)


def mac(value: str) -> str:
    """Twelve hexadecimal digits, of groups of two, four, six or twelve."""
    separators = set(re.sub(r"[0-9A-Fa-f]", "", value))
    groups = re.split(r"[-:.]", value)
    width = 12 // len(groups)
    if len(separators) > 1 or len(groups) not in (1, 2, 3, 6) or not all(0 < len(group) <= width for group in groups):
        raise ValueError(value)
    return f"{int(''.join(group.zfill(width) for group in groups), 16):012x}"


def final_dot_fault(value: str) -> str | None:
    """The check failure of a domain without its final dot."""
    return None if value == "" or value.endswith(".") else f"must end with a dot: {value + '.'!r}"


def record(value: str) -> object:
    """The data of a DNS record: an address, or text as it is."""
    try:
        return address(value)
    except ValueError:
        return value


def instant(value: str) -> datetime:
    """A time; without a zone it is UTC."""
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def json_object(value: str) -> dict[str, Any]:
    """The object of a JSON text."""
    parsed = json.loads(value)
    if not isinstance(parsed, dict):
        raise ValueError(value)
    return parsed


def access_list(value: str) -> list[str]:
    """The items of a container's access control list."""

    def item(text: str) -> str:
        designator, _, pattern = (part.strip() for part in text.partition(":"))
        if designator not in (".r", ".ref", ".referer", ".referrer"):
            return text
        sign, pattern = ("-", pattern[1:].strip()) if pattern.startswith("-") else ("", pattern)
        return f".r:{sign}{pattern if pattern == '*' else pattern.removeprefix('*').strip()}"

    return [item(part.strip()) for part in value.split(",") if part.strip()]


# The numbers of the names that Neutron knows (neutron_lib.constants.IP_PROTOCOL_MAP), and `any`, which stands for none.
PROTOCOLS: Final = {
    "ah": 51,
    "any": None,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
ICMP: Final = frozenset({1, 58})
ALL_PORTS: Final = (1, 65535)


def protocol(value: str | None, ethertype: str | None = None) -> int | str | None:
    """The number of a protocol given by name or number; None for any, the name if it is not known.

    IPv6 has its own ICMP alone (neutron.db.securitygroups_db: _make_canonical_ipv6_icmp_protocol).
    """
    if not value:
        return None
    number = int(value) if value.isdecimal() else PROTOCOLS.get(value, value)
    return 58 if number == 1 and ethertype == "IPv6" else number


FILLED_BY_SERVICE: Final = frozenset(
    [
        "availabilityZone",
        "cidr",
        "deviceId",
        "deviceOwner",
        "expectedCodes",
        "flavorId",
        "flavorName",
        "gatewayIp",
        "hypervisorHostname",
        "imageId",
        "imageName",
        "loadbalancerProvider",
        "macAddress",
        "projectId",
        "publicKey",
        "region",
        "secret",
        "storagePolicy",
        "tenantId",
        "tlsCiphers",
        "urlPath",
        "vipAddress",
        "vipNetworkId",
        "vipPortId",
        "vipSubnetId",
        "volumeType",
    ]
)
"""Properties that services fill in where they are missing or an empty string."""


def unset(_old: str | None, new: str | None) -> bool:
    """The same of a nested property."""
    return new == ""


ADDRESS: Final = Normalized(address, "an IP address")
"""Neutron (neutron_lib.api.converters.convert_ip_to_canonical_format) and Octavia (`compressed`): the short form."""
NETWORK: Final = Normalized(network, "a CIDR such as 10.0.0.0/24")
"""Neutron (convert_cidr_to_canonical_format, convert_ip_prefix_to_cidr), Octavia (CidrType): short, with its length."""
MAC: Final = Normalized(mac, "a MAC address such as fa:16:3e:00:00:01")
"""Neutron (convert_to_sanitized_mac_address): small letters and colons."""
CASELESS: Final = Normalized(str.lower)
"""Neutron's and Designate's host names (convert_string_to_case_insensitive), of which the final dot has a meaning, and
what Keystone's database looks up without regard to case: roles, services."""
RECORD: Final = Normalized(record)
"""Designate (rrdata_a, rrdata_aaaa)."""
TRIMMED: Final = Normalized(str.strip)
"""Cinder (validate_name_and_description): no blanks around it. Nova keeps those around a key, but reads its words."""
INSTANT: Final = Normalized(instant)
"""Keystone (parse_expiration_date): UTC."""
SECOND: Final = Normalized(lambda value: int(instant(value).timestamp()))
"""Swift (X-Delete-At): whole seconds."""
JSON: Final = Normalized(json_object, "a JSON object")
"""Neutron keeps the object, not its text."""
ACCESS_LIST: Final = Normalized(access_list)
"""Swift (swift.common.middleware.acl.clean_acl)."""
