"""Loads policy packs: ``PulumiPolicy.yaml``, and the configuration of their policies.

The rules are those of the CLI (``pkg/resource/analyzer/config.go`` in pulumi/pulumi), except that unknown names are
refused: the CLI ignores them, and a misspelt limit would go unnoticed.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .configfile import YamlFile, tree
from .errors import ConfigError
from .plugins import default_python
from .project import find_virtualenv, runtime_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FILE = "PulumiPolicy.yaml"
LEVELS = ("advisory", "mandatory", "remediate", "disabled")
LEVEL_KEY = "enforcementLevel"
ALL = "all"
"""The key of a configuration whose level applies to every policy without one of its own."""


@dataclass(frozen=True)
class PolicyPack:
    """A local policy pack, as ``--policy-pack`` and ``--policy-pack-config`` name it."""

    folder: Path
    config: Path | None = None
    shown: str = ""
    """The folder as the user wrote it."""

    def __str__(self) -> str:
        return self.shown or str(self.folder)


@dataclass(frozen=True)
class PolicyConfig:
    """The configuration of one policy: its level, empty for the policy's own, and its properties."""

    level: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyInfo:
    """A policy as its pack describes it."""

    name: str
    level: str
    kind: str
    """``resource``, ``stack``, or empty where the pack does not name it."""
    severity: str
    schema: Mapping[str, Mapping[str, Any]]
    """JSON schema of each property of its configuration."""
    required: Sequence[str]


@dataclass(frozen=True)
class LoadedPack:
    """A policy pack that can be started."""

    pack: PolicyPack
    python: str
    version: str
    config: Mapping[str, PolicyConfig]


def load(pack: PolicyPack) -> LoadedPack:
    """Read a policy pack's files.

    Raises:
        ConfigError: with everything that is wrong with the folder, ``PulumiPolicy.yaml`` and the configuration.
    """
    problems: list[str] = []
    config: Mapping[str, PolicyConfig] = {}
    if pack.config is not None:
        try:
            config = read_config(pack.config)
        except ConfigError as error:
            problems += error.problems
    if not pack.folder.is_dir():
        raise ConfigError([f"policy pack {pack}: there is no folder {pack.folder}.", *problems])
    path = pack.folder / FILE
    if not path.is_file():
        raise ConfigError([f"policy pack {pack}: {pack.folder} has no {FILE}.", *problems])
    try:
        raw = tree(YamlFile(path).root)
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    settings = raw if isinstance(raw, dict) else {}
    runtime, options = runtime_of(settings)
    if runtime != "python":
        said = f"says runtime {runtime!r}" if runtime else "says no runtime"
        problems.append(
            f"{path}: {said}; this engine runs policy packs in Python, the Pulumi CLI those of other languages."
        )
    version = settings.get("version") or ""
    if not isinstance(version, str):
        problems.append(f"{path}: version should be text in quotes.")
    if not (pack.folder / "__main__.py").is_file():
        problems.append(f"policy pack {pack}: there is no program: {pack.folder / '__main__.py'} does not exist.")
    python = default_python(find_virtualenv(pack.folder, pack.folder, options))
    if not Path(python).exists():
        problems.append(f"policy pack {pack}: its virtual environment has no interpreter: {python} does not exist.")
    if problems:
        raise ConfigError(problems)
    return LoadedPack(pack, python, str(version), config)


def read_config(path: Path) -> dict[str, PolicyConfig]:
    """Read a file of ``--policy-pack-config``.

    Raises:
        ConfigError: it does not exist, or is not a JSON object of levels and properties; every reason is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if text.strip() else {}
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}."]) from None
    except ValueError as error:
        raise ConfigError([f"{path} is not JSON: {error}."]) from None
    if not isinstance(raw, dict):
        raise ConfigError([f"{path}: this should be an object with a policy's name for each key."])
    problems: list[str] = []
    if "environments" in raw:
        problems.append(f"{path}: environments: Pulumi ESC environments need Pulumi Cloud; put their values here.")
        del raw["environments"]
    config: dict[str, PolicyConfig] = {}
    for name, value in raw.items():
        properties = dict(value) if isinstance(value, dict) else {}
        level = value if isinstance(value, str) else properties.pop(LEVEL_KEY, "")
        if not isinstance(value, str | dict):
            problems.append(
                f"{path}: {name}: this should be an enforcement level or an object, not {json.dumps(value)}."
            )
        elif level not in ("", *LEVELS) or level == value == "":
            levels = ", ".join(LEVELS)
            problems.append(f"{path}: {name}: {json.dumps(level)} is not a valid enforcement level, as are {levels}.")
        else:
            config[name] = PolicyConfig(level, properties)
    if problems:
        raise ConfigError(problems)
    return config


def reconcile(
    policies: Sequence[PolicyInfo],
    initial: Mapping[str, PolicyConfig],
    given: Mapping[str, PolicyConfig],
    source: str,
) -> dict[str, PolicyConfig]:
    """The configuration of every policy: its defaults, overridden by the pack, overridden by the user.

    Raises:
        ConfigError: with every unknown name in ``given``, and every value that the policies' schemas refuse.
    """
    config = {
        policy.name: PolicyConfig(
            policy.level, {key: schema["default"] for key, schema in policy.schema.items() if "default" in schema}
        )
        for policy in policies
    }
    for layer in (initial, given):
        if level := layer.get(ALL, PolicyConfig()).level:
            config = {name: replace(one, level=level) for name, one in config.items()}
        for name, one in layer.items():
            if name in config:
                below = config[name]
                config[name] = PolicyConfig(one.level or below.level, {**below.properties, **one.properties})
    problems = list(_misspelt(policies, given))
    for policy in policies:
        problems += [
            f"{policy.name}: {problem}" for problem in _schema_problems(policy, config[policy.name].properties)
        ]
    if problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    return config


def _misspelt(policies: Sequence[PolicyInfo], given: Mapping[str, PolicyConfig]) -> Iterable[str]:
    by_name = {policy.name: policy for policy in policies}
    for name, config in given.items():
        if name == ALL:
            continue
        if name not in by_name:
            yield f"{name}: the policy pack has no such policy{_nearest(name, by_name)}."
        elif known := by_name[name].schema:
            for key in config.properties.keys() - known.keys():
                yield f"{name}: {key}: the policy has no such setting{_nearest(key, known)}."


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, known, 1)
    return f" (did you mean '{found[0]}'?)" if found else f"; there are {', '.join(sorted(known))}"


def _schema_problems(policy: PolicyInfo, properties: Mapping[str, Any]) -> list[str]:
    # It takes a tenth of a second to load, and few need it.
    from jsonschema import Draft7Validator  # noqa: PLC0415
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    schema = {"type": "object", "properties": dict(policy.schema), "required": list(policy.required)}
    try:
        Draft7Validator.check_schema(schema)
    except SchemaError as error:
        return [f"the policy pack's own schema is not valid: {error.message}."]
    found = Draft7Validator(schema).iter_errors(dict(properties))
    return [f"{'.'.join(map(str, error.path))}: {error.message}.".removeprefix(": ") for error in found]
