"""Is a deployment fit to be a stack's state? The checks of `pulumi stack import` and `Snapshot.VerifyIntegrity`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cli.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Resource(_Part):
    """What the checks read of a resource."""

    urn: str = Field(min_length=1)
    type: str = Field(min_length=1)
    custom: bool = False
    id: str = ""
    delete: bool = False
    pendingReplacement: bool = False  # noqa: N815 - the name in the file
    parent: str = ""
    provider: str = ""
    dependencies: list[str] | None = None
    propertyDependencies: dict[str, list[str] | None] | None = None  # noqa: N815
    deletedWith: str = ""  # noqa: N815

    def needs(self) -> Iterator[tuple[str, str]]:
        """What has to come before it, and as what."""
        if self.parent:
            yield "parent", self.parent
        yield from (("dependency", urn) for urn in self.dependencies or ())
        for name, urns in (self.propertyDependencies or {}).items():
            yield from ((f"dependency of property '{name}'", urn) for urn in urns or ())
        if self.deletedWith:
            yield "deletedWith", self.deletedWith


class PendingOperation(_Part):
    """An operation that was cut off."""

    type: str
    resource: Resource


class Manifest(_Part):
    """Who wrote the deployment; `magic` is the SHA-256 of `version`."""

    magic: str = ""
    version: str = ""


class Inner(_Part):
    """The state itself."""

    manifest: Manifest = Manifest()
    resources: list[Resource] | None = None
    pending_operations: list[PendingOperation] | None = None


class Deployment(_Part):
    """`apitype.UntypedDeployment` of version 3."""

    version: Literal[3]
    deployment: Inner


def parse(content: Any) -> Deployment:
    """The deployment in `content`, which is parsed JSON.

    Raises:
        LabError: it is none; all faults of form at once.
    """
    try:
        return Deployment.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise LabError(
            "this is not a version-3 deployment:\n" + "\n".join(f"  {fault}" for fault in faults),
            remedy='it should look like {"version": 3, "deployment": {...}}, as `lab state export` writes it',
        ) from None


def faults(deployment: Deployment, project: str, stack: str) -> Iterator[str]:
    """What speaks against `deployment` as the state of `stack`."""
    resources = deployment.deployment.resources or []
    for resource in resources:
        theirs = resource.urn.removeprefix("urn:pulumi:").split("::")
        if theirs[0] != stack:
            yield f"resource '{resource.urn}' is from a different stack ({theirs[0]} != {stack})"
        elif theirs[1:2] != [project]:
            yield f"resource '{resource.urn}' is from a different project ({''.join(theirs[1:2])} != {project})"
    yield from (f"state file contains errors: {damage}" for damage in _damage(deployment.deployment, resources))


def _damage(inner: Inner, resources: list[Resource]) -> Iterator[str]:
    version = inner.manifest.version
    if inner.manifest.magic != (hashlib.sha256(version.encode()).hexdigest() if version else ""):
        yield "magic cookie mismatch; possible tampering/corruption detected"
    everything = {resource.urn for resource in resources}
    seen: set[str] = set()
    live: set[str] = set()
    providers: set[str] = set()
    for resource in resources:
        if resource.type.startswith("pulumi:providers:"):
            providers.add(f"{resource.urn}::{resource.id}")
        if not resource.custom and resource.id:
            yield f"resource '{resource.urn}' has 'custom' false but non-empty ID"
        if resource.provider and resource.provider not in providers and not resource.pendingReplacement:
            yield f"resource {resource.urn} refers to unknown provider {resource.provider}"
        for role, urn in resource.needs():
            if urn not in seen:
                problem = "comes after it" if urn in everything else "is missing"
                yield f"resource {resource.urn}'s {role} {urn} {problem}"
        if not resource.delete:
            if resource.urn in live:
                yield f"duplicate resource {resource.urn} (not marked for deletion)"
            live.add(resource.urn)
        seen.add(resource.urn)
