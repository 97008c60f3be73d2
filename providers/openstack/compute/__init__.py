"""Compute (Nova): key pairs, instances, server groups, and what is attached to instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.openstack.compute.attachments import InterfaceAttach, VolumeAttach
from providers.openstack.compute.instance import Instance
from providers.openstack.compute.keypair import Keypair
from providers.openstack.compute.server_group import ServerGroup

if TYPE_CHECKING:
    from providers.framework import Function, ResourceType
    from providers.openstack.client import Cloud

TYPES: list[ResourceType[Cloud]] = [Keypair(), Instance(), ServerGroup(), VolumeAttach(), InterfaceAttach()]
FUNCTIONS: list[Function[Cloud]] = []
