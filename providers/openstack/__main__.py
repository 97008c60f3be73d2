"""Start the provider: ``python -m providers.openstack [engine address]``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from providers.framework import Package
from providers.framework.service import serve
from providers.openstack.client import CONFIG, Cloud

if TYPE_CHECKING:
    from providers.framework import Function, ResourceType

MODULES = (
    "blockstorage",
    "compute",
    "dns",
    "functions",
    "identity",
    "images",
    "loadbalancer",
    "networking",
    "objectstorage",
)


def package() -> Package[Cloud]:
    """The provider, joined of its modules' lists. Its version is that of the SDK whose types it has."""
    types: list[ResourceType[Cloud]] = []
    functions: list[Function[Cloud]] = []
    for name in MODULES:
        module = import_module(f"providers.openstack.{name}")
        types += module.TYPES
        functions += module.FUNCTIONS
    return Package(
        name="openstack",
        version=version("pulumi-openstack"),
        description="OpenStack resources for machines without the official plugin",
        config=CONFIG,
        types=types,
        functions=functions,
        connect=Cloud,
    )


if __name__ == "__main__":
    serve(package())
