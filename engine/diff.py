"""Diffs: the engine's own comparison of inputs, and how options change a provider's diff."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .paths import covers, parse_path
from .values import contains_unknown, equal, reveal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from protocol.values import Properties

INIT_ERROR_PATH = "#initerror"
"""The name in ``replace_on_changes`` for a resource that was created but did not become ready."""


@dataclass
class PropertyDiff:
    """One entry of a detailed diff."""

    kind: str
    """``add``, ``delete`` or ``update``, with ``-replace`` where the change replaces the resource."""
    input_diff: bool = False

    def replacing(self) -> PropertyDiff:
        """The same change, as one that replaces the resource."""
        return PropertyDiff(f"{self.kind.removesuffix('-replace')}-replace", self.input_diff)


@dataclass
class Diff:
    """How old and new inputs differ, by the provider or by the engine."""

    changed: bool
    known: bool = True
    """False where the provider leaves the diff to the engine."""
    replace_keys: list[str] = field(default_factory=list)
    changed_keys: list[str] = field(default_factory=list)
    detailed: dict[str, PropertyDiff] | None = None
    delete_before_replace: bool = False
    forced: bool = False
    """The engine's own decision: the provider was not asked."""

    @property
    def replaces(self) -> bool:
        """Whether the resource has to be replaced."""
        return self.changed and bool(
            self.replace_keys or any(entry.kind.endswith("-replace") for entry in (self.detailed or {}).values())
        )


def force_replacements(diff: Diff, paths: Sequence[str], *, init_errors: bool) -> Diff:
    """Apply ``replace_on_changes``: changes of the properties it names replace the resource."""
    if not paths or not (diff.changed or init_errors):
        return diff
    patterns = [parse_path(text) for text in paths]

    def forced(text: str) -> bool:
        path = parse_path(text)
        return any(covers(pattern, path) for pattern in patterns)

    detailed = diff.detailed
    if detailed is not None:
        detailed = {text: entry.replacing() if forced(text) else entry for text, entry in detailed.items()}
    keys = dict.fromkeys([*diff.replace_keys, *(key for key in diff.changed_keys if forced(key))])
    if init_errors and any(covers(pattern, (INIT_ERROR_PATH,)) for pattern in patterns):
        keys[INIT_ERROR_PATH] = None
        return replace(diff, changed=True, detailed=detailed, replace_keys=list(keys))
    return replace(diff, detailed=detailed, replace_keys=list(keys))


def is_triggered(new: Any, old: Any) -> bool:
    """Whether the replacement trigger changed; no trigger at all never does."""
    new, old = reveal(new), reveal(old)
    if contains_unknown(new) or contains_unknown(old):
        return True
    return new is not None and old is not None and not equal(new, old)


def inverted(detailed: Mapping[str, PropertyDiff] | None) -> dict[str, PropertyDiff] | None:
    """A diff in the other direction: a refresh compares the program's inputs with the actual ones."""
    if detailed is None:
        return None
    flipped = {"add": "delete", "add-replace": "delete", "delete": "add", "delete-replace": "add"}
    return {path: PropertyDiff(flipped.get(entry.kind, "update"), entry.input_diff) for path, entry in detailed.items()}


def compare(old: Properties, new: Properties) -> Diff:
    """The engine's own diff of two sets of inputs, for providers that leave it to the engine."""
    detailed: dict[str, PropertyDiff] = {}
    _compare("", old, new, detailed)
    changed = [key for key in {**old, **new} if (key in old) != (key in new) or not equal(old.get(key), new.get(key))]
    visible = {path: entry for path, entry in detailed.items() if not path.startswith("__")}
    keys = sorted(key for key in changed if not key.startswith("__"))
    hidden_change = any(key.startswith("__") and not equal(old.get(key), new.get(key)) for key in changed)
    return Diff(changed=bool(keys) or hidden_change, changed_keys=keys, detailed=visible)


def _compare(path: str, old: Any, new: Any, found: dict[str, PropertyDiff]) -> None:
    if equal(old, new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            plain = re.fullmatch(r"[^.\[\]\"]+", key)
            inner = (f"{path}.{key}" if path else key) if plain else f'{path}["{key}"]'
            if key not in old:
                found[inner] = PropertyDiff("add", input_diff=True)
            elif key not in new:
                found[inner] = PropertyDiff("delete", input_diff=True)
            else:
                _compare(inner, old[key], new[key], found)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            inner = f"{path}[{index}]"
            if index >= len(old):
                found[inner] = PropertyDiff("add", input_diff=True)
            elif index >= len(new):
                found[inner] = PropertyDiff("delete", input_diff=True)
            else:
                _compare(inner, old[index], new[index], found)
    else:
        found[path] = PropertyDiff("update", input_diff=True)
