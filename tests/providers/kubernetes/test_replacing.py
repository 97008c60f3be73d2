"""What is replaced and what is changed in place, where it depends on more than the field, on a real API server."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.harness import wait_for
from tests.providers.kubernetes.test_cluster import CLAIM, DEFINITION, JOB, SERVICE, SKIP, definition
from tests.providers.plugin import CallError, changed

if TYPE_CHECKING:
    from tests.providers.kubernetes.control_plane import ControlPlane
    from tests.providers.plugin import Plugin

pytestmark = pytest.mark.slow_cluster


def job(namespace: str, **spec: Any) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}
    return {
        "metadata": {"name": "train", "namespace": namespace, "annotations": SKIP},
        "spec": {"parallelism": 0, "template": {"spec": pod}, **spec},
    }


def test_a_job_is_changed_as_far_as_the_server_lets_it(plugin: Plugin, namespace: str) -> None:
    inputs = job(namespace, suspend=True)
    made = plugin.create(JOB, inputs)
    placed = copy.deepcopy(inputs)
    placed["spec"]["template"]["spec"]["nodeSelector"] = {"gpu": "yes"}
    answer = plugin.diff(made, placed)
    assert (changed(answer), list(answer.replaces)) == ({"spec.template.spec.nodeSelector"}, []), "it is suspended"
    other = copy.deepcopy(inputs)
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "j"
    other["metadata"]["labels"] = {"x": "y"}
    answer = plugin.diff(made, other)
    assert list(answer.replaces) == ["spec"]
    assert answer.deleteBeforeReplace
    assert not plugin.diff(made, {**inputs, "spec": {**inputs["spec"], "parallelism": 1}}).replaces
    assert plugin.update(made, placed).outputs["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "yes"}


def test_another_spelling_of_what_is_immutable_replaces_nothing(plugin: Plugin, namespace: str) -> None:
    inputs = job(namespace)
    (container,) = inputs["spec"]["template"]["spec"]["containers"]
    container["resources"] = {"requests": {"cpu": "1000m"}}
    made = plugin.create(JOB, inputs)
    spelt = copy.deepcopy(inputs)
    spelt["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    assert not changed(plugin.diff(made, spelt))
    spelt["metadata"]["labels"] = {"x": "y"}
    answer = plugin.diff(made, spelt)
    assert "metadata.labels" in changed(answer)
    assert not answer.replaces


def test_a_claim_takes_a_volume_once(plugin: Plugin, namespace: str) -> None:
    inputs: dict[str, Any] = {
        "metadata": {"name": "data", "namespace": namespace, "annotations": SKIP},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    made = plugin.create(CLAIM, inputs)
    inputs["spec"]["volumeName"] = "one"
    assert not plugin.diff(made, inputs).replaces
    made = plugin.update(made, inputs)
    inputs["spec"]["volumeName"] = "two"
    assert list(plugin.diff(made, inputs).replaces) == ["spec"]


def test_what_an_import_has_found_replaces_nothing(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs: dict[str, Any] = {"metadata": {"name": "web", "namespace": namespace}, "spec": {"ports": [{"port": 80}]}}
    for manager in ("someone", "pulumi-kubernetes"):
        inputs["metadata"]["name"] = f"of-{manager}"
        control_plane.post({"apiVersion": "v1", "kind": "Service", **inputs}, manager=manager)
        found = plugin.import_(SERVICE, f"{namespace}/of-{manager}")
        assert found
        assert found.inputs["spec"]["clusterIP"]
        answer = plugin.diff(found, {**inputs, "spec": {"ports": [{"port": 81}]}})
        assert "spec.ports[0].port" in changed(answer)
        assert not answer.replaces


def test_an_address_that_was_given_and_is_taken_away(plugin: Plugin, namespace: str) -> None:
    inputs: dict[str, Any] = {
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
    }
    made = plugin.create(SERVICE, inputs)
    del inputs["spec"]["clusterIP"]
    assert list(plugin.diff(made, inputs).replaces) == ["spec"]


def test_rules_of_custom_kinds(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    """What a definition's own rules let no one change is replaced; invalid values are reported."""
    kind = definition(f"{namespace}.example")
    rule = {"type": "string", "x_kubernetes_validations": [{"rule": "self == oldSelf"}]}
    worded = {"rule": "self == oldSelf", "message": "the size is immutable"}
    size = {"type": "integer", "maximum": 10, "x_kubernetes_validations": [worded]}
    spec = {"type": "object", "properties": {"colour": rule, "size": size, "free": {"type": "integer", "maximum": 10}}}
    kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {"type": "object", "properties": {"spec": spec}}
    plugin.create(DEFINITION, kind, name="definition")
    inputs: dict[str, Any] = {
        "apiVersion": f"{namespace}.example/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": namespace},
        "spec": {"colour": "red", "size": 1, "free": 1},
    }
    token = f"kubernetes:{namespace}.example/v1:Widget"
    made = plugin.create(token, inputs)
    for change in ({"colour": "blue"}, {"size": 2}, {"colour": "blue", "size": 2, "free": 2}):
        answer = plugin.diff(made, {**inputs, "spec": {**inputs["spec"], **change}})
        assert changed(answer) == {f"spec.{name}" for name in change}
        assert list(answer.replaces) == ["spec"]
    kinds = plugin.diff(made, {**inputs, "spec": {**inputs["spec"], "colour": "blue", "free": 2}}).detailedDiff
    replacing = {path for path, item in kinds.items() if item.kind == item.UPDATE_REPLACE}
    assert replacing == {"spec.colour"}
    assert not plugin.diff(made, {**inputs, "spec": {**inputs["spec"], "free": 2}}).replaces
    bad = {**inputs, "spec": {**inputs["spec"], "colour": "blue", "free": 11}}
    assert not plugin.diff(made, bad).replaces, "it would fail after the old one is deleted"
    with pytest.raises(CallError, match=r"spec\.free: Invalid value"):
        plugin.update(made, bad, preview=True)
    wait_for(lambda: control_plane.get("Widget", made.id, f"{namespace}.example/v1"), "the object, still there")
