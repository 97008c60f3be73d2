"""Objects that this stack made before a GitOps controller took them over: it leaves them alone from then on."""

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import ResourceOptions

COMPONENT = "ml-cluster:infra:Platform"
"""Type of the component that declares the platform's objects."""


@dataclass(frozen=True)
class LeftAlone:
    """An object of the state that a controller applies now."""

    type: str
    name: str
    properties: tuple[str, ...]
    """Its properties at the top level: `spec`, `data`..."""

    def options(self) -> ResourceOptions:
        """Options with which no update changes it, and leaving the stack does not delete it."""
        return ResourceOptions(ignore_changes=list(self.properties), retain_on_delete=True)


def read_objects() -> list[LeftAlone]:
    """The platform's objects in this stack's state; empty for a new stack."""
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    result = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": name}).value or {}
    resources: dict[str, dict[str, Any]] = result.get("outputs") or {}
    found = []
    for urn, details in resources.items():
        _, _, types, resource = urn.split("::", 3)
        parent, _, type_ = types.rpartition("$")
        if parent.endswith(COMPONENT) and type_.startswith("kubernetes:"):
            properties = [key for key in details["outputs"] if not key.startswith("__") and key != "status"]
            found.append(LeftAlone(type_, resource, tuple(sorted(properties))))
    return found
