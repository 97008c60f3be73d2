"""The state of a resource, and its form in a version-3 checkpoint (``apitype.ResourceV3`` in pulumi/pulumi)."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from protocol.signatures import RESOURCE_SIG, SECRET_SIG, SIG
from protocol.values import Properties, is_secret, secret, signature

from .errors import EngineError
from .urn import is_provider_type, split_reference
from .values import reveal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .secrets import SecretsManager

Json = dict[str, Any]


@dataclass(eq=False)
class State:
    """The state of one resource. States are compared by identity."""

    type: str
    urn: str
    custom: bool = False
    delete: bool = False
    """Replaced, and waiting to be deleted."""
    id: str = ""
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    taint: bool = False
    """Replaced at the next update, as ``pulumi state taint`` asks."""
    external: bool = False
    """Read, not managed: never updated or deleted."""
    dependencies: list[str] = field(default_factory=list)
    init_errors: list[str] = field(default_factory=list)
    provider: str = ""
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    pending_replacement: bool = False
    """Deleted already; its replacement is still to be created."""
    additional_secret_outputs: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    custom_timeouts: dict[str, float] = field(default_factory=dict)
    """Seconds for ``create``, ``update``, ``delete`` and ``read``."""
    import_id: str = ""
    retain_on_delete: bool = False
    deleted_with: str = ""
    replace_with: list[str] = field(default_factory=list)
    created: str = ""
    modified: str = ""
    source_position: str = ""
    ignore_changes: list[str] = field(default_factory=list)
    replace_on_changes: list[str] = field(default_factory=list)
    replacement_trigger: Any = None
    refresh_before_update: bool = False
    resource_hooks: dict[str, list[str]] = field(default_factory=dict)
    extra: Json = field(default_factory=dict)
    """Other keys of the checkpoint, which this engine preserves."""

    def copy(self, **changes: Any) -> State:
        """A copy with some fields changed; changes of its properties do not affect the original."""
        fresh = replace(self, **changes)
        fresh.inputs = copy.deepcopy(fresh.inputs)
        fresh.outputs = copy.deepcopy(fresh.outputs)
        return fresh

    @property
    def is_provider(self) -> bool:
        """Whether this resource is itself a provider."""
        return is_provider_type(self.type)

    def all_dependencies(self) -> Iterator[str]:
        """The URNs of all that this resource depends on: parent, provider, dependencies of any kind."""
        if self.parent:
            yield self.parent
        if self.provider:
            yield split_reference(self.provider)[0]
        yield from self.dependencies
        for urns in self.property_dependencies.values():
            yield from urns
        if self.deleted_with:
            yield self.deleted_with
        yield from self.replace_with

    def drop(self, urn: str) -> bool:
        """Remove every reference to a URN, except a provider reference; returns whether there were any."""
        before = (self.parent, self.dependencies, self.property_dependencies, self.deleted_with, self.replace_with)
        self.parent = "" if self.parent == urn else self.parent
        self.dependencies = [other for other in self.dependencies if other != urn]
        self.property_dependencies = {
            key: [other for other in urns if other != urn] for key, urns in self.property_dependencies.items()
        }
        self.deleted_with = "" if self.deleted_with == urn else self.deleted_with
        self.replace_with = [other for other in self.replace_with if other != urn]
        after = (self.parent, self.dependencies, self.property_dependencies, self.deleted_with, self.replace_with)
        return before != after


def now() -> str:
    """The current time in the form of a checkpoint."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# Field of State -> key of the checkpoint, in the order the checkpoint has them. Absent when falsy, but for `custom`.
_KEYS = {
    "urn": "urn",
    "custom": "custom",
    "delete": "delete",
    "id": "id",
    "type": "type",
    "inputs": "inputs",
    "outputs": "outputs",
    "parent": "parent",
    "protect": "protect",
    "taint": "taint",
    "external": "external",
    "dependencies": "dependencies",
    "init_errors": "initErrors",
    "provider": "provider",
    "property_dependencies": "propertyDependencies",
    "pending_replacement": "pendingReplacement",
    "additional_secret_outputs": "additionalSecretOutputs",
    "aliases": "aliases",
    "custom_timeouts": "customTimeouts",
    "import_id": "importID",
    "retain_on_delete": "retainOnDelete",
    "deleted_with": "deletedWith",
    "replace_with": "replaceWith",
    "created": "created",
    "modified": "modified",
    "source_position": "sourcePosition",
    "ignore_changes": "ignoreChanges",
    "replace_on_changes": "replaceOnChanges",
    "replacement_trigger": "replacementTrigger",
    "refresh_before_update": "refreshBeforeUpdate",
    "resource_hooks": "resourceHooks",
}
_FIELDS = {key: name for name, key in _KEYS.items()}
_LARGEST_NUMBER = int(sys.float_info.max)
_VALUE_FIELDS = frozenset({"inputs", "outputs", "replacement_trigger"})


_OUTLINE = (
    "urn",
    "custom",
    "delete",
    "id",
    "type",
    "parent",
    "dependencies",
    "provider",
    "property_dependencies",
    "pending_replacement",
    "aliases",
    "deleted_with",
    "replace_with",
)


def outline(state: State) -> Json:
    """The checkpoint form of a state without its values: its identity and its references."""
    return {_KEYS[name]: getattr(state, name) for name in _OUTLINE}


class Codec:
    """Turns states into checkpoint JSON and back; secrets are encrypted on the way out.

    A secret that did not change keeps its ciphertext, so that checkpoints differ only where the stack does.
    """

    def __init__(self, secrets: SecretsManager) -> None:
        self._secrets = secrets
        self._ciphertexts: dict[str, str] = {}

    def encode(self, state: State) -> Json:
        """The checkpoint form of a state."""
        record: Json = {}
        for name, key in _KEYS.items():
            value = getattr(state, name)
            # A trigger of 0, false or empty is still a trigger.
            if not value and name != "custom" and (name != "replacement_trigger" or value is None):
                continue
            if name in _VALUE_FIELDS:
                value = self.encode_value(value)
            elif name == "custom_timeouts":
                value = {op: int(seconds) if seconds.is_integer() else seconds for op, seconds in value.items()}
            record[key] = value
        record.update(state.extra)
        return record

    def decode(self, record: Mapping[str, Any]) -> State:
        """The state behind a record of a checkpoint."""
        state = State(type=record["type"], urn=record["urn"])
        for key, value in record.items():
            name = _FIELDS.get(key)
            if value is None:
                continue
            if name is None:
                state.extra[key] = value
            elif name in _VALUE_FIELDS:
                setattr(state, name, self.decode_value(value))
            elif name == "custom_timeouts":
                state.custom_timeouts = {op: float(seconds) for op, seconds in value.items() if seconds}
            elif name == "property_dependencies":
                state.property_dependencies = {key: urns or [] for key, urns in value.items()}
            else:
                setattr(state, name, value)
        return state

    def encode_value(self, value: Any) -> Any:
        """Encrypt the secrets in a value."""
        if is_secret(value):
            plaintext = json.dumps(reveal(value), separators=(",", ":"), ensure_ascii=False)
            ciphertext = self._ciphertexts.get(plaintext)
            if ciphertext is None:
                ciphertext = self._ciphertexts[plaintext] = self._secrets.encrypt(plaintext)
            return {SIG: SECRET_SIG, "ciphertext": ciphertext}
        if isinstance(value, dict):
            record = {key: self.encode_value(item) for key, item in value.items()}
            # A checkpoint always has it; on the wire it is absent for the version "".
            return record if signature(value) != RESOURCE_SIG else {"packageVersion": "", **record}
        if isinstance(value, list):
            return [self.encode_value(item) for item in value]
        return value

    def decode_value(self, value: Any) -> Any:
        """Decrypt the secrets in a value."""
        if is_secret(value):
            return secret(self._decode_secret(value))
        if isinstance(value, dict):
            versionless = signature(value) == RESOURCE_SIG and not value.get("packageVersion")
            return {k: self.decode_value(item) for k, item in value.items() if k != "packageVersion" or not versionless}
        if isinstance(value, list):
            return [self.decode_value(item) for item in value]
        if isinstance(value, int) and abs(value) >= _LARGEST_NUMBER:
            raise EngineError(f"the state has a number of {len(str(abs(value)))} digits, which no property can hold")
        return value

    def _decode_secret(self, value: Json) -> Any:
        ciphertext, plaintext = value.get("ciphertext"), value.get("plaintext")
        if isinstance(ciphertext, str):
            plaintext = self._secrets.decrypt(ciphertext)
            self._ciphertexts[plaintext] = ciphertext
        try:
            # In an export with plain-text secrets it is JSON, too.
            return json.loads(plaintext or "")
        except (ValueError, TypeError):
            raise EngineError(
                "the state has a secret that is damaged: it has neither a ciphertext nor a plaintext that is JSON",
                remedy="restore a backup of the state with `lab state import`",
            ) from None
