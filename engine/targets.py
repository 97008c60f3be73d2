"""Choosing resources by URN or pattern."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Patterns:
    """URNs and patterns: ``*`` matches within a part of a URN, ``**`` across parts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.literals = [text for text in texts if "*" not in text]
        self._literals = set(self.literals)
        self._patterns = [
            re.compile(re.escape(text).replace(r"\*\*", ".*").replace(r"\*", "[^:]*")) for text in texts if "*" in text
        ]

    def __bool__(self) -> bool:
        return bool(self._literals or self._patterns)

    def __contains__(self, urn: str) -> bool:
        return urn in self._literals or any(pattern.fullmatch(urn) for pattern in self._patterns)
