"""Names and tags of a stack's resources. Does not import Pulumi, because `lab sweep` and `lab doctor` use it too."""

import re
from collections.abc import Mapping

PROJECT = "ml-cluster"
METADATA_KEY = f"{PROJECT}:stack"
"""Metadata key (servers, volumes) and first part of the tag (Neutron) with the stack that owns a resource."""

STACK_NAME_LIMIT = 32
"""Maximum length of a stack name: leaves room for `-<group>-<index>` in a host name of 63 characters (RFC 1123)."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_dns_label(name: str) -> bool:
    """Whether `name` is valid in a host name (RFC 1123): at most 63 lower case letters, digits and inner hyphens."""
    return _DNS_LABEL.fullmatch(name) is not None


def stack_tag(stack: str) -> str:
    """The tag of `stack`'s Neutron resources: networks, subnets, routers, ports, security groups, floating IPs."""
    return f"{METADATA_KEY}={stack}"


def stack_metadata(stack: str) -> dict[str, str]:
    """The metadata of `stack`'s servers and volumes."""
    return {METADATA_KEY: stack}


def stack_of(metadata: Mapping[str, str] | None = None, tags: list[str] | None = None) -> str | None:
    """The stack that owns a resource with these metadata or tags; None without one."""
    if metadata and METADATA_KEY in metadata:
        return metadata[METADATA_KEY]
    prefix = f"{METADATA_KEY}="
    return next((tag.removeprefix(prefix) for tag in tags or () if tag.startswith(prefix)), None)


def resource_name(stack: str, part: str) -> str:
    """Name of `stack`'s resource `part` in the cloud, e.g. `dev-router`.

    Key pairs, server groups and leases have no tags: only the name identifies their stack.
    """
    return f"{stack}-{part}"


def lease_part(group: str) -> str:
    """Name of a node group's lease within its stack, e.g. `lease-control`."""
    return f"lease-{group}"


def node_part(group: str, index: int) -> str:
    """Name of a node within its stack, e.g. `control-0`; its host name is this with the stack's name as prefix."""
    return f"{group}-{index}"


KEYPAIR_PART = "key"
