"""Types of this service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from providers.framework import Function, ResourceType
    from providers.openstack.client import Cloud

TYPES: list[ResourceType[Cloud]] = []
FUNCTIONS: list[Function[Cloud]] = []
