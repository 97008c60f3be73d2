"""Property values as providers work with them: secrets and unknowns are objects, a resource reference is its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from protocol import values
from protocol.signatures import OUTPUT_SIG, RESOURCE_SIG, SECRET_SIG, SIG
from protocol.signatures import UNKNOWN as UNKNOWN_STRING

if TYPE_CHECKING:
    from google.protobuf import struct_pb2

Properties: TypeAlias = dict[str, Any]


class Unknown:
    """A value that is not known yet (during previews)."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret value. ``repr`` hides it, so that it can't reach a log by accident."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(...)"


def unmarshal(struct: struct_pb2.Struct) -> Properties:
    """Plain Python values, with :class:`Secret` and :data:`UNKNOWN`; a resource reference becomes its id."""
    return {key: _from_json(value) for key, value in values.from_wire(struct).items()}


def marshal(properties: Properties) -> struct_pb2.Struct:
    """The inverse of :func:`unmarshal`."""
    return values.to_wire({key: _to_json(value) for key, value in properties.items()})


def _from_json(value: values.Value) -> Any:
    if isinstance(value, dict):
        return _from_object(value)
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return UNKNOWN if value == UNKNOWN_STRING else value


def _from_object(value: values.Properties) -> Any:
    signature = value.get(SIG)
    if signature == SECRET_SIG:
        return Secret(_from_json(value.get("value")))
    if signature == OUTPUT_SIG:
        held = _from_json(value.get("value", UNKNOWN_STRING))
        return Secret(held) if value.get("secret") is True else held
    if signature == RESOURCE_SIG:
        return _from_json(value.get("id", value.get("urn")))
    return {key: _from_json(item) for key, item in value.items()}


def _to_json(value: Any) -> values.Value:
    if isinstance(value, Unknown):
        return UNKNOWN_STRING
    if isinstance(value, Secret):
        return {SIG: SECRET_SIG, "value": _to_json(value.value)}
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value


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
    """Whether the value or any part of it is a secret (or unknown)."""
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
