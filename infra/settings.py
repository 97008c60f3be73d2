"""The stack's configuration: one strict model, checked as a whole before anything is asked of the cloud.

Free of Pulumi, so that the program, `lab doctor` and the tests all read `Pulumi.<stack>.yaml` through `load_settings`.
"""

import contextlib
import copy
import difflib
import fnmatch
import functools
import ipaddress
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn
from zoneinfo import ZoneInfo, available_timezones

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from infra.naming import PROJECT, STACK_NAME_LIMIT, is_dns_label, node_part, resource_name

Network4 = ipaddress.IPv4Network
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Location = tuple[str | int, ...]

REFERENCE = "docs/reference/settings.md"
PODS_PER_NODE_PREFIX = 24
"""Length of the prefix each node's pods get: the default `--node-cidr-mask-size` of kube-controller-manager."""
ADDRESSES_BESIDE_NODES = 5
"""Addresses of a subnet that no node can have: network, broadcast, router, DHCP and one to replace a node."""


def _refuse(problem: str, remedy: str) -> NoReturn:
    raise PydanticCustomError("refused", "{problem}", {"problem": problem, "remedy": remedy})


def _network(value: object) -> Network:
    if not isinstance(value, str):
        _refuse("is not a CIDR range in quotes", 'Write it as text, such as "10.42.0.0/24".')
    if "/" not in value:
        _refuse("has no prefix length", f'Add one, such as "{value}/32" for a single address.')
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        inside = ipaddress.ip_interface(value).network
    except ValueError:
        _refuse("is not a CIDR range", 'Write a network such as "10.42.0.0/24".')
    _refuse("is an address inside a range, not the range", f'Write "{inside}".')


def _network4(value: object) -> Network4:
    network = _network(value)
    if not isinstance(network, Network4):
        _refuse("is an IPv6 range", 'Write an IPv4 range such as "10.42.0.0/24".')
    return network


def _address4(value: object) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        _refuse("is not an IPv4 address", 'Write an address such as "9.9.9.9".')


def _instant(value: object) -> datetime:
    hint = 'Write it as "2026-12-01T18:00Z", or with an offset such as "+01:00".'
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        _refuse("is not a date with a time", hint)
    if instant.tzinfo is None:
        _refuse("does not say its time zone", hint)
    return instant.astimezone(UTC).replace(second=0, microsecond=0)


def _public_key(value: str) -> str:
    if "PRIVATE KEY" in value:
        _refuse("is a private key", "Give the public half: the text of the file that ends in .pub.")
    try:
        load_ssh_public_key(value.encode())
    except (ValueError, UnsupportedAlgorithm):
        _refuse("is not an OpenSSH public key", "Give one line such as `ssh-ed25519 AAAA... you@laptop`.")
    return value.strip()


def _timezone(value: str) -> str:
    if value not in available_timezones():
        near = difflib.get_close_matches(value, available_timezones(), n=1)
        _refuse("is not a time zone", f'Did you mean "{near[0]}"?' if near else 'Write one such as "America/Chicago".')
    return value


def _none_or_section(value: object) -> object:
    return None if value == "none" else value


def _text(form: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": form, "examples": list(examples)})


Cidr = Annotated[Network, BeforeValidator(_network), _text("CIDR", "192.0.2.0/24")]
Cidr4 = Annotated[Network4, BeforeValidator(_network4), _text("IPv4 CIDR", "192.0.2.0/24")]
Address4 = Annotated[ipaddress.IPv4Address, BeforeValidator(_address4), _text("IPv4 address", "192.0.2.1")]
Instant = Annotated[datetime, BeforeValidator(_instant), _text("date and time with its zone (ISO 8601)")]
PublicKey = Annotated[str, AfterValidator(_public_key), _text("OpenSSH public key")]
TimeZone = Annotated[str, AfterValidator(_timezone), _text("IANA time zone")]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^\S(.*\S)?$", examples=["name"])]
Port = Annotated[int, Field(ge=1, le=65535, examples=[1])]


class Section(BaseModel):
    """A part of the settings: keys in camelCase, no key but the declared, no conversion between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Cloud(Section):
    """Which OpenStack, and what it offers. Lists given here are checked before the cloud is asked anything."""

    name: Name | None = Field(
        default=None,
        description="Entry of clouds.yaml to use. Without it, the OS_* variables of the environment are used.",
    )
    region: Name | None = Field(default=None, description="Region, where the entry of clouds.yaml has several.")
    flavors: list[Name] = Field(
        default=[],
        description="Flavors that the site offers. With a list here, a misspelt flavor is found before any API call; "
        "an empty list leaves that to the cloud.",
    )
    bare_metal_flavors: list[Name] = Field(
        default=["baremetal"],
        description="Flavors that are whole machines (Ironic). They need a lease of type physical:host.",
    )
    lease_days: dict[str, Annotated[int, Field(ge=1, le=3660)]] = Field(
        default={"*": 183},
        description="Longest lease the site grants, in days, by flavor (shell pattern; the strictest that matches "
        "counts). Chameleon: 183 days on KVM@TACC, 7 days for g1.h100.* (Chameleon documentation, Reservations).",
    )


class Lease(Section):
    """A Blazar reservation that the nodes run in; made, extended and deleted with the stack."""

    type: Literal["flavor:instance", "physical:host"] = Field(
        description="What is reserved: flavor:instance (virtual machines) or physical:host (whole hosts). Each "
        "node group has a lease of its own, so that another number of workers leaves the control plane alone.",
        examples=["flavor:instance"],
    )
    hours: int | None = Field(
        default=None, ge=1, le=24 * 3660, description="Length in hours from the start. Either this or `end`."
    )
    end: Instant | None = Field(default=None, description="When the lease ends. Either this or `hours`.")
    start: Instant | None = Field(
        default=None,
        description="When the lease starts; now by default. With a start further away than `waitMinutes`, `up` makes "
        "the lease and the network, and an `up` after the start makes the nodes.",
    )
    wait_minutes: int = Field(
        default=15, ge=1, le=240, description="How long, in minutes, `up` waits for the lease to become ACTIVE."
    )
    daytime_hours: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Warn where the lease takes more than this many hours between 8:00 and midnight of one day (the "
        "course's rule: at most 8 of them; nights are free).",
    )
    timezone: TimeZone = Field(default="UTC", description="Time zone in which `daytimeHours` counts.")


class NetworkSettings(Section):
    """The nodes' network, the ranges inside the cluster, and the way out."""

    existing: Name | None = Field(
        default=None,
        description="Name of a shared network to use (e.g. sharednet1). Without it the stack makes its own.",
    )
    cidr: Cidr4 = Field(
        default=Network4("10.42.0.0/24"),
        description="Range of the nodes' subnet; with `existing`, the range which that network has.",
    )
    pod_cidr: Cidr4 = Field(
        default=Network4("10.244.0.0/16"), description="Range of the pods, a /24 of it for each node (Kubernetes)."
    )
    service_cidr: Cidr4 = Field(
        default=Network4("10.96.0.0/16"),
        description="Range of Kubernetes services, /12 at the largest (kube-apiserver --service-cluster-ip-range).",
    )
    external_cidrs: list[Cidr4] = Field(
        default=[],
        description="Ranges outside the stack that nodes must reach (campus, VPN, floating IPs). None may overlap.",
    )
    external_network: Name | None = Field(
        default=None, description="Network that the router's gateway and the floating IPs are on (e.g. public)."
    )
    floating_ips: Literal["first-control-plane", "control-plane", "all", "none"] = Field(
        default="first-control-plane", description="Which nodes get a floating IP. They are scarce: one is enough."
    )
    dns_servers: list[Address4] = Field(
        default=[], description="Name servers that the subnet hands out; the cloud's if empty."
    )
    mtu: int | None = Field(
        default=None, ge=1280, le=9000, description="MTU of the own network in bytes; the cloud's if unset."
    )
    port_security: bool = Field(
        default=True,
        description="Filter the nodes' traffic by security groups. False only where the site has it off, as for "
        "Chameleon's bare metal on sharednet1.",
    )
    address_pairs: bool | None = Field(
        default=None,
        description="Let nodes send with addresses of pods and services (routed pod networks need it; overlays do "
        "not). By default true on an own network, false on an existing one, whose owner alone may set it (Neutron).",
    )

    @property
    def routes_pods(self) -> bool:
        """Whether ports carry allowed address pairs for the pods' and services' ranges."""
        wanted = self.existing is None if self.address_pairs is None else self.address_pairs
        return wanted and self.port_security


class Access(Section):
    """Who can reach the nodes, from where, with which key."""

    ssh_from: list[Cidr] = Field(
        min_length=1,
        description="Ranges that may open SSH connections. 0.0.0.0/0 is every address there is: it is warned of.",
        examples=[["192.0.2.0/24"]],
    )
    web_from: list[Cidr] = Field(
        default=[Network4("0.0.0.0/0")],
        description="Ranges that may reach `webPorts` on the nodes that have a floating IP.",
    )
    web_ports: list[Port] = Field(default=[80, 443], min_length=1, description="TCP ports that are open to `webFrom`.")
    api_from: list[Cidr] = Field(
        default=[],
        description="Ranges that may reach the Kubernetes API (TCP 6443) and the platform's gateway (TCP 30443, 30080) "
        "from outside. None by default: use SSH.",
    )
    user: Name = Field(default="debian", description="Login of the image (debian, ubuntu, cc on Chameleon's images).")
    public_key: PublicKey | None = Field(
        default=None, description="Public key that may log in, as text; its other half goes into ml-cluster:privateKey."
    )
    public_key_file: Name | None = Field(
        default=None,
        description="File with the public key, relative to the stack's file; ~ is the home folder. With neither this "
        "nor `publicKey` a key pair is made, its private half a secret output.",
    )


class NodeGroup(Section):
    """Nodes of one role and flavor, named <stack>-<group>-<index>."""

    role: Literal["control-plane", "worker", "gpu-worker"] = Field(
        description="What the nodes do. The control planes of all groups are 1 or 3: etcd needs an odd number "
        "(Kubernetes documentation, Options for Highly Available Topology).",
        examples=["worker"],
    )
    count: int = Field(ge=0, le=250, description="How many.", examples=[1])
    flavor: Name = Field(
        description="Flavor by its plain name. With a lease of type flavor:instance, it is what is reserved.",
        examples=["m1.small"],
    )
    image: Name | None = Field(default=None, description="Image of this group; `nodes.image` by default.")
    boot_volume_gb: int | None = Field(
        default=None, ge=5, le=16384, description="Boot from a volume of this size in GB, not from the flavor's disk."
    )
    boot_volume_type: Name | None = Field(default=None, description="Volume type of the boot volume.")
    host_properties: dict[str, str] = Field(
        default={},
        description="Which hosts to reserve, as Blazar's host properties, e.g. {node_type: compute_skylake}.",
    )
    hosts: int | None = Field(
        default=None, ge=1, le=250, description="Hosts to reserve with physical:host; one for each node by default."
    )
    availability_zone: Name | None = Field(
        default=None, description="Availability zone; the cloud's choice by default."
    )


class Nodes(Section):
    """The machines of the cluster."""

    image: Name = Field(description="Image that nodes boot, by name.", examples=["debian-12"])
    anti_affinity: Literal["soft", "hard", "none"] = Field(
        default="soft",
        description="Spread each group's nodes over hosts: if possible (soft), or else fail (hard).",
    )
    on_flavor_change: Literal["resize", "replace"] = Field(
        default="resize",
        description="Another flavor resizes a node in place (restart), or replaces it. Reserved nodes are always "
        "replaced: their flavor is the reservation.",
    )
    groups: dict[str, NodeGroup] = Field(
        min_length=1,
        description="Node groups by name.",
        examples=[{"control": {"role": "control-plane", "count": 1, "flavor": "m1.small"}}],
    )

    @property
    def total(self) -> int:
        """Nodes of all groups."""
        return sum(group.count for group in self.groups.values())


class Volume(Section):
    """A volume, named <stack>-<name>."""

    size_gb: int = Field(ge=1, le=16384, description="Size in GB. It can grow, not shrink.", examples=[10])
    type: Name | None = Field(default=None, description="Volume type (e.g. ceph-ssd); the cloud's default if unset.")
    attach_to: Name | None = Field(default=None, description="Node that it is attached to, as <group>-<index>.")
    holds: Literal["etcd", "stores"] | None = Field(
        default=None,
        description="What of the cluster is kept on it, and so outlives the node's server: `etcd`, the cluster's "
        "objects and keys, on a control plane; `stores`, the local volumes of databases and object stores.",
    )
    protect: bool = Field(default=False, description="Refuse to delete it, by `destroy` too, until this is taken away.")
    retain: bool = Field(default=False, description="Leave it in the cloud when it leaves the stack.")


class Storage(Section):
    """Volumes that outlive nodes."""

    volumes: dict[str, Volume] = Field(default={}, description="Volumes by name.")


class Cluster(Section):
    """Kubernetes on the nodes, made by the playbooks of ansible/."""

    kubernetes_version: str = Field(
        default="v1.37.2",
        pattern=r"^v1\.\d+\.\d+$",
        description="Version of Kubernetes, one that the bundle holds (`lab bundle ls`). A newer one upgrades the "
        "nodes one after the other, by one minor version at most (Kubernetes documentation, Version Skew Policy).",
    )
    bundle: Name = Field(
        default="~/.cache/ml-cluster/bundle",
        description="Folder of the bundle: every program and image of the cluster (`lab bundle build`).",
    )
    variables: dict[str, Any] = Field(
        default={},
        description="More variables for the playbooks; ansible/inventory/sample.yml describes each.",
    )


class Platform(Section):
    """The services on the cluster: the manifests of k8s/, and who applies them."""

    profile: Literal["ci", "lab", "production"] = Field(
        default="lab", description="Which of k8s/clusters: the least for tests, one of each, or more of each."
    )
    apply: Literal["pulumi", "gitops"] = Field(
        default="pulumi",
        description="Who applies the manifests: this stack, or Argo CD or Flux from Git; for these the stack makes "
        "the namespaces and the Secrets.",
    )
    domain: Name | None = Field(
        default=None,
        description="Domain whose names are the services' (tracking.<domain>). Without it, the entry's address under "
        "sslip.io, which the world's name servers resolve by itself.",
    )
    example: bool = Field(
        default=False,
        description="Let the first `lab up` train, promote and ask the worked example, models/digits.",
    )


class Settings(Section):
    """Configuration of a stack, in Pulumi.<stack>.yaml under the namespace ml-cluster."""

    cloud: Cloud = Field(default=Cloud(), description="Which OpenStack to use and what it offers.")
    lease: Annotated[Lease | None, BeforeValidator(_none_or_section)] = Field(
        default=None, description="Blazar reservation for the nodes, or `none` on a cloud without Blazar."
    )
    network: NetworkSettings = Field(default=NetworkSettings(), description="Network, cluster ranges, floating IPs.")
    access: Access = Field(
        description="Keys and the ranges that may connect.", examples=[{"sshFrom": ["192.0.2.0/24"]}]
    )
    nodes: Nodes = Field(
        description="Machines of the cluster.",
        examples=[
            {"image": "debian-12", "groups": {"control": {"role": "control-plane", "count": 1, "flavor": "m1.small"}}}
        ],
    )
    storage: Storage = Field(default=Storage(), description="Volumes.")
    cluster: Annotated[Cluster | None, BeforeValidator(_none_or_section)] = Field(
        default=None, description="Kubernetes on the nodes, or `none`: bare machines."
    )
    platform: Annotated[Platform | None, BeforeValidator(_none_or_section)] = Field(
        default=None, description="Services on the cluster: tracking, training, serving. Or `none`: Kubernetes alone."
    )
    private_key: SecretStr | None = Field(
        default=None,
        description="Private half of access.publicKey, a secret: the steps that log in to the nodes need it. Set it "
        "with `lab config set --secret privateKey < FILE`.",
    )

    @property
    def reserves_flavors(self) -> bool:
        """Whether the nodes run on flavors of their reservation, not on plain ones."""
        return self.lease is not None and self.lease.type == "flavor:instance"

    def flavor_limit(self, flavor: str) -> tuple[str, int] | None:
        """Pattern and length, in days, of the strictest lease limit that holds for `flavor`."""
        matching = [item for item in self.cloud.lease_days.items() if fnmatch.fnmatchcase(flavor, item[0])]
        return min(matching, key=lambda item: item[1], default=None)

    def lease_period(self, now: datetime) -> tuple[datetime, datetime] | None:
        """Start and end of the lease if it were made `now`; None without a lease or where its end is not given."""
        if self.lease is None:
            return None
        start = self.lease.start or now
        end = self.lease.end or (start + timedelta(hours=self.lease.hours) if self.lease.hours else None)
        return (start, end) if end else None

    def starts_later(self, now: datetime) -> bool:
        """Whether the lease starts too late for this `up` to wait for it: the nodes are left to a later one."""
        if self.lease is None or self.lease.start is None:
            return False
        return self.lease.start > now + timedelta(minutes=self.lease.wait_minutes)

    def advice(self, now: datetime) -> list[str]:
        """Sentences about what is allowed but seldom meant."""
        found = [
            f"{PROJECT}:access.sshFrom: {network} lets the whole internet try to log in; give your own range."
            for network in self.access.ssh_from
            if network.prefixlen == 0
        ]
        period = self.lease_period(now)
        if self.lease and self.lease.daytime_hours and period:
            for day, hours in daytime_hours(*period, timezone=self.lease.timezone).items():
                if hours > self.lease.daytime_hours:
                    found.append(
                        f"{PROJECT}:lease: takes {hours:g} daytime hours on {day}, more than the "
                        f"{self.lease.daytime_hours} of daytimeHours; shorten it, or start late in the evening."
                    )
                    break
        return found


DAY_STARTS = 8


def daytime_hours(start: datetime, end: datetime, *, timezone: str) -> dict[str, float]:
    """Hours between 8:00 and midnight, local time of `timezone`, that a lease takes of each day (ISO date)."""
    zone = ZoneInfo(timezone)
    first, last = start.astimezone(zone), end.astimezone(zone)
    taken: dict[str, float] = {}
    day = first.date()
    while day <= last.date():
        opens = datetime(day.year, day.month, day.day, DAY_STARTS, tzinfo=zone)
        closes = datetime.combine(day + timedelta(days=1), time(), tzinfo=zone)
        seconds = (min(last, closes) - max(first, opens)).total_seconds()
        if seconds > 0:
            taken[day.isoformat()] = seconds / 3600
        day += timedelta(days=1)
    return taken


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a stack's configuration."""

    key: str
    value: str
    problem: str
    remedy: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.key} (line {self.line})" if self.line else self.key
        return f"{where}: {self.value} {self.problem}.\n     Remedy: {self.remedy}"


class SettingsError(Exception):
    """The configuration of a stack is wrong. `faults` has every fault; the text lists them with their remedies."""

    def __init__(self, faults: Sequence[Fault], source: str) -> None:
        self.faults = tuple(faults)
        self.source = source
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        listed = "\n".join(f"  {number}. {fault}" for number, fault in enumerate(faults, 1))
        super().__init__(
            f"{source}: {count}. The cloud was not asked for anything.\n{listed}\nAll settings: {REFERENCE}"
        )


@dataclass(frozen=True)
class Context:
    """What a rule sees: the settings, and what they come from."""

    settings: Settings
    now: datetime
    folder: Path
    stack: str | None
    secret_keys: Collection[str] | None


@dataclass(frozen=True)
class Breach:
    """A rule across settings that is broken at `at`; `also` are the other settings that it depends on."""

    at: Location
    problem: str
    remedy: str
    also: tuple[Location, ...] = ()


Rule = Callable[[Context], Iterator[Breach]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Register a rule across settings; its docstring is its line in the reference."""
    RULES.append(function)
    return function


@rule
def ranges_apart(context: Context) -> Iterator[Breach]:
    """The ranges of nodes, pods, services and `externalCidrs` do not overlap."""
    network = context.settings.network
    ranges: list[tuple[Location, Network4]] = [
        (("network", "cidr"), network.cidr),
        (("network", "podCidr"), network.pod_cidr),
        (("network", "serviceCidr"), network.service_cidr),
        *((("network", "externalCidrs", i), cidr) for i, cidr in enumerate(network.external_cidrs)),
    ]
    for later in range(1, len(ranges)):
        for earlier in range(min(later, 3)):
            (at, one), (other_at, other) = ranges[later], ranges[earlier]
            if one.overlaps(other):
                yield Breach(
                    at,
                    f"overlaps {_key(other_at)} {other}",
                    "Choose ranges with no address in common.",
                    also=(other_at,),
                )


@rule
def ranges_large_enough(context: Context) -> Iterator[Breach]:
    """The subnet has an address and the pods' range a /24 for each node; services have /12 to /28."""
    network, total = context.settings.network, context.settings.nodes.total
    counts = tuple(("nodes", "groups", name, "count") for name in context.settings.nodes.groups)
    if network.cidr.num_addresses - ADDRESSES_BESIDE_NODES < total:
        prefix = 32 - (total + ADDRESSES_BESIDE_NODES - 1).bit_length()
        yield Breach(
            ("network", "cidr"),
            f"is too small for {total} nodes",
            f"Give a prefix of /{prefix} or shorter, or fewer nodes.",
            also=counts,
        )
    if network.pod_cidr.num_addresses < total * 2 ** (32 - PODS_PER_NODE_PREFIX):
        prefix = PODS_PER_NODE_PREFIX - max(total - 1, 0).bit_length()
        yield Breach(
            ("network", "podCidr"),
            f"has no /{PODS_PER_NODE_PREFIX} for each of {total} nodes",
            f"Give a prefix of /{prefix} or shorter.",
            also=counts,
        )
    if not 12 <= network.service_cidr.prefixlen <= 28:
        yield Breach(
            ("network", "serviceCidr"),
            "is not between /12 and /28",
            'Write a range such as "10.96.0.0/16".',
        )


@rule
def floating_ips_have_a_network(context: Context) -> Iterator[Breach]:
    """Floating IPs need `externalNetwork`."""
    network = context.settings.network
    if network.floating_ips != "none" and network.external_network is None:
        yield Breach(
            ("network", "externalNetwork"),
            f"is needed by floatingIps: {network.floating_ips}",
            'Name the network of the floating IPs (`openstack network list --external`), or set floatingIps: "none".',
            also=(("network", "floatingIps"),),
        )


@rule
def existing_network_keeps_its_own(context: Context) -> Iterator[Breach]:
    """`mtu` and `dnsServers` belong to an own network; `addressPairs` need port security."""
    network = context.settings.network
    if network.existing is not None:
        for key, value in (("mtu", network.mtu), ("dnsServers", network.dns_servers)):
            if value:
                yield Breach(
                    ("network", key),
                    f"cannot be set on the existing network {network.existing!r}",
                    "Take it away, or take network.existing away to make an own network.",
                    also=(("network", "existing"),),
                )
    if network.address_pairs and not network.port_security:
        yield Breach(
            ("network", "addressPairs"),
            "has no meaning with portSecurity: false",
            "Take it away, or set portSecurity: true.",
            also=(("network", "portSecurity"),),
        )


@rule
def ports_not_taken(context: Context) -> Iterator[Breach]:
    """`webPorts` are different from one another, from SSH (22) and from the Kubernetes API (6443)."""
    ports = context.settings.access.web_ports
    for index, port in enumerate(ports):
        if port in {22, 6443}:
            remedy = f"Open it with access.{'sshFrom' if port == 22 else 'apiFrom'}."
            yield Breach(("access", "webPorts", index), "is not a port of the web entry", remedy)
        elif port in ports[:index]:
            yield Breach(("access", "webPorts", index), "is there twice", "Give each port once.")


@rule
def platform_has_a_cluster(context: Context) -> Iterator[Breach]:
    """`platform` needs `cluster`, and `access.apiFrom`: this machine talks to the cluster's API."""
    settings, also = context.settings, (("platform",),)
    if settings.platform is None:
        return
    if settings.cluster is None:
        yield Breach(("cluster",), "is needed by the platform", "Add a section `cluster`, or set platform: none.", also)
    if not settings.access.api_from and settings.network.port_security:
        yield Breach(
            ("access", "apiFrom"),
            "is empty: the platform is put on the cluster through its API, and reached from there",
            'Name the range of this machine, such as ["192.0.2.7/32"].',
            also,
        )


def _read_public_key(context: Context) -> str | Breach | None:
    access = context.settings.access
    if access.public_key_file is None:
        return access.public_key
    at: Location = ("access", "publicKeyFile")
    path = context.folder / Path(access.public_key_file).expanduser()
    try:
        return _public_key(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Breach(
            at,
            f"does not exist ({path})",
            f"Make it with `ssh-keygen -t ed25519 -f {str(path).removesuffix('.pub')}`, or take the setting away: "
            "a key pair is made then.",
        )
    except (OSError, UnicodeDecodeError) as error:
        return Breach(at, f"cannot be read ({error})", "Name the file that holds the public key, ending in .pub.")
    except PydanticCustomError as error:
        details = error.context or {}
        return Breach(at, f"holds what {details['problem']}", str(details["remedy"]))


@rule
def one_key(context: Context) -> Iterator[Breach]:
    """One of `publicKey` and `publicKeyFile` at most; the file exists and holds a public key."""
    if context.settings.access.public_key and context.settings.access.public_key_file:
        yield Breach(
            ("access", "publicKeyFile"),
            "is given beside publicKey",
            "Keep one of the two.",
            also=(("access", "publicKey"),),
        )
    found = _read_public_key(context)
    if isinstance(found, Breach):
        yield found


@rule
def private_half(context: Context) -> Iterator[Breach]:
    """`access.publicKey` needs the secret `privateKey`: its other half, unencrypted, set with --secret."""
    settings, at = context.settings, ("privateKey",)
    public = settings.access.public_key
    also: tuple[Location, ...] = (("access", "publicKey"),)
    command = "`lab config set --secret privateKey < FILE`"
    if settings.private_key is None:
        if public:
            yield Breach(at, "is a secret that access.publicKey needs", f"Set it with {command}.", also)
        return
    if context.secret_keys is not None and f"{PROJECT}:privateKey" not in context.secret_keys:
        yield Breach(
            at,
            "stands in plain text in the stack's file",
            f"Make a new key (this one may have been seen) and set it with {command}.",
        )
    if public is None:
        yield Breach(at, "has no access.publicKey that it belongs to", "Set access.publicKey, or remove it.", also)
        return
    try:
        private = load_ssh_private_key(settings.private_key.get_secret_value().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield Breach(
            at,
            "is not an OpenSSH private key without a passphrase",
            f"Make one with `ssh-keygen -t ed25519 -N ''` and set it with {command}.",
        )
        return
    ours = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    if ours.decode() != public.split()[1]:
        yield Breach(at, "is not the private half of access.publicKey", "Set the two halves of one key.", also)


@rule
def control_planes_odd(context: Context) -> Iterator[Breach]:
    """The groups with role control-plane have 1 or 3 nodes together."""
    groups = context.settings.nodes.groups
    control = {name: group for name, group in groups.items() if group.role == "control-plane"}
    total = sum(group.count for group in control.values())
    if total in {1, 3}:
        return
    name = next(iter(control), None)
    at: Location = ("nodes", "groups", name, "count") if name else ("nodes", "groups")
    yield Breach(
        at,
        f"makes {total} control planes" if control else "has no control plane",
        "Have 1 or 3 of them: etcd needs an odd number to agree, and more than 3 only slows it down.",
        also=(
            *(("nodes", "groups", group, "role") for group in groups),
            *(("nodes", "groups", group, "count") for group in control),
        ),
    )


@rule
def names_fit(context: Context) -> Iterator[Breach]:
    """Names of the stack, of groups and volumes are DNS labels (RFC 1123); host names have 63 characters at most."""
    stack = context.stack
    if stack is not None and not (is_dns_label(stack) and len(stack) <= STACK_NAME_LIMIT):
        yield Breach(
            (),
            "cannot be the stack's name, which goes into host names",
            f"Use lower case letters, digits and inner hyphens, {STACK_NAME_LIMIT} at most: `lab stack init NAME`.",
        )
    settings = context.settings
    for at, names in ((("nodes", "groups"), settings.nodes.groups), (("storage", "volumes"), settings.storage.volumes)):
        for name in names:
            if not is_dns_label(name):
                yield Breach(
                    (*at, name),
                    f"has the name {name!r}, which cannot be part of a host name",
                    "Use lower case letters, digits and inner hyphens, 63 at most (RFC 1123).",
                )
    for name, group in settings.nodes.groups.items():
        longest = resource_name(stack or "", node_part(name, max(group.count - 1, 0)))
        if len(longest) > 63:
            yield Breach(
                ("nodes", "groups", name),
                f"makes the host name {longest!r}, longer than 63 characters",
                "Shorten the group's name (RFC 1123).",
                also=(("nodes", "groups", name, "count"),),
            )


@rule
def flavors_exist(context: Context) -> Iterator[Breach]:
    """Flavors are in `cloud.flavors`, where that is given; flavors of reservations come from the lease alone."""
    settings = context.settings
    known = list(dict.fromkeys([*settings.cloud.flavors, *settings.cloud.bare_metal_flavors]))
    for name, group in settings.nodes.groups.items():
        at: Location = ("nodes", "groups", name, "flavor")
        if group.flavor.startswith("reservation:"):
            yield Breach(
                at,
                "is a reservation's own flavor, which is gone with its lease",
                "Name the plain flavor, such as m1.large, and let ml-cluster:lease reserve it.",
            )
        elif settings.cloud.flavors and group.flavor not in known:
            near = difflib.get_close_matches(group.flavor, known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(known)}."
            yield Breach(at, "is not in cloud.flavors", remedy, also=(("cloud", "flavors"),))


@rule
def bare_metal_is_leased(context: Context) -> Iterator[Breach]:
    """Bare metal and `hostProperties` need a lease of type physical:host; bare metal boots from its own disk."""
    settings = context.settings
    physical = settings.lease is not None and settings.lease.type == "physical:host"
    also: tuple[Location, ...] = (("lease",), ("lease", "type"))
    for name, group in settings.nodes.groups.items():
        at: Location = ("nodes", "groups", name)
        bare = group.flavor in settings.cloud.bare_metal_flavors
        if bare and not physical:
            yield Breach(
                (*at, "flavor"),
                "is bare metal, which needs a lease of hosts",
                "Set ml-cluster:lease with type: physical:host, or choose a flavor of virtual machines.",
                also,
            )
        if bare and group.boot_volume_gb is not None:
            yield Breach(
                (*at, "bootVolumeGb"),
                "cannot be given to bare metal, which boots from its own disk",
                "Take it away.",
                also=((*at, "flavor"),),
            )
        for key, value in (("hostProperties", group.host_properties), ("hosts", group.hosts)):
            if value and not physical:
                yield Breach((*at, key), "only chooses hosts of a lease of type physical:host", "Take it away.", also)
        if group.boot_volume_type is not None and group.boot_volume_gb is None:
            yield Breach(
                (*at, "bootVolumeType"), "has no boot volume to apply to", "Set bootVolumeGb.", ((*at, "bootVolumeGb"),)
            )


@rule
def lease_period_possible(context: Context) -> Iterator[Breach]:
    """A lease has `hours` or `end`, ends in the future and after its start, and is no longer than `leaseDays`."""
    settings, lease = context.settings, context.settings.lease
    if lease is None:
        return
    hours_at, end_at, start_at = ("lease", "hours"), ("lease", "end"), ("lease", "start")
    if (lease.hours is None) == (lease.end is None):
        given = "is given beside hours" if lease.end else "is missing: the lease has no length"
        yield Breach(end_at, given, "Give either hours or end.", also=(hours_at,))
        return
    if lease.end is not None and lease.end <= context.now:
        yield Breach(end_at, "is in the past", f"Give a time after {context.now:%Y-%m-%dT%H:%MZ}, or hours.")
        return
    if lease.end is not None and lease.start is not None and lease.end <= lease.start:
        yield Breach(end_at, "is not after the start", "Let the lease end later.", also=(start_at,))
        return
    period = settings.lease_period(context.now)
    if period is None:
        return
    length = period[1] - period[0]
    at = end_at if lease.end else hours_at
    for name, group in settings.nodes.groups.items():
        limit = settings.flavor_limit(group.flavor)
        if limit and length > timedelta(days=limit[1]):
            yield Breach(
                at,
                f"is longer than the {limit[1]} days that cloud.leaseDays grants for {group.flavor} ({limit[0]!r})",
                f"Shorten it to {limit[1] * 24} hours; extend it later by changing it.",
                also=(start_at, ("cloud", "leaseDays"), ("nodes", "groups", name, "flavor")),
            )
            return


@rule
def volumes_attach_to_nodes(context: Context) -> Iterator[Breach]:
    """`attachTo` names a node, not a bare-metal one; a volume has no name of a node."""
    settings = context.settings
    nodes = {node_part(name, i): group for name, group in settings.nodes.groups.items() for i in range(group.count)}
    counts = tuple(("nodes", "groups", name, "count") for name in settings.nodes.groups)
    for name, volume in settings.storage.volumes.items():
        at: Location = ("storage", "volumes", name)
        if name in nodes:
            yield Breach(at, "has the name of a node", "Give the volume another name.", counts)
        if volume.attach_to is None:
            continue
        node = nodes.get(volume.attach_to)
        if node is None:
            near = difflib.get_close_matches(volume.attach_to, nodes, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(nodes)}."
            yield Breach((*at, "attachTo"), "is not a node of this stack", remedy, counts)
        elif node.flavor in settings.cloud.bare_metal_flavors:
            yield Breach(
                (*at, "attachTo"),
                "is bare metal, which no volume can be attached to",
                "Attach it to a virtual machine, or take attachTo away.",
            )


@rule
def volumes_hold_what_their_node_has(context: Context) -> Iterator[Breach]:
    """A volume that `holds` something is attached to a node that has it; a node has one for each."""
    settings = context.settings
    roles = {
        node_part(name, i): group.role for name, group in settings.nodes.groups.items() for i in range(group.count)
    }
    taken: dict[tuple[str, str], str] = {}
    for name, volume in settings.storage.volumes.items():
        at: Location = ("storage", "volumes", name, "holds")
        if volume.holds is None:
            continue
        if volume.attach_to is None:
            yield Breach(at, "is on no node", "Say which node it is for: attachTo.", (at[:-1],))
            continue
        if volume.holds == "etcd" and roles.get(volume.attach_to, "control-plane") != "control-plane":
            yield Breach(at, f"is for etcd, and {volume.attach_to} is not a control plane", "Attach it to one.")
        if other := taken.get((volume.attach_to, volume.holds)):
            yield Breach(at, f"is on {volume.attach_to} already, by {other}", "Keep one of the two.")
        taken.setdefault((volume.attach_to, volume.holds), name)


@functools.cache
def schema() -> dict[str, Any]:
    """JSON schema of the settings, keys as they are written in the stack's file."""
    return Settings.model_json_schema(by_alias=True)


def resolve(node: Mapping[str, Any]) -> dict[str, Any]:
    """Follow references and `X or null` in a part of `schema()`, keeping what is said beside them."""
    merged = dict(node)
    while True:
        target = merged.pop("$ref", None)
        options = [option for option in merged.pop("anyOf", []) if option.get("type") != "null"]
        base = schema()["$defs"][target.rsplit("/", 1)[1]] if target else options[0] if options else None
        if base is None:
            return merged
        merged = {**base, **merged}


def _schema_at(location: Location) -> dict[str, Any]:
    node = resolve(schema())
    for step in location:
        inner = node.get("properties", {}).get(step) or node.get("additionalProperties") or node.get("items")
        node = resolve(inner) if isinstance(inner, dict) else {}
    return node


def kind(node: Mapping[str, Any]) -> str:
    """A part of `schema()` in words, with its limits: 'whole number from 1 to 250'."""
    if "enum" in node or "const" in node:
        return "one of " + ", ".join(json.dumps(value) for value in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        return f"list of {kind(resolve(node['items']))}"
    names = {"integer": "whole number", "string": "text", "boolean": "true or false", "object": "group of settings"}
    name = str(node.get("format") or names.get(str(node.get("type")), "value"))
    if node.get("type") == "object" and isinstance(node.get("additionalProperties"), dict):
        name = "mapping of names to " + kind(resolve(node["additionalProperties"]))
    if "minimum" in node and "maximum" in node:
        return f"{name} from {node['minimum']} to {node['maximum']}"
    return name


def _key(location: Location) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return f"{PROJECT}:{path.lstrip('.')}" if location else "stack"


_MISSING = object()


def _value_at(tree: object, location: Location) -> object:
    for step in location:
        try:
            tree = tree[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return tree


def _shown(value: object) -> str:
    if value is _MISSING:
        return "(not set)"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _explain(error: ErrorDetails) -> tuple[str, str]:
    """Problem and remedy, in plain words, of one of pydantic's errors."""
    location = error["loc"]
    details = error.get("ctx") or {}
    expected = kind(_schema_at(location))
    problem, remedy = "has the wrong type", f"Expected: {expected}."
    match error["type"]:
        case "refused":
            problem, remedy = str(details["problem"]), str(details["remedy"])
        case "missing":
            problem = "is required"
            remedy = f"Add `{location[-1]}` ({expected}): {_schema_at(location).get('description', '')}"
        case "extra_forbidden":
            near = _near_key(location)
            known = ", ".join(sorted(_schema_at(location[:-1]).get("properties", ())))
            problem, remedy = "is not a setting", f"Did you mean `{near}`?" if near else f"Known here: {known}."
        case "greater_than_equal" | "less_than_equal" | "literal_error":
            problem = "is not allowed"
        case "too_short" | "string_too_short":
            problem = "is empty"
        case "string_pattern_mismatch":
            problem, remedy = "begins or ends with a space", "Take the space away."
    return problem, remedy


def _near_key(location: Location) -> str | None:
    """The setting that an unknown key was probably meant to be."""
    known = _schema_at(location[:-1]).get("properties", ())
    return next(iter(difflib.get_close_matches(str(location[-1]), known, n=1)), None)


def _mend(tree: dict[str, Any], location: Location) -> None:
    """Take a faulty value out of `tree`, or put an example where one is needed, so that the rest can be checked."""
    parent, step = _value_at(tree, location[:-1]), location[-1]
    needed = isinstance(parent, list) or step in _schema_at(location[:-1]).get("required", ())
    if needed and isinstance(parent, dict | list):
        parent[step] = copy.deepcopy(_schema_at(location)["examples"][0])  # type: ignore[index]
    elif isinstance(parent, dict):
        parent.pop(step, None)


Faults = dict[Location, tuple[str, str]]


def _check_types(tree: dict[str, Any]) -> tuple[Settings, Faults, set[Location]]:
    """Check each value by itself.

    Returns settings in which examples stand in for faulty values, the faults, and the locations not to be trusted.
    """
    faults: Faults = {}
    doubtful: set[Location] = set()
    while True:
        try:
            return Settings.model_validate(tree), faults, doubtful
        except ValidationError as error:
            found = {tuple(detail["loc"]): detail for detail in error.errors(include_url=False, include_input=False)}
        for location, detail in found.items():
            faults.setdefault(location, _explain(detail))
            _mend(tree, location[:1] if location in doubtful else location)
            doubtful.add(location)
            # A misspelt key leaves the one that was meant unset: what follows from that is no fault of its own.
            near = _near_key(location) if detail["type"] == "extra_forbidden" else None
            if near and _value_at(tree, (*location[:-1], near)) is _MISSING:
                doubtful.add((*location[:-1], near))


def _sections(raw: Mapping[str, object]) -> dict[str, Any]:
    """The project's settings out of all configuration, objects as objects: the engine hands them over as JSON."""
    tree: dict[str, Any] = {}
    for key, value in raw.items():
        namespace, _, name = key.rpartition(":")
        if namespace not in {"", PROJECT}:
            continue
        if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            with contextlib.suppress(ValueError):
                value = json.loads(value)  # noqa: PLW2901 - text that is no JSON is refused as text
        tree[name] = value
    return tree


def _line_of(document: object, location: Location) -> int | None:
    """Line, from 1, where the stack's file has the setting at `location`, or the closest part around it."""
    line: int | None = None
    node = document
    for index, step in enumerate(location):
        key: object = f"{PROJECT}:{step}" if index == 0 else step
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0] + 1
        else:
            break
        node = node[key]
    return line


def _document(source: Path | None) -> object:
    if source is None:
        return None
    try:
        document = YAML(typ="rt").load(source)
    except (OSError, YAMLError):
        return None
    return document.get("config") if isinstance(document, CommentedMap) else None


def load_settings(
    raw: Mapping[str, object],
    source: Path | None = None,
    *,
    stack: str | None = None,
    secret_keys: Collection[str] | None = None,
    now: datetime | None = None,
) -> Settings:
    """Check a stack's configuration as a whole.

    `raw` maps full keys (`ml-cluster:nodes`) to values, objects as mappings or as JSON text. `source` is the stack's
    file: it is named in errors, gives their line numbers, and relative key files are relative to it. `secret_keys`
    are the keys whose values are kept encrypted; None where that is not known.

    Raises SettingsError with every fault at once. Reads files, never the network.
    """
    tree = _sections(raw)
    given = copy.deepcopy(tree)
    settings, faults, doubtful = _check_types(tree)
    folder = source.parent if source else Path.cwd()
    context = Context(settings, now or datetime.now(UTC), folder, stack, secret_keys)
    for check in RULES:
        for breach in check(context):
            touched = (location[:end] for location in (breach.at, *breach.also) for end in range(1, len(location) + 1))
            if doubtful.isdisjoint(touched):
                faults.setdefault(breach.at, (breach.problem, breach.remedy))
    if not faults:
        return settings
    document = _document(source)
    secrets = {*(secret_keys or ()), f"{PROJECT}:privateKey"}

    def shown(at: Location) -> str:
        value = _value_at(given, at) if at else stack
        return "[secret]" if value is not _MISSING and _key(at[:1]) in secrets else _shown(value)

    raise SettingsError(
        [
            Fault(_key(at), shown(at), problem, remedy, _line_of(document, at))
            for at, (problem, remedy) in sorted(faults.items(), key=lambda item: [str(step) for step in item[0]])
        ],
        source.name if source else f"Pulumi.{stack or '<stack>'}.yaml",
    )


def public_key(settings: Settings, folder: Path) -> str | None:
    """The public key that the settings give, as text; None where a key pair is to be made."""
    found = _read_public_key(Context(settings, datetime.now(UTC), folder, None, None))
    if isinstance(found, Breach):
        raise SettingsError([Fault(_key(found.at), "", found.problem, found.remedy)], "access.publicKeyFile")
    return found
