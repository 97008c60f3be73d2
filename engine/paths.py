"""Property paths such as ``a.b[0]["c d"].*``, as ``ignoreChanges`` and ``replaceOnChanges`` take them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .errors import EngineError
from .values import is_secret, secret

if TYPE_CHECKING:
    from .values import Properties

Path = tuple[str | int, ...]
WILDCARD = "*"

_TOKEN = re.compile(
    r"""\.?(?P<name>[^.\[\]"]+)      # .name or *
      | \["(?P<quoted>(?:[^"\\]|\\.)*)"\]
      | \[(?P<index>\d+|\*)\]""",
    re.VERBOSE,
)


def parse_path(text: str) -> Path:
    """Parse a property path; raises :class:`EngineError` where it is not one."""
    parts: list[str | int] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise EngineError(
                f"{text!r} is not a property path (at character {position})",
                remedy='write it like tags, tags.owner, rules[0].port, rules[*] or tags["a.b"]',
            )
        if (index := match["index"]) is not None:
            parts.append(WILDCARD if index == WILDCARD else int(index))
        elif (quoted := match["quoted"]) is not None:
            parts.append(re.sub(r"\\(.)", r"\1", quoted))
        else:
            parts.append(match["name"])
        position = match.end()
    return tuple(parts)


def covers(pattern: Path, path: Path) -> bool:
    """Whether the pattern names the path or something that holds it."""
    return len(pattern) <= len(path) and all(
        left in (WILDCARD, right) for left, right in zip(pattern, path, strict=False)
    )


def reset(path: Path, old: Properties, new: Properties) -> bool:
    """Set what ``path`` names in ``new`` back to what ``old`` has there; False where the two cannot be matched.

    ``new`` is changed in place. An element that only one side has can't be reset inside a list, but a key of an object
    can: it is added or removed.
    """
    return _reset(path, old, new)


def _reset(path: Path, old: Any, new: Any) -> bool:
    if is_secret(old) or is_secret(new):
        return _reset_through_secret(path, old, new)
    head, rest = path[0], path[1:]
    if head == WILDCARD:
        return _reset_all(rest, old, new)
    old_has, new_has = _has(old, head), _has(new, head)
    if not rest:
        if (old_has and isinstance(new, dict)) or (old_has and new_has):
            new[head] = old[head]
        elif new_has and isinstance(new, dict):
            del new[head]
        else:
            return not old_has and not new_has and isinstance(new, dict)
        return True
    if not old_has and not new_has:
        return isinstance(new, dict)
    return old_has and new_has and _reset(rest, old[head], new[head])


def _reset_through_secret(path: Path, old: Any, new: Any) -> bool:
    inner_old = old["value"] if is_secret(old) else old
    if not is_secret(new):
        return _reset(path, inner_old, new)
    return _reset(path, inner_old, secret(new)["value"])


def _reset_all(rest: Path, old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        if not rest:
            new.clear()
            new.update(old)
            return True
        matched = [_reset((key, *rest), old, new) for key in {*old, *new}]
        return all(matched)
    if isinstance(old, list) and isinstance(new, list):
        if not rest:
            new[:] = old
            return True
        matched = [_reset((index, *rest), old, new) for index in range(min(len(old), len(new)))]
        return len(old) == len(new) and all(matched)
    return False


def _has(container: Any, key: str | int) -> bool:
    if isinstance(container, dict):
        return key in container
    return isinstance(container, list) and isinstance(key, int) and key < len(container)
