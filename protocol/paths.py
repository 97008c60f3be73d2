"""Property paths such as ``a.b[0]["c d"].*``, as ``ignoreChanges`` and ``replaceOnChanges`` take them."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

WILDCARD: Final = "*"
_STEP: Final = re.compile(
    r"""\.?(?P<name>[^.\[\]"]+)      # .name or *
      | \["(?P<quoted>(?:[^"\\]|\\.)*)"\]
      | \[(?P<index>[0-9]{1,9}|\*)\]""",
    re.VERBOSE | re.DOTALL,
)


def parse_path(text: str) -> Path:
    """The steps of a property path. Raises ValueError, with the position, where it is not one."""
    if not text:
        raise ValueError("an empty property path names nothing")
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f"{text!r} is not a property path (at character {position})")
        if (index := match["index"]) is not None:
            steps.append(WILDCARD if index == WILDCARD else int(index))
        elif (quoted := match["quoted"]) is not None:
            steps.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        else:
            steps.append(match["name"])
        position = match.end()
    return tuple(steps)


def covers(pattern: Path, path: Path) -> bool:
    """Whether the pattern matches the path or a parent of it."""
    return len(pattern) <= len(path) and all(
        left in (WILDCARD, right) for left, right in zip(pattern, path, strict=False)
    )
