"""The state of a resource, and its form in a version-3 checkpoint (``apitype.ResourceV3`` in pulumi/pulumi)."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .urn import is_provider_type, split_reference
from .values import RESOURCE_SIG, SECRET_SIG, SIG, Properties, is_secret, reveal, secret, signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .secrets import SecretsManager

Json = dict[str, Any]


@dataclass(eq=False)
class State:
    """What the engine knows of one resource. Two states are the same only if they are one object."""

    type: str
    urn: str
    custom: bool = False
    delete: bool = False
    """Replaced by another resource of the same URN and waiting to be deleted."""
    id: str = ""
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    taint: bool = False
    """Replaced at the next update, as ``pulumi state taint`` asks."""
    external: bool = False
    """Read, not managed: never changed or deleted."""
    dependencies: list[str] = field(default_factory=list)
    init_errors: list[str] = field(default_factory=list)
    provider: str = ""
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    pending_replacement: bool = False
    """Already deleted for a replacement that is still to be created."""
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
    """Keys of the checkpoint that this engine has no use for, kept for whoever has."""

    def copy(self, **changes: Any) -> State:
        """A state of its own with some fields changed; properties may be changed without touching the original."""
        fresh = replace(self, **changes)
        fresh.inputs = copy.deepcopy(fresh.inputs)
        fresh.outputs = copy.deepcopy(fresh.outputs)
        return fresh

    @property
    def is_provider(self) -> bool:
        """Whether this resource is itself a provider."""
        return is_provider_type(self.type)

    def all_dependencies(self) -> Iterator[str]:
        """The URNs this resource must outlive nothing of: parent, provider, dependencies of any kind."""
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


def now() -> str:
    """The present moment as the checkpoint writes it."""
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
_VALUE_FIELDS = frozenset({"inputs", "outputs", "replacement_trigger"})


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
            if not value and name != "custom":
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
            if name is None:
                state.extra[key] = value
            elif name in _VALUE_FIELDS:
                setattr(state, name, self.decode_value(value))
            elif name == "custom_timeouts":
                state.custom_timeouts = {op: float(seconds) for op, seconds in (value or {}).items() if seconds}
            elif value is not None:
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
            # A checkpoint always has it; on the wire there is none for the version "".
            return record if signature(value) != RESOURCE_SIG else {"packageVersion": "", **record}
        if isinstance(value, list):
            return [self.encode_value(item) for item in value]
        return value

    def decode_value(self, value: Any) -> Any:
        """Decrypt the secrets in a value."""
        if is_secret(value):
            if "ciphertext" in value:
                plaintext = self._secrets.decrypt(value["ciphertext"])
                self._ciphertexts[plaintext] = value["ciphertext"]
            else:
                plaintext = value["plaintext"]
            return secret(json.loads(plaintext))
        if isinstance(value, dict):
            versionless = signature(value) == RESOURCE_SIG and not value.get("packageVersion")
            return {k: self.decode_value(item) for k, item in value.items() if k != "packageVersion" or not versionless}
        if isinstance(value, list):
            return [self.decode_value(item) for item in value]
        return value
