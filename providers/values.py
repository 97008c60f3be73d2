"""Property values on the wire, and what providers do with them: secrets, unknowns, resource references.

The signatures are those of Pulumi's protocol (sdk/go/common/resource/sig and the plugin package's RPC marshalling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from google.protobuf import struct_pb2

Properties: TypeAlias = dict[str, Any]

SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a signature
OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
RESOURCE: Final = "5cf8f73096256a8f31e491e813e4eb8e"
UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWNS: Final = frozenset(
    {
        UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)


class Unknown:
    """A value that only the real operation will know (during previews)."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True)
class Secret:
    """A value never to be shown. ``repr`` hides it, so that it can't reach a log by accident."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(...)"


def unmarshal(struct: struct_pb2.Struct) -> Properties:
    """Plain Python values, with :class:`Secret` and :data:`UNKNOWN`; a resource reference becomes its id."""
    return {key: _from_wire(value) for key, value in struct.fields.items()}


def marshal(properties: Properties) -> struct_pb2.Struct:
    """The inverse of :func:`unmarshal`."""
    struct = struct_pb2.Struct()
    for key, value in properties.items():
        _to_wire(value, struct.fields[key])
    return struct


def _from_wire(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return UNKNOWN if value.string_value in UNKNOWNS else value.string_value
        case "list_value":
            return [_from_wire(item) for item in value.list_value.values]
        case "struct_value":
            return _object_from_wire(value.struct_value)
    return None


def _object_from_wire(struct: struct_pb2.Struct) -> Any:
    fields = struct.fields
    signature = fields[SIGNATURE].string_value if SIGNATURE in fields else ""
    if signature == SECRET:
        return Secret(_from_wire(fields["value"]))
    if signature == OUTPUT:
        value = _from_wire(fields["value"]) if "value" in fields else UNKNOWN
        return Secret(value) if "secret" in fields and fields["secret"].bool_value else value
    if signature == RESOURCE:
        return _from_wire(fields["id"] if "id" in fields else fields["urn"])
    return {key: _from_wire(item) for key, item in fields.items()}


def _to_wire(value: Any, target: struct_pb2.Value) -> None:
    if value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, Unknown):
        target.string_value = UNKNOWN_STRING
    elif isinstance(value, Secret):
        target.struct_value.fields[SIGNATURE].string_value = SECRET
        _to_wire(value.value, target.struct_value.fields["value"])
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        for key, item in value.items():
            _to_wire(item, target.struct_value.fields[key])
    else:
        target.list_value.SetInParent()
        for item in value:
            _to_wire(item, target.list_value.values.add())


def plain(value: Any) -> Any:
    """The value without its secret marks."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def contains(value: Any, kind: type[Secret | Unknown]) -> bool:
    """Whether a secret (or an unknown) is anywhere inside."""
    if isinstance(value, kind):
        return True
    if isinstance(value, Secret):
        return contains(value.value, kind)
    if isinstance(value, dict):
        return any(contains(item, kind) for item in value.values())
    return isinstance(value, list) and any(contains(item, kind) for item in value)


def mark_secrets(outputs: Properties, inputs: Properties) -> Properties:
    """Outputs whose input of the same name holds a secret become secrets (the engine's own rule for old providers)."""
    marked = dict(outputs)
    for key, given in inputs.items():
        value = marked.get(key)
        if isinstance(value, dict) and isinstance(given, dict):
            marked[key] = mark_secrets(value, given)
        elif key in marked and not isinstance(value, Secret) and contains(given, Secret):
            marked[key] = Secret(value)
    return marked
