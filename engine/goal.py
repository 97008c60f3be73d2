"""The options of an operation, and the goal of each resource."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocol.values import Properties

    from .state import State

DEFAULT_PARALLEL = 16


@dataclass(frozen=True)
class UpdateOptions:
    """The options of an operation. Names and meanings are those of the CLI's flags."""

    parallel: int = DEFAULT_PARALLEL
    targets: tuple[str, ...] = ()
    """URNs, or patterns with ``*`` and ``**``: only these resources change."""
    target_dependents: bool = False
    exclude: tuple[str, ...] = ()
    """URNs or patterns of resources that do not change."""
    exclude_dependents: bool = False
    replace: tuple[str, ...] = ()
    refresh: bool = False
    continue_on_error: bool = True
    expect_no_changes: bool = False


@dataclass(frozen=True)
class Alias:
    """Another identity a resource may have had."""

    urn: str = ""
    name: str = ""
    type: str = ""
    stack: str = ""
    project: str = ""
    parent: str = ""
    no_parent: bool = False


@dataclass
class Goal:
    """The desired state of one resource."""

    type: str
    name: str
    custom: bool
    properties: Properties
    parent: str = ""
    protect: bool = False
    dependencies: list[str] = field(default_factory=list)
    provider: str = ""
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    delete_before_replace: bool | None = None
    ignore_changes: list[str] = field(default_factory=list)
    additional_secret_outputs: list[str] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    import_id: str = ""
    custom_timeouts: dict[str, float] = field(default_factory=dict)
    replace_on_changes: list[str] = field(default_factory=list)
    retain_on_delete: bool = False
    deleted_with: str = ""
    replace_with: list[str] = field(default_factory=list)
    replacement_trigger: Any = None
    source_position: str = ""
    resource_hooks: dict[str, list[str]] = field(default_factory=dict)
    """Names of hooks by kind, such as ``BeforeCreate``."""


@dataclass
class Registered:
    """The engine's answer to a registration."""

    state: State
    succeeded: bool = True
    unknown: bool = False
