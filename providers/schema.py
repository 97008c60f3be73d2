"""Fields of a resource type: checks, diffs and the package schema are derived from one declaration.

The rules are those of bridged providers: an input left out takes its default or, where the cloud computes it, keeps the
cloud's value; names left out consist of the resource's name and seven hex digits; ``__defaults`` lists the inputs that
the user left out.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from providers.values import UNKNOWN, Properties, Secret, Unknown, contains, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

DEFAULTS: Final = "__defaults"
RESERVED: Final = frozenset({DEFAULTS, "__meta", "__pulumi_raw_state_delta"})
AUTONAME_LIMIT: Final = 255
AUTONAME_DIGITS: Final = 7


@dataclass(frozen=True, slots=True)
class CheckFailure:
    """What is wrong with an input: the property's path, and the reason as a sentence without its subject."""

    path: str
    reason: str


class Kind:
    """The type of a field's values."""

    name = "any"

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:  # noqa: ARG002
        """The value as this kind represents it, or a check failure. Is never called with secrets or unknowns."""
        return value

    def schema(self, owner: str, types: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The type reference in a Pulumi package schema; objects are added to ``types``."""
        return {"$ref": "pulumi.json#/Any"}

    def differences(self, path: str, old: Any, new: Any) -> Iterator[Difference]:
        """Where ``new`` (an input) differs from ``old`` (an output)."""
        if old != new:
            yield Difference(path, "UPDATE")

    def adopt(self, given: Any, found: Any) -> Any:  # noqa: ARG002
        """The input after a refresh, when the user gave ``given`` and the cloud has ``found``."""
        return found

    def same(self, old: Any, new: Any) -> bool:
        """Whether an output and an input mean the same."""
        return next(differences(self, "", old, new), None) is None


@dataclass(frozen=True, slots=True)
class Difference:
    """``kind`` is ADD, DELETE or UPDATE; ``replace`` says that the change replaces the resource."""

    path: str
    kind: str
    replace: bool = False


class _String(Kind):
    name = "string"

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        if not isinstance(value, str):
            failures.append(CheckFailure(path, f"must be a string, not {_kind_of(value)}"))
        return value

    def schema(self, owner: str, types: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {"type": self.name}


class _Boolean(_String):
    name = "boolean"

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        failures.append(CheckFailure(path, f"must be true or false, not {_kind_of(value)}"))
        return value


class _Number(_String):
    name = "number"
    parse: Callable[[str], float] = float

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:
        if isinstance(value, str):
            try:
                return type(self).parse(value)
            except ValueError:
                pass
        elif isinstance(value, int | float) and not isinstance(value, bool) and self.fits(value):
            return value
        article = "an" if self.name == "integer" else "a"
        failures.append(CheckFailure(path, f"must be {article} {self.name}, not {_kind_of(value)}"))
        return value

    def fits(self, value: float) -> bool:  # noqa: ARG002
        return True


class _Integer(_Number):
    name = "integer"
    parse: Callable[[str], float] = int

    def fits(self, value: float) -> bool:
        return float(value).is_integer()


ANY: Final = Kind()
STRING: Final = _String()
BOOLEAN: Final = _Boolean()
NUMBER: Final = _Number()
INTEGER: Final = _Integer()


@dataclass(frozen=True)
class List(Kind):
    """A list; ``unordered`` for what the cloud treats as a set, where order makes no difference."""

    item: Kind
    unordered: bool = False
    name = "array"

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:
        if not isinstance(value, list):
            failures.append(CheckFailure(path, f"must be a list, not {_kind_of(value)}"))
            return value
        items = [coerce(self.item, item, f"{path}[{index}]", failures) for index, item in enumerate(value)]
        if not self.unordered:
            return items
        # Services refuse a duplicate in a set; two unknown items may differ.
        return [item for index, item in enumerate(items) if contains(item, Unknown) or item not in items[:index]]

    def schema(self, owner: str, types: dict[str, Any]) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema(_singular(owner), types)}

    def _pairs(self, old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[int | None, int | None]]:
        if not self.unordered:
            for index in range(max(len(old), len(new))):
                yield (index if index < len(old) else None, index if index < len(new) else None)
            return
        left = list(range(len(old)))
        for index, item in enumerate(new):
            match = next((other for other in left if self.item.same(old[other], item)), None)
            if match is not None:
                left.remove(match)
            yield match, index
        yield from ((index, None) for index in left)

    def differences(self, path: str, old: Any, new: Any) -> Iterator[Difference]:
        if contains(new, Unknown) and (self.unordered or len(old) != len(new)):
            yield Difference(path, "UPDATE", _forces(self.item))
            return
        found: dict[str, Difference] = {}
        for before, after in self._pairs(old, new):
            if before is None or after is None:
                place = f"{path}[{before if after is None else after}]"
                kind = "DELETE" if after is None else "ADD"
                found[place] = Difference(place, "UPDATE" if place in found else kind, _forces(self.item))
            elif not self.unordered:
                yield from differences(self.item, f"{path}[{after}]", old[before], new[after])
        yield from found.values()

    def adopt(self, given: Any, found: Any) -> Any:
        return [
            self.item.adopt(plain(given[after]), found[before])
            for before, after in self._pairs(found, plain(given))
            if before is not None and after is not None
        ]


@dataclass(frozen=True)
class Map(Kind):
    """String keys, values of one kind."""

    item: Kind
    name = "object"

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:
        if not isinstance(value, dict):
            failures.append(CheckFailure(path, f"must be a map, not {_kind_of(value)}"))
            return value
        return {
            key: coerce(self.item, item, f"{path}{_key(key)}", failures)
            for key, item in value.items()
            if key not in RESERVED and item is not None
        }

    def schema(self, owner: str, types: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.item.schema(owner, types)}

    def differences(self, path: str, old: Any, new: Any) -> Iterator[Difference]:
        for key in sorted(set(old) | set(new)):
            place = f"{path}{_key(key)}"
            if key not in new or key not in old:
                yield Difference(place, "ADD" if key in new else "DELETE")
            else:
                yield from differences(self.item, place, old[key], new[key])

    def adopt(self, given: Any, found: Any) -> Any:
        return {key: self.item.adopt(plain(item), found[key]) for key, item in plain(given).items() if key in found}


@dataclass(frozen=True)
class Object(Kind):
    """Named fields of their own kinds."""

    fields: tuple[Field, ...]
    name = "object"

    def coerce(self, value: Any, path: str, failures: list[CheckFailure]) -> Any:
        if not isinstance(value, dict):
            failures.append(CheckFailure(path, f"must be an object, not {_kind_of(value)}"))
            return value
        return check(self.fields, {}, value, path=f"{path}.", failures=failures)

    def schema(self, owner: str, types: dict[str, Any]) -> dict[str, Any]:
        types[owner] = {
            "type": "object",
            "properties": properties_schema(self.fields, owner, types),
            "required": [field.name for field in self.fields if field.required],
        }
        return {"$ref": f"#/types/{owner}"}

    def differences(self, path: str, old: Any, new: Any) -> Iterator[Difference]:
        return diff(self.fields, old, new, path=f"{path}.")

    def adopt(self, given: Any, found: Any) -> Any:
        return adopt_inputs(self.fields, given, found)


@dataclass(frozen=True, slots=True)
class Field:
    """One property of a resource type, a function, a provider's configuration or a nested object.

    required: the user must give it. computed: where the user gives nothing the cloud decides, which is not a
    difference. output: only the cloud sets it. force_new: a change replaces the resource. autoname: derived from the
    logical name when left out. same(output, input): further values that mean the same. validate(value): a reason
    against the value, or None. default: a value, or a function without arguments.
    """

    name: str
    kind: Kind = STRING
    description: str = ""
    required: bool = False
    default: Any = None
    computed: bool = False
    output: bool = False
    force_new: bool = False
    secret: bool = False
    autoname: bool = False
    conflicts: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    validate: Callable[[Any], str | None] | None = None
    same: Callable[[Any, Any], bool] | None = None

    def default_value(self) -> Any:
        """The declared default."""
        return self.default() if callable(self.default) else self.default


@dataclass(frozen=True, slots=True)
class Autoname:
    """The engine's input for an automatic name: the logical name, a seed, and the stack's autonaming settings."""

    logical_name: str
    seed: bytes
    proposed: str | None = None
    mode: str = "PROPOSE"

    def name(self, digits: int = AUTONAME_DIGITS) -> str:
        """Raises ValueError with the reason where no automatic name is possible."""
        if self.proposed is not None:
            if self.mode == "DISABLE":
                raise ValueError("is required: automatic naming is disabled for this stack")
            name = self.proposed
        else:
            # Preview and update get the same seed, so their names agree.
            name = f"{self.logical_name}-{hashlib.sha256(self.seed).hexdigest()[:digits]}"
        if self.mode != "ENFORCE" and len(name) > AUTONAME_LIMIT:
            raise ValueError(f"cannot be made automatically: {name!r} is longer than {AUTONAME_LIMIT} characters")
        return name


def coerce(kind: Kind, value: Any, path: str, failures: list[CheckFailure]) -> Any:
    """``kind.coerce`` for values that may be secret, unknown or null."""
    if isinstance(value, Secret):
        return Secret(coerce(kind, value.value, path, failures))
    if value is None or value is UNKNOWN:
        return value
    return kind.coerce(value, path, failures)


def check(
    fields: Sequence[Field],
    olds: Properties,
    news: Properties,
    *,
    path: str = "",
    failures: list[CheckFailure],
    autoname: Autoname | None = None,
) -> Properties:
    """The inputs with their types coerced and defaults filled in; appends to ``failures``."""
    by_name = {field.name: field for field in fields if not field.output}
    checked: Properties = {}
    for key, value in news.items():
        if key in RESERVED or value is None:
            continue
        field = by_name.get(key)
        if field is None:
            failures.append(CheckFailure(path + key, _unknown_property(key, fields)))
            continue
        before = len(failures)
        settled = coerce(field.kind, value, path + key, failures)
        if len(failures) == before:
            _judge(field, plain(settled), path, failures)
        checked[key] = settled

    for field in by_name.values():
        if field.name in checked:
            clash = [other for other in field.conflicts if other in checked]
            if clash and min([field.name, *clash]) == field.name:
                failures.append(CheckFailure(path + field.name, f"cannot be given together with {_listed(clash)}"))
    made = _defaults(by_name, checked, olds, autoname, failures)
    checked |= made
    for field in by_name.values():
        if field.required and field.name not in checked and not field.autoname:
            failures.append(CheckFailure(path + field.name, "is required"))
        if field.secret and field.name in checked and not isinstance(checked[field.name], Secret):
            checked[field.name] = Secret(checked[field.name])
    return {**checked, DEFAULTS: sorted(made)}


def _judge(field: Field, value: Any, path: str, failures: list[CheckFailure]) -> None:
    if contains(value, Unknown):
        return
    if field.choices and value not in field.choices:
        hint = did_you_mean(str(value), map(str, field.choices))
        failures.append(
            CheckFailure(path + field.name, f"must be one of {_listed(field.choices)}, not {value!r}{hint}")
        )
    elif field.validate and (reason := field.validate(value)):
        failures.append(CheckFailure(path + field.name, reason))


def _defaults(
    fields: Mapping[str, Field],
    checked: Properties,
    olds: Properties,
    autoname: Autoname | None,
    failures: list[CheckFailure],
) -> Properties:
    old_defaults = plain(olds.get(DEFAULTS))
    made: Properties = {}
    for field in fields.values():
        taken = field.name in checked or any(other in checked or other in made for other in field.conflicts)
        if taken or not (field.autoname or field.default is not None):
            continue
        if olds.get(field.name) is not None and (old_defaults is None or field.name in old_defaults):
            made[field.name] = olds[field.name]
        elif field.autoname:
            if autoname:
                try:
                    made[field.name] = autoname.name()
                except ValueError as error:
                    failures.append(CheckFailure(field.name, str(error)))
        elif value := field.default_value():
            made[field.name] = value
    return made


def differences(kind: Kind, path: str, old: Any, new: Any) -> Iterator[Difference]:
    """``kind.differences`` for values that may be secret, unknown or missing."""
    old, new = plain(old), plain(new)
    if isinstance(new, Unknown):
        yield Difference(path, "UPDATE" if not _empty(old) else "ADD")
    elif _empty(old) and _empty(new):
        return
    elif old is None or new is None:
        yield Difference(path, "ADD" if old is None else "DELETE", _forces(_innermost(kind)))
    elif any(isinstance(old, shape) != isinstance(new, shape) for shape in (list, dict)):
        yield Difference(path, "UPDATE")
    else:
        yield from kind.differences(path, old, new)


def diff(fields: Iterable[Field], olds: Properties, news: Properties, *, path: str = "") -> Iterator[Difference]:
    """Where the inputs ``news`` differ from the outputs ``olds``."""
    for field in fields:
        old, new = plain(olds.get(field.name)), plain(news.get(field.name))
        if field.output or (new is None and field.computed):
            continue
        if field.same and not contains(new, Unknown) and field.same(old, new):
            continue
        for found in differences(field.kind, path + field.name, old, new):
            # Fields inside an object have a ``force_new`` of their own.
            own = "." not in found.path[len(path + field.name) :] or not isinstance(_innermost(field.kind), Object)
            yield Difference(found.path, found.kind, found.replace or (own and field.force_new))


def adopt_inputs(fields: Iterable[Field], given: Properties, found: Properties) -> Properties:
    """The inputs after a refresh: the user's, with the values that the cloud has now."""
    by_name = {field.name: field for field in fields}
    inputs: Properties = {}
    for key, value in given.items():
        field, new, old = by_name.get(key), plain(found.get(key)), plain(value)
        if key == DEFAULTS or (_empty(old) and _empty(new)):
            inputs[key] = value
        elif field is None or new is None:
            continue
        elif (field.same and field.same(new, old)) or field.kind.same(new, old):
            inputs[key] = value
        else:
            adopted = field.kind.adopt(old, new)
            inputs[key] = Secret(adopted) if contains(value, Secret) else adopted
    if isinstance(inputs.get(DEFAULTS), list):
        inputs[DEFAULTS] = [key for key in inputs[DEFAULTS] if plain(inputs.get(key)) == plain(given.get(key))]
    return inputs


def import_inputs(fields: Iterable[Field], found: Properties) -> Properties:
    """The inputs that would create what an import has read: all that is neither empty nor the default.

    Of two conflicting fields the one declared first is kept.
    """
    inputs: Properties = {DEFAULTS: []}
    for field in fields:
        value = plain(found.get(field.name))
        default = field.default_value()
        if field.output or value is None or (_empty(value) if default is None else value == default):
            continue
        if any(other in inputs for other in field.conflicts):
            continue
        inputs[field.name] = (
            Secret(_import_value(field.kind, value)) if field.secret else _import_value(field.kind, value)
        )
    return inputs


def _import_value(kind: Kind, value: Any) -> Any:
    if isinstance(kind, Object):
        return import_inputs(kind.fields, value)
    if isinstance(kind, List):
        return [_import_value(kind.item, item) for item in value]
    return value


def mark_field_secrets(fields: Iterable[Field], outputs: Properties) -> Properties:
    """The outputs, with secret fields marked."""
    secret = {field.name for field in fields if field.secret}
    return {
        key: Secret(value) if key in secret and value is not None and not isinstance(value, Secret) else value
        for key, value in outputs.items()
    }


def properties_schema(fields: Iterable[Field], owner: str, types: dict[str, Any]) -> dict[str, Any]:
    """The ``properties`` of a Pulumi package schema."""
    properties = {}
    for field in fields:
        entry = field.kind.schema(f"{owner}{field.name[:1].upper()}{field.name[1:]}", types)
        if field.description:
            entry["description"] = field.description
        if field.default is not None and not callable(field.default) and not isinstance(field.default, list | dict):
            entry["default"] = field.default
        if field.force_new:
            entry["willReplaceOnChanges"] = True
        if field.secret:
            entry["secret"] = True
        properties[field.name] = entry
    return properties


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: a similar known one, if any."""
    close = difflib.get_close_matches(given, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def top_level(path: str) -> str:
    """The property that a path starts with."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def property_path(parts: Iterable[str | int]) -> str:
    """``("spec", "ports", 0, "a/b")`` -> ``spec.ports[0]["a/b"]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else _key(part) for part in parts).removeprefix(".")


def _innermost(kind: Kind) -> Kind:
    return _innermost(kind.item) if isinstance(kind, List | Map) else kind


def _forces(kind: Kind) -> bool:
    """Whether adding or removing an item replaces the resource: where any of its fields does."""
    return isinstance(kind, Object) and any(field.force_new for field in kind.fields)


def _empty(value: Any) -> bool:
    return value is None or (not isinstance(value, Unknown) and value in (False, 0, "", [], {}))


def _kind_of(value: Any) -> str:
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"the string {value!r}"
        case list():
            return "a list"
    return "an object"


def _key(key: str) -> str:
    if re.fullmatch(r"[A-Za-z_$][\w$]*", key):
        return f".{key}"
    escaped = re.sub(r'(["\\])', r"\\\1", key)
    return f'["{escaped}"]'


def _listed(items: Iterable[Any]) -> str:
    return ", ".join(str(item) for item in items)


def _singular(name: str) -> str:
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


def _unknown_property(key: str, fields: Sequence[Field]) -> str:
    if any(field.name == key for field in fields):
        return "is set by the cloud and cannot be given"
    return "is not a known property" + did_you_mean(key, (field.name for field in fields if not field.output))
