"""Lists resources with data that an update would delete, before the confirmation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DATA_TYPES = {
    "openstack:blockstorage/volume:Volume": ("volume", "its data is lost"),
    "openstack:objectstorage/container:Container": ("container", "its objects are lost"),
    "kubernetes:core/v1:PersistentVolumeClaim": ("volume claim", "its data is lost"),
}
"""Types of resources with data: name of the type, and the loss on deletion."""
DELETIONS = {"delete", "delete-replaced"}


def data_deleted(events: Iterable[Mapping[str, Any]]) -> str:
    """A line for each resource with data that a preview with these events deletes; empty without any."""
    lines = sorted(set(_deleted(events)))
    if not lines:
        return ""
    return "\n".join(["Deleted, with all data:", *(f"  {line}" for line in lines), "", ""])


def _deleted(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for event in events:
        step = event.get("resourcePreEvent", {}).get("metadata", {})
        old = step.get("old") or {}
        if step.get("op") not in DELETIONS or step.get("type") not in DATA_TYPES or old.get("retainOnDelete"):
            continue
        yield named({**old, "urn": step["urn"], "type": step["type"]})


def named(resource: Mapping[str, Any]) -> str:
    """What users call a resource of a state or a plan that is one of DATA_TYPES, and its size."""
    inputs = resource.get("inputs") or {}
    name = inputs.get("name") or (inputs.get("metadata") or {}).get("name") or resource["urn"].split("::")[-1]
    size = f", {inputs['size']} GB" if "size" in inputs else ""
    return f"{DATA_TYPES[resource['type']][0]} {name}{size}"
