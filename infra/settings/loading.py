"""Reads a stack's configuration, checks it as a whole, and reports everything that is wrong with it."""

import contextlib
import copy
import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from infra.naming import PROJECT
from infra.settings import backup_rules as _backup_rules  # noqa: F401 - RULES has them then
from infra.settings.gitops_rules import PASSWORD as GITOPS_PASSWORD
from infra.settings.model import Settings
from infra.settings.receivers import ADDRESSES, PASSWORD
from infra.settings.rules import RULES, Context, Location, Violation, key_of, read_public_key
from infra.settings.schema import kind, schema_at

REFERENCE = "docs/reference/settings.md"
NOTHING_SENT = "No request was sent to the cloud."
SECRETS = ("privateKey", "backupSecretKey", GITOPS_PASSWORD, *ADDRESSES, PASSWORD)
"""Settings whose values are never shown."""


@dataclass(frozen=True)
class InvalidSetting:
    """A setting with an invalid value, and what to do about it."""

    key: str
    value: str
    problem: str
    remedy: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.key} (line {self.line})" if self.line else self.key
        return f"{where}: {self.value} {self.problem}.\n     Remedy: {self.remedy}"


class SettingsError(Exception):
    """The configuration of a stack is invalid. `invalid` has all invalid settings; the text has their remedies too."""

    def __init__(self, invalid: Sequence[InvalidSetting], source: str) -> None:
        self.invalid = tuple(invalid)
        self.source = source
        count = "1 error" if len(invalid) == 1 else f"{len(invalid)} errors"
        listed = "\n".join(f"  {number}. {setting}" for number, setting in enumerate(invalid, 1))
        super().__init__(f"{source}: {count}. {NOTHING_SENT}\n{listed}\nAll settings: {REFERENCE}")


_MISSING = object()


def _value_at(tree: object, location: Location) -> object:
    for step in location:
        try:
            tree = tree[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return tree


def _shown(value: object) -> str:
    if value is _MISSING:
        return "(not set)"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _problem_and_remedy(error: ErrorDetails, value: Any) -> tuple[str, str]:
    """Describe one of pydantic's errors for users; `value` is the value at its location."""
    location = error["loc"]
    details = error.get("ctx") or {}
    optional = location[-1] not in schema_at(location[:-1]).get("required", ())
    expected = kind(schema_at(location))
    problem, remedy = "has the wrong type", f"Expected: {expected}."
    is_section = error["type"] == "refused" and len(location) == 1  # sections have their own message for blanks
    if not is_section and (value is None or (isinstance(value, str) and not value.strip())):
        return "is blank", f"Set a value ({expected}){', or remove the line' if optional else ''}."
    match error["type"]:
        case "refused":
            problem, remedy = str(details["problem"]), str(details["remedy"])
        case "missing":
            problem = "is required"
            remedy = f"Add `{location[-1]}` ({expected}): {schema_at(location).get('description', '')}"
        case "extra_forbidden":
            near = _near_key(location)
            known = ", ".join(sorted(schema_at(location[:-1]).get("properties", ())))
            problem, remedy = "is not a setting", f"Did you mean `{near}`?" if near else f"Valid here: {known}."
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal" | "literal_error":
            problem = "is not allowed"
        case "too_short":
            problem = "is empty"
        case "string_too_long":
            problem, remedy = "is too long", f"Use at most {details['max_length']} characters."
        case "string_pattern_mismatch":
            problem, remedy = "begins or ends with a space", "Remove the space."
    return problem, remedy


def _near_key(location: Location) -> str | None:
    """The setting that was probably meant by an unknown key."""
    known = schema_at(location[:-1]).get("properties", ())
    return next(iter(difflib.get_close_matches(str(location[-1]).rpartition(":")[2], known, n=1)), None)


def _repair(tree: dict[str, Any], location: Location) -> None:
    """Remove an invalid value from `tree`, or replace it by an example if it is required, to check the rest."""
    parent, step = _value_at(tree, location[:-1]), location[-1]
    needed = isinstance(parent, list) or step in schema_at(location[:-1]).get("required", ())
    if needed and isinstance(parent, dict | list):
        parent[step] = copy.deepcopy(schema_at(location)["examples"][0])  # type: ignore[index]
    elif isinstance(parent, dict):
        parent.pop(step, None)


Problems = dict[Location, tuple[str, str]]
"""Problem and remedy of each invalid setting."""


def _check_types(tree: dict[str, Any]) -> tuple[Settings, Problems, set[Location]]:
    """Check each value by itself.

    Returns settings with examples in place of invalid values, the problems, and the locations that rules must ignore.
    """
    problems: Problems = {}
    ignored: set[Location] = set()
    while True:
        try:
            return Settings.model_validate(tree), problems, ignored
        except ValidationError as error:
            details = {tuple(detail["loc"]): detail for detail in error.errors(include_url=False, include_input=False)}
        for location, detail in details.items():
            problems.setdefault(location, _problem_and_remedy(detail, _value_at(tree, location)))
            _repair(tree, location[:1] if location in ignored else location)
            ignored.add(location)
            # A misspelt key leaves the intended one unset; do not report that as well.
            near = _near_key(location) if detail["type"] == "extra_forbidden" else None
            if near and _value_at(tree, (*location[:-1], near)) is _MISSING:
                ignored.add((*location[:-1], near))


def _sections(raw: Mapping[str, object]) -> dict[str, Any]:
    """The project's settings from the whole configuration. The engine passes objects as JSON; parse them."""
    tree: dict[str, Any] = {}
    for key, value in raw.items():
        namespace, _, name = key.rpartition(":")
        if namespace not in {"", PROJECT}:
            if not difflib.get_close_matches(namespace, [PROJECT], cutoff=0.75):
                continue
            name = key  # refuse a misspelt namespace instead of ignoring it as another project's
        if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            with contextlib.suppress(ValueError):
                value = json.loads(value)  # noqa: PLW2901 - text that is not JSON is refused as text
        tree[name] = value
    return tree


def _line_of(document: object, location: Location) -> int | None:
    """Line, from 1, of the setting at `location` in the stack's file, or of its closest parent."""
    line: int | None = None
    node = document
    for index, step in enumerate(location):
        key: object = f"{PROJECT}:{step}" if index == 0 else step
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0] + 1
        else:
            break
        node = node[key]
    return line


def _document(source: Path | None) -> object:
    if source is None:
        return None
    try:
        document = YAML(typ="rt").load(source)
    except (OSError, YAMLError):
        return None
    return document.get("config") if isinstance(document, CommentedMap) else None


def load_settings(
    raw: Mapping[str, object],
    source: Path | None = None,
    *,
    stack: str | None = None,
    secret_keys: Collection[str] | None = None,
    now: datetime | None = None,
) -> Settings:
    """Check a stack's configuration as a whole.

    `raw` maps full keys (`ml-cluster:nodes`) to values, with objects as mappings or as JSON text. `source` is the
    stack's file; errors have its name and line numbers, and relative key files are relative to it. `secret_keys` are
    the keys whose values are stored encrypted, whether `raw` has them or not; None if that is not known.

    Raises SettingsError with all invalid settings. Reads files, but does not use the network.
    """
    tree = _sections(raw)
    original = copy.deepcopy(tree)
    settings, problems, ignored = _check_types(tree)
    folder = source.parent if source else Path.cwd()
    context = Context(settings, now or datetime.now(UTC), folder, stack, secret_keys)
    for check in RULES:
        for violation in check(context):
            involved = (
                location[:end] for location in (violation.at, *violation.also) for end in range(1, len(location) + 1)
            )
            if ignored.isdisjoint(involved):
                problems.setdefault(violation.at, (violation.problem, violation.remedy))
    if not problems:
        return settings
    document = _document(source)
    secrets = {*(secret_keys or ()), *(f"{PROJECT}:{name}" for name in SECRETS)}

    def shown(at: Location) -> str:
        value = _value_at(original, at) if at else stack
        return "[secret]" if value is not _MISSING and key_of(at[:1]) in secrets else _shown(value)

    raise SettingsError(
        [
            InvalidSetting(key_of(at), shown(at), problem, remedy, _line_of(document, at))
            for at, (problem, remedy) in sorted(problems.items(), key=lambda item: [str(step) for step in item[0]])
        ],
        source.name if source else f"Pulumi.{stack or '<stack>'}.yaml",
    )


def public_key(settings: Settings, folder: Path) -> str | None:
    """The public key from the settings, as text; None if the stack creates a key pair."""
    key = read_public_key(Context(settings, datetime.now(UTC), folder, None, None))
    if isinstance(key, Violation):
        raise SettingsError([InvalidSetting(key_of(key.at), "", key.problem, key.remedy)], "access.publicKeyFile")
    return key
