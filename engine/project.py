"""The project file ``Pulumi.yaml`` and the stack settings file ``Pulumi.<stack>.yaml``, read as the Pulumi CLI does."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from engine.configfile import Secure, YamlFile, assign, child, coerce, discard, entries, make_node, to_json, tree
from engine.errors import ConfigError, EngineError
from engine.paths import parse_path
from engine.secrets import missing_passphrase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ruamel.yaml.nodes import Node

    from engine.configfile import Tree
    from engine.secrets import SecretsManager

TypeName = Literal["string", "integer", "boolean", "array", "object"]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_HIDDEN = "[secret]"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ItemsType(_Model):
    """The type of an array's items in the ``config`` schema."""

    type: TypeName
    items: ItemsType | None = None

    def describe(self) -> str:
        """As the CLI names it: ``array<string>``."""
        return f"array<{self.items.describe()}>" if self.items else self.type


class ConfigType(_Model):
    """One key of the ``config`` schema in ``Pulumi.yaml``; ``value`` is for keys of another namespace."""

    type: TypeName | None = None
    items: ItemsType | None = None
    description: str | None = None
    secret: bool = False
    default: Any = None
    value: Any = None

    def describe(self) -> str:
        """As the CLI names it: ``array<string>``."""
        return f"array<{self.items.describe()}>" if self.items else str(self.type)


class _Runtime(_Model):
    name: str = Field(min_length=1)
    options: dict[str, Any] = {}


class _Backend(_Model):
    url: str | None = None


class _Options(_Model):
    refresh: Literal["always"] | None = None


class _Plugin(_Model):
    name: str
    path: str
    version: str | None = None


class _Plugins(_Model):
    providers: list[_Plugin] = []
    analyzers: list[_Plugin] = []
    languages: list[_Plugin] = []


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class _ProjectFile(BaseModel):
    # Other top-level keys are the user's own, as in the CLI.
    model_config = ConfigDict(extra="ignore", strict=True)

    name: str = Field(pattern=rf"^{_NAME.pattern}$")
    runtime: Annotated[_Runtime | None, BeforeValidator(_named)] = None
    main: str | None = None
    description: str | None = None
    config: dict[str, ConfigType] | None = None
    stackConfigDir: str | None = None  # noqa: N815 - the name in the file
    backend: _Backend | None = None
    options: _Options | None = None
    plugins: _Plugins | None = None


@dataclass(frozen=True)
class Project:
    """A Pulumi project.

    ``main`` is the program: a folder, or a file when ``main:`` names one. ``virtualenv`` is the Python environment it
    runs in, None for the current one. ``provider_paths`` are the plugins of ``plugins.providers``, by package name.
    """

    name: str
    file: Path
    main: Path
    runtime_name: str
    runtime_options: Mapping[str, Any] = field(default_factory=dict)
    virtualenv: Path | None = None
    backend_url: str | None = None
    description: str | None = None
    config_schema: Mapping[str, ConfigType] = field(default_factory=dict)
    stack_config_dir: str = ""
    refresh_always: bool = False
    provider_paths: Mapping[str, Path] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The folder of ``Pulumi.yaml``."""
        return self.file.parent

    @property
    def program_folder(self) -> Path:
        """The folder that the program runs in."""
        return self.main if self.main.is_dir() else self.main.parent

    @classmethod
    def find(cls, cwd: Path) -> Self:
        """Load the nearest ``Pulumi.yaml`` of ``cwd`` and its parents.

        Raises EngineError when there is none, ConfigError naming everything that is wrong with it.
        """
        start = cwd.resolve()
        for folder in (start, *start.parents):
            for name in ("Pulumi.yaml", "Pulumi.yml"):
                if (folder / name).is_file():
                    return cls._load(folder / name)
        raise EngineError(
            f"No Pulumi.yaml project file was found in '{start}' or above it.",
            remedy="Go to the project's folder, or name it with --cwd.",
        )

    @classmethod
    def _load(cls, path: Path) -> Self:
        file = YamlFile(path)
        raw: dict[str, Any] = {key.value: tree(value) for key, value in entries(file.root)}
        problems: list[str] = []
        if isinstance(raw.get("config"), str):
            if raw.get("stackConfigDir"):
                problems.append(
                    file.locate(child(file.root, "config"), "use only stackConfigDir for the folder of stack settings.")
                )
            raw["stackConfigDir"] = raw.pop("config")
        name = raw.get("name")
        if isinstance(raw.get("config"), dict):
            raw["config"] = {key: _long_form(str(name), key, value) for key, value in raw["config"].items()}
        try:
            parsed = _ProjectFile.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(problems + _explain(file, error)) from None
        schema = parsed.config or {}
        for key, declared in schema.items():
            node = child(child(file.root, "config"), key)
            problems += [
                file.locate(node, f"config {key}: {problem}")
                for problem in _schema_problems(parsed.name, key, declared)
            ]
        if problems:
            raise ConfigError(problems)
        root = path.parent
        options = parsed.runtime.options if parsed.runtime else {}
        plugins = parsed.plugins.providers if parsed.plugins else []
        main = root / (parsed.main or "")
        return cls(
            name=parsed.name,
            file=path,
            main=main,
            runtime_name=parsed.runtime.name if parsed.runtime else "",
            runtime_options=options,
            virtualenv=find_virtualenv(root, main, options),
            backend_url=parsed.backend.url if parsed.backend else None,
            description=parsed.description,
            config_schema=schema,
            stack_config_dir=parsed.stackConfigDir or "",
            refresh_always=bool(parsed.options and parsed.options.refresh),
            provider_paths={plugin.name: root / plugin.path for plugin in plugins},
        )

    def stack_config_path(self, stack: str) -> Path:
        """The path of the settings of ``stack``."""
        return self.root / self.stack_config_dir / f"Pulumi.{stack}{self.file.suffix}"

    def full_key(self, key: str) -> str:
        """``key`` as ``<namespace>:<name>``; the namespace is the project's when there is none. Raises ConfigError."""
        parts = key.split(":")
        if len(parts) == 1:
            return f"{self.name}:{key}"
        if len(parts) == 3 and parts[1] == "config":
            del parts[1]
        if len(parts) != 2 or not all(parts):
            raise ConfigError([f"'{key}' is not a configuration key; write it as <namespace>:<name>."])
        return ":".join(parts)


@dataclass(frozen=True)
class ConfigValue:
    """One value of the settings as the file holds it.

    ``value`` is text, a ciphertext, or, where ``is_object``, JSON in which secrets are ``{"secure": "<ciphertext>"}``;
    ``secure`` says that it is or contains a secret.
    """

    value: str
    secure: bool
    is_object: bool


class StackConfig:
    """``Pulumi.<stack>.yaml``. Edits keep comments and order; nothing is written before :meth:`save`."""

    def __init__(self, project: Project, stack: str, file: YamlFile) -> None:
        self._project = project
        self._stack = stack
        self._file = file
        self._check()

    @classmethod
    def load(cls, project: Project, stack: str) -> Self:
        """Load the settings of ``stack``; a missing file has none. Raises ConfigError naming everything wrong with
        it."""
        return cls(project, stack, YamlFile(project.stack_config_path(stack)))

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def encryption_salt(self) -> str | None:
        """The state of the passphrase secrets provider."""
        return self._top("encryptionsalt")

    @encryption_salt.setter
    def encryption_salt(self, salt: str | None) -> None:
        self._set_top("encryptionsalt", salt)

    @property
    def secrets_provider(self) -> str | None:
        """The URL of another secrets provider (``awskms://...``), or ``passphrase``."""
        return self._top("secretsprovider")

    @secrets_provider.setter
    def secrets_provider(self, provider: str | None) -> None:
        self._set_top("secretsprovider", provider)

    @property
    def has_secrets(self) -> bool:
        """Whether any value needs the passphrase."""
        return any(_holds_secret(value) for value in self._trees().values())

    def items(self) -> list[tuple[str, ConfigValue]]:
        """Full keys (``project:name``) and values, in the file's order, without the project's defaults."""
        return [(key, _config_value(value)) for key, value in self._trees().items()]

    def get(self, key: str, *, path: bool = False) -> ConfigValue | None:
        """The value of ``key``, with ``path`` of the place inside it that ``a.b[0].c`` names; None when not set."""
        full, rest = self._parse(key, path=path)
        node = self._node(full)
        for part in rest:
            node = child(node, part)
        return None if node is None else _config_value(tree(node))

    def set(
        self, key: str, value: str, *, secret: bool = False, path: bool = False, crypter: SecretsManager | None = None
    ) -> None:
        """Set ``key`` to the text ``value``, encrypted with ``crypter`` when ``secret``.

        With ``path``, ``key`` may name a place inside a list or map (``a.b[0].c``), and ``true``, ``false`` and whole
        numbers become booleans and numbers there. Raises ConfigError for a key or path that does not fit.
        """
        full, rest = self._parse(key, path=path)
        new: Tree = coerce(value) if rest else value
        if secret:
            new = Secure(_need(crypter).encrypt(value))
        config = assign(child(self._file.root, "config"), [self._written(full), *rest], make_node(new))
        assign(self._file.root, ["config"], config)

    def remove(self, key: str, *, path: bool = False) -> None:
        """Remove ``key``, or with ``path`` a place inside it, if it is set."""
        full, rest = self._parse(key, path=path)
        discard(self._file.root, ["config", self._written(full), *rest])

    def reveal(self, value: ConfigValue, crypter: SecretsManager | None) -> str:
        """The text of ``value`` with its secrets decrypted."""
        if not value.secure:
            return value.value
        if not value.is_object:
            return _need(crypter).decrypt(value.value)
        return re.sub(r'\{"secure":"([^"]*)"\}', lambda match: to_json(_need(crypter).decrypt(match[1])), value.value)

    def decrypt_all(self, crypter: SecretsManager | None, *, validate: bool = True) -> tuple[dict[str, str], list[str]]:
        """The program's configuration: full keys with text or JSON, and the keys that hold secrets.

        Defaults of the project's ``config`` schema are applied and, with ``validate``, types are checked. ``crypter``
        may be None when there are no secrets. Raises ConfigError naming everything that is wrong, PassphraseError for a
        secret without a key.
        """
        values = self._trees()
        problems = self._apply_schema(values, crypter)
        if problems and validate:
            raise ConfigError(problems)
        texts = {key: _text(_decrypt(value, crypter)) for key, value in values.items()}
        return texts, [key for key, value in values.items() if _holds_secret(value)]

    def save(self) -> None:
        """Write the file, atomically."""
        self._file.save()

    def _apply_schema(self, values: dict[str, Tree], crypter: SecretsManager | None) -> list[str]:
        problems = []
        for key, declared in sorted(self._project.config_schema.items()):
            full, rest = self._parse(key, path=True)
            found, place = _lookup(values, [full, *rest])
            default = declared.value if declared.default is None else declared.default
            if found:
                node = self._node(full)
            elif default is not None:
                node = None
                place = default if isinstance(default, list | dict | float) else _text(default)
                new = make_node(coerce(place) if rest and isinstance(place, str) else place)
                values[full] = tree(assign(make_node(values.get(full)), rest, new, [full]))
            elif full.startswith(f"{self._project.name}:"):
                secret = "--secret " if declared.secret else ""
                problems.append(
                    f"{self.path}: {key} is not set, and the project needs it; run `config set {secret}{key} <value>`."
                )
                continue
            if declared.type and (problem := _type_problem(key, declared, place, crypter)):
                shown = _HIDDEN if declared.secret or _holds_secret(place) else _text(place)
                problems.append(self._file.locate(node, f"{key} = {shown}: {problem}"))
        return problems

    def _check(self) -> None:
        root = self._file.root
        problems = []
        config = child(root, "config")
        value = None if config is None else tree(config)
        if value is not None and not isinstance(value, dict):
            problems.append(
                self._file.locate(config, f"config = {_text(value)}: this should be a map of keys to values.")
            )
        for key in value if isinstance(value, dict) else ():
            try:
                self._project.full_key(key)
            except ConfigError as error:
                problems += [self._file.locate(child(config, key), problem) for problem in error.problems]
        for key in ("encryptionsalt", "secretsprovider", "encryptedkey"):
            node = child(root, key)
            if node is not None and not isinstance(tree(node), str):
                problems.append(self._file.locate(node, f"{key} = {_text(tree(node))}: this should be text."))
        if (environment := child(root, "environment")) is not None:
            problems.append(
                self._file.locate(
                    environment,
                    "environment: Pulumi ESC environments need Pulumi Cloud and are not supported; "
                    "put their values under config, or use the Pulumi CLI.",
                )
            )
        if problems:
            raise ConfigError(problems)

    def _trees(self) -> dict[str, Tree]:
        config = child(self._file.root, "config")
        values = _as_map(tree(config)) if config is not None else {}
        # In the CLI a key without a value is an empty string.
        return {self._project.full_key(key): "" if value is None else value for key, value in values.items()}

    def _parse(self, key: str, *, path: bool) -> tuple[str, Sequence[str | int]]:
        if not path:
            return self._project.full_key(key), ()
        start = re.search(r"(?<!^)[.\[]", key)
        cut = start.start() if start else len(key)
        namespace, _, name = self._project.full_key(key[:cut]).partition(":")
        first, *rest = parse_path(name + key[cut:])
        return f"{namespace}:{first}", rest

    def _written(self, full: str) -> str:
        """The full key as the file spells it, with or without the project's name."""
        config = child(self._file.root, "config")
        for key in _as_map(tree(config)) if config is not None else ():
            if self._project.full_key(key) == full:
                return key
        return full

    def _node(self, full: str) -> Node | None:
        return child(child(self._file.root, "config"), self._written(full))

    def _top(self, key: str) -> str | None:
        node = child(self._file.root, key)
        return None if node is None else str(tree(node))

    def _set_top(self, key: str, value: str | None) -> None:
        if value is None:
            discard(self._file.root, [key])
        else:
            assign(self._file.root, [key], make_node(value))


def config_for_history(
    config: Mapping[str, str], secret_keys: Sequence[str], crypter: SecretsManager | None
) -> dict[str, str | dict[str, str]]:
    """The configuration of an update for the history: secret values encrypted."""
    return {
        key: {"secure": _need(crypter).encrypt(value)} if key in secret_keys else value for key, value in config.items()
    }


def _long_form(project: str, key: str, value: object) -> object:
    if isinstance(value, dict) or value is None:
        return value
    return {"default" if _is_own(project, key) else "value": value}


def _is_own(project: str, key: str) -> bool:
    return ":" not in key or key.startswith(f"{project}:")


def _schema_problems(project: str, key: str, declared: ConfigType) -> list[str]:
    """Checks that a model's types cannot express; the rules are the CLI's."""
    problems = []
    if declared.default is not None and declared.value is not None:
        problems.append("give either a default or a value, not both.")
    if _is_own(project, key):
        if declared.type == "array" and declared.items is None:
            problems.append("an array needs the type of its items; add items.")
        elif declared.type and declared.default is not None and not _fits(declared, declared.default):
            problems.append(f"the default {_text(declared.default)} should be of type {declared.describe()}.")
        return problems
    if declared.type:
        problems.append("a key of another namespace should have no type; only the project's own keys are typed.")
    if declared.default is not None:
        problems.append("a key of another namespace should have a value, not a default.")
    elif declared.value is None:
        problems.append("a key of another namespace needs a value.")
    return problems


def _type_problem(key: str, declared: ConfigType, value: Tree, crypter: SecretsManager | None) -> str | None:
    if declared.secret and not _holds_secret(value):
        return f"this is a secret and should be encrypted; run `config set --secret {key}`."
    plain = _decrypt(value, crypter)
    if _fits(declared, plain if isinstance(plain, list | dict) else _text(plain)):
        return None
    return f"this should be of type {declared.describe()}."


def _fits(declared: ConfigType | ItemsType, value: Tree) -> bool:
    match declared.type:
        case "string":
            return isinstance(value, str)
        case "integer":
            if isinstance(value, str):
                return re.fullmatch(r"[-+]?[0-9]+", value) is not None
            return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        case "boolean":
            return isinstance(value, bool) or value in ("true", "false")
        case "object":
            return isinstance(value, dict)
    items = declared.items
    return isinstance(value, list) and items is not None and all(_fits(items, item) for item in value)


def _explain(file: YamlFile, error: ValidationError) -> list[str]:
    problems = []
    for detail in error.errors():
        node: Node | None = file.root
        known: list[str] = []
        for part in detail["loc"]:
            if (inner := child(node, part)) is None:
                break
            node = inner
            known.append(str(part))
        place = ".".join(known)
        last = str(detail["loc"][-1])
        match detail["type"]:
            case "missing":
                problem = f"{'.'.join(map(str, detail['loc']))} is missing; add it."
            case "extra_forbidden":
                problem = f"{place} is not a key that belongs here; remove it or correct its name{_nearest(last)}."
            case _:
                problem = f"{place} = {_text(detail['input'])}: {detail['msg'][0].lower()}{detail['msg'][1:]}."
        problems.append(file.locate(node, problem))
    return problems


def _nearest(name: str) -> str:
    models: tuple[type[BaseModel], ...] = (ConfigType, ItemsType, _Runtime, _Backend, _Options, _Plugin, _Plugins)
    close = difflib.get_close_matches(name, {field for model in models for field in model.model_fields}, 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def runtime_of(settings: Tree) -> tuple[Tree, Mapping[str, Any]]:
    """The name and the options of `runtime` in the file of a provider or a policy pack; `{}` without options."""
    runtime = _as_map(settings).get("runtime")
    if isinstance(runtime, dict):
        return runtime.get("name"), _as_map(runtime.get("options"))
    return runtime, {}


def find_virtualenv(root: Path, main: Path, options: Mapping[str, Any]) -> Path | None:
    """As the CLI's Python host does it: the option, else uv's ``.venv`` next to the nearest ``uv.lock``."""
    if chosen := options.get("virtualenv"):
        return root / str(chosen)
    if options.get("toolchain", "uv") != "uv":
        return None
    folder = main.resolve() if main.is_dir() else main.resolve().parent
    for candidate in (folder, *folder.parents):
        if (candidate / "uv.lock").is_file():
            return candidate / os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv")
    return folder / ".venv" if "toolchain" in options else None


def _lookup(value: Tree, path: Sequence[str | int]) -> tuple[bool, Tree]:
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return False, None
    return True, value


def _as_map(value: Tree) -> dict[str, Tree]:
    return value if isinstance(value, dict) else {}


def _text(value: Tree) -> str:
    return value if isinstance(value, str) else to_json(value)


def _holds_secret(value: Tree) -> bool:
    if isinstance(value, list | dict):
        return any(_holds_secret(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, Secure)


def _decrypt(value: Tree, crypter: SecretsManager | None) -> Tree:
    match value:
        case Secure(ciphertext):
            return _need(crypter).decrypt(ciphertext)
        case dict():
            return {key: _decrypt(item, crypter) for key, item in value.items()}
        case list():
            return [_decrypt(item, crypter) for item in value]
    return value


def _config_value(value: Tree) -> ConfigValue:
    if isinstance(value, Secure):
        return ConfigValue(value.ciphertext, secure=True, is_object=False)
    return ConfigValue(_text(value), secure=_holds_secret(value), is_object=isinstance(value, list | dict))


def _need(crypter: SecretsManager | None) -> SecretsManager:
    if crypter is None:
        raise missing_passphrase()
    return crypter
