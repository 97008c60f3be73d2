"""The form of a deployment of version 3 (``apitype.UntypedDeployment`` in pulumi/pulumi), checked before it is used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from .errors import EngineError
from .integrity import summary
from .urn import is_valid

Json = dict[str, Any]


def _valid_urn(urn: str) -> str:
    if not is_valid(urn):
        raise ValueError("this is not a URN")
    return urn


def _valid_reference(reference: str) -> str:
    if reference and not is_valid(reference.rpartition("::")[0]):
        raise ValueError("this is not a reference to a provider, <urn>::<id>")
    return reference


Urn = Annotated[str, AfterValidator(_valid_urn)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        """To Go, null is the same as nothing."""
        return (
            {key: value for key, value in content.items() if value is not None}
            if isinstance(content, dict)
            else content
        )


class _Resource(_Part):
    model_config = ConfigDict(alias_generator=to_camel)

    urn: Urn
    type: str = Field(min_length=1)
    custom: bool = False
    delete: bool = False
    id: str = ""
    inputs: Json = {}
    outputs: Json = {}
    parent: str = ""
    protect: bool = False
    taint: bool = False
    external: bool = False
    dependencies: list[str] = []
    init_errors: list[str] = []
    provider: Annotated[str, AfterValidator(_valid_reference)] = ""
    property_dependencies: dict[str, list[str] | None] = {}
    pending_replacement: bool = False
    additional_secret_outputs: list[str] = []
    aliases: list[str] = []
    custom_timeouts: dict[str, float] = {}
    import_id: str = Field("", alias="importID")
    retain_on_delete: bool = False
    deleted_with: str = ""
    replace_with: list[str] = []
    created: str = ""
    modified: str = ""
    source_position: str = ""
    ignore_changes: list[str] = []
    replace_on_changes: list[str] = []
    refresh_before_update: bool = False
    resource_hooks: dict[str, list[str]] = {}


class _PendingOperation(_Part):
    type: str
    resource: _Resource


class _Manifest(_Part):
    magic: str = ""
    version: str = ""
    time: str = ""
    plugins: list[Json] = []


class _SecretsProvider(_Part):
    type: str = ""
    state: Json = {}


class _Inner(_Part):
    manifest: _Manifest = _Manifest()
    secrets_providers: _SecretsProvider = _SecretsProvider()
    resources: list[_Resource] = []
    pending_operations: list[_PendingOperation] = []


class _Deployment(_Part):
    version: Literal[3, 4]
    deployment: _Inner


def parse(content: Any) -> Json:
    """The deployment that ``content`` is, which is parsed JSON.

    Raises :class:`EngineError` naming everything that is wrong with its form.
    """
    try:
        _Deployment.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise EngineError(
            f"this is not a version-3 deployment:\n{summary(problems)}",
            remedy='it should look like {"version": 3, "deployment": {...}}, as `lab state export` writes it',
        ) from None
    deployment: Json = content
    return deployment
