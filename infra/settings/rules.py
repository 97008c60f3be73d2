"""Rules across settings: which values may be combined."""

import difflib
import keyword
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from pydantic_core import PydanticCustomError

from infra.manifests import PORT, REDIRECT_PORT
from infra.naming import PROJECT, STACK_NAME_LIMIT, is_dns_label, node_part, resource_name
from infra.settings.model import Settings
from infra.settings.values import Network4, public_key

Location = tuple[str | int, ...]
"""Path of a setting inside the tree of all settings."""

PODS_PER_NODE_PREFIX = 24
"""Prefix length of each node's pod range: the default `--node-cidr-mask-size` of kube-controller-manager."""
WIDEST_POD_PREFIX = PODS_PER_NODE_PREFIX - 16
"""kube-controller-manager allows at most 2**16 node ranges in the pods' range."""
ADDRESSES_BESIDE_NODES = 5
"""Addresses of a subnet that nodes cannot use: network, broadcast, router, DHCP, and one to replace a node."""
NO_HOSTS = {
    "0.0.0.0/8": "this network (RFC 1122)",
    "127.0.0.0/8": "loopback (RFC 1122)",
    "169.254.0.0/16": "link-local (RFC 3927), where the metadata service is",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "240.0.0.0/4": "reserved (RFC 1112)",
}
"""Ranges whose addresses no machine, pod or service can have."""
MAX_NAME_SERVERS = 5
"""Of a subnet (Neutron, max_dns_nameservers)."""
MAX_LEASE_DAYS = 3660
"""From now to the start or the end of a lease: the same limit as for `hours`."""
ENTRY_PORTS = {22: "sshFrom", 6443: "apiFrom"}
"""Ports of the nodes, and the setting for who may reach each."""
GATEWAY_PORTS = (PORT, REDIRECT_PORT)
INNER_PORTS = {
    2379: "etcd",
    2380: "etcd",
    2381: "etcd",
    10250: "the kubelet",
    10257: "the controllers",
    10259: "the scheduler",
}
"""Ports of a cluster that only its nodes may reach (Kubernetes documentation, Ports and Protocols)."""


def key_of(location: Location) -> str:
    """The key of a setting as users write it."""
    if location and ":" in str(location[0]):
        return str(location[0])
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return f"{PROJECT}:{path.lstrip('.')}" if location else "stack"


@dataclass(frozen=True)
class Context:
    """Input of a rule: the settings, and where they come from."""

    settings: Settings
    now: datetime
    folder: Path
    stack: str | None
    secret_keys: Collection[str] | None


@dataclass(frozen=True)
class Violation:
    """A violation of a rule by the setting at `at`; `also` lists the other settings that the rule depends on."""

    at: Location
    problem: str
    remedy: str
    also: tuple[Location, ...] = ()


KEY_FILE_BYTES = 64 * 1024
KEY_FILE = "Name the file that holds the public key, ending in .pub."
NO_SUCH_HOME = (
    "is in the home folder of a user who does not exist on this machine",
    "Write the whole path, or start it with ~/ for your own home folder.",
)
VARIABLES_OF_SETTINGS = {
    "cluster_name": "the stack's name",
    "cluster_bundle": "cluster.bundle",
    "cluster_kubernetes_version": "cluster.kubernetesVersion",
    "cluster_image_keys": "cluster.imageKeys",
    "cluster_platform": "the section platform",
    "cluster_pod_subnet": "network.podCidr",
    "cluster_service_subnet": "network.serviceCidr",
    "cluster_stores_on_volumes": "storage.volumes.<name>.holds",
    "ansible_user": "access.user",
}
"""Variables of the playbooks that are derived from settings (infra/kubernetes/variables.py)."""

Rule = Callable[[Context], Iterator[Violation]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Register a rule across settings; its docstring is its line in the reference."""
    RULES.append(function)
    return function


@rule
def ranges_apart(context: Context) -> Iterator[Violation]:
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
                yield Violation(
                    at,
                    f"overlaps {key_of(other_at)} {other}",
                    "Choose ranges with no address in common.",
                    also=(other_at,),
                )


@rule
def ranges_large_enough(context: Context) -> Iterator[Violation]:
    """The subnet has an address and `podCidr`, at most a /8, has a /24 for each node; `serviceCidr` is a /12 to /28."""
    network, total = context.settings.network, context.settings.nodes.total
    counts = tuple(("nodes", "groups", name, "count") for name in context.settings.nodes.groups)
    if network.cidr.num_addresses - ADDRESSES_BESIDE_NODES < total:
        prefix = 32 - (total + ADDRESSES_BESIDE_NODES - 1).bit_length()
        yield Violation(
            ("network", "cidr"),
            f"is too small for {total} nodes",
            f"Use a prefix of /{prefix} or shorter, or fewer nodes.",
            also=counts,
        )
    if network.pod_cidr.num_addresses < total * 2 ** (32 - PODS_PER_NODE_PREFIX):
        prefix = PODS_PER_NODE_PREFIX - max(total - 1, 0).bit_length()
        yield Violation(
            ("network", "podCidr"),
            f"has no /{PODS_PER_NODE_PREFIX} for each of {total} nodes",
            f"Use a prefix of /{prefix} or shorter.",
            also=counts,
        )
    elif network.pod_cidr.prefixlen < WIDEST_POD_PREFIX:
        yield Violation(("network", "podCidr"), "is too large", f"Use a prefix of /{WIDEST_POD_PREFIX} or longer.")
    if not 12 <= network.service_cidr.prefixlen <= 28:
        yield Violation(
            ("network", "serviceCidr"),
            "is not between /12 and /28",
            'Write a range such as "10.96.0.0/16".',
        )


@rule
def ranges_can_hold_hosts(context: Context) -> Iterator[Violation]:
    """The ranges of nodes, pods and services have no loopback, link-local, multicast or reserved addresses."""
    network = context.settings.network
    for key, cidr in (("cidr", network.cidr), ("podCidr", network.pod_cidr), ("serviceCidr", network.service_cidr)):
        what = next((what for one, what in NO_HOSTS.items() if Network4(one).overlaps(cidr)), None)
        if what is not None:
            remedy = 'Choose a private range, such as one of "10.0.0.0/8" (RFC 1918).'
            yield Violation(("network", key), f"has addresses that no host can have: {what}", remedy)


@rule
def lists_without_duplicates(context: Context) -> Iterator[Violation]:
    """`sshFrom`, `apiFrom`, `webFrom` and `dnsServers` have no duplicates, and `dnsServers` at most 5 entries."""
    access, servers = context.settings.access, context.settings.network.dns_servers
    lists: tuple[tuple[Location, Sequence[object]], ...] = (
        (("access", "sshFrom"), access.ssh_from),
        (("access", "apiFrom"), access.api_from),
        (("access", "webFrom"), access.web_from),
        (("network", "dnsServers"), servers),
    )
    for at, values in lists:
        for index, value in enumerate(values):
            first = values.index(value)
            if first < index:
                also = ((*at, first),)
                yield Violation(
                    (*at, index), f"is a duplicate: {key_of((*at, first))} is {value} too", "Remove one.", also
                )
    if len(servers) > MAX_NAME_SERVERS:
        yield Violation(
            ("network", "dnsServers"),
            f"has {len(servers)} name servers",
            f"Keep at most {MAX_NAME_SERVERS}: Neutron allows no more.",
        )


@rule
def floating_ips_have_a_network(context: Context) -> Iterator[Violation]:
    """Floating IPs need `externalNetwork`."""
    network = context.settings.network
    if network.floating_ips != "none" and network.external_network is None:
        yield Violation(
            ("network", "externalNetwork"),
            f"is required by floatingIps: {network.floating_ips}",
            'Name the network of the floating IPs (`openstack network list --external`), or set floatingIps: "none".',
            also=(("network", "floatingIps"),),
        )


@rule
def existing_network_is_unchanged(context: Context) -> Iterator[Violation]:
    """`mtu` and `dnsServers` apply only to the stack's own network; `addressPairs` needs port security."""
    network = context.settings.network
    if network.existing is not None:
        for key, value in (("mtu", network.mtu), ("dnsServers", network.dns_servers)):
            if value:
                yield Violation(
                    ("network", key),
                    f"cannot be set on the existing network {network.existing!r}",
                    "Remove it, or remove network.existing so that the stack creates its own network.",
                    also=(("network", "existing"),),
                )
    if network.address_pairs and not network.port_security:
        yield Violation(
            ("network", "addressPairs"),
            "has no effect with portSecurity: false",
            "Remove it, or set portSecurity: true.",
            also=(("network", "portSecurity"),),
        )


@rule
def web_ports_free(context: Context) -> Iterator[Violation]:
    """`webPorts` has no duplicates, and none of the ports of SSH, the cluster and the gateway."""
    settings, ports = context.settings, context.settings.access.web_ports
    other_entries = {
        **ENTRY_PORTS,
        **(dict.fromkeys(GATEWAY_PORTS, "apiFrom") if settings.platform is not None else {}),
    }
    for index, port in enumerate(ports):
        at: Location = ("access", "webPorts", index)
        if port in other_entries:
            also: tuple[Location, ...] = (("platform",),) if port in GATEWAY_PORTS else ()
            yield Violation(at, "is not a web port", f"Open it with access.{other_entries[port]}.", also)
        elif port in INNER_PORTS and settings.cluster is not None:
            problem = f"is a port of {INNER_PORTS[port]}, which only nodes may reach"
            yield Violation(at, problem, "Remove it.", (("cluster",),))
        elif port in ports[:index]:
            yield Violation(at, "is a duplicate", "Remove one.", ((*at[:-1], ports.index(port)),))


@rule
def platform_has_a_cluster(context: Context) -> Iterator[Violation]:
    """`platform` needs `cluster`, and `access.apiFrom`, because this machine uses the cluster's API."""
    settings, also = context.settings, (("platform",),)
    if settings.platform is None:
        return
    if settings.cluster is None:
        yield Violation(
            ("cluster",), "is required by the platform", "Add a section `cluster`, or set platform: none.", also
        )
    if not settings.access.api_from and settings.network.port_security:
        yield Violation(
            ("access", "apiFrom"),
            "is empty, but the platform is deployed and used from this machine",
            'Add the range of this machine, such as ["192.0.2.7/32"].',
            also,
        )


@rule
def forge_users_differ(context: Context) -> Iterator[Violation]:
    """`platform.forge.users` has no duplicates."""
    platform = context.settings.platform
    users = platform.forge.users if platform and platform.forge else []
    for index, user in enumerate(users):
        if user in users[:index]:
            at: Location = ("platform", "forge", "users")
            yield Violation((*at, index), "is a duplicate", "Remove one.", ((*at, users.index(user)),))


def read_public_key(context: Context) -> str | Violation | None:
    """The public key from the settings, as text; a violation if its file is wrong; None without a key."""
    access = context.settings.access
    if access.public_key_file is None:
        return access.public_key
    at: Location = ("access", "publicKeyFile")
    inside = _expanded(access.public_key_file)
    if inside is None:
        return Violation(at, *NO_SUCH_HOME)
    path = context.folder / inside
    if unreadable := _why_unreadable(path):
        return Violation(at, *unreadable)
    try:
        return public_key(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        return Violation(at, "is not UTF-8 text", KEY_FILE)
    except PydanticCustomError as error:
        details = error.context or {}
        return Violation(at, f"is a file whose content {details['problem']}", str(details["remedy"]))


def _why_unreadable(path: Path) -> tuple[str, str] | None:
    """Problem and remedy for a key file that is not a regular file of a sensible size, or cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > KEY_FILE_BYTES:
            return ("is a folder" if stat.S_ISDIR(status.st_mode) else "is not a file with a key"), KEY_FILE
        path.open("rb").close()
    except FileNotFoundError:
        create = f"Create it with `ssh-keygen -t ed25519 -f {str(path).removesuffix('.pub')}`"
        return f"does not exist ({path})", f"{create}, or remove the setting: the stack then creates a key pair."
    except PermissionError:
        return f"cannot be read: permission denied ({path})", "Change its permissions, or use a file of your own."
    except OSError as error:
        return f"cannot be read ({error})", KEY_FILE
    return None


def _expanded(name: str) -> Path | None:
    """A path with its `~` expanded; None if that refers to a user who does not exist on this machine."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return None


@rule
def bundle_is_a_folder(context: Context) -> Iterator[Violation]:
    """`cluster.bundle` is a folder, or does not exist yet."""
    cluster, at = context.settings.cluster, ("cluster", "bundle")
    if cluster is None:
        return
    path = _expanded(cluster.bundle)
    if path is None:
        yield Violation(at, *NO_SUCH_HOME)
    elif os.path.exists(path) and not path.is_dir():  # noqa: PTH110 - false, not an error, without permission
        yield Violation(at, "is a file", "Use a folder: `lab bundle build` creates it.")


@rule
def variables_are_free(context: Context) -> Iterator[Violation]:
    """`cluster.variables` has valid Ansible variable names, and none that is derived from another setting."""
    cluster = context.settings.cluster
    for name in cluster.variables if cluster is not None else ():
        at: Location = ("cluster", "variables", name)
        if name in VARIABLES_OF_SETTINGS:
            yield Violation(at, f"is derived from {VARIABLES_OF_SETTINGS[name]}", "Set that instead, and remove this.")
        elif not name.isidentifier() or keyword.iskeyword(name):
            yield Violation(at, "is not a valid Ansible variable", "Use letters, digits and _; no digit first.")


@rule
def one_key(context: Context) -> Iterator[Violation]:
    """At most one of `publicKey` and `publicKeyFile` is set; the file exists and contains a public key."""
    if context.settings.access.public_key and context.settings.access.public_key_file:
        yield Violation(
            ("access", "publicKeyFile"),
            "is set together with publicKey",
            "Remove one of the two.",
            also=(("access", "publicKey"),),
        )
    found = read_public_key(context)
    if isinstance(found, Violation):
        yield found


@rule
def private_key_matches(context: Context) -> Iterator[Violation]:
    """`access.publicKey` needs the secret `privateKey`: its private key, without a passphrase, set with --secret."""
    settings, at = context.settings, ("privateKey",)
    public = settings.access.public_key
    also: tuple[Location, ...] = (("access", "publicKey"),)
    command = "`lab config set --secret privateKey < FILE`"
    encrypted = context.secret_keys is not None and f"{PROJECT}:privateKey" in context.secret_keys
    if settings.private_key is None:
        if public and not encrypted:
            yield Violation(at, "is required by access.publicKey", f"Set it with {command}.", also)
        return
    if context.secret_keys is not None and not encrypted:
        yield Violation(
            at,
            "is in plain text in the stack's file",
            f"Create a new key (others may have seen this one) and set it with {command}.",
        )
    if public is None:
        yield Violation(at, "has no matching access.publicKey", "Set access.publicKey, or remove it.", also)
        return
    try:
        private = load_ssh_private_key(settings.private_key.get_secret_value().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield Violation(
            at,
            "is not an OpenSSH private key without a passphrase",
            f"Create one with `ssh-keygen -t ed25519 -N ''` and set it with {command}.",
        )
        return
    derived = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    if derived.decode() != public.split()[1]:
        yield Violation(at, "is not the private key of access.publicKey", "Set both keys of one key pair.", also)


@rule
def control_planes_odd(context: Context) -> Iterator[Violation]:
    """The groups with role control-plane have 1 or 3 nodes in total."""
    groups = context.settings.nodes.groups
    control = {name: group for name, group in groups.items() if group.role == "control-plane"}
    total = sum(group.count for group in control.values())
    if total in {1, 3}:
        return
    name = next(iter(control), None)
    at: Location = ("nodes", "groups", name, "count") if name else ("nodes", "groups")
    yield Violation(
        at,
        f"results in {total} control planes" if control else "has no control plane",
        "Use 1 or 3: etcd needs an odd number for a quorum, and more than 3 are slower.",
        also=(
            *(("nodes", "groups", group, "role") for group in groups),
            *(("nodes", "groups", group, "count") for group in control),
        ),
    )


@rule
def names_valid(context: Context) -> Iterator[Violation]:
    """Names of the stack, groups and volumes are DNS labels (RFC 1123); host names have at most 63 characters."""
    stack = context.stack
    if stack is not None and not (is_dns_label(stack) and len(stack) <= STACK_NAME_LIMIT):
        yield Violation(
            (),
            "is not a valid stack name, because it is part of host names",
            f"Use at most {STACK_NAME_LIMIT} lower case letters, digits and inner hyphens: `lab stack init NAME`.",
        )
    settings = context.settings
    for at, names in ((("nodes", "groups"), settings.nodes.groups), (("storage", "volumes"), settings.storage.volumes)):
        for name in names:
            if not is_dns_label(name):
                yield Violation(
                    (*at, name),
                    f"has the name {name!r}, which is not valid in a host name",
                    "Use at most 63 lower case letters, digits and inner hyphens (RFC 1123).",
                )
    for name, group in settings.nodes.groups.items():
        longest = resource_name(stack or "", node_part(name, max(group.count - 1, 0)))
        if len(longest) > 63:
            yield Violation(
                ("nodes", "groups", name),
                f"results in the host name {longest!r}, longer than 63 characters",
                "Shorten the group's name (RFC 1123).",
                also=(("nodes", "groups", name, "count"),),
            )


@rule
def flavors_exist(context: Context) -> Iterator[Violation]:
    """Flavors are in `cloud.flavors`, if that is set; flavors of reservations come only from the lease."""
    settings = context.settings
    known = list(dict.fromkeys([*settings.cloud.flavors, *settings.cloud.bare_metal_flavors]))
    for name, group in settings.nodes.groups.items():
        at: Location = ("nodes", "groups", name, "flavor")
        if group.flavor.startswith("reservation:"):
            yield Violation(
                at,
                "is the flavor of a reservation, which is deleted with its lease",
                "Use an ordinary flavor, such as m1.large, and let ml-cluster:lease reserve it.",
            )
        elif settings.cloud.flavors and group.flavor not in known:
            near = difflib.get_close_matches(group.flavor, known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(known)}."
            yield Violation(at, "is not in cloud.flavors", remedy, also=(("cloud", "flavors"),))


@rule
def bare_metal_is_leased(context: Context) -> Iterator[Violation]:
    """Bare metal and `hostProperties` need a lease of type physical:host; bare metal boots from its own disk."""
    settings = context.settings
    physical = settings.lease is not None and settings.lease.type == "physical:host"
    also: tuple[Location, ...] = (("lease",), ("lease", "type"))
    for name, group in settings.nodes.groups.items():
        at: Location = ("nodes", "groups", name)
        bare = group.flavor in settings.cloud.bare_metal_flavors
        if bare and not physical:
            yield Violation(
                (*at, "flavor"),
                "is bare metal, which needs a lease of hosts",
                "Set ml-cluster:lease with type: physical:host, or choose a flavor for virtual machines.",
                also,
            )
        if bare and group.boot_volume_gb is not None:
            yield Violation(
                (*at, "bootVolumeGb"),
                "cannot be set for bare metal, which boots from its own disk",
                "Remove it.",
                also=((*at, "flavor"),),
            )
        if bare and physical and group.hosts is not None and group.hosts < group.count:
            yield Violation(
                (*at, "hosts"),
                f"is less than {group.count}, the number of nodes, each of which is a host",
                f"Reserve {group.count}, or remove it.",
                ((*at, "count"), (*at, "flavor"), *also),
            )
        for property_name, property_value in group.host_properties.items() if physical else ():
            if not property_name.strip() or not property_value.strip() or property_name.startswith("$"):
                yield Violation(
                    (*at, "hostProperties", property_name),
                    "is not a host property",
                    "Use names and values from `openstack reservation host show`, such as node_type: compute_skylake.",
                )
        for key, value in (("hostProperties", group.host_properties), ("hosts", group.hosts)):
            if value and not physical:
                yield Violation((*at, key), "needs a lease of type physical:host", "Remove it.", also)
        if group.boot_volume_type is not None and group.boot_volume_gb is None:
            yield Violation(
                (*at, "bootVolumeType"), "needs a boot volume", "Set bootVolumeGb.", ((*at, "bootVolumeGb"),)
            )


@rule
def lease_dates_in_range(context: Context) -> Iterator[Violation]:
    """A lease starts and ends within 3660 days."""
    lease, latest = context.settings.lease, context.now + timedelta(days=MAX_LEASE_DAYS)
    for key, given in (("start", lease.start), ("end", lease.end)) if lease is not None else ():
        if given is not None and given > latest:
            problem = f"is more than {MAX_LEASE_DAYS} days away"
            yield Violation(("lease", key), problem, f"Use a time before {latest:%Y-%m-%d}.")


@rule
def lease_period_valid(context: Context) -> Iterator[Violation]:
    """A lease has `hours` or `end`, ends in the future and after its start, and is no longer than `leaseDays`."""
    settings, lease = context.settings, context.settings.lease
    if lease is None or any(lease_dates_in_range(context)):
        return
    hours_at, end_at, start_at = ("lease", "hours"), ("lease", "end"), ("lease", "start")
    if (lease.hours is None) == (lease.end is None):
        problem = "is set together with hours" if lease.end else "is missing: the lease has no length"
        yield Violation(end_at, problem, "Set either hours or end.", also=(hours_at,))
        return
    if lease.end is not None and lease.end <= context.now:
        yield Violation(end_at, "is in the past", f"Use a time after {context.now:%Y-%m-%dT%H:%MZ}, or set hours.")
        return
    if lease.end is not None and lease.start is not None and lease.end <= lease.start:
        yield Violation(end_at, "is not after the start", "Use a later end.", also=(start_at,))
        return
    period = settings.lease_period(context.now)
    if period is None:
        return
    length = period[1] - period[0]
    at = end_at if lease.end else hours_at
    for name, group in settings.nodes.groups.items():
        limit = settings.flavor_limit(group.flavor)
        if limit and length > timedelta(days=limit[1]):
            yield Violation(
                at,
                f"is longer than {limit[1]} days, the limit for {group.flavor} in cloud.leaseDays ({limit[0]!r})",
                f"Shorten it to {limit[1] * 24} hours; you can extend it later.",
                also=(start_at, ("cloud", "leaseDays"), ("nodes", "groups", name, "flavor")),
            )
            return


@rule
def volumes_attach_to_nodes(context: Context) -> Iterator[Violation]:
    """`attachTo` names a node that is not bare metal; volumes have other names than nodes."""
    settings = context.settings
    nodes = {node_part(name, i): group for name, group in settings.nodes.groups.items() for i in range(group.count)}
    counts = tuple(("nodes", "groups", name, "count") for name in settings.nodes.groups)
    attached: dict[str, str] = {}
    for name, volume in settings.storage.volumes.items():
        at: Location = ("storage", "volumes", name)
        if name in nodes:
            yield Violation(at, "has the same name as a node", "Rename the volume.", counts)
        if volume.attach_to is None:
            continue
        resource = f"{name}-on-{volume.attach_to}"
        if other := attached.get(resource):
            remedy = "Rename one of the two volumes."
            yield Violation(at, f"has the same attachment name as volume {other!r}: {resource!r}", remedy, counts)
        attached.setdefault(resource, name)
        node = nodes.get(volume.attach_to)
        if node is None:
            near = difflib.get_close_matches(volume.attach_to, nodes, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(nodes)}."
            yield Violation((*at, "attachTo"), "is not a node of this stack", remedy, counts)
        elif node.flavor in settings.cloud.bare_metal_flavors:
            yield Violation(
                (*at, "attachTo"),
                "is bare metal, to which no volume can be attached",
                "Attach it to a virtual machine, or remove attachTo.",
            )


@rule
def data_volumes_attached(context: Context) -> Iterator[Violation]:
    """A volume that `holds` data is attached to a node, for etcd to a control plane; a node has at most one of each."""
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
            yield Violation(at, "needs a node", "Set attachTo.", (at[:-1],))
            continue
        if volume.holds == "etcd" and roles.get(volume.attach_to, "control-plane") != "control-plane":
            problem = f"is for etcd, but {volume.attach_to} is not a control plane"
            yield Violation(at, problem, "Attach it to a control plane.")
        if other := taken.get((volume.attach_to, volume.holds)):
            yield Violation(at, f"is already on {volume.attach_to}, on volume {other}", "Remove one of the two.")
        taken.setdefault((volume.attach_to, volume.holds), name)
