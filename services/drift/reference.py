"""The reference of drift detection: answers to rows that the model was not trained on."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from services.drift.answers import CLASS, MAX_COLUMNS, DriftError, parts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "drift.npz"
"""One of the model's files; without pickled objects."""
CLASSES = "classes"
MIN_ROWS, MAX_ROWS = 100, 2000
MAX_CLASSES = 200
"""Labels with more distinct values are text, not classes."""
UNKNOWN = -1


@dataclass(frozen=True)
class Reference:
    """The parts of n answers, as of `answers.parts`; `class` (n, 1) has indices into `classes`."""

    parts: dict[str, NDArray[Any]]
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, outputs: Mapping[str, NDArray[Any]]) -> Reference:
        """Make a reference of a model's outputs for held-out rows, by name; samples 2,000 rows if there are more.

        Raises:
            DriftError: there are fewer than 100 rows, or the outputs cannot be compared.
        """
        found = parts(outputs)
        rows = min(map(len, found.values()))
        if rows < MIN_ROWS:
            raise DriftError(f"{rows} answers are too few to compare others with: at least {MIN_ROWS}")
        if rows > MAX_ROWS:
            chosen = np.random.default_rng(0).choice(rows, MAX_ROWS, replace=False)
            found = {name: values[chosen] for name, values in found.items()}
        if CLASS not in found:
            return cls(found)
        classes, numbers = np.unique(found.pop(CLASS).astype(str), return_inverse=True)
        if len(classes) <= MAX_CLASSES:
            return cls({CLASS: numbers.reshape(-1, 1).astype(np.int16), **found}, tuple(classes.tolist()))
        if not found:
            raise DriftError(f"{len(classes)} different answers are text or counts, not classes")
        return cls(found)

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """Read the reference among a model's files.

        Raises:
            DriftError: there is none, or it cannot be read.
        """
        try:
            with np.load(folder / FILE, allow_pickle=False) as file:
                found = dict(file)
            reference = cls(found, tuple(found.pop(CLASSES).tolist()))
        except FileNotFoundError:
            raise DriftError("its evaluation wrote no reference") from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DriftError(f"its {FILE} cannot be read: {error}") from error
        shapes = {name: values.shape for name, values in found.items()}
        tables = all(len(shape) == 2 and 1 <= shape[1] <= MAX_COLUMNS for shape in shapes.values())
        if not tables or not MIN_ROWS <= reference.rows <= MAX_ROWS:
            raise DriftError(f"its {FILE} is not valid: {shapes}")
        return reference

    def write(self, folder: Path) -> Path:
        """Write it to a model's files; returns the path."""
        path = folder / FILE
        np.savez_compressed(path, **self.parts, **{CLASSES: np.array(self.classes, dtype=str)})
        return path

    @property
    def rows(self) -> int:
        """The number of answers."""
        return min(map(len, self.parts.values()), default=0)

    def encode(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The same parts of other answers, classes as indices; -1 is a class that the reference does not have.

        Raises:
            DriftError: the answers do not have the reference's shape.
        """
        found = parts(outputs)
        if CLASS in self.parts and CLASS in found:
            known = {name: number for number, name in enumerate(self.classes)}
            numbers = [known.get(name, UNKNOWN) for name in found[CLASS].astype(str).tolist()]
            found[CLASS] = np.array(numbers, dtype=np.int16).reshape(-1, 1)
        for name, values in self.parts.items():
            if name not in found or found[name].shape[1:] != values.shape[1:]:
                raise DriftError(f"the model's answers do not have the reference's {name}")
        return {name: found[name] for name in self.parts}
