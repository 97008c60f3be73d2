"""Networking (Neutron): networks, subnets, routers, ports, floating IPs, security groups, trunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.openstack.networking.floating_ip import FloatingIp, FloatingIpAssociate
from providers.openstack.networking.network import Network, Subnet
from providers.openstack.networking.port import Port, PortSecGroupAssociate
from providers.openstack.networking.router import Router, RouterInterface
from providers.openstack.networking.security_group import SecGroup, SecGroupRule
from providers.openstack.networking.trunk import Trunk

if TYPE_CHECKING:
    from providers.framework import Function, ResourceType
    from providers.openstack.client import Cloud

TYPES: list[ResourceType[Cloud]] = [
    Network(),
    Subnet(),
    Router(),
    RouterInterface(),
    Port(),
    PortSecGroupAssociate(),
    FloatingIp(),
    FloatingIpAssociate(),
    SecGroup(),
    SecGroupRule(),
    Trunk(),
]
FUNCTIONS: list[Function[Cloud]] = []
