"""Manifests in YAML, read as kubectl reads them: neither YAML 1.1, as PyYAML has it, nor 1.2.

kubectl turns YAML into JSON (sigs.k8s.io/yaml, on go-yaml v2). ``yes``, ``on`` and ``y`` are booleans and 012 is octal,
as in YAML 1.1; but 0o14 is octal too, and ``1:30``, ``=`` and dates are text. Keys become text, the last of two equal
keys wins, and merged (``<<``) keys replace those above. The tests ask a kubectl for each of these.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_TAG: Final = "tag:yaml.org,2002:"
_IMPLIED: Final = "implied"
"""The tag of a plain scalar, whose text decides its type."""
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER: Final = re.compile(r"([-+]?)(?:0[xX]([\da-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9]\d*))")
_BASES: Final = (16, 2, 8, 10)
_LOOSE: Final = re.compile(r"(?<!\d)_|_(?!\d)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?")
_MOST_VALUES: Final = 1_000_000
"""Values in a document with its aliases expanded: far more than etcd accepts, and few enough for memory."""


class YamlError(ValueError):
    """The text is not valid; the message says what is wrong, and where."""


class _Loader(yaml.CSafeLoader):
    """Composes nodes, without resolving plain scalars."""

    def resolve(self, kind: type[Node], value: str, implicit: Any) -> str:  # noqa: ARG002
        if kind is ScalarNode:
            return _IMPLIED if implicit[0] else f"{_TAG}str"
        return ""


def read_documents(text: str) -> list[Any]:
    """The documents of a text as JSON values, without empty ones. Raises YamlError."""
    try:
        nodes = list(yaml.compose_all(text, _Loader))
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from error
    found = [_Reader().value(node) for node in nodes if node is not None]
    return [document for document in found if document is not None]


class _Reader:
    """Constructs the values of one document."""

    def __init__(self) -> None:
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: Node) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise _at(node, f"its aliases stand for more than {_MOST_VALUES} values")
        if isinstance(node, ScalarNode):
            return _json_number(_scalar(node), node)
        if id(node) in self._open:
            raise _at(node, "an anchor's value contains itself")
        self._open.add(id(node))
        found: Any = [self.value(item) for item in node.value] if isinstance(node, SequenceNode) else self._map(node)
        self._open.remove(id(node))
        return found

    def _map(self, node: Node) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            if isinstance(key, ScalarNode) and key.value == "<<" and key.tag in {_IMPLIED, f"{_TAG}merge"}:
                # The first of several wins.
                merged = reversed(item.value) if isinstance(item, SequenceNode) else [item]
                for part in merged:
                    if not isinstance(part, MappingNode):
                        raise _at(part, "<< takes a map, or a list of maps")
                    found |= self.value(part)
            else:
                found[_key(key)] = self.value(item)
        return found


def _at(node: Node, message: str) -> YamlError:
    mark = node.start_mark
    return YamlError(f"line {mark.line + 1}, column {mark.column + 1}: {message}")


def _scalar(node: ScalarNode) -> Any:
    """A scalar's value, by its tag or by its text."""
    if node.tag == _IMPLIED:
        return _resolved(node.value)
    wanted = node.tag.removeprefix(_TAG)
    if wanted == "binary":
        try:
            return base64.b64decode("".join(node.value.split()), validate=True).decode(errors="replace")
        except binascii.Error:
            raise _at(node, "!!binary is not of base64") from None
    if wanted not in {"null", "bool", "int", "float"}:
        return node.value
    value = _resolved(node.value)
    kinds = {type(value)} if wanted != "float" or type(value) is not int else {float}
    if kinds != {{"null": type(None), "bool": bool, "int": int, "float": float}[wanted]}:
        raise _at(node, f"{node.value!r} is not of !!{wanted}")
    return value


def _resolved(text: str) -> Any:
    """The value of a plain scalar."""
    if text in _WORDS:
        return _WORDS[text]
    # Underscores are allowed anywhere in a number, but in one that begins with its point only between digits.
    loose = text[0] in "+-0123456789" or (text[0] == "." and not _LOOSE.search(text))
    plain = text.replace("_", "") if loose else text
    if match := _INTEGER.fullmatch(plain):
        sign, *digits = match.groups()
        value = next(int(found, base) for found, base in zip(digits, _BASES, strict=True) if found)
        value = -value if sign == "-" else value
        if -(2**63) <= value < 2**64:
            return value
    if _FLOAT.fullmatch(plain) and math.isfinite(number := float(plain)):
        return number
    return text


def _json_number(value: Any, node: Node) -> Any:
    """A number as JSON has it: 1.0 is an integer, and one of more than 64 bits is a float."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _at(node, f"{node.value} is no number of JSON")
        return int(value) if value.is_integer() and -(2**63) <= value < 2**63 else value
    if isinstance(value, int) and value >= 2**63:
        return float(value)
    return value


def _key(node: Node) -> str:
    """A key as text."""
    value = _scalar(node) if isinstance(node, ScalarNode) else None
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() if value < 2**63:
            return str(value)
        case float():
            return _float_key(value)
    raise _at(node, "a key must be text, a number or a boolean")


def _float_key(value: float) -> str:
    """A float as kubectl writes it: the fewest digits that give the same number in 32 bits."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    single = _single(value)
    digits = next(count for count in range(9) if count == 8 or _single(float(f"{single:.{count}e}")) == single)
    written = f"{single:.{digits}e}"
    exponent = int(written.partition("e")[2])
    return written if exponent < -4 or exponent >= 6 else f"{single:.{max(0, digits - exponent)}f}"


def _single(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
