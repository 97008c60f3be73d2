"""The answers that others are held against: those to rows that the model was not trained on."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from services.drift.answers import CLASS, MOST_COLUMNS, DriftError, parts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "drift.npz"
"""Beside a model's other files; without pickled objects."""
CLASSES = "classes"
FEWEST_ROWS, MOST_ROWS = 100, 2000
MOST_CLASSES = 200
"""What has more is text, not classes."""
UNKNOWN = -1


@dataclass(frozen=True)
class Reference:
    """Its parts, a row an answer: those of `answers.parts`, classes as their numbers (n, 1) in `classes`."""

    parts: dict[str, NDArray[Any]]
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, outputs: Mapping[str, NDArray[Any]]) -> Reference:
        """Of a model's outputs for held-out rows, by name; of more than 2,000 rows, of so many.

        Raises:
            DriftError: they are fewer than 100, or nothing that can be compared.
        """
        found = parts(outputs)
        rows = min(map(len, found.values()))
        if rows < FEWEST_ROWS:
            raise DriftError(f"{rows} answers are too few to compare others with: at least {FEWEST_ROWS}")
        if rows > MOST_ROWS:
            chosen = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
            found = {name: values[chosen] for name, values in found.items()}
        if CLASS not in found:
            return cls(found)
        classes, numbers = np.unique(found.pop(CLASS).astype(str), return_inverse=True)
        if len(classes) <= MOST_CLASSES:
            return cls({CLASS: numbers.reshape(-1, 1).astype(np.int16), **found}, tuple(classes.tolist()))
        if not found:
            raise DriftError(f"{len(classes)} different answers are text, or numbers of things, not classes")
        return cls(found)

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """The one among a model's files.

        Raises:
            DriftError: there is none, or it cannot be read.
        """
        try:
            with np.load(folder / FILE, allow_pickle=False) as file:
                found = dict(file)
            made = cls(found, tuple(found.pop(CLASSES).tolist()))
        except FileNotFoundError:
            raise DriftError("its evaluation has written no reference") from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DriftError(f"its {FILE} cannot be read: {error}") from error
        shapes = {name: values.shape for name, values in found.items()}
        tables = all(len(shape) == 2 and 1 <= shape[1] <= MOST_COLUMNS for shape in shapes.values())
        if not tables or not FEWEST_ROWS <= made.rows <= MOST_ROWS:
            raise DriftError(f"its {FILE} is none: {shapes}")
        return made

    def write(self, folder: Path) -> Path:
        """Write it among a model's files."""
        path = folder / FILE
        np.savez_compressed(path, **self.parts, **{CLASSES: np.array(self.classes, dtype=str)})
        return path

    @property
    def rows(self) -> int:
        """How many answers it has."""
        return min(map(len, self.parts.values()), default=0)

    def numbered(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Its parts of other answers; -1 is a class that it has not seen.

        Raises:
            DriftError: they are not of its shape.
        """
        found = parts(outputs)
        if CLASS in self.parts and CLASS in found:
            known = {name: number for number, name in enumerate(self.classes)}
            numbers = [known.get(name, UNKNOWN) for name in found[CLASS].astype(str).tolist()]
            found[CLASS] = np.array(numbers, dtype=np.int16).reshape(-1, 1)
        for name, values in self.parts.items():
            if name not in found or found[name].shape[1:] != values.shape[1:]:
                raise DriftError(f"the model's answers have no {name} as the reference has it")
        return {name: found[name] for name in self.parts}
