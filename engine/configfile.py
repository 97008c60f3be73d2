"""Pulumi's YAML files as the Pulumi CLI reads them: scalar by scalar the same values, with comments and lines kept.

The CLI reads YAML with Go's yaml.v3, whose plain scalars differ from YAML 1.2 in places: ``012`` is ten, ``1_000`` is a
thousand, ``2026-06-01`` is a time. What a program gets is text or JSON as Go writes it. Files are kept as node graphs,
so that an edit leaves everything else as it was.
"""

from __future__ import annotations

import calendar
import contextlib
import io
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.serializer import Serializer
from ruamel.yaml.tag import Tag

from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TAG = "tag:yaml.org,2002:"
_WORDS = {
    word: tag
    for tag, words in {
        "null": ("", "~", "null", "Null", "NULL"),
        "bool": ("true", "True", "TRUE", "false", "False", "FALSE"),
        "merge": ("<<",),
    }.items()
    for word in words
}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DOT_FLOAT = re.compile(r"\.[0-9](_?[0-9])*([eE][-+]?[0-9](_?[0-9])*)?")
"""Here underscores separate digits; where a number starts with one, they may stand anywhere."""
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT = re.compile(r"([-+]?)(0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)")
_SIGN_INSIDE = re.compile(r"0b[-+][01]+|0o[-+][0-7]+")
_TIME = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d?)-(?P<day>\d\d?)(?:"
    r"[Tt](?P<hour>\d\d?):(?P<minute>\d\d?):(?P<second>\d\d?)(?P<fraction>[.,]\d+)?"
    r"(?:Z|(?P<sign>[-+])(?P<zone_hour>\d\d):(?P<zone_minute>\d\d))"
    r"| (?P<plain_hour>\d\d?):(?P<plain_minute>\d\d?):(?P<plain_second>\d\d?)(?P<plain_fraction>[.,]\d+)?)?",
    re.ASCII,
)
_MOST_VALUES = 1_000_000
_LONGEST_INT = 80
"""Characters; no number of 64 bits is longer, in any notation."""


@dataclass(frozen=True)
class Secure:
    """A secret as the file holds it: ``{secure: <ciphertext>}``."""

    ciphertext: str


Tree = None | bool | int | float | str | Secure | list["Tree"] | dict[str, "Tree"]
PropertyPath = Sequence[str | int]


class _Resolver(VersionedResolver):
    """Resolves the type of a plain scalar as yaml.v3 does."""

    def resolve(self, kind: type[Node], value: object, implicit: tuple[bool, bool]) -> object:
        if kind is ScalarNode and implicit[0] and isinstance(value, str):
            return Tag(suffix=_TAG + _plain_type(value))
        return super().resolve(kind, value, implicit)


class _Serializer(Serializer):
    """Keeps the names of anchors."""

    def generate_anchor(self, node: Node) -> object:
        return node.anchor or super().generate_anchor(node)


class YamlFile:
    """One YAML file whose top level is a mapping."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; an absent or empty file is an empty mapping. Raises ConfigError for what is not YAML."""
        self.path = path
        self._yaml = YAML()
        self._yaml.Resolver = _Resolver
        self._yaml.Serializer = _Serializer
        self._yaml.width = 2**31
        self._yaml.brace_single_entry_mapping_in_flow_sequence = True
        self._yaml.indent(mapping=2, sequence=4, offset=2)
        try:
            text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
            root = self._yaml.compose(text)
        except OSError as error:
            raise EngineError(f"'{path}' cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError([f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8."]) from None
        except YAMLError as error:
            mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
            problem = getattr(error, "problem", None) or str(error)
            line = f":{mark.line + 1}" if mark else ""
            raise ConfigError([f"{path}{line}: this is not valid YAML: {problem}."]) from None
        except RecursionError:
            raise ConfigError([f"{path}: this is nested too deeply."]) from None
        except ValueError as error:
            # ruamel says so of an escape that stands for no character.
            raise ConfigError([f"{path}: this is not valid YAML: {error}."]) from None
        if root is None or _type(root) == "null":
            root = MappingNode(_TAG + "map", [], flow_style=False)
        if not isinstance(root, MappingNode):
            raise ConfigError([f"{path}:1: the file should be a mapping of keys to values, not a {root.id}."])
        self.root = root
        _check_aliases(path, root)
        if located := [self.locate(node, problem) for node, problem in _check(root, ())]:
            raise ConfigError(located)

    def locate(self, node: Node | None, problem: str) -> str:
        """``problem`` as a line that starts with the place of ``node``."""
        mark = node.start_mark if node is not None else None
        return f"{self.path}:{mark.line + 1}: {problem}" if mark else f"{self.path}: {problem}"

    def save(self) -> None:
        """Replace the file atomically; it keeps its mode. Raises EngineError."""
        text = io.StringIO()
        _close_empty(self.root)
        self._yaml.serialize(self.root, text)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text.getvalue())
                file.flush()
                os.fsync(file.fileno())
            if self.path.exists():
                temporary.chmod(self.path.stat().st_mode & 0o7777)
            temporary.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise EngineError(
                f"'{self.path}' cannot be written: {error.strerror}.",
                remedy="The file is as it was; correct and repeat.",
            ) from error


def _close_empty(node: Node) -> None:
    """Have empty maps and lists on their key's line: ruamel puts them below its comment, in the first column."""
    if isinstance(node, MappingNode | SequenceNode):
        node.flow_style = node.flow_style or not node.value
        for one in node.value:
            for inner in one if isinstance(one, tuple) else (one,):
                _close_empty(inner)


def tree(node: Node) -> Tree:
    """The value of a node, as the CLI would have it."""
    if isinstance(node, MappingNode):
        result = {key.value: tree(value) for key, value in entries(node)}
        secret = result.get("secure")
        return Secure(secret) if len(result) == 1 and isinstance(secret, str) else result
    if isinstance(node, SequenceNode):
        return [tree(item) for item in node.value]
    text: str = node.value
    if isinstance(node, ScalarNode) and node.style == ">":
        # ruamel marks where a folded text was folded with the bell character.
        text = text.replace("\a", "")
    return _scalar(_type(node), text)


def entries(node: MappingNode) -> list[tuple[Node, Node]]:
    """The key and value nodes of a mapping, with merged (``<<``) mappings first, so that own keys win."""
    merged: list[tuple[Node, Node]] = []
    own: list[tuple[Node, Node]] = []
    for key, value in node.value:
        if _type(key) != "merge":
            own.append((key, value))
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            if _type(key) == "merge" and isinstance(source, MappingNode):
                merged += entries(source)
    return merged + own


def child(node: Node | None, part: str | int) -> Node | None:
    """The node at ``part``, a key or an index, of ``node``; None when there is none."""
    if isinstance(node, MappingNode):
        return next((value for key, value in reversed(entries(node)) if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
        found: Node = node.value[part]
        return found
    return None


def make_node(value: Tree) -> Node:
    """A new node for ``value``."""
    match value:
        case Secure(ciphertext):
            return make_node({"secure": ciphertext})
        case dict():
            pairs = [(make_node(key), make_node(item)) for key, item in value.items()]
            return MappingNode(_TAG + "map", pairs, flow_style=False)
        case list():
            return SequenceNode(_TAG + "seq", [make_node(item) for item in value], flow_style=not value)
        case str():
            return ScalarNode(_TAG + "str", value, style=_style(value))
    text = to_json(value)
    return ScalarNode(_TAG + _plain_type(text), text)


def _style(text: str) -> str | None:
    """The style in which a text is read as it was written; None where it may be plain or in single quotes."""
    lines = text.split("\n")
    if not all(line.isprintable() for line in lines) or text.startswith("\ufeff"):
        return '"'
    if len(lines) == 1:
        return None
    return "|" if text.strip() and not any(line[:1] == " " or line[-1:] == " " for line in lines) else '"'


def assign(node: Node | None, path: PropertyPath, new: Node, above: PropertyPath = ()) -> Node:
    """``node`` with ``new`` at ``path``; missing containers are added. Raises ConfigError for a path that does not fit.

    As in the CLI, a list takes an index up to its length, and a container replaces a plain value only at the top.
    """
    if not path:
        if isinstance(node, ScalarNode) and isinstance(new, ScalarNode):
            new.comment = node.comment
        return new
    part, name = path[0], _format_path([*above, path[0]])
    container = _container(node, part, above)
    container.flow_style = container.flow_style and bool(container.value)
    if isinstance(container, SequenceNode):
        if not isinstance(part, int):
            raise ConfigError([f"{_format_path(above)} is a list, so {name} cannot be set; give an index, as in [0]."])
        if not 0 <= part <= len(container.value):
            raise ConfigError([f"{name} cannot be set: the list's next index is {len(container.value)}."])
        container.value[part : part + 1] = [assign(child(container, part), path[1:], new, [*above, part])]
        return container
    if not isinstance(part, str):
        raise ConfigError([f"{_format_path(above)} is a map, so {name} cannot be set; give a key, as in .name."])
    if len(path) == 1 and not container.value and part == "secure" and _type(new) == "str":
        raise ConfigError([f"{name} cannot be set: a map with the single key 'secure' means a secret; use --secret."])
    value = assign(child(container, part), path[1:], new, [*above, part])
    for index, (key, _) in enumerate(container.value):
        if key.value == part:
            container.value[index] = (key, value)
            return container
    container.value.append((make_node(part), value))
    return container


def discard(node: Node | None, path: PropertyPath) -> None:
    """Remove what is at ``path``, if anything."""
    for part in path[:-1]:
        node = child(node, part)
    last = path[-1]
    if isinstance(node, MappingNode):
        rest = [pair for pair in node.value if pair[0].value != last]
        if len(rest) == 1 < len(node.value) and rest[0][0].value == "secure" and _type(rest[0][1]) == "str":
            raise ConfigError(
                [f"{_format_path(path)} cannot be removed: a map with the single key 'secure' means a secret."]
            )
        node.value = rest
    elif isinstance(node, SequenceNode) and isinstance(last, int) and 0 <= last < len(node.value):
        del node.value[last]


def _container(node: Node | None, part: str | int, above: PropertyPath) -> MappingNode | SequenceNode:
    if isinstance(node, MappingNode | SequenceNode) and not isinstance(tree(node), Secure):
        return node
    if node is not None and _type(node) != "null" and len(above) > 1:
        raise ConfigError([f"{_format_path(above)} holds a plain value, so nothing can be set in it; remove it first."])
    if isinstance(part, int):
        return SequenceNode(_TAG + "seq", [make_node(None) for _ in range(part + 1)], flow_style=False)
    return MappingNode(_TAG + "map", [], flow_style=False)


def to_json(value: Tree, *, nested: bool = False) -> str:
    """``value`` as Go's encoding/json writes it: keys sorted, no blanks, ``<``, ``>`` and ``&`` escaped."""
    match value:
        case Secure(ciphertext):
            return to_json({"secure": ciphertext})
        case dict():
            return "{" + ",".join(f"{to_json(key)}:{to_json(value[key], nested=True)}" for key in sorted(value)) + "}"
        case list():
            return "[" + ",".join(to_json(item, nested=True) for item in value) + "]"
        case float():
            return _go_float(value)
        case int() if nested and value >= 2**63:
            # The CLI keeps objects as JSON, and reads from there only what fits 64 bits as a whole number.
            return _go_float(float(value))
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def coerce(text: str) -> Tree:
    """What `config set --path` makes of a value: ``true``, ``false`` and whole numbers lose their quotes."""
    if text in {"true", "false"}:
        return text == "true"
    if re.fullmatch(r"[-+]?[0-9]{1,80}", text) and not (len(text) > 1 and text[0] == "0"):
        number = int(text)
        if -(2**63) <= number < 2**64:
            return number
    return text


def _plain_type(text: str) -> str:
    if tag := _WORDS.get(text):
        return tag
    if _time(text) is not None:
        return "timestamp"
    digits = text.replace("_", "") if text[0] in "+-0123456789" or _DOT_FLOAT.fullmatch(text) else text
    if _int(digits) is not None:
        return "int"
    # A number that is too large for a float is text to the CLI, one that is too small is 0.
    if _FLOAT.fullmatch(digits) and math.isfinite(float(digits)):
        return "float"
    return "not-finite" if _NOT_FINITE.fullmatch(text) else "str"


def _scalar(kind: str, text: str) -> Tree:
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return _int(text.replace("_", "")) or 0
        case "float":
            return float(text.replace("_", ""))
        case "timestamp":
            return _time(text) or text
    return text


def _int(digits: str) -> int | None:
    # yaml.v3 takes a sign behind these prefixes as well.
    if _SIGN_INSIDE.fullmatch(digits):
        digits = digits[2] + digits[:2] + digits[3:]
    match = _INT.fullmatch(digits)
    if match is None or len(digits) > _LONGEST_INT:
        return None
    sign, body = match[1], match[2].lower()
    octal = len(body) > 1 and body[0] == "0" and body[1].isdigit()
    number = int(body, 8 if octal else 0) * (-1 if sign == "-" else 1)
    # Go reads a number with a sign in 63 bits, and one without in 64.
    return number if -(2**63) <= number < (2**63 if sign else 2**64) else None


def _time(text: str) -> str | None:
    """The text that Go's ``time.Time.String`` gives for what yaml.v3 takes for a time; None for anything else."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    fields = match.groupdict()
    year, month, day = (int(fields[name]) for name in ("year", "month", "day"))
    clock = [int(fields[name] or fields[f"plain_{name}"] or 0) for name in ("hour", "minute", "second")]
    # Go's calendar has a year 0, a leap year; Python's starts with 1.
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year or 4, month)[1]:
        return None
    if clock[0] > 23 or max(clock[1:]) > 59:
        return None
    fraction = (fields["fraction"] or fields["plain_fraction"] or "")[1:10].rstrip("0")
    offset = "+0000"
    if fields["sign"]:
        hours, minutes = int(fields["zone_hour"]), int(fields["zone_minute"])
        # Go takes offsets of up to 24 hours and 60 minutes.
        if hours > 24 or minutes > 60:
            return None
        total = hours * 60 + minutes
        offset = f"{fields['sign'] if total else '+'}{total // 60:02d}{total % 60:02d}"
    shown = f"{year:04d}-{month:02d}-{day:02d} {clock[0]:02d}:{clock[1]:02d}:{clock[2]:02d}"
    return f"{shown}{'.' if fraction else ''}{fraction} {offset} {'UTC' if offset == '+0000' else offset}"


def _go_float(number: float) -> str:
    if number == 0:
        return "0"
    if 1e-6 <= abs(number) < 1e21:
        text = format(Decimal(repr(number)), "f")
        return text.removesuffix(".0")
    mantissa, _, exponent = f"{Decimal(repr(number)):e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def _type(node: Node) -> str:
    return str(node.tag).removeprefix(_TAG)


def _check(node: Node, path: PropertyPath) -> Iterator[tuple[Node, str]]:
    """Faults that yaml.v3 or the CLI finds in any file."""
    if isinstance(node, MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = _format_path([*path, str(key.value)])
            if not isinstance(key, ScalarNode) or _type(key) not in {"str", "merge"}:
                yield key, f"the key {name} should be a string; put it in quotes."
            elif key.value in seen and _type(key) != "merge":
                yield key, f"the key {name} is there twice; remove one."
            else:
                seen.add(key.value)
            yield from _check(value, [*path, str(key.value)])
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _check(item, [*path, index])
    elif "not-finite" in (kind := _type(node), _plain_type(str(node.value)) if kind == "float" else ""):
        yield node, f"{_format_path(path)} = {node.value} should be a finite number; put it in quotes if it is text."
    elif kind in {"null", "bool", "int", "float", "timestamp"} and not _is_of_type(str(node.value), kind):
        yield node, f"{_format_path(path)} = {node.value} is not of the type of its tag, !!{kind}; correct one of them."


def _is_of_type(text: str, kind: str) -> bool:
    found = _plain_type(text)
    return found == kind or (kind == "float" and found == "int")


def _check_aliases(path: Path, root: Node) -> None:
    """Refuse recursive anchors, and aliases that expand to millions of values; raises ConfigError."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: Node) -> int:
        if isinstance(node, ScalarNode):
            return 1
        if id(node) in open_:
            line = node.start_mark.line + 1 if node.start_mark else 1
            raise ConfigError([f"{path}:{line}: the anchor '{node.anchor}' contains itself; write it out."])
        if id(node) not in sizes:
            open_.add(id(node))
            parts = [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
            open_.discard(id(node))
        return sizes[id(node)]

    if size(root) > _MOST_VALUES:
        raise ConfigError([f"{path}: its aliases make more than {_MOST_VALUES} values of it; use fewer."])


def _format_path(path: PropertyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[^.\[\]\"]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text
