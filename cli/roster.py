"""A class's roster: a CSV file with one student, and so one stack, a row.

| column | meaning |
|---|---|
| `id` | the student's, and the name of the stack: lower case letters, digits, inner hyphens, 32 at most |
| `key` | public SSH key of the student |
| `parity` | optional, `even` or `odd`: for --even and --odd, where it is not that of the number at the id's end |
| `config:PATH` | optional: overrides a setting of the template, as `lab config set --path PATH` does; empty leaves it |
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from cli.errors import ExitCode, LabError
from engine.configfile import YamlFile
from engine.errors import ConfigError
from engine.project import StackConfig
from infra.naming import STACK_NAME_LIMIT, is_dns_label
from infra.settings import PublicKey, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cli.session import Session

REQUIRED = ("id", "key")
FIXED = ("cloud.", "access.publicKey", "privateKey")
OVERRIDE = "config:"
MARK = "class:roster"
"""Configuration key in the file of a class's stack: the class that it is of."""
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
    """A student's stack: the file that it is to have, and what that says."""

    row: Row
    config: StackConfig
    settings: Settings


class Roster:
    """A roster file; what belongs to it is kept in a folder beside it: keys, results and logs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.folder = path.resolve().with_suffix(".class")

    def key_file(self, student: str) -> Path:
        """Where a student's key is kept for the program."""
        return self.folder / f"{student}.pub"

    def read(self) -> list[Row]:
        """All rows.

        Raises:
            LabError: with every fault of every row.
        """
        rows, faults = self._parse()
        if faults:
            raise self.refusal(faults)
        return rows

    def refusal(self, faults: list[str]) -> LabError:
        """An error that lists `faults`."""
        listed = "\n".join(f"  {fault}" for fault in faults)
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        return LabError(
            f"{self.path}: {count}. The cloud was not asked for anything.\n{listed}", code=ExitCode.CONFIGURATION
        )

    def _parse(self) -> tuple[list[Row], list[str]]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                columns = [name.strip() for name in reader.fieldnames or ()]
                if faults := list(_column_faults(columns)):
                    return [], faults
                reader.fieldnames = columns
                rows = []
                for cells in reader:
                    where = f"line {reader.line_num}"
                    if None in cells or None in cells.values():
                        faults.append(f"{where}: has not {len(columns)} cells, as the first line has")
                        continue
                    values = {name: value.strip() for name, value in cells.items()}
                    row = Row(
                        reader.line_num,
                        values["id"],
                        values["key"],
                        values.get("parity") or _parity(values["id"]),
                        {
                            name.removeprefix(OVERRIDE): value
                            for name, value in values.items()
                            if name.startswith(OVERRIDE) and value
                        },
                    )
                    faults += [f"{where}: {fault}" for fault in _row_faults(row)]
                    rows.append(row)
        except FileNotFoundError:
            raise LabError(f"there is no roster {self.path}", code=ExitCode.CONFIGURATION) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise LabError(f"{self.path} is not a CSV file in UTF-8: {error}", code=ExitCode.CONFIGURATION) from None
        if not rows and not faults:
            faults.append("there are no rows")
        return rows, faults + _duplicates(rows)

    def plan(self, session: Session, template: str) -> list[Plan]:
        """The stacks of all rows, their files not written yet.

        Raises:
            LabError: with every fault, settings and stacks of these names that are not of this class among them.
        """
        source = session.project.stack_config_path(template)
        if not source.exists():
            raise LabError(f"there is no template: {source} does not exist", remedy="name one with --template STACK")
        try:
            _settings(session.config(template), template)
        except SettingsError as error:  # said once, not for each row
            raise LabError(str(error), remedy=f"correct the template, {source.name}") from None
        rows, faults = self._parse()
        plans = []
        for row in rows:
            if not is_dns_label(row.id):
                continue
            found = list(self._strangers(session, row))
            try:
                plans.append(self._plan(session, source, row))
            except ConfigError as error:
                found += error.faults
            except SettingsError as error:
                found += [f"{fault.key}: {fault.value} {fault.problem}. {fault.remedy}" for fault in error.faults]
            faults += [f"line {row.line} ({row.id}): {fault}" for fault in found]
        if faults:
            raise self.refusal(faults)
        return plans

    def owns(self, session: Session, row: Row) -> bool:
        """Whether the stack of that name is of this class."""
        mark = session.config(row.id).get(MARK)
        return mark is not None and mark.value == self.name

    def _strangers(self, session: Session, row: Row) -> Iterator[str]:
        exists = session.project.stack_config_path(row.id).exists() or session.backend.exists(
            session.project.name, row.id
        )
        if exists and not self.owns(session, row):
            yield f"a stack '{row.id}' is there already, and is not of class '{self.name}'; choose another id"

    def _plan(self, session: Session, template: Path, row: Row) -> Plan:
        file = YamlFile(template)
        file.path = session.project.stack_config_path(row.id)
        config = StackConfig(session.project, row.id, file)
        # The template's salt opens its secrets, which the students' stacks share; else each has its own.
        config.encryption_salt = config.encryption_salt or session.config(row.id).encryption_salt
        config.set(MARK, self.name)
        for path, value in row.overrides.items():
            config.set(path, value, path=True)
        settings = _settings(config, row.id)
        config.set("access.publicKeyFile", str(self.key_file(row.id)), path=True)
        return Plan(row, config, settings)


def _settings(config: StackConfig, stack: str) -> Settings:
    """The settings in `config`, for a key of the roster in place of its own."""
    for path in ("privateKey", "access.publicKey", "access.publicKeyFile"):
        config.remove(path, path=True)
    values = {key: value.value for key, value in config.items() if not value.secure}
    return load_settings(values, config.path, stack=stack)


def _column_faults(columns: list[str]) -> Iterator[str]:
    for name in REQUIRED:
        if name not in columns:
            yield f"line 1: there is no column '{name}'"
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1:
            yield f"line 1: there are {columns.count(name)} columns '{name}'"
        if name.removeprefix(OVERRIDE).removeprefix("ml-cluster:").startswith(FIXED) and name.startswith(OVERRIDE):
            yield f"line 1: '{name}' cannot differ by row: a class is on one cloud, and keys have their own column"
        elif name not in {*REQUIRED, "parity"} and not name.startswith(OVERRIDE):
            yield f"line 1: '{name}' is not a column; there are: id, key, parity, config:<path of a setting>"


def _parity(student: str) -> str:
    number = re.search(r"\d+$", student)
    return "" if number is None else "even" if int(number[0]) % 2 == 0 else "odd"


def _row_faults(row: Row) -> Iterator[str]:
    if not (is_dns_label(row.id) and len(row.id) <= STACK_NAME_LIMIT):
        limits = f"lower case letters, digits and inner hyphens, {STACK_NAME_LIMIT} at most"
        yield f"the id '{row.id}' cannot be part of a host name; use {limits}" if row.id else "there is no id"
    if row.parity not in {"", "even", "odd"}:
        yield f"the parity '{row.parity}' is neither even nor odd"
    try:
        _KEY.validate_python(row.key)
    except ValidationError as error:
        detail = error.errors()[0].get("ctx") or {}
        yield f"the key {detail['problem']}. {detail['remedy']}" if row.key else "there is no key"


def _duplicates(rows: Iterable[Row]) -> list[str]:
    faults = []
    for what in ("id", "key"):
        first: dict[str, int] = {}
        for row in rows:
            value = " ".join(getattr(row, what).split()[:2])
            line = first.setdefault(value, row.line)
            if value and line != row.line:
                faults.append(f"line {row.line}: the {what} of line {line} again ({value[:30]})")
    return faults
