"""Manifests and live objects as values: identity, names, differences. Makes no calls.

The rules are those of the official plugin: what replaces an object (its provider/pkg/provider/diff.go), automatic names
(pkg/metadata/naming.go), annotations (pkg/metadata/annotations.go).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from providers.schema import Difference, property_path
from providers.values import UNKNOWN, Secret, Unknown, mark_secrets, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from providers.values import Properties

Object: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str | int, ...]

INPUTS: Final = "__inputs"
MANAGER: Final = "__fieldManager"
API_VERSION: Final = "__initialApiVersion"
"""Keys that the official plugin adds to the live object in a resource's state."""
AUTONAMED: Final = "pulumi.com/autonamed"
AUTONAME_DIGITS: Final = 8
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
READ_ONLY: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
"""Metadata that only the server sets; exported manifests have it."""
_X_KUBERNETES: Final = re.compile(r"x_kubernetes_\w+")


IDENTITY: Final = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True)
class Identity:
    """An object's identity; ``namespace`` is empty for cluster-scoped ones."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def group(self) -> str:
        """The API group; empty for the core's."""
        return self.api_version.rpartition("/")[0]

    @property
    def id(self) -> str:
        """The resource's id, ``namespace/name`` or ``name``."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


def parse_token(token: str, inputs: Mapping[str, Any]) -> tuple[str, str, bool]:
    """The apiVersion, the kind, and whether it is a Patch: ``kubernetes:apps/v1:DeploymentPatch`` with kind Deployment.

    Where the inputs have no kind (an import), it is taken from the token.
    """
    _, version, name = token.split(":")
    given = plain(inputs.get("kind"))
    kind = given if isinstance(given, str) else name.removesuffix("Patch")
    api_version = plain(inputs.get("apiVersion"))
    if not isinstance(api_version, str):
        api_version = version
    return api_version.removeprefix("core/"), kind, name == f"{kind}Patch"


def to_object(inputs: Mapping[str, Any]) -> Object:
    """Inputs in the API's form: without nulls, bookkeeping and secret marks, ``x-kubernetes-*`` under its own name."""
    return dict(
        without_nulls(
            {key: plain(value) for key, value in inputs.items() if not key.startswith("__")},
            lambda key: key.replace("_", "-") if _X_KUBERNETES.fullmatch(key) else key,
        )
    )


def from_object(live: Mapping[str, Any]) -> Properties:
    """A live object as outputs. Without ``managedFields``, which would be most of the state."""
    kept = {**live, "metadata": {key: value for key, value in live["metadata"].items() if key != "managedFields"}}
    return dict(without_nulls(kept, lambda key: key.replace("-", "_") if key.startswith("x-kubernetes-") else key))


def without_nulls(value: Any, name: Callable[[str], str] = str) -> Any:
    """A tree without nulls, with keys changed by ``name``."""
    if isinstance(value, dict):
        return {name(key): without_nulls(item, name) for key, item in value.items() if item is not None}
    return [without_nulls(item, name) for item in value] if isinstance(value, list) else value


def annotations_of(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its annotations, as far as they are known."""
    found = get(plain(inputs), "metadata", "annotations")
    return found if isinstance(found, dict) else {}


def flagged(inputs: Mapping[str, Any], annotation: str) -> bool:
    """Whether ``pulumi.com/<annotation>`` is ``"true"``."""
    return annotations_of(inputs).get(f"pulumi.com/{annotation}") == "true"


def get(value: Any, *path: str) -> Any:
    """The value at the path; None where there is none."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def is_secret(kind: str, properties: Mapping[str, Any]) -> bool:
    """Whether it is a core Secret."""
    return kind == "Secret" and properties.get("apiVersion") in {"v1", "core/v1", None}


def mark(properties: Properties, inputs: Properties) -> Properties:
    """Mark as secret what is secret in the inputs, and a Secret's data in any form."""
    marked = mark_secrets(properties, inputs)
    if is_secret(str(plain(marked.get("kind"))), marked):
        for key in ("data", "stringData"):
            if key in marked and not isinstance(marked[key], Secret):
                marked[key] = Secret(marked[key])
        if LAST_APPLIED in annotations_of(marked):
            metadata = plain(marked["metadata"])
            metadata["annotations"][LAST_APPLIED] = Secret(metadata["annotations"][LAST_APPLIED])
            marked["metadata"] = metadata
    return marked


def changes(old: Any, new: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Where two trees differ, item by item; None stands for a missing value."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from changes(old.get(key), new.get(key), (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        for index, (before, after) in enumerate(zip_longest(old, new)):
            yield from changes(before, after, (*path, index))
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield path, old, new


def differences(old: Object, new: Object, replaces: Iterable[str] = IDENTITY) -> Iterator[Difference]:
    """Where the manifest ``new`` differs from ``old``; a change at or below one of ``replaces`` replaces the object."""
    rules = [rule.split(".") for rule in replaces]
    for path, before, after in changes(old, new):
        kind = "ADD" if before is None else "DELETE" if after is None else "UPDATE"
        forces = any(_touches(rule, path, before, after) for rule in rules)
        yield Difference(property_path(path), kind, forces)


def _touches(rule: list[str], path: Path, old: Any, new: Any) -> bool:
    """Whether a change at ``path`` is at or below ``rule``, or adds or removes a parent of it."""
    if any(step not in {"*", str(part)} for step, part in zip(rule, path, strict=False)):
        return False
    below = rule[len(path) :]
    return not isinstance(old, Unknown) and not isinstance(new, Unknown) and (_has(old, below) or _has(new, below))


def _has(value: Any, path: list[str]) -> bool:
    if not path:
        return value is not None
    if isinstance(value, list) and path[0] == "*":
        return any(_has(item, path[1:]) for item in value)
    return isinstance(value, dict) and _has(value.get(path[0]), path[1:])


def field_manager(urn: str, inputs: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """The field manager of a resource: that of its annotation or its state, or else one of its own.

    It is derived from the URN, so that what an interrupted create has made can be identified.
    """
    named = annotations_of(inputs).get("pulumi.com/patchFieldManager") or state.get(MANAGER)
    return str(named or f"pulumi-kubernetes-{hashlib.sha256(urn.encode()).hexdigest()[:8]}")


def settled(live: Object) -> Object:
    """An object without the fields that change at every write."""
    metadata = {
        key: value
        for key, value in live["metadata"].items()
        if key not in {"resourceVersion", "generation", "managedFields"}
    }
    return {**live, "metadata": metadata}


def adopt(given: Any, planned: Any, found: Any) -> Any:
    """The inputs after a refresh: as given where applying them would change nothing, else the cluster's values."""
    if planned == found:
        return given
    if isinstance(given, dict) and isinstance(planned, dict) and isinstance(found, dict):
        adopted = {key: adopt(item, planned.get(key), found.get(key)) for key, item in given.items()}
        return {key: item for key, item in adopted.items() if item is not None}
    lists = isinstance(given, list) and isinstance(planned, list) and isinstance(found, list)
    if lists and len(given) == len(planned) == len(found):
        return [adopt(*items) for items in zip(given, planned, found, strict=True)]
    return found


def import_inputs(live: Object) -> Properties:
    """The inputs of an imported object: all but its status and what the server sets."""
    inputs = {key: value for key, value in from_object(live).items() if key != "status"}
    metadata = {key: value for key, value in inputs["metadata"].items() if key not in READ_ONLY}
    own = {LAST_APPLIED, "deployment.kubernetes.io/revision"}
    if kept := {key: value for key, value in metadata.pop("annotations", {}).items() if key not in own}:
        metadata["annotations"] = kept
    return {**inputs, "metadata": metadata}


def unknown_where(tree: Any, value: str) -> Any:
    """The tree with all that is ``value`` unknown."""
    if isinstance(tree, dict):
        return {key: unknown_where(item, value) for key, item in tree.items()}
    if isinstance(tree, list):
        return [unknown_where(item, value) for item in tree]
    return UNKNOWN if tree == value else tree
