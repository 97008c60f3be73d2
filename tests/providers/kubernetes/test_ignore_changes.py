"""What `ignoreChanges` names is left to whoever manages it, on a real API server."""

from __future__ import annotations

import base64
import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.kubernetes.test_cluster import CONFIG_MAP, DEPLOYMENT, SECRET, SERVICE, config_map, workload
from tests.providers.plugin import changed

if TYPE_CHECKING:
    from providers.kubernetes.objects import Object
    from tests.providers.kubernetes.control_plane import ControlPlane
    from tests.providers.plugin import Plugin, Resource

pytestmark = pytest.mark.slow_cluster

INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
IMAGE = "spec.template.spec.containers[0].image"
ANNOTATION = 'metadata.annotations["a.b/c"]'


def managers(live: Object, *path: str) -> set[str]:
    """Who manages the field at a path of FieldsV1."""
    found = set()
    for entry in live["metadata"]["managedFields"]:
        fields = entry["fieldsV1"]
        for key in path:
            fields = fields.get(key) if fields is not None else None
        if fields is not None:
            found.add(entry["manager"])
    return found


def containers(live: Object) -> dict[str, Object]:
    return {item["name"]: item for item in live["spec"]["template"]["spec"]["containers"]}


def asked_for(resource: Resource) -> Object:
    """What of an object is not its controllers' and the server's."""
    metadata = dict(resource.outputs["metadata"])
    annotations = {key: item for key, item in metadata.get("annotations", {}).items() if "kubernetes.io/" not in key}
    shown = {key: item for key, item in resource.outputs.items() if key in {"spec", "data"}}
    return {**shown, "annotations": annotations, "labels": metadata.get("labels")}


def updated(plugin: Plugin, made: Resource, inputs: dict[str, Any], *ignored: str) -> Resource:
    """An update beside what is ignored. Its preview shows the same, and nothing is left to do after it."""
    shown = plugin.update(made, inputs, preview=True, ignore=ignored)
    after = plugin.update(made, inputs, ignore=ignored)
    assert asked_for(shown) == asked_for(after)
    assert not changed(plugin.diff(after, inputs, ignored))
    return after


@pytest.mark.parametrize(
    "ignored",
    [
        IMAGE,
        "spec.template.spec.containers[*].image",
        'spec["template"].spec.containers[0]["image"]',
        "spec.template.spec.containers",
        "spec.template.spec.*",
        "spec",
    ],
)
def test_an_image_in_a_list(plugin: Plugin, control_plane: ControlPlane, namespace: str, ignored: str) -> None:
    inputs = workload(namespace, replicas=0)
    made = plugin.create(DEPLOYMENT, inputs)
    # As `kubectl set image` and image updaters do, and one that puts a container of its own before ours.
    (main,) = inputs["spec"]["template"]["spec"]["containers"]
    sidecar = {"name": "a-sidecar", "image": "registry/sidecar:1"}
    template = {"spec": {"containers": [sidecar, {**main, "image": "registry/web:theirs"}]}}
    control_plane.edit("Deployment", made.id, {"spec": {"template": template}}, "apps/v1", "updater")
    labelled = copy.deepcopy(inputs)
    labelled["metadata"]["labels"] = {"x": "y"}
    after = updated(plugin, made, labelled, ignored)
    live = control_plane.get("Deployment", made.id, "apps/v1") or {}
    assert containers(live)["main"]["image"] == "registry/web:theirs"
    assert containers(live)["main"]["resources"] == main["resources"]
    assert "a-sidecar" in containers(live)
    assert live["metadata"]["labels"] == {"x": "y"}
    element = ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"main"}')
    assert managers(live, *element, "f:image") == {"updater"}
    assert after.outputs["__fieldManager"] in managers(live, *element, "f:resources")
    # It is theirs to change again.
    template["spec"]["containers"][1]["image"] = "registry/web:newer"
    control_plane.edit("Deployment", made.id, {"spec": {"template": template}}, "apps/v1", "updater")
    labelled["metadata"]["labels"] = {"x": "z"}
    updated(plugin, after, labelled, ignored)
    live = control_plane.get("Deployment", made.id, "apps/v1") or {}
    assert containers(live)["main"]["image"] == "registry/web:newer"


@pytest.mark.parametrize("ignored", [ANNOTATION, 'metadata["annotations"]["a.b/c"]', "metadata.annotations"])
def test_a_key_with_dots(plugin: Plugin, control_plane: ControlPlane, namespace: str, ignored: str) -> None:
    inputs: dict[str, Any] = config_map(namespace, a="1")
    inputs["metadata"]["annotations"] = {"a.b/c": "ours", "other": "ours"}
    made = plugin.create(CONFIG_MAP, inputs)
    control_plane.edit("ConfigMap", made.id, {"metadata": {"annotations": {"a.b/c": "theirs"}}}, manager="theirs")
    labelled = copy.deepcopy(inputs)
    labelled["metadata"]["labels"] = {"x": "y"}
    after = updated(plugin, made, labelled, ignored)
    live = control_plane.get("ConfigMap", made.id) or {}
    assert live["metadata"]["annotations"] == {"a.b/c": "theirs", "other": "ours"}
    assert managers(live, "f:metadata", "f:annotations", "f:a.b/c") == {"theirs"}
    # What they take away stays away.
    control_plane.edit("ConfigMap", made.id, {"metadata": {"annotations": {"a.b/c": None}}}, manager="theirs")
    labelled["metadata"]["labels"] = {"x": "z"}
    updated(plugin, after, labelled, ignored)
    live = control_plane.get("ConfigMap", made.id) or {}
    assert live["metadata"]["annotations"] == {"other": "ours"}


def test_what_nobody_else_manages_stays(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs = workload(namespace, replicas=0)
    made = plugin.create(DEPLOYMENT, inputs)
    newer = workload(namespace, replicas=0, image="registry/web:2", minReadySeconds=1)
    newer["spec"]["template"]["spec"]["containers"].append({"name": "more", "image": "registry/more:1"})
    plugin.update(made, newer, ignore=("spec.template.spec.containers[*].image",))
    live = control_plane.get("Deployment", made.id, "apps/v1") or {}
    assert {name: item["image"] for name, item in containers(live).items()} == {
        "main": "registry/web:1",
        "more": "registry/more:1",
    }


def test_an_object_that_someone_else_has_made(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs = workload(namespace, replicas=0)
    posted = copy.deepcopy(inputs)
    posted["metadata"]["annotations"] = {"a.b/c": "theirs"}
    control_plane.post(posted, manager="theirs")
    found = plugin.import_(DEPLOYMENT, f"{namespace}/web")
    assert found
    inputs["metadata"]["annotations"] = {"a.b/c": "theirs"}
    control_plane.edit("Deployment", found.id, {"metadata": {"annotations": {"a.b/c": "newer"}}}, "apps/v1", "theirs")
    inputs["metadata"]["labels"] = {"x": "y"}
    after = updated(plugin, found, inputs, IMAGE, ANNOTATION)
    live = control_plane.get("Deployment", after.id, "apps/v1") or {}
    assert live["metadata"]["annotations"]["a.b/c"] == "newer"
    element = ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"main"}', "f:image")
    assert managers(live, *element) == managers(live, "f:metadata", "f:annotations", "f:a.b/c") == {"theirs"}


def test_what_the_official_plugin_made(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    """Its fields become ours before anything is left to others."""
    inputs = workload(namespace, replicas=0)
    control_plane.post(inputs, manager="pulumi-kubernetes")
    found = plugin.import_(DEPLOYMENT, f"{namespace}/web")
    assert found
    template = copy.deepcopy(inputs["spec"]["template"])
    template["spec"]["containers"][0]["image"] = "registry/web:theirs"
    control_plane.edit("Deployment", found.id, {"spec": {"template": template}}, "apps/v1", "updater")
    inputs["metadata"]["labels"] = {"x": "y"}
    updated(plugin, found, inputs, IMAGE)
    live = control_plane.get("Deployment", found.id, "apps/v1") or {}
    assert containers(live)["main"]["image"] == "registry/web:theirs"
    assert {entry["manager"] for entry in live["metadata"]["managedFields"]} >= {"updater"}


def test_another_name_as_a_manager(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs: dict[str, Any] = config_map(namespace, a="1", b="1")
    made = plugin.create(CONFIG_MAP, inputs)
    inputs["metadata"]["annotations"] = {"pulumi.com/patchFieldManager": "another"}
    plugin.update(made, {**inputs, "data": {"a": "2", "b": "1"}}, ignore=("data.a",))
    live = control_plane.get("ConfigMap", made.id) or {}
    assert live["data"] == {"a": "1", "b": "1"}
    assert managers(live, "f:data", "f:a") == {"another"}


@pytest.mark.parametrize("ignored", ["stringData.password", "stringData", "stringData.*"])
def test_words_of_a_secret(plugin: Plugin, control_plane: ControlPlane, namespace: str, ignored: str) -> None:
    inputs: dict[str, Any] = {
        "metadata": {"name": "login", "namespace": namespace},
        "stringData": {"password": "ours", "user": "ours"},
    }
    made = plugin.create(SECRET, inputs)
    control_plane.edit("Secret", made.id, {"stringData": {"password": "theirs"}}, manager="theirs")
    inputs["metadata"]["labels"] = {"x": "y"}
    plugin.update(made, inputs, ignore=(ignored,))
    live = control_plane.get("Secret", made.id) or {}
    assert {key: base64.b64decode(item).decode() for key, item in live["data"].items()} == {
        "password": "theirs",
        "user": "ours",
    }
    assert managers(live, "f:data", "f:password") == {"theirs"}


def test_lists_of_other_forms(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    """Ports, with two merge keys; an Ingress's rules, which are atomic; finalizers, which are a set."""
    ports = [{"name": "tcp", "port": 53, "targetPort": 1}, {"name": "udp", "port": 53, "protocol": "UDP"}]
    inputs: dict[str, Any] = {"metadata": {"name": "dns", "namespace": namespace}, "spec": {"ports": ports}}
    made = plugin.create(SERVICE, inputs)
    theirs = {"spec": {"ports": [{**ports[0], "targetPort": 2}, {**ports[1], "targetPort": 2}]}}
    control_plane.edit("Service", made.id, theirs, manager="theirs")
    inputs["metadata"]["labels"] = {"x": "y"}
    updated(plugin, made, inputs, "spec.ports[*].targetPort")
    live = control_plane.get("Service", made.id) or {}
    assert [item["targetPort"] for item in live["spec"]["ports"]] == [2, 2]

    backend = {"service": {"name": "web", "port": {"number": 80}}}
    paths = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    inputs = {
        "metadata": {"name": "web", "namespace": namespace, "annotations": {"pulumi.com/skipAwait": "true"}},
        "spec": {"rules": [{"host": "ours.example", **paths}]},
    }
    made = plugin.create(INGRESS, inputs, name="ingress")
    control_plane.edit(
        "Ingress", made.id, {"spec": {"rules": [{"host": "theirs.example", **paths}]}}, "networking.k8s.io/v1", "theirs"
    )
    inputs["metadata"]["labels"] = {"x": "y"}
    updated(plugin, made, inputs, "spec.rules[0].host")
    live = control_plane.get("Ingress", made.id, "networking.k8s.io/v1") or {}
    assert live["spec"]["rules"][0]["host"] == "theirs.example"
    assert managers(live, "f:spec", "f:rules") == {"theirs"}

    inputs = config_map(namespace, "held", a="1")
    inputs["metadata"]["finalizers"] = ["ours.example/hold", "theirs.example/hold"]
    made = plugin.create(CONFIG_MAP, inputs, name="held")
    control_plane.edit("ConfigMap", made.id, {"metadata": {"finalizers": ["ours.example/hold"]}}, manager="theirs")
    inputs["metadata"]["labels"] = {"x": "y"}
    updated(plugin, made, inputs, "metadata.finalizers[1]")
    live = control_plane.get("ConfigMap", made.id) or {}
    assert live["metadata"]["finalizers"] == ["ours.example/hold"]
