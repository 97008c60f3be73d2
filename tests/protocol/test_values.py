"""Values to protobuf and back, for the engine and the providers alike."""

from __future__ import annotations

import math

import pytest
from google.protobuf import struct_pb2

from protocol.signatures import SECRET_SIG, SIG, UNKNOWN, UNKNOWNS
from protocol.values import from_wire, secret, to_wire
from providers.values import UNKNOWN as PROVIDERS_UNKNOWN
from providers.values import Secret, marshal, unmarshal


def test_every_kind_of_value_survives_the_wire() -> None:
    given = {"n": None, "b": True, "i": 3, "f": 0.5, "s": "text", "l": [], "o": {}, "x": secret([1, {"y": UNKNOWN}])}
    assert from_wire(to_wire(given)) == given


def test_a_whole_number_is_an_integer_and_true_is_none() -> None:
    found = from_wire(to_wire({"whole": 2.0, "true": True}))
    assert type(found["whole"]) is int
    assert found["true"] is True


@pytest.mark.parametrize("unknown", sorted(UNKNOWNS))
def test_an_unknown_of_any_type_is_unknown_to_both(unknown: str) -> None:
    wire = to_wire({"a": unknown})
    assert from_wire(wire) == {"a": UNKNOWN}
    assert unmarshal(wire) == {"a": PROVIDERS_UNKNOWN}


def test_the_engine_and_a_provider_read_the_same_secrets() -> None:
    held = marshal({"a": Secret({"b": [PROVIDERS_UNKNOWN]})})
    assert from_wire(held) == {"a": {SIG: SECRET_SIG, "value": {"b": [UNKNOWN]}}}
    assert unmarshal(to_wire(from_wire(held))) == {"a": Secret({"b": [PROVIDERS_UNKNOWN]})}


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_json_cannot_hold_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="neither JSON"):
        from_wire(struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=number)}))
