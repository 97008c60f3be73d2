"""Names and tags of everything a stack makes. Free of Pulumi: the command's `sweep` and `doctor` use it too."""

import re
from collections.abc import Mapping

PROJECT = "ml-cluster"
METADATA_KEY = f"{PROJECT}:stack"
"""Metadata key (servers, volumes) and first half of the tag (Neutron) that says which stack owns a resource."""

STACK_NAME_LIMIT = 32
"""Longest stack name, in characters: leaves room for `-<group>-<index>` in a host name of 63 (RFC 1123)."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_dns_label(name: str) -> bool:
    """Whether `name` can be part of a host name (RFC 1123): lower case letters, digits, inner hyphens, 63 at most."""
    return _DNS_LABEL.fullmatch(name) is not None


def stack_tag(stack: str) -> str:
    """The Neutron tag that `stack`'s networks, subnets, routers, ports, groups and floating IPs carry."""
    return f"{METADATA_KEY}={stack}"


def stack_metadata(stack: str) -> dict[str, str]:
    """The metadata that `stack`'s servers and volumes carry."""
    return {METADATA_KEY: stack}


def stack_of(metadata: Mapping[str, str] | None = None, tags: list[str] | None = None) -> str | None:
    """The stack that a resource with these metadata or tags belongs to; None for a resource of nobody's."""
    if metadata and METADATA_KEY in metadata:
        return metadata[METADATA_KEY]
    prefix = f"{METADATA_KEY}="
    return next((tag.removeprefix(prefix) for tag in tags or () if tag.startswith(prefix)), None)


def resource_name(stack: str, part: str) -> str:
    """Name in the cloud of `stack`'s `part`, e.g. `dev-router`.

    Keypairs, server groups and leases can carry no tag: this name alone says whose they are.
    """
    return f"{stack}-{part}"


def lease_part(group: str) -> str:
    """Name inside its stack of a node group's lease, e.g. `lease-control`."""
    return f"lease-{group}"


def node_part(group: str, index: int) -> str:
    """Name of a node inside its stack, e.g. `control-0`; with the stack's name before it, its host name."""
    return f"{group}-{index}"


KEYPAIR_PART = "key"
