"""Uniform resource names: ``urn:pulumi:<stack>::<project>::<parent types>$<type>::<name>``."""

from __future__ import annotations

ROOT_STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_PREFIX = "pulumi:providers:"


def make_urn(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """The URN of a resource; the root stack does not appear in the type chain of its children."""
    chain = ""
    if parent and qualified_type(parent) != ROOT_STACK_TYPE:
        chain = f"{qualified_type(parent)}$"
    return f"urn:pulumi:{stack}::{project}::{chain}{type_}::{name}"


def _part(urn: str, index: int) -> str:
    # Only the name may contain the separator.
    return urn.split("::", 3)[index]


def is_valid(urn: str) -> bool:
    """Whether the text has the four parts of a URN."""
    return urn.startswith("urn:pulumi:") and len(urn.split("::", 3)) == 4


def qualified_type(urn: str) -> str:
    """The type with the types of its parents, joined by ``$``."""
    return _part(urn, 2)


def type_of(urn: str) -> str:
    """The type token alone."""
    return qualified_type(urn).rsplit("$", 1)[-1]


def name_of(urn: str) -> str:
    """The logical name."""
    return _part(urn, 3)


def stack_of(urn: str) -> str:
    """The stack name."""
    return _part(urn, 0).removeprefix("urn:pulumi:")


def project_of(urn: str) -> str:
    """The project name."""
    return _part(urn, 1)


def is_provider_type(type_: str) -> bool:
    """Whether resources of this type are providers."""
    return type_.startswith(PROVIDER_PREFIX)


def package_of(type_: str) -> str:
    """The package of a type token; for a provider type, the package it provides."""
    if is_provider_type(type_):
        return type_.removeprefix(PROVIDER_PREFIX)
    return type_.split(":", 1)[0]


def split_reference(reference: str) -> tuple[str, str]:
    """Split a provider reference ``<urn>::<id>`` into its URN and ID."""
    urn, _, id_ = reference.rpartition("::")
    return urn, id_
