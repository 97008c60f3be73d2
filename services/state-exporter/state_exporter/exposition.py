"""Samples, and Prometheus' text format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Sample:
    """One value of a series. `kind` is `gauge` or `counter`."""

    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)
    kind: str = "gauge"


def render(samples: Iterable[Sample]) -> str:
    """Render samples in Prometheus' text format, grouped by name."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    lines = []
    for name, found in sorted(by_name.items()):
        lines.append(f"# TYPE {name} {found[0].kind}")
        lines += [f"{name}{_labels(sample.labels)} {_number(sample.value)}" for sample in found]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    pairs = ",".join(f'{name}="{value.translate(ESCAPED)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
