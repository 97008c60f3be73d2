"""Validates requests against the input schema that was recorded with a model at training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from kserve.utils.numpy_codec import from_np_dtype, to_np_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.models import Model
    from numpy.typing import NDArray

RANGES = "inputs"
"""Key in the `metadata` of an MLmodel: `minimum` and `maximum` by input, for all values or for each one."""
TEXT = "BYTES"


class InputError(ValueError):
    """A request is not valid for the model."""


@dataclass(frozen=True)
class Range:
    """The range of the training data, for all features or for each one."""

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    def at(self, feature: tuple[int, ...], shape: tuple[int, ...]) -> str:
        """The range of one feature of rows of a shape, as text."""
        low, high = (np.broadcast_to(bound, shape)[feature] for bound in (self.minimum, self.maximum))
        return f"{low:g} to {high:g}"


@dataclass(frozen=True)
class Schema:
    """Name, type and shape of a model's input; what is unknown is not checked."""

    name: str = ""
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] | None = None
    """The shape of one row; -1 for any length."""
    range: Range | None = field(default=None, compare=False)

    @classmethod
    def of(cls, recorded: Model, name: str = "") -> Schema:
        """The schema that is recorded with a model; `name` if its signature has none.

        Raises:
            ValueError: the ranges are not valid.
        """
        inputs = recorded.signature.inputs if recorded.signature else None
        dtype, shape = None, None
        if inputs is not None and inputs.is_tensor_spec():
            if len(inputs.inputs) == 1:
                (tensor,) = inputs.inputs
                name, dtype, shape = tensor.name or name, np.dtype(tensor.type), tuple(tensor.shape[1:])
        elif inputs is not None:
            shape = (len(inputs.inputs),)
        ranges = (recorded.metadata or {}).get(RANGES, {})
        if not name and len(ranges) == 1:
            (name,) = ranges
        return cls(name, dtype, shape, _range(ranges[name], shape) if name in ranges else None)

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """The input in the V2 protocol's model metadata."""
        if self.shape is None:
            return []
        datatype = from_np_dtype(self.dtype) if self.dtype is not None else None
        return [{"name": self.name or "input", "datatype": datatype or "FP64", "shape": [-1, *self.shape]}]

    def tensor(self, name: str, datatype: str, shape: Sequence[int], data: object) -> NDArray[Any]:
        """The rows of a V2 request.

        Raises:
            InputError: they are not valid.
        """
        if self.name and name != self.name:
            raise InputError(f"the model has no input '{name}'; it takes '{self.name}'")
        dtype = to_np_dtype(datatype)
        if dtype is None:
            raise InputError(f"input '{name}': there is no datatype {datatype}")
        if not isinstance(data, list):
            raise InputError(f"input '{name}': `data` is not a list")
        if not shape or any(size < 0 for size in shape):
            raise InputError(f"input '{name}': {list(shape)} is not a shape of rows")
        values = _flat(data, list(shape), f"input '{name}'")
        if len(values) != math.prod(shape):
            raise InputError(
                f"input '{name}': {len(values)} values for the shape {list(shape)}, which has {math.prod(shape)}"
            )
        return self.checked(_typed(values, datatype, np.dtype(dtype), f"input '{name}'").reshape(shape))

    def instances(self, rows: object) -> NDArray[Any]:
        """The rows of a V1 request.

        Raises:
            InputError: they are not valid.
        """
        if not isinstance(rows, list):
            raise InputError("the request must have `instances`: a list of rows")
        shape: list[int] = []
        level: Any = rows
        while isinstance(level, list):
            shape.append(len(level))
            level = level[0] if level else None
        values = _flat(rows, shape, "`instances`")
        datatype = TEXT if any(isinstance(value, str) for value in values) else "FP64"
        dtype = object if datatype == TEXT else np.float64
        return self.checked(_typed(values, datatype, np.dtype(dtype), "`instances`").reshape(shape))

    def checked(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Validate rows and convert them to the model's type.

        Raises:
            InputError: they are not valid.
        """
        if rows.ndim == 0 or not len(rows):
            raise InputError("there are no rows")
        shape = rows.shape[1:]
        if self.shape is not None and not _fits(shape, self.shape):
            raise InputError(f"rows have the shape {list(shape)}; the model takes {list(self.shape)}")
        if self.dtype is not None and _kind(self.dtype) != _kind(rows.dtype):
            raise InputError(f"the values are {_kind(rows.dtype)}; the model takes {_kind(self.dtype)}")
        if rows.dtype.kind not in "fiu":
            return rows
        if self.range is not None:
            outside = (rows < self.range.minimum) | (rows > self.range.maximum)
            if outside.any():
                row, *place = (int(index) for index in np.argwhere(outside)[0])
                raise InputError(
                    f"{outside.sum()} of {rows.size} values are outside the range that the model was trained on:"
                    f" {rows[(row, *place)]:g} in row {row}{''.join(f', value {index}' for index in place)}, where it"
                    f" was {self.range.at(tuple(place), shape)}"
                )
        return self._converted(rows)

    def _converted(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self.dtype is None:
            return rows
        with np.errstate(over="ignore"):
            converted = rows.astype(self.dtype)
        lost = converted != rows if self.dtype.kind in "iu" else ~np.isfinite(converted)
        if lost.any():
            raise InputError(f"{rows[lost][0]:g} does not fit {from_np_dtype(self.dtype)}, which the model takes")
        return converted


def _range(recorded: Any, shape: tuple[int, ...] | None) -> Range:
    found = Range(*(np.asarray(recorded[bound], dtype=np.float64) for bound in ("minimum", "maximum")))
    np.broadcast_shapes(found.minimum.shape, found.maximum.shape, tuple(max(size, 1) for size in shape or (1,)))
    return found


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(size in {-1, one} for one, size in zip(shape, wanted, strict=True))


def _kind(dtype: np.dtype[Any]) -> str:
    kinds = {"b": "BOOL", "f": "numbers", "i": "numbers", "u": "numbers"}
    return kinds.get(dtype.kind, "text")


def _flat(data: list[Any], shape: list[int], where: str) -> list[Any]:
    """Flatten values, which are one list or nested lists of the shape."""
    if not any(isinstance(one, list) for one in data):
        return data
    values = data
    for depth, size in enumerate(shape):
        if depth:
            if not all(isinstance(one, list) and len(one) == size for one in values):
                raise InputError(f"{where}: not all rows are lists of {size}, as the shape {shape} has them")
            values = [value for one in values for value in one]
        elif len(values) != size:
            raise InputError(f"{where}: {len(values)} rows for the shape {shape}")
    return values


def _typed(values: list[Any], datatype: str, dtype: np.dtype[Any], where: str) -> NDArray[Any]:
    """Convert values to a datatype, without casts between kinds."""
    kinds: dict[str, set[type]] = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}, "O": {str, bytes}}
    accepted = kinds[dtype.kind]
    if not set(map(type, values)) <= accepted:
        place, value = next((place, value) for place, value in enumerate(values) if type(value) not in accepted)
        raise InputError(f"{where}: {_shown(value)}, value {place}, is not {datatype}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        for value in (min(values, default=0), max(values, default=0)):
            if not limits.min <= value <= limits.max:
                raise InputError(f"{where}: {_shown(value)} is outside {datatype}: {limits.min} to {limits.max}")
    try:
        found = np.array(values, dtype=dtype)
        wrong = ~np.isfinite(found) if dtype.kind == "f" else np.zeros(1, bool)
    except OverflowError:
        wrong = np.array([abs(value) > np.finfo(np.float64).max for value in values])
    if wrong.any():
        raise InputError(f"{where}: {_shown(values[wrong.argmax()])} is not a finite number that fits {datatype}")
    return found


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)[:40]
