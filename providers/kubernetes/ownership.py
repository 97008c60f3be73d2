"""Field ownership (server-side apply), and what it means for an apply. Makes no calls.

``metadata.managedFields`` has an entry for each manager, with its fields as a tree (FieldsV1): ``f:<name>`` is a
member, ``k:{<keys>}`` an element of a list by its merge keys, ``v:<value>`` one of a set, ``.`` the thing itself. What
has nothing below it is managed as a whole: a scalar, an atomic list or an atomic map.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from protocol.paths import WILDCARD
from providers.kubernetes.objects import get, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from protocol.paths import Path
    from providers.kubernetes.objects import Object

FORMER_MANAGERS: Final = frozenset(
    {"kubectl", "kubectl-client-side-apply", "before-first-apply", "pulumi-kubernetes", "pulumi-resource-kubernetes"}
)
"""Managers of objects created without server-side apply, or by the official plugin, which creates with POST."""
_KEY_DEFAULTS: Final = {"protocol": "TCP"}
"""Merge keys that the server fills in: those of ports."""
_OMIT: Final = object()


def managed_fields(live: Object, manager: str) -> Object:
    """The fields (FieldsV1) that the manager has applied; empty if none."""
    return _applied(live["metadata"].get("managedFields", ()), manager)


def _applied(entries: Iterable[Object], manager: str) -> Object:
    for entry in entries:
        if (entry.get("manager"), entry.get("operation")) == (manager, "Apply") and not entry.get("subresource"):
            return dict(entry.get("fieldsV1", {}))
    return {}


def taken_over(live: Object, manager: str) -> list[Object] | None:
    """``managedFields`` with the fields of former managers moved to this one; None where there are none."""
    kept, fields = [], managed_fields(live, manager)
    entries = live["metadata"].get("managedFields", ())
    for entry in entries:
        former = entry["manager"] in FORMER_MANAGERS and (
            entry["operation"] == "Update" or entry["manager"] == "kubectl"
        )
        if former and not entry.get("subresource"):
            fields = _union(fields, entry.get("fieldsV1", {}))
        elif (entry["manager"], entry["operation"], entry.get("subresource")) != (manager, "Apply", None):
            kept.append(entry)
    if len(kept) >= len(entries) - 1 and fields == managed_fields(live, manager):
        return None
    ours = {"manager": manager, "operation": "Apply", "apiVersion": live["apiVersion"], "fieldsType": "FieldsV1"}
    return [*kept, {**ours, "fieldsV1": fields}]


def _union(one: Object, other: Object) -> Object:
    both = {key: _union(one[key], other[key]) for key in one.keys() & other.keys()}
    return {**one, **other, **both}


def without_ignored(new: Object, live: Object, managers: Iterable[str], ignored: Iterable[Path]) -> Object:
    """The manifest to apply where ``ignoreChanges`` names parts of it: those are left to their managers.

    A field that others manage is left out, as is one that is gone from the object: an apply neither claims it nor puts
    it back. One of ours alone, of any of ``managers``, is applied as it is in the cluster: left out, it would be
    removed. Of an atomic list or map only the whole can be left out; a part of one is applied as it is in the cluster.
    A list's element that is new is applied as a whole.
    """
    entries = live["metadata"].get("managedFields", ())
    ours, theirs = _NO_OWNER, _NO_OWNER
    managers = set(managers)
    for entry in entries:
        own = entry.get("operation") == "Apply" and not entry.get("subresource") and entry["manager"] in managers
        if own:
            ours = _union(ours or {}, entry.get("fieldsV1", {}))
        else:
            theirs = _union(theirs or {}, entry.get("fieldsV1", {}))
    owners = _Owners(ours, theirs)
    kept = copy.deepcopy(new)
    for path in ignored:
        pattern = _shortened(path)
        if is_secret(str(new.get("kind")), new) and pattern[:1] in {(), ("stringData",), (WILDCARD,)}:
            _leave_words(kept, live, owners, pattern[1:])
        left = _left(kept, live, owners, pattern)
        kept = dict(left) if left is not _OMIT else {}
    # Identity fields are always applied.
    names = {key: value for key in ("name", "namespace", "uid") if (value := get(new, "metadata", key)) is not None}
    identity: Object = {key: new[key] for key in ("apiVersion", "kind") if key in new}
    metadata = {"metadata": {**kept.get("metadata", {}), **names}} if "metadata" in new else {}
    return {**identity, **kept, **metadata}


_NO_OWNER: Final[Object | None] = None


@dataclass(frozen=True, slots=True)
class _Owners:
    """The owners of a value and of what is below it: FieldsV1 of our managers and of others, None without a manager."""

    ours: Object | None
    theirs: Object | None

    @property
    def any(self) -> list[Object]:
        return [fields for fields in (self.ours, self.theirs) if fields is not None]

    def below(self, key: str) -> _Owners:
        """Of a member or an element."""
        return _Owners(*(None if fields is None else fields.get(key) for fields in (self.ours, self.theirs)))

    def keys(self, *prefixes: str) -> list[str]:
        """The members or elements that someone manages."""
        return [key for key in {key: None for fields in self.any for key in fields} if key.startswith(prefixes)]


def _shortened(path: Path) -> Path:
    """A path without wildcards at its end: all parts of a value are the value."""
    while path and path[-1] == WILDCARD:
        path = path[:-1]
    return path


def _left(value: Any, live: Any, owners: _Owners, pattern: Path) -> Any:
    """What to apply in the place of ``value``, where the pattern (empty: all of it) is ignored; _OMIT for nothing."""
    if isinstance(value, dict) and value and (owners.keys("f:") or not owners.any):
        return _members_left(value, live, owners, pattern)
    if isinstance(value, list) and owners.keys("k:", "v:"):
        return _elements_left(value, live if isinstance(live, list) else [], owners, pattern)
    if pattern:
        overlaid = _overlaid(value, live, pattern)
        return _OMIT if owners.ours is None and overlaid == live else overlaid
    return _OMIT if owners.ours is None or owners.theirs is not None or live is None else copy.deepcopy(live)


def _members_left(value: Object, live: Any, owners: _Owners, pattern: Path) -> Any:
    kept = {}
    for key, item in value.items():
        left = item
        if not pattern or pattern[0] in (WILDCARD, key):
            left = _left(item, get(live, key), owners.below(f"f:{key}"), pattern[1:])
        if left is not _OMIT:
            kept[key] = left
    return kept or _OMIT


def _elements_left(value: list[Any], live: list[Any], owners: _Owners, pattern: Path) -> Any:
    keys = {key: json.loads(key[2:]) for key in owners.keys("k:", "v:")}
    kept = []
    for index, item in enumerate(value):
        left = item
        if not pattern or pattern[0] in (WILDCARD, index):
            key = next((key for key, wanted in keys.items() if _matches(item, wanted)), None)
            found = next((one for one in live if key is not None and _matches(one, keys[key])), None)
            left = _element_left(item, found, owners.below(key) if key else _Owners(None, None), pattern[1:])
            if key and left is not _OMIT and isinstance(item, dict):
                left = {**{name: item[name] for name in keys[key] if name in item}, **left}
        if left is not _OMIT:
            kept.append(left)
    return kept or _OMIT


def _element_left(item: Any, live: Any, owners: _Owners, pattern: Path) -> Any:
    if live is None:
        return item if pattern else _OMIT
    return _left(item, live, owners, pattern)


def _matches(item: Any, wanted: Any) -> bool:
    """Whether a list's element is the one of these merge keys, or of this value."""
    if isinstance(item, dict) and isinstance(wanted, dict):
        return all(item.get(name, _KEY_DEFAULTS.get(name)) == value for name, value in wanted.items())
    return bool(item == wanted)


def _overlaid(value: Any, live: Any, pattern: Path) -> Any:
    """An atomic value whose ignored parts are as they are in the cluster."""
    if not pattern:
        return copy.deepcopy(value if live is None else live)
    if isinstance(value, dict):
        return {
            key: _overlaid(item, get(live, key), pattern[1:]) if pattern[0] in (WILDCARD, key) else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        found = live if isinstance(live, list) else []
        return [
            _overlaid(item, found[index] if index < len(found) else None, pattern[1:])
            if pattern[0] in (WILDCARD, index)
            else item
            for index, item in enumerate(value)
        ]
    return value


def _leave_words(kept: Object, live: Object, owners: _Owners, pattern: Path) -> None:
    """A Secret's ``stringData`` is write-only: in the cluster it is ``data``, and so it is ignored."""
    words = kept.get("stringData")
    if not isinstance(words, dict):
        return
    ignored = {key for key in words if not pattern or pattern[0] in (WILDCARD, key)}
    data: Mapping[str, Any] = {key: get(live, "data", key) for key in ignored}
    left = _left(dict(data), live.get("data"), owners.below("f:data"), ())
    kept["stringData"] = {key: item for key, item in words.items() if key not in ignored}
    if left is not _OMIT:
        kept["data"] = {**kept.get("data", {}), **left}
