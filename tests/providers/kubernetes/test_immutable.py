"""What the list of immutable fields says is what the API server says, of every built-in kind of kinds.yaml."""

from __future__ import annotations

import copy
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kubeyaml
from providers.kubernetes import objects, replacing
from providers.kubernetes.client import ClusterError
from providers.kubernetes.objects import Identity, get
from providers.values import plain
from tests.engine.harness import wait_for
from tests.providers.kubernetes.conftest import EXECUTABLE
from tests.providers.kubernetes.pki import authority, signing_request
from tests.providers.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from providers.kubernetes.objects import Object
    from tests.providers.kubernetes.control_plane import ControlPlane
    from tests.providers.plugin import Resource

pytestmark = pytest.mark.slow_cluster


@dataclass(frozen=True)
class Sample:
    """An object of a kind, and its changes."""

    api_version: str
    kind: str
    number: int
    name: str
    manifest: Object
    changes: Object
    bound: bool
    established: bool

    def __str__(self) -> str:
        return f"{self.kind}-{self.number}"


@functools.cache
def words() -> dict[str, str]:
    return {
        "REQUEST": signing_request("a"),
        "OTHER REQUEST": signing_request("b"),
        "CERTIFICATE": authority("a"),
        "OTHER CERTIFICATE": authority("b"),
    }


(LISTED,) = kubeyaml.read_documents((Path(__file__).parent / "kinds.yaml").read_text())


def samples() -> Iterator[Sample]:
    for number, entry in enumerate(LISTED):
        api_version, _, kind = entry["kind"].rpartition(" ")
        flags = {flag: bool(entry.get(flag)) for flag in ("bound", "established")}
        if "sample" in entry:
            name = entry.get("name", "NAME")
            yield Sample(api_version, kind, number, name, entry["sample"], entry["changes"], **flags)


SAMPLES = tuple(samples())


def filled(value: Any, names: dict[str, str]) -> Any:
    """The value with the words of kinds.yaml in capitals replaced."""
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    if isinstance(value, str):
        if value in words():
            return words()[value]
        return functools.reduce(lambda text, word: text.replace(word, names[word]), names, value)
    return value


def changed(manifest: Object, path: str, value: Any) -> Object:
    """The manifest with another value at a path; `*` is the first element of a list."""
    made = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    holder: Any = made
    for part in parents:
        holder = holder[0] if part == "*" else holder.setdefault(part, {})
    holder.pop(last, None)
    if value is not None:
        holder[last] = value
    return made


def refuses(error: ClusterError) -> bool:
    """Whether the server says that a field cannot be changed, rather than that its value is bad."""
    causes = error.causes or [{"message": error.said}]
    return any(replacing.REFUSAL.search(cause.get("message", "")) for cause in causes)


def token(sample: Sample) -> str:
    version = sample.api_version if "/" in sample.api_version else f"core/{sample.api_version}"
    return f"kubernetes:{version}:{sample.kind}"


def make(
    control_plane: ControlPlane, plugin: Plugin, sample: Sample, names: dict[str, str]
) -> tuple[Identity, Resource]:
    """The sample in the cluster."""
    cluster = control_plane.cluster
    manifest, name = filled(sample.manifest, names), filled(sample.name, names)
    target = cluster.identify(sample.api_version, sample.kind, names["NAMESPACE"], name)
    if sample.bound:
        provide(control_plane, names, manifest)
    metadata = {"name": name, "namespace": names["NAMESPACE"], "annotations": {"pulumi.com/skipAwait": "true"}}
    made = plugin.create(token(sample), {**manifest, "metadata": metadata})
    if sample.bound:
        wait_for(lambda: get(cluster.find(target), "status", "phase") == "Bound", "the claim")
    if sample.established:
        wait_for(lambda: _established(cluster.find(target) or {}), "the definition")
    return target, made


def _established(live: Object) -> bool:
    conditions = get(live, "status", "conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def provide(control_plane: ControlPlane, names: dict[str, str], claim: Object) -> None:
    """A storage class that lets claims grow, and a volume for the claim."""
    name = names["NAME"]
    control_plane.post(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": "test/none",
            "allowVolumeExpansion": True,
        }
    )
    control_plane.post(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": claim["spec"]["accessModes"],
                "storageClassName": name,
                "claimRef": {"namespace": names["NAMESPACE"], "name": name},
                "csi": {"driver": "test", "volumeHandle": "a"},
            },
        }
    )


def answer(control_plane: ControlPlane, target: Identity, manifest: Object, manager: str) -> str:
    """What becomes of a change: `taken`, `refused` as one that nobody may make, `kept` as it was, or other words."""
    cluster = control_plane.cluster
    live = cluster.find(target) or {}
    try:
        planned = cluster.apply(target, objects.to_object(manifest), manager, force=True, dry_run=True)
    except ClusterError as error:
        return "refused" if refuses(error) else error.said
    return "kept" if objects.settled(planned) == objects.settled(live) else "taken"


@pytest.fixture(scope="module")
def mutable(control_plane: ControlPlane) -> Iterator[Plugin]:
    """A plugin that changes ConfigMaps and Secrets in place, as far as the server lets it."""
    with Plugin({"PATH": os.environ["PATH"]}, EXECUTABLE) as running:
        flags = {"enableConfigMapMutable": "true", "enableSecretMutable": "true"}
        running.configure(kubeconfig=str(control_plane.kubeconfig), **flags)
        yield running


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_the_list_and_previews_are_the_servers(
    control_plane: ControlPlane, mutable: Plugin, sample: Sample, namespace: str
) -> None:
    names = {"NAMESPACE": namespace, "NAME": f"sample-{sample.number}"}
    target, made = make(control_plane, mutable, sample, names)
    answers, replaced = {}, set()
    for path, value in filled(sample.changes, names).items():
        manifest = changed(made.inputs, path, value)
        answers[path] = answer(control_plane, target, manifest, made.outputs["__fieldManager"])
        if mutable.diff(made, plain(manifest)).replaces:
            replaced.add(path)
    assert not {path: answer for path, answer in answers.items() if answer not in {"taken", "refused", "kept"}}
    immutable = {path for path, answer in answers.items() if answer != "taken"}
    assert (
        answers.keys() & set(replacing.immutable_fields(sample.api_version, sample.kind, sample.manifest)) == immutable
    )
    assert replaced == immutable


def test_every_field_of_every_kind_is_tried(control_plane: ControlPlane) -> None:
    """Of the kinds that the server serves by default, and lets be made and changed."""
    tried: dict[tuple[str, str], set[str]] = {}
    for entry in LISTED:
        api_version, _, kind = entry["kind"].rpartition(" ")
        untried = [path for paths in entry.get("untried", {}) for path in paths.split()]
        tried.setdefault((api_version, kind), set()).update([*entry.get("changes", {}), *untried])
    missing = []
    for api_version, kind, fields in served(control_plane):
        known = tried.get((api_version, kind), set())
        if "*" not in known:
            missing += [f"{api_version} {kind} {field}" for field in sorted(fields - known)]
    assert not missing


def test_every_rule_is_tried() -> None:
    tried = {(entry["kind"], path) for entry in LISTED for path in entry.get("changes", {})}
    tried |= {(entry["kind"], path) for entry in LISTED for paths in entry.get("untried", {}) for path in paths.split()}
    for (group, kind), rules in replacing.IMMUTABLE.items():
        version = f"{group}/v1" if group else "v1"
        assert {(f"{version} {kind}", rule) for rule in rules} <= tried


def served(control_plane: ControlPlane) -> Iterator[tuple[str, str, set[str]]]:
    """Each kind of the server, with the fields that say what an object of it is."""

    def asked(url: str, **options: str) -> Object:
        text = control_plane.cluster.request("schemas", "GET", url, **options)
        return dict(json.loads(text) if isinstance(text, str) else text)

    for path, where in asked("/openapi/v3")["paths"].items():
        _, _, api_version = path.partition("/")
        if path.count("/") != (1 if path.startswith("api/") else 2) or api_version.endswith(".example/v1"):
            continue
        url, _, query = where["serverRelativeURL"].partition("?")
        found = asked(url, **dict([query.split("=", 1)]))
        schemas = found.get("components", {}).get("schemas", {})
        for at, methods in found["paths"].items():
            collection = found["paths"].get(at.rpartition("/")[0], {})
            body = methods.get("put", {}).get("requestBody")
            if not body or "delete" not in methods or "post" not in collection:
                continue
            whole = _schema(schemas, next(iter(body["content"].values()))["schema"])
            fields = whole["properties"].keys() - {"apiVersion", "kind", "metadata", "status", "spec"}
            spec = _schema(schemas, whole["properties"].get("spec", {})).get("properties", {})
            kind = methods["put"]["x-kubernetes-group-version-kind"]["kind"]
            yield api_version, kind, {*fields, *(f"spec.{name}" for name in spec)}


def _schema(schemas: Object, reference: Object) -> Object:
    """What a reference names."""
    name = next((one["$ref"] for one in [reference, *reference.get("allOf", ())] if "$ref" in one), "")
    return dict(schemas.get(name.rpartition("/")[2], {}))
