"""Property values and their diffs in the layout of the Pulumi CLI (`pkg/backend/display/object_diff.go`)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

from rich.text import Text

from cli.display.ops import describe
from cli.display.values import Asset, Bytes, Diff, Reference, Special, Value, diff_values, format_path, is_internal

MAX_LINES = 3
MAX_LINE_LENGTH = 150
CONTEXT_LINES = 2
CHARACTER_DIFF_LIMIT = 500
REPLACES = " (forces replacement)"


@dataclass(frozen=True)
class At:
    """Where and how to print: indentation in steps of four columns, the operation, whether its symbol is shown."""

    indent: int
    op: str = "same"
    marked: bool = False

    def deeper(self, by: int = 1) -> At:
        """The same, indented by `by` more steps."""
        return replace(self, indent=self.indent + by)

    @property
    def margin(self) -> str:
        """The indentation of a line, with the operation's symbol at the end if the line is marked."""
        blank = "    " * self.indent
        return blank[:-2] + describe(self.op).symbol if self.marked else blank


Title = Callable[[At], None]


class PropertyPrinter:
    """Collects the lines of one resource's properties.

    `unchanged` shows unchanged properties too; `truncate` shortens long strings to 3 lines of 150 characters.
    """

    def __init__(self, *, unchanged: bool = True, truncate: bool = True) -> None:
        self.lines = [Text()]
        self._unchanged, self._truncate = unchanged, truncate

    def finish(self) -> list[Text]:
        """The lines written so far."""
        return self.lines[:-1] if not self.lines[-1] else self.lines

    def write(self, text: str, op: str) -> None:
        """Append `text` in the colour of `op`."""
        style = describe(op).style
        first, *others = text.split("\n")
        self.lines[-1].append(first, style)
        self.lines.extend(Text(line, style) for line in others)

    def objects(self, properties: Mapping[str, Value], at: At) -> None:
        """Print every property of an object."""
        width = max(map(len, properties), default=0)
        for key in sorted(properties):
            if not is_internal(key):
                self._title(key, width)(at)
                self.value(properties[key], at)

    def diffs(self, items: Mapping[Any, Diff], at: At, only: Iterable[str] = ()) -> None:
        """Print the diff of every property of an object; only of those in `only`, unless it is empty."""
        wanted = set(only)
        keys = [key for key in sorted(items) if not wanted or key in wanted]
        width = max((len(key) for key in keys), default=0)
        for key in keys:
            self.diff(items[key], self._title(key, width), at)

    def property_diff(self, key: str, width: int, item: Diff, at: At) -> None:
        """Print the diff of one property, its key padded to `width`."""
        self.diff(item, self._title(key, width), at)

    def property(self, key: str, width: int, value: Value, at: At) -> None:
        """Print one property, its key padded to `width`."""
        self._title(key, width)(at)
        self.value(value, at)

    def hidden(self, paths: Iterable[tuple[str | int, ...]], at: At) -> None:
        """Print which changed properties the program hides."""
        at = replace(at, op="update", marked=True)
        for text in sorted({format_path(path) for path in paths}):
            self.write(f"{at.margin}{text} (hidden)\n", at.op)

    def _title(self, key: str, width: int) -> Title:
        return lambda at: self.write(f"{at.margin}{self._shorten(key):<{width}}: ", at.op)

    def value(self, value: Value, at: At) -> None:
        """Print a value after its title, and end the line."""
        self._value(value, at)
        self.write("\n", at.op)

    def _value(self, value: Value, at: At) -> None:
        end = "    " * at.indent
        match value:
            case list() | dict() if not value:
                self.write("[]" if isinstance(value, list) else "{}", at.op)
            case list():
                self.write("[\n", at.op)
                for index, item in enumerate(value):
                    self.write(f"{at.margin}    [{index}]: ", at.op)
                    self.value(item, at.deeper())
                self.write(f"{end}]", at.op)
            case dict():
                self.write("{\n", at.op)
                self.objects(value, at.deeper())
                self.write(f"{end}}}", at.op)
            case Asset():
                self._asset(value, at)
            case Reference():
                self.write("{\n", at.op)
                for key, item in (("URN", value.urn), ("ID", value.id), ("PackageVersion", value.version)):
                    self.property(key, 3, item, at.deeper())
                self.write(f"{end}}}", at.op)
            case _:
                self._primitive(value, at)

    def _primitive(self, value: Value, at: At) -> None:
        match value:
            case None:
                text = "<null>"
            case Special():
                text = value.value
            case Bytes():
                text = f'b"{value.base64}"'
            case bool():
                text = str(value).lower()
            case float():
                text = f"{value:.0f}" if value.is_integer() else f"{value:g}" if abs(value) >= 1e21 else repr(value)
            case str():
                if (parsed := parse_document(value)) is not None:
                    self.write(f"({parsed[0]}) ", at.op)
                    self.value(parsed[1], at)
                    return
                text = quote(self._shorten(value))
            case _:
                text = str(value)
        self.write(text, at.op)

    def _asset(self, asset: Asset, at: At) -> None:
        end = "    " * at.indent
        head = f"{asset.kind}({asset.form}:{asset.hash[:7]}) {{"
        if asset.contents is not None:
            self.write(head + "\n", at.op)
            for name in sorted(asset.contents):
                self.write(f'{at.margin}    "{name}": ', at.op)
                self.value(asset.contents[name], at.deeper())
            self.write(f"{end}}}", at.op)
        elif asset.form == "text":
            body = "".join(f"{end}    {line}\n" for line in asset.where.split("\n"))
            self.write(f"{head}\n{body}{end}}}", at.op)
        else:
            self.write(f"{head} {asset.where} }}", at.op)

    def diff(self, item: Diff, title: Title, at: At) -> None:
        """Print how a property changed, and whether the change replaces the resource."""
        first = len(self.lines) - 1
        match item.kind:
            case "add":
                self._whole(item.new, title, replace(at, op="create", marked=True))
            case "delete":
                self._whole(item.old, title, replace(at, op="delete", marked=True))
            case "update":
                self._update(item, title, replace(at, op="update", marked=True))
            case _:
                if self._unchanged and not is_blank(item.old):
                    at = replace(at, op="same", marked=False)
                    title(at)
                    self.value(item.old, at)
        if item.replaces and len(self.lines) > first + 1:
            self.lines[first].append(REPLACES, describe("replace").style)

    def _whole(self, value: Value, title: Title, at: At) -> None:
        title(at)
        self.value(value, at)

    def _update(self, item: Diff, title: Title, at: At) -> None:
        end = "    " * at.indent
        if item.items is not None and item.is_list:
            title(at)
            self.write("[\n", at.op)
            for index in sorted(key for key in item.items if isinstance(key, int)):
                self.diff(item.items[index], self._element(index), at.deeper(2))
            self.write(f"{end}]\n", at.op)
        elif item.items is not None:
            title(at)
            self.write("{\n", at.op)
            self.diffs(item.items, at.deeper())
            self.write(f"{end}}}\n", at.op)
        elif isinstance(item.old, Asset) and isinstance(item.new, Asset) and not is_blank(item.new):
            self._asset_diff(item.old, item.new, title, at)
        elif not is_blank(item.old) and not is_blank(item.new) and is_primitive(item.old) and is_primitive(item.new):
            title(at)
            self._change(item.old, item.new, at)
        else:
            if not is_blank(item.old):
                self._whole(item.old, title, replace(at, op="delete"))
            if not is_blank(item.new):
                self._whole(item.new, title, replace(at, op="create"))

    def _element(self, index: int) -> Title:
        return lambda at: self.write(f"{at.deeper(-1).margin}[{index}]: ", at.op)

    def _change(self, old: Value, new: Value, at: At) -> None:
        if isinstance(old, str) and isinstance(new, str):
            self._text_change(old, new, at)
            return
        self._primitive(old, replace(at, op="delete"))
        self.write(" => ", at.op)
        self._primitive(new, replace(at, op="create"))
        self.write("\n", at.op)

    def _text_change(self, old: str, new: str, at: At) -> None:
        before, after = parse_document(old), parse_document(new)
        if before is not None and after is not None:
            change = diff_values(before[1], after[1])
            if change is None:
                old, new = quote(old), quote(new)
            else:
                kinds = before[0] if before[0] == after[0] else f"{before[0]} => {after[0]}"
                self.write(f"({kinds}) ", at.op)
                self._update(change, lambda _: None, at)
                return
        if "\n" in old or "\n" in new:
            self._line_diff(old, new, at.deeper())
        else:
            self._character_diff(old, new, at)

    def _character_diff(self, old: str, new: str, at: At) -> None:
        if max(len(old), len(new)) > CHARACTER_DIFF_LIMIT:
            matched = [("replace", 0, len(old), 0, len(new))]
        else:
            matched = list(difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes())
        self.write('"', at.op)
        for tag, start, stop, _, _ in matched:
            self.write(quote(old[start:stop])[1:-1], "same" if tag == "equal" else "delete")
        self.write('" => "', at.op)
        for tag, _, _, start, stop in matched:
            self.write(quote(new[start:stop])[1:-1], "same" if tag == "equal" else "create")
        self.write('"\n', at.op)

    def _line_diff(self, old: str, new: str, at: At) -> None:
        self.write("\n", at.op)
        before, after = old.split("\n"), new.split("\n")
        opcodes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        for position, (tag, start, stop, new_start, new_stop) in enumerate(opcodes):
            if tag == "equal":
                lines = [line for line in before[start:stop] if line.strip()]
                head = 0 if position == 0 else CONTEXT_LINES
                tail = 0 if position == len(opcodes) - 1 else CONTEXT_LINES
                if len(lines) > head + tail + 1:
                    lines = [*lines[:head], "...", *lines[len(lines) - tail :]]
                self._lines(lines, replace(at, op="same", marked=False))
            else:
                self._lines(before[start:stop], replace(at, op="delete", marked=True))
                self._lines(after[new_start:new_stop], replace(at, op="create", marked=True))

    def _lines(self, lines: Iterable[str], at: At) -> None:
        for line in lines:
            if line.strip():
                self.write(f"{at.margin}{quote(self._shorten(line), quotes=False)}\n", at.op)

    def _asset_diff(self, old: Asset, new: Asset, title: Title, at: At) -> None:
        if (old.kind, old.form) != (new.kind, new.form):
            self._whole(old, title, replace(at, op="delete"))
            self._whole(new, title, replace(at, op="create"))
            return
        title(at)
        end = "    " * at.indent
        head = f"{old.kind}({old.form}:{_arrow(old.hash[:7], new.hash[:7])}) {{"
        if old.contents is not None and new.contents is not None:
            self.write(head + "\n", at.op)
            quoted = diff_values(
                {f'"{name}"': member for name, member in old.contents.items()},
                {f'"{name}"': member for name, member in new.contents.items()},
            )
            if quoted is not None and quoted.items is not None:
                changed = {name: item for name, item in quoted.items.items() if item.kind != "same"}
                self.diffs(changed, at.deeper())
            self.write(f"{end}}}\n", at.op)
        elif old.form == "text":
            self.write(head, at.op)
            self._text_change(old.where, new.where, at.deeper())
            self.write(f"{end}}}\n", at.op)
        else:
            self.write(f"{head} {_arrow(old.where, new.where)} }}\n", at.op)

    def _shorten(self, text: str) -> str:
        if not self._truncate:
            return text
        lines = text.split("\n")
        kept = [line if len(line) <= MAX_LINE_LENGTH else line[:MAX_LINE_LENGTH] + "..." for line in lines[:MAX_LINES]]
        return "\n".join(kept if len(lines) <= MAX_LINES else [*kept, "..."])


def _arrow(old: str, new: str) -> str:
    return old if old == new else f"{old}->{new}"


def is_primitive(value: Value) -> bool:
    """Whether a value is printed on one line."""
    return not isinstance(value, list | dict | Asset | Reference)


def is_blank(value: Value) -> bool:
    """Whether a value is empty, and not printed: null, or an empty text, list or object."""
    return value is None or (isinstance(value, str | list | dict) and not value)


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def quote(text: str, *, quotes: bool = True) -> str:
    """`text` in double quotes, with non-printable characters escaped (Go's `%q`); without `quotes`, only escaped."""
    if not text.isprintable() or (quotes and ('"' in text or "\\" in text)):
        text = "".join(_quote_character(character, quotes) for character in text)
    return f'"{text}"' if quotes else text


def _quote_character(character: str, quotes: bool) -> str:
    if quotes and character in '"\\':
        return "\\" + character
    if character.isprintable() or (character == "\t" and not quotes):
        return character
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def parse_document(text: str) -> tuple[str, Value] | None:
    """The object or list in a JSON text, or in a YAML text of several lines, with the word for its format."""
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        try:
            parsed = json.loads(stripped)
        except ValueError:
            pass
        else:
            return "json", parsed
    if "\n" not in stripped:
        return None
    from ruamel.yaml import YAML  # takes as long to import as the rest of the display
    from ruamel.yaml.error import YAMLError

    try:
        documents = list(YAML(typ="safe", pure=True).load_all(StringIO(stripped)))
    except (YAMLError, ValueError, TypeError, AttributeError):
        return None
    if len(documents) != 1 or not isinstance(documents[0], dict | list):
        return None
    return "yaml", _as_json(documents[0])


def _as_json(value: object) -> Value:
    match value:
        case dict():
            return {str(key): _as_json(item) for key, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    return str(value)
