"""What a course allows its students' stacks, as a policy pack: `lab preview --policy-pack policies/course`.

It needs pulumi-policy alone, so that a copy of this folder can be changed and kept anywhere. Each policy's settings go
into the file of `--policy-pack-config`. All policies are of resources: those of a stack are asked when all is made.
"""

import ipaddress
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

INSTANCE = "openstack:compute/instance:Instance"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
LEASE = "pulumi-python:dynamic/blazar:Lease"
LEASE_END = "pulumi-python:dynamic/blazar:LeaseEnd"
NETWORKING = ("FloatingIp", "Network", "Port", "QosPolicy", "Router", "SecGroup", "Subnet", "SubnetPool", "Trunk")
LOAD_BALANCING = ("Listener", "LoadBalancer", "Member", "Pool")
TAGGED = {
    INSTANCE,
    "openstack:blockstorage/volume:Volume",
    "openstack:images/image:Image",
    "openstack:objectstorage/container:Container",
    "openstack:sharedfilesystem/share:Share",
    *(f"openstack:networking/{name[0].lower()}{name[1:]}:{name}" for name in NETWORKING),
    *(f"openstack:loadbalancer/{name[0].lower()}{name[1:]}:{name}" for name in LOAD_BALANCING),
}
"""Types that carry tags or metadata; keypairs, server groups and rules have neither."""
DAY_STARTS = time(8)
ANY_PROTOCOL = {"", "0", "any", "tcp", "6"}
"""How Neutron spells TCP, and every protocol."""

Props = Mapping[str, Any]


# --- what is judged, apart from Pulumi ------------------------------------------------------------------------------


def opens(rule: Props, ports: list[float], shortest: Mapping[int, float]) -> str:
    """The range that an ingress rule opens one of `ports` to, if its prefix is below `shortest` of its IP version."""
    if str(rule.get("direction", "")).lower() != "ingress" or rule.get("remoteGroupId"):
        return ""
    if str(rule.get("protocol") or "").lower() not in ANY_PROTOCOL:
        return ""
    first, last = rule.get("portRangeMin"), rule.get("portRangeMax")
    low, high = (0, 65535) if first is None and last is None else (first or 0, last or first or 65535)
    if not any(low <= port <= high for port in ports):
        return ""
    everywhere = "::/0" if str(rule.get("ethertype", "")).lower() == "ipv6" else "0.0.0.0/0"
    text = rule.get("remoteIpPrefix") or everywhere
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ""  # Neutron refuses it
    return str(network) if network.prefixlen < shortest[network.version] else ""


def tags_of(props: Props) -> set[str]:
    """Names of a resource's tags: of `name` and `name=value` in Neutron, and of metadata."""
    names = {str(tag).partition("=")[0] for tag in props.get("tags") or ()}
    return names | set(props.get("metadata") or {})


def period(props: Props, now: datetime, start: str) -> tuple[datetime, datetime] | None:
    """Start and end of a lease that starts at `start`, or now; None where it has no end yet."""
    begins = _instant(start) if start else now
    if end := props.get("end"):
        return begins, _instant(end)
    return (begins, begins + timedelta(hours=props["hours"])) if props.get("hours") else None


def _instant(text: str) -> datetime:
    """A time of the settings or of Blazar; without a zone it is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def daytime(start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[tuple[str, float]]:
    """Each day of a period, and its hours between 8:00 and midnight there."""
    first, last = start.astimezone(zone), end.astimezone(zone)
    day = first.date()
    while day <= last.date():
        opening = datetime.combine(day, DAY_STARTS, zone)
        closing = datetime.combine(day + timedelta(days=1), time(), zone)
        hours = (min(last, closing) - max(first, opening)).total_seconds() / 3600
        if hours > 0:
            yield day.isoformat(), hours
        day += timedelta(days=1)


class Counter:
    """How much of something the stack has asked for so far. Resources come side by side, and some more than once."""

    def __init__(self) -> None:
        self._amounts: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, urn: str, amount: float = 1) -> float:
        """Count a resource; the sum."""
        with self._lock:
            self._amounts[urn] = amount
            return sum(self._amounts.values())


# --- the policies ---------------------------------------------------------------------------------------------------

nodes, reserved, addresses = Counter(), Counter(), Counter()
starts: dict[str, str] = {}
"""When leases are to start, by their names in Blazar; empty for now."""
reported: set[tuple[str, str]] = set()
"""What was said of a lease by its name: it is two resources, the lease and its end."""


def no_open_ssh(args: ResourceValidationArgs) -> Iterator[str]:
    """Security group rules that open a port to too many addresses."""
    if args.resource_type != RULE:
        return
    config = args.get_config()
    shortest = {4: config["shortestIpv4Prefix"], 6: config["shortestIpv6Prefix"]}
    if found := opens(args.props, config["ports"], shortest):
        ports = ", ".join(f"{port:g}" for port in config["ports"])
        yield f"Port {ports} is open to {found}. Give your own range: access.sshFrom in the stack's settings."


def few_nodes(args: ResourceValidationArgs) -> Iterator[str]:
    """Servers, and reservations for servers, beyond a number."""
    most = args.get_config()["most"]
    if args.resource_type == INSTANCE and (count := nodes.add(args.urn)) > most:
        yield f"The stack asks for {count:g} nodes, {most:g} are allowed: see nodes.groups in its settings."
    if args.resource_type == LEASE and (count := reserved.add(args.urn, args.props["amount"])) > most:
        yield f"The stack's leases reserve {count:g} nodes, {most:g} are allowed: see nodes.groups in its settings."


def few_floating_ips(args: ResourceValidationArgs) -> Iterator[str]:
    """Floating IPs beyond a number."""
    most = args.get_config()["most"]
    if args.resource_type == FLOATING_IP and (count := addresses.add(args.urn)) > most:
        yield (
            f"The stack asks for {count:g} floating IPs, {most:g} allowed. With network.floatingIps: "
            "first-control-plane in its settings it takes one."
        )


def short_lease(args: ResourceValidationArgs) -> Iterator[str]:
    """Leases longer than a number of hours."""
    if (found := _lease(args)) is None:
        return
    hours, most = (found[1] - found[0]).total_seconds() / 3600, args.get_config()["hours"]
    if hours > most:
        message = f"The lease takes {hours:.3g} hours, {most:g} are allowed: see lease in the stack's settings."
        yield from _once(args.props["name"], message)


def few_daytime_hours(args: ResourceValidationArgs) -> Iterator[str]:
    """Leases that take too much of a day."""
    # Of a lease that starts at once, only its end knows the start: it may be there already.
    if (found := _lease(args)) is None or (args.resource_type == LEASE and not args.props.get("start")):
        return
    config = args.get_config()
    most = config["hours"]
    for day, hours in daytime(*found, _zone(config["timezone"])):
        if hours > most:
            message = (
                f"The lease takes {hours:.3g} daytime hours on {day}, {most:g} are allowed (8:00 to midnight, "
                f"{config['timezone']}; nights are free). Shorten it, or start it in the evening."
            )
            yield from _once(args.props["name"], message)


def required_tags(args: ResourceValidationArgs) -> Iterator[str]:
    """Resources that lack a tag: nobody can tell whose they are."""
    if args.resource_type not in TAGGED:
        return
    if missing := sorted(set(args.get_config()["tags"]) - tags_of(args.props)):
        yield f"It has no tag {', '.join(missing)}. Give it tags, or metadata where its type has those."


def _lease(args: ResourceValidationArgs) -> tuple[datetime, datetime] | None:
    """Start and end that a lease is to have; None for other resources."""
    if args.resource_type not in (LEASE, LEASE_END):
        return None
    name = args.props["name"]
    if args.resource_type == LEASE:
        start = starts[name] = args.props.get("start") or ""
    else:
        try:
            start = args.props["start_date"]
        except UnknownValueError:  # the lease is still to be made
            start = starts.get(name, "")
    return period(args.props, datetime.now(UTC), start)


def _once(name: str, message: str) -> Iterator[str]:
    if (name, message) not in reported:
        reported.add((name, message))
        yield message


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"few-daytime-hours: there is no time zone {name!r}, as America/Chicago is one") from None


def _policy(
    name: str,
    description: str,
    find: Callable[[ResourceValidationArgs], Iterator[str]],
    settings: dict[str, dict[str, Any]],
) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for message in find(args):
            report(message, None)

    schema = PolicyConfigSchema(settings)
    return ResourceValidationPolicy(name, description, validate, EnforcementLevel.MANDATORY, schema)


def _number(default: int, least: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "number", "minimum": least, "default": default, **more}


POLICIES = [
    _policy(
        "no-open-ssh",
        "SSH is open to known ranges only.",
        no_open_ssh,
        {
            "ports": {"type": "array", "items": _number(22, 1, maximum=65535), "minItems": 1, "default": [22]},
            "shortestIpv4Prefix": _number(8, maximum=32),
            "shortestIpv6Prefix": _number(32, maximum=128),
        },
    ),
    _policy("few-nodes", "A stack has few nodes.", few_nodes, {"most": _number(4)}),
    _policy("few-floating-ips", "Floating IPs are scarce.", few_floating_ips, {"most": _number(1)}),
    _policy("short-lease", "Leases are short.", short_lease, {"hours": _number(12)}),
    _policy(
        "few-daytime-hours",
        "Leases leave the daytime to others.",
        few_daytime_hours,
        {"hours": _number(8, maximum=16), "timezone": {"type": "string", "default": "UTC"}},
    ),
    _policy(
        "required-tags",
        "Resources say whose they are.",
        required_tags,
        {"tags": {"type": "array", "items": {"type": "string"}, "default": ["ml-cluster:stack"]}},
    ),
]

if __name__ == "__main__":
    PolicyPack("course", POLICIES)
