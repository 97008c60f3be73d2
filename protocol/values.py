"""Property values in the form that Pulumi puts on the wire and in checkpoints, and their protobuf encoding.

A value is plain JSON data. What JSON cannot say is an object that carries a signature (``protocol.signatures``): a
secret, an asset, an archive, a reference to a resource, an output. A value that a preview cannot know yet is the string
:data:`UNKNOWN`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf import struct_pb2

from protocol.signatures import SECRET_SIG, SIG, UNKNOWN, UNKNOWNS

if TYPE_CHECKING:
    from collections.abc import Mapping

Value: TypeAlias = Any
"""Plain JSON data, with signed objects for what JSON cannot say."""
Properties: TypeAlias = dict[str, Value]

_LARGEST_WITH_DIGITS: Final = 1e21
"""From here on, Go and JavaScript write numbers with an exponent."""


def from_wire(struct: struct_pb2.Struct) -> Properties:
    """Decode a protobuf object; every typed unknown becomes :data:`UNKNOWN`.

    Raises ValueError for a number that JSON cannot hold.
    """
    return {key: value_from_wire(field) for key, field in struct.fields.items()}


def value_from_wire(value: struct_pb2.Value) -> Value:
    """Decode one protobuf value."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text = value.string_value
        return UNKNOWN if text in UNKNOWNS else text
    if kind == "struct_value":
        return from_wire(value.struct_value)
    if kind == "list_value":
        return [value_from_wire(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        if not math.isfinite(number):
            raise ValueError(f"a property is {number}, which neither JSON nor a state can hold")
        return int(number) if number.is_integer() and abs(number) < _LARGEST_WITH_DIGITS else number
    if kind == "bool_value":
        return value.bool_value
    return None


def to_wire(properties: Mapping[str, Value]) -> struct_pb2.Struct:
    """Encode properties as a protobuf object."""
    struct = struct_pb2.Struct()
    fields = struct.fields
    for key, value in properties.items():
        _set_wire(fields[key], value)
    return struct


def _set_wire(wire: struct_pb2.Value, value: Value) -> None:
    if isinstance(value, str):
        wire.string_value = value
    elif value is None:
        wire.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        wire.bool_value = value
    elif isinstance(value, int | float):
        wire.number_value = value
    elif isinstance(value, list):
        items = wire.list_value.values
        # An empty list has to be set explicitly.
        wire.list_value.SetInParent()
        for item in value:
            _set_wire(items.add(), item)
    else:
        fields = wire.struct_value.fields
        wire.struct_value.SetInParent()
        for key, item in value.items():
            _set_wire(fields[key], item)


def signature(value: Value) -> str | None:
    """The signature of a signed object, or None."""
    return value.get(SIG) if isinstance(value, dict) else None


def secret(value: Value) -> Value:
    """Mark a value as secret; a secret stays as it is."""
    return value if is_secret(value) else {SIG: SECRET_SIG, "value": value}


def is_secret(value: Value) -> bool:
    """Whether the value itself is a secret (not one of its parts)."""
    return isinstance(value, dict) and value.get(SIG) == SECRET_SIG
