"""The policy packs of a preview or update, from flags and settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import ExitCode, LabError
from cli.session import ROOT
from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.session import Session
    from engine.policypack import PolicyPack
    from engine.project import Project, StackConfig

KEY = "lab:policies"
"""A setting of lab: the Pulumi CLI only gets policy packs from Pulumi Cloud or by flags."""
PARTS = {"pack", "config"}


def given_packs(session: Session, folders: Sequence[str], configs: Sequence[str]) -> tuple[PolicyPack, ...]:
    """The packs of ``--policy-pack``, each with its ``--policy-pack-config``; paths start at the working folder.

    Raises:
        LabError: there are configurations, but not one for each pack.
        ConfigError: lists all errors in the packs' files.
    """
    from engine.policypack import PolicyPack

    if configs and len(configs) != len(folders):
        raise LabError(
            f"{len(configs)} --policy-pack-config were given for {len(folders)} --policy-pack",
            remedy="give one for each pack, in the same order, or none",
            code=ExitCode.CONFIGURATION,
        )
    base = Path.cwd() if session.cwd == ROOT else session.cwd
    files: Sequence[Path | None] = [base / config for config in configs] or [None] * len(folders)
    packs = tuple(
        PolicyPack((base / folder).resolve(), file, folder) for folder, file in zip(folders, files, strict=True)
    )
    _check(packs)
    return packs


def packs_for(session: Session, stack: str, given: Sequence[PolicyPack]) -> tuple[PolicyPack, ...]:
    """All packs for a stack: those in its settings or the project's, then those `given`.

    Raises:
        ConfigError: lists all errors in the setting, or in the packs' files.
    """
    declared = declared_packs(session.project, session.config(stack))
    named = {(pack.folder, pack.config) for pack in declared}
    return (*declared, *(pack for pack in given if (pack.folder, pack.config) not in named))


def declared_packs(project: Project, config: StackConfig) -> tuple[PolicyPack, ...]:
    """The packs in a stack's file, or else in the project's. Relative paths start at the project.

    Raises:
        ConfigError: lists all errors in the setting, or in the packs' files.
    """
    from engine.policypack import PolicyPack

    default = project.config_schema.get(KEY)
    value: Any = default.value if default is not None else None
    source = project.file
    if (setting := config.get(KEY)) is not None:
        value, source = json.loads(setting.value) if setting.is_object else setting.value, config.path
    entries = value if isinstance(value, list) else [] if value is None else [value]
    errors = [
        f"{source}: {KEY}: {json.dumps(entry)} must be an object with the folder of a pack, "
        '{"pack": "policies/course"}, and optionally a file, "config".'
        for entry in entries
        if not _is_valid_entry(entry)
    ]
    if errors:
        raise ConfigError(errors)
    packs = tuple(
        PolicyPack(
            _resolve(project, entry["pack"]),
            _resolve(project, entry["config"]) if "config" in entry else None,
            entry["pack"],
        )
        for entry in entries
    )
    _check(packs)
    return packs


def fingerprint(packs: Sequence[PolicyPack]) -> bytes:
    """A digest of the packs' programs and configurations; empty without any."""
    if not packs:
        return b""
    digest = hashlib.sha256()
    for pack in packs:
        files = sorted(pack.folder.rglob("*.py")) + ([pack.config] if pack.config else [])
        for path in files:
            digest.update(path.read_bytes())
    return digest.digest()


def _is_valid_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or "pack" not in entry or entry.keys() - PARTS:
        return False
    return all(isinstance(path, str) and path for path in entry.values())


def _resolve(project: Project, path: str) -> Path:
    return (project.root / Path(path).expanduser()).resolve()


def _check(packs: Sequence[PolicyPack]) -> None:
    """Read the packs' files, so that a misspelt name is found before anything else."""
    from engine.policypack import load

    errors: list[str] = []
    for pack in packs:
        try:
            load(pack)
        except ConfigError as error:
            errors += error.problems
    if errors:
        raise ConfigError(errors)
