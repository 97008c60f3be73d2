"""Metrics in Prometheus' text format, as a scrape reads them."""

from __future__ import annotations

import re

LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Series:
    """Each series with its value. Two of the same labels are refused, as a scrape refuses them."""
    found: Series = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        matched = LINE.match(line)
        assert matched, line
        series = matched[1], frozenset((name, value) for name, value in LABEL.findall(matched[2] or ""))
        assert series not in found, line
        found[series] = float(matched[3])
    return found


def value(found: Series, name: str, **labels: str) -> float | None:
    """The value of the one series of a name that has these labels, and perhaps more; None without one."""
    matching = [
        number for (one, given), number in found.items() if one == name and labels.items() <= dict(given).items()
    ]
    assert len(matching) < 2, (name, labels, matching)
    return matching[0] if matching else None
