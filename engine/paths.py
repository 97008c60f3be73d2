"""Property paths such as ``a.b[0]["c d"].*``, as ``ignoreChanges`` and ``replaceOnChanges`` take them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from protocol import paths
from protocol.paths import WILDCARD, Path, covers
from protocol.values import is_secret, secret

from .errors import EngineError
from .values import contains_secret

if TYPE_CHECKING:
    from protocol.values import Properties

__all__ = ["Path", "covers", "parse_path", "reset"]


def parse_path(text: str) -> Path:
    """Parse a property path; raises :class:`EngineError` where it is not one."""
    try:
        return paths.parse_path(text)
    except ValueError as error:
        raise EngineError(
            str(error), remedy='write it like tags, tags.owner, rules[0].port, rules[*] or tags["a.b"]'
        ) from None


def reset(path: Path, old: Properties, new: Properties) -> bool:
    """Set what ``path`` names in ``new`` back to what ``old`` has there; False where the two cannot be matched.

    ``new`` is changed in place. An element that only one side has can't be reset inside a list, but a key of an object
    can: it is added or removed. Secrets of either side stay secret.
    """
    return _reset(path, old, new, hidden=False)


def _reset(path: Path, old: Any, new: Any, *, hidden: bool) -> bool:
    """``hidden`` says that ``old`` is part of a secret and ``new`` is not."""
    if is_secret(old) or is_secret(new):
        inner_old = old["value"] if is_secret(old) else old
        inner_new = new["value"] if is_secret(new) else new
        return _reset(path, inner_old, inner_new, hidden=(hidden or is_secret(old)) and not is_secret(new))
    head, rest = path[0], path[1:]
    if head == WILDCARD:
        return _reset_all(rest, old, new, hidden=hidden)
    old_has, new_has = _has(old, head), _has(new, head)
    if not rest:
        if old_has and (new_has or (isinstance(new, dict) and isinstance(head, str))):
            value = copy.deepcopy(old[head])
            new[head] = secret(value) if hidden or (new_has and is_secret(new[head])) else value
        elif new_has and isinstance(new, dict):
            del new[head]
        else:
            return not old_has and not new_has and isinstance(new, dict)
        return True
    if not old_has and not new_has:
        return isinstance(new, dict)
    return old_has and new_has and _reset(rest, old[head], new[head], hidden=hidden)


def _reset_all(rest: Path, old: Any, new: Any, *, hidden: bool) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        matched = [_reset((key, *rest), old, new, hidden=hidden) for key in {**old, **new}]
        return all(matched)
    if isinstance(old, list) and isinstance(new, list):
        if not rest:
            fresh = copy.deepcopy(old)
            new[:] = map(secret, fresh) if hidden or contains_secret(new) else fresh
            return True
        matched = [_reset((index, *rest), old, new, hidden=hidden) for index in range(min(len(old), len(new)))]
        return len(old) == len(new) and all(matched)
    return False


def _has(container: Any, key: str | int) -> bool:
    if isinstance(container, dict):
        return key in container
    return isinstance(container, list) and isinstance(key, int) and key < len(container)
