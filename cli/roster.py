"""A class's roster: a CSV file with one student, and so one stack, per row.

| column | meaning |
|---|---|
| `id` | name of the student's stack: at most 32 lower case letters, digits and inner hyphens |
| `key` | the student's public SSH key |
| `parity` | optional, `even` or `odd`, for --even and --odd; by default that of the number at the end of the id |
| `config:PATH` | optional: overrides a setting of the template, as `lab config set --path PATH`, unless empty |
"""

from __future__ import annotations

import csv
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from cli.errors import ExitCode, LabError
from engine.errors import ConfigError
from infra.naming import STACK_NAME_LIMIT, is_dns_label
from infra.settings import PublicKey, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cli.session import Session
    from engine.project import StackConfig

REQUIRED = ("id", "key")
FIXED = ("cloud.", "access.publicKey", "privateKey", "backupSecretKey", "gitopsPassword")
OVERRIDE = "config:"
MARK = "class:roster"
"""Configuration key in a stack's file: the class that the stack belongs to."""
_KEY: TypeAdapter[str] = TypeAdapter(PublicKey)


@dataclass(frozen=True)
class Row:
    """One student."""

    line: int
    id: str
    key: str
    parity: str
    overrides: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """A student's stack: its file and its settings."""

    row: Row
    config: StackConfig
    settings: Settings


class Roster:
    """A roster file, and the folder beside it with keys, results and logs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.folder = path.resolve().with_suffix(".class")

    def key_file(self, student: str) -> Path:
        """File with a student's public key."""
        return self.folder / f"{student}.pub"

    def read(self) -> list[Row]:
        """All rows.

        Raises:
            LabError: lists all errors of all rows.
        """
        rows, errors = self._parse()
        if errors:
            raise self.refusal(errors)
        return rows

    def refusal(self, errors: list[str]) -> LabError:
        """An error that lists `errors`."""
        listed = "\n".join(f"  {error}" for error in errors)
        count = f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
        return LabError(
            f"{self.path}: {count}. No request was sent to the cloud.\n{listed}", code=ExitCode.CONFIGURATION
        )

    def _parse(self) -> tuple[list[Row], list[str]]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                columns = _without_empty_end([name.strip() for name in next(reader, [])])
                if errors := list(_column_errors(columns)):
                    return [], errors
                rows, next_line = [], reader.line_num + 1
                for cells in reader:
                    # A cell in quotes may have several lines.
                    line, next_line = next_line, reader.line_num + 1
                    place = f"line {line}"
                    # Spreadsheets leave empty rows and columns after deletions.
                    filled = _without_empty_end([cell.strip() for cell in cells])
                    if not filled:
                        continue
                    if len(filled) > len(columns) or len(cells) < len(columns):
                        errors.append(f"{place}: has {len(cells)} cells, but the first line has {len(columns)}")
                        continue
                    filled += [""] * (len(columns) - len(filled))
                    values = dict(zip(columns, filled, strict=True))
                    row = Row(
                        line,
                        values["id"],
                        values["key"],
                        values.get("parity") or _parity(values["id"]),
                        {
                            name.removeprefix(OVERRIDE): value
                            for name, value in values.items()
                            if name.startswith(OVERRIDE) and value
                        },
                    )
                    errors += [f"{place}: {error}" for error in _row_errors(row)]
                    rows.append(row)
        except FileNotFoundError:
            raise LabError(f"roster {self.path} does not exist", code=ExitCode.CONFIGURATION) from None
        except IsADirectoryError:
            raise LabError(f"{self.path} is a folder, not a roster", code=ExitCode.CONFIGURATION) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise LabError(
                f"{self.path} is not a CSV file in UTF-8: {error}",
                remedy="save it as CSV UTF-8 (comma delimited)",
                code=ExitCode.CONFIGURATION,
            ) from None
        if not rows and not errors:
            errors.append("the roster has no rows")
        return rows, errors + _duplicates(rows)

    def plan(self, session: Session, template: str) -> list[Plan]:
        """The stacks of all rows; their files are not written yet.

        Raises:
            LabError: lists all errors, also of settings, and existing stacks that do not belong to this class.
        """
        source = session.project.stack_config_path(template)
        if not source.exists():
            raise LabError(f"template {source} does not exist", remedy="set one with --template STACK")
        try:
            _settings(session.config(template), template)
        except SettingsError as error:  # reported once, not for each row
            raise LabError(str(error), remedy=f"correct the template, {source.name}") from None
        rows, errors = self._parse()
        plans = []
        for row in rows:
            if not is_dns_label(row.id):
                continue
            own_errors = list(self._foreign_stacks(session, row))
            try:
                plans.append(self._plan(session, source, row))
            except ConfigError as error:
                own_errors += error.problems
            except SettingsError as error:
                own_errors += [f"{one.key}: {one.value} {one.problem}. {one.remedy}" for one in error.invalid]
            errors += [f"line {row.line} ({row.id}): {error}" for error in own_errors]
        if errors:
            raise self.refusal(errors)
        return plans

    def owns(self, session: Session, row: Row) -> bool:
        """Whether the stack with that name belongs to this class."""
        mark = session.config(row.id).get(MARK)
        return mark is not None and mark.value == self.name

    def _foreign_stacks(self, session: Session, row: Row) -> Iterator[str]:
        exists = session.project.stack_config_path(row.id).exists() or session.backend.exists(
            session.project.name, row.id
        )
        if exists and not self.owns(session, row):
            yield f"stack '{row.id}' already exists, and does not belong to class '{self.name}'; choose another id"

    def _plan(self, session: Session, template: Path, row: Row) -> Plan:
        config = session.config_from(template, row.id)
        # Students' stacks share the template's salt if it has secrets; otherwise each has its own.
        config.encryption_salt = config.encryption_salt or session.config(row.id).encryption_salt
        config.set(MARK, self.name)
        for path, value in row.overrides.items():
            config.set(path, value, path=True)
        settings = _settings(config, row.id)
        config.set("access.publicKeyFile", str(self.key_file(row.id)), path=True)
        return Plan(row, config, settings)


def _settings(config: StackConfig, stack: str) -> Settings:
    """The settings in `config`, without its own SSH key."""
    for path in ("privateKey", "access.publicKey", "access.publicKeyFile"):
        config.remove(path, path=True)
    values = {key: value.value for key, value in config.items() if not value.secure}
    return load_settings(values, config.path, stack=stack)


def _without_empty_end(cells: list[str]) -> list[str]:
    """The cells without empty ones at the end."""
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _meant(name: str) -> str | None:
    """The column that was probably meant by a name."""
    known = (*REQUIRED, "parity", OVERRIDE)
    folded = name.casefold().replace(" ", "")
    if folded.startswith(OVERRIDE):
        return OVERRIDE + name.partition(":")[2].strip() if not name.startswith(OVERRIDE) else None
    return next(iter(difflib.get_close_matches(folded, known[:-1], n=1)), None)


def _column_errors(columns: list[str]) -> Iterator[str]:
    separator = next((one for one in (";", "\t") if len(columns) == 1 and one in columns[0]), None)
    if separator:
        shown = "semicolons" if separator == ";" else "tabs"
        yield f"line 1: cells are separated by {shown}, not commas: save it as CSV UTF-8 (comma delimited)"
        return
    meant = {name: _meant(name) for name in columns if name not in {*REQUIRED, "parity"}}
    for name in REQUIRED:
        if name not in columns and name not in meant.values():
            yield f"line 1: column '{name}' is missing"
    for name in dict.fromkeys(columns):
        if not name:
            yield f"line 1: column {columns.index(name) + 1} has no name; remove it"
            continue
        if columns.count(name) > 1:
            yield f"line 1: {columns.count(name)} columns have the name '{name}'"
        if name.removeprefix(OVERRIDE).removeprefix("ml-cluster:").startswith(FIXED) and name.startswith(OVERRIDE):
            yield f"line 1: '{name}' cannot differ between rows: a class uses one cloud, and keys have their own column"
        elif name not in {*REQUIRED, "parity"} and not name.startswith(OVERRIDE):
            known = "columns are: id, key, parity, config:<path of a setting>"
            hint = f"did you mean '{meant[name]}'?" if meant[name] else known
            yield f"line 1: '{name}' is not a column; {hint}"


def _parity(student: str) -> str:
    number = re.search(r"\d+$", student)
    return "" if number is None else "even" if int(number[0]) % 2 == 0 else "odd"


def _row_errors(row: Row) -> Iterator[str]:
    if not (is_dns_label(row.id) and len(row.id) <= STACK_NAME_LIMIT):
        limits = f"at most {STACK_NAME_LIMIT} lower case letters, digits and inner hyphens"
        yield f"the id '{row.id}' is not valid in a host name; use {limits}" if row.id else "the id is missing"
    if row.parity not in {"", "even", "odd"}:
        yield f"the parity '{row.parity}' is neither even nor odd"
    try:
        _KEY.validate_python(row.key)
    except ValidationError as error:
        detail = error.errors()[0].get("ctx") or {}
        yield f"the key {detail['problem']}. {detail['remedy']}" if row.key else "the key is missing"


def _duplicates(rows: Iterable[Row]) -> list[str]:
    errors = []
    for field in ("id", "key"):
        first: dict[str, int] = {}
        for row in rows:
            value = " ".join(getattr(row, field).split()[:2])
            line = first.setdefault(value, row.line)
            if value and line != row.line:
                errors.append(f"line {row.line}: same {field} as in line {line} ({value[:30]})")
    return errors
