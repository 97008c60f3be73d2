"""Property values as they appear in engine events, and the difference between two of them.

Secrets, unknowns, assets and resource references travel in JSON as strings and objects with reserved signatures
(Pulumi's `sdk/go/common/resource/sig`). `decode` gives them types of their own, so that nothing below prints a secret.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from protocol import paths
from protocol.signatures import ARCHIVE_SIG, ASSET_SIG, BYTES_SIG, OUTPUT_SIG, RESOURCE_SIG, SECRET_SIG, SIG, UNKNOWNS

MASK = "[secret]"


class Special(enum.Enum):
    """A value that is known only by its kind."""

    SECRET = MASK
    UNKNOWN = "[unknown]"


@dataclass(frozen=True)
class Bytes:
    """A string that is not valid UTF-8, in base64."""

    base64: str


@dataclass(frozen=True)
class Asset:
    """A file, text, URI or archive. `contents` holds an archive's members, or None."""

    kind: str
    form: str
    hash: str
    where: str = ""
    contents: dict[str, Value] | None = None


@dataclass(frozen=True)
class Reference:
    """A resource used as a value."""

    urn: str
    id: Value
    version: str


Value = None | bool | int | float | str | Special | Bytes | Asset | Reference | list[Any] | dict[str, Any]
PropertyPath = tuple[str | int, ...]


def decode(wire: object) -> Value:
    """The value that a JSON property value stands for."""
    match wire:
        case str():
            if wire in UNKNOWNS:
                return Special.UNKNOWN
            return Special.SECRET if wire == MASK else wire
        case list():
            return [decode(item) for item in wire]
        case dict():
            return _decode_signed(wire) if SIG in wire else {key: decode(item) for key, item in wire.items()}
        case None | bool() | int() | float():
            return wire
    raise TypeError(f"{type(wire).__name__} is not a JSON value")


def _decode_signed(wire: Mapping[str, Any]) -> Value:
    signature = wire[SIG]
    if signature in (ASSET_SIG, ARCHIVE_SIG):
        return _decode_asset(wire, "asset" if signature == ASSET_SIG else "archive")
    if signature == RESOURCE_SIG:
        identity = Special.UNKNOWN if wire.get("id") == "" else decode(wire.get("id"))
        return Reference(wire.get("urn", ""), identity, wire.get("packageVersion", ""))
    if signature == BYTES_SIG:
        return Bytes(wire["value"])
    if signature == OUTPUT_SIG and not wire.get("secret"):
        return decode(wire["value"]) if "value" in wire else Special.UNKNOWN
    return Special.SECRET


def _decode_asset(wire: Mapping[str, Any], kind: str) -> Asset:
    digest = wire.get("hash", "")
    if isinstance(members := wire.get("assets"), dict):
        return Asset(kind, "assets", digest, contents={name: decode(member) for name, member in members.items()})
    form = next((form for form in ("text", "path", "uri") if wire.get(form)), "text")
    return Asset(kind, "file" if form == "path" else form, digest, wire.get(form, ""))


def mask_secrets(wire: Any) -> Any:
    """`wire` with the contents of secrets replaced, as in the CLI's event stream."""
    match wire:
        case list():
            return [mask_secrets(item) for item in wire]
        case dict():
            if wire.get(SIG) == SECRET_SIG:
                return {SIG: SECRET_SIG, "ciphertext": MASK}
            if wire.get(SIG) == OUTPUT_SIG and wire.get("secret"):
                return {key: item for key, item in wire.items() if key != "value"}
            return {key: mask_secrets(item) for key, item in wire.items()}
    return wire


@dataclass
class Diff:
    """How one value became another. `items` holds the diffs of the parts if both are lists or both are objects."""

    kind: str
    old: Value = None
    new: Value = None
    items: dict[Any, Diff] | None = None
    replaces: bool = False

    @property
    def is_list(self) -> bool:
        """Whether the parts are list elements."""
        return self.items is not None and any(isinstance(key, int) for key in self.items)


@dataclass
class Hidden:
    """Property paths whose diffs the program hides (`hide_diffs`), and those of them that had a diff."""

    paths: Sequence[PropertyPath] = ()
    hits: set[PropertyPath] = field(default_factory=set)

    def covers(self, path: PropertyPath) -> bool:
        """Whether `path` lies at or below a hidden path."""
        for hidden in self.paths:
            if len(hidden) <= len(path) and all(want in ("*", have) for want, have in zip(hidden, path, strict=False)):
                self.hits.add(hidden)
                return True
        return False


def is_internal(key: object) -> bool:
    """Whether the engine or an SDK added this property for internal use."""
    return isinstance(key, str) and key.startswith("__")


def diff_objects(
    old: Mapping[str, Value], new: Mapping[str, Value], hidden: Hidden | None = None, path: PropertyPath = ()
) -> dict[Any, Diff] | None:
    """The diff of each property, including unchanged ones; None if nothing changed. Null is the same as absent."""
    items: dict[Any, Diff] = {}
    for key in sorted(old.keys() | new.keys()):
        before, after, here = old.get(key), new.get(key), (*path, key)
        if is_internal(key) or (hidden is not None and hidden.paths and hidden.covers(here)):
            continue
        if before is None and after is None:
            if key in old and key in new:
                items[key] = Diff("same")
        elif before is None:
            items[key] = Diff("add", None, after)
        elif after is None:
            items[key] = Diff("delete", before)
        else:
            items[key] = diff_values(before, after, hidden, here) or Diff("same", before, after)
    return items if any(item.kind != "same" for item in items.values()) else None


def diff_values(old: Value, new: Value, hidden: Hidden | None = None, path: PropertyPath = ()) -> Diff | None:
    """How `old` became `new`; None if it did not change."""
    if isinstance(old, dict) and isinstance(new, dict):
        items = diff_objects(old, new, hidden, path)
    elif isinstance(old, list) and isinstance(new, list):
        shared = min(len(old), len(new))
        items = {
            index: diff_values(old[index], new[index], hidden, (*path, index)) or Diff("same", old[index], new[index])
            for index in range(shared)
        }
        items |= {index: Diff("add", None, new[index]) for index in range(shared, len(new))}
        items |= {index: Diff("delete", old[index]) for index in range(shared, len(old))}
        if all(item.kind == "same" for item in items.values()):
            items = None
    else:
        return None if old == new and isinstance(old, bool) == isinstance(new, bool) else Diff("update", old, new)
    return Diff("update", old, new, items) if items is not None else None


def diff_by_provider(
    detailed: Mapping[str, Mapping[str, Any]],
    old_of: Callable[[bool], Value],
    new_of: Callable[[bool], Value],
    hidden: Hidden,
) -> dict[Any, Diff] | None:
    """A provider's detailed diff by property path, with the values at each path.

    `old_of` and `new_of` return the properties to look in. The argument is whether the entry compares inputs.
    """
    items: dict[Any, Diff] = {}
    for text, entry in detailed.items():
        path = parse_path(text)
        if not hidden.covers(path):
            inputs = bool(entry.get("inputDiff"))
            _insert(items, path, entry["diffKind"], old_of(inputs), new_of(inputs))
    return items or None


def _insert(items: dict[Any, Diff], path: PropertyPath, kind: str, old_parent: Value, new_parent: Value) -> None:
    key, rest = path[0], path[1:]
    old, new = _child(old_parent, key), _child(new_parent, key)
    before, after = next(iter(old), None), next(iter(new), None)
    if not rest:
        match kind.removesuffix("-replace"):
            case "add":
                node = Diff("add", None, after if new else Special.UNKNOWN)
            case "delete":
                node = Diff("delete", before if old else Special.UNKNOWN)
            case _:
                node = diff_values(before, after) or Diff("update", before, after)
    elif before is None and after is not None:
        node = Diff("add", None, after)
    elif before is not None and after is None:
        node = Diff("delete", before)
    else:
        node = items.get(key) or Diff("update", before, after)
        if node.items is None:
            node.items = {}
        _insert(node.items, rest, kind, before, after)
    node.replaces = node.replaces or kind.endswith("-replace")
    items[key] = node


def _child(parent: Value, key: str | int) -> tuple[Value, ...]:
    """The part of `parent` at `key`: one value, or none. An unknown or secret value may contain any key."""
    if isinstance(parent, Special):
        return (parent,)
    if isinstance(parent, list) and isinstance(key, int):
        return tuple(parent[key : key + 1])
    if isinstance(parent, dict) and key in parent:
        return (parent[str(key)],)
    return ()


def parse_path(text: str) -> PropertyPath:
    """The steps of a property path like `a.b["c.d"][0]`; a text that is not a path is the name of a property."""
    try:
        return paths.parse_path(text)
    except ValueError:
        return (text,)


def format_path(path: Iterable[str | int]) -> str:
    """The text of a property path."""
    return "".join(_format_steps(path)).removeprefix(".")


def _format_steps(path: Iterable[str | int]) -> Iterator[str]:
    for step in path:
        if isinstance(step, int):
            yield f"[{step}]"
        elif re.fullmatch(r"[^.\[\]\"]+", step):
            yield f".{step}"
        else:
            yield '["' + step.replace("\\", "\\\\").replace('"', '\\"') + '"]'
