"""The plugin on a real API server: life cycles, ownership of fields, waiting, faults."""

from __future__ import annotations

import base64
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import empty_pb2

from providers.values import UNKNOWN, Secret, plain
from tests.engine.harness import wait_for
from tests.providers.kubernetes.conftest import EXECUTABLE
from tests.providers.kubernetes.control_plane import NODE, running
from tests.providers.plugin import CallError, Plugin, Resource, changed

if TYPE_CHECKING:
    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
CONFIG_MAP_PATCH = "kubernetes:core/v1:ConfigMapPatch"
SECRET = "kubernetes:core/v1:Secret"  # noqa: S105
SERVICE = "kubernetes:core/v1:Service"
NAMESPACE = "kubernetes:core/v1:Namespace"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
QUOTA = "kubernetes:core/v1:ResourceQuota"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
JOB = "kubernetes:batch/v1:Job"
DEFINITION = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"
SKIP = {"pulumi.com/skipAwait": "true"}


def workload(namespace: str, name: str = "web", *, image: str = "registry/web:1", **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    containers = [{"name": "main", "image": image, "resources": {"requests": {"cpu": "100m"}}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            **spec,
        },
    }


def config_map(namespace: str, name: str = "settings", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


def definition(group: str) -> dict[str, Any]:
    schema = {"type": "object", "x_kubernetes_preserve_unknown_fields": True}
    return {
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


# Life cycles.


def test_life_of_a_config_map(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    made = plugin.create(CONFIG_MAP, {"metadata": {"namespace": namespace}, "data": {"a": "1"}})
    assert made.id.startswith(f"{namespace}/thing-")
    assert len(made.id) == len(f"{namespace}/thing-") + 8
    assert made.outputs["metadata"]["annotations"] == {"pulumi.com/autonamed": "true"}
    (entry,) = (control_plane.get("ConfigMap", made.id) or {})["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == (made.outputs["__fieldManager"], "Apply")

    same = {"metadata": {"namespace": namespace}, "data": {"a": "1"}}
    assert not changed(plugin.diff(made, same))
    labelled = {"metadata": {"namespace": namespace, "labels": {"x": "y"}}, "data": {"a": "1"}}
    answer = plugin.diff(made, labelled)
    assert (changed(answer), list(answer.replaces)) == ({"metadata.labels"}, [])
    after = plugin.update(made, labelled)
    assert after.outputs["metadata"]["labels"] == {"x": "y"}

    answer = plugin.diff(after, {**labelled, "data": {"a": "2"}})
    assert list(answer.replaces) == ["data"]
    assert not answer.deleteBeforeReplace, "its replacement has a name of its own"

    plugin.delete(after)
    assert control_plane.get("ConfigMap", made.id) is None
    plugin.delete(after)
    assert plugin.read(after) is None


def test_what_goes_from_the_inputs_goes_from_the_object(
    plugin: Plugin, control_plane: ControlPlane, namespace: str
) -> None:
    made = plugin.create(CONFIG_MAP, config_map(namespace, a="1", b="2"))
    control_plane.edit("ConfigMap", made.id, {"data": {"theirs": "3"}})
    plugin.update(made, config_map(namespace, a="1"))
    assert (control_plane.get("ConfigMap", made.id) or {})["data"] == {"a": "1", "theirs": "3"}


def test_a_given_name_is_deleted_before_it_is_made_again(plugin: Plugin, namespace: str) -> None:
    made = plugin.create(CONFIG_MAP, config_map(namespace, a="1"))
    assert plugin.diff(made, config_map(namespace, a="2")).deleteBeforeReplace
    assert plugin.preview(CONFIG_MAP, config_map(namespace, a="2"))["data"] == {"a": "2"}
    other = plugin.diff(made, config_map(namespace, "other", a="1"))
    assert (list(other.replaces), other.deleteBeforeReplace) == (["metadata"], False)


def test_values_that_mean_the_same_are_no_change(plugin: Plugin, namespace: str) -> None:
    inputs = workload(namespace, replicas=0)
    made = plugin.create(DEPLOYMENT, inputs)
    inputs["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "0.1"
    assert not changed(plugin.diff(made, inputs))
    inputs["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "0.2"
    assert changed(plugin.diff(made, inputs)) == {"spec.template.spec.containers[0].resources.requests.cpu"}


def test_refresh_tells_of_drift_in_what_was_given(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    made = plugin.create(DEPLOYMENT, workload(namespace, replicas=0))
    control_plane.edit("Deployment", made.id, {"metadata": {"labels": {"theirs": "1"}}}, "apps/v1")
    found = plugin.read(made)
    assert found
    assert found.inputs == made.inputs, "a label of someone else's is no drift"
    container = {"name": "main", "image": "registry/web:drifted"}
    pod = {"spec": {"template": {"spec": {"containers": [container]}}}}
    control_plane.edit("Deployment", made.id, pod, "apps/v1")
    wait_for(lambda: control_plane.observed("Deployment", made.id, "apps/v1"), "the controller")
    found = plugin.read(made)
    assert found
    assert found.inputs["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/web:drifted"
    assert found.inputs["spec"]["replicas"] == 0


def test_import(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    last = {"kubectl.kubernetes.io/last-applied-configuration": "planted"}
    data = {"password": base64.b64encode(b"planted").decode()}
    control_plane.post(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "login", "namespace": namespace, "annotations": last},
            "data": data,
        }
    )
    found = plugin.import_(SECRET, f"{namespace}/login")
    assert found
    assert found.inputs == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login", "namespace": namespace},
        "type": "Opaque",
        "data": Secret(data),
    }
    assert "planted" not in repr(found.outputs)
    assert not changed(plugin.diff(found, plain(found.inputs)))
    assert plugin.import_(SECRET, f"{namespace}/nobody") is None


def test_an_import_fits_a_program_that_says_less(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs = {"metadata": {"name": "web", "namespace": namespace}, "spec": {"ports": [{"port": 80}]}}
    control_plane.post({"apiVersion": "v1", "kind": "Service", **inputs})
    found = plugin.import_(SERVICE, f"{namespace}/web")
    assert found
    assert found.inputs["spec"]["clusterIP"].startswith("10.254.")
    assert not changed(plugin.diff(found, inputs))
    other = plugin.diff(found, {**inputs, "spec": {"ports": [{"port": 81}]}})
    assert "spec.ports[0].port" in changed(other)
    assert plugin.diff(found, {**inputs, "metadata": {"name": "web", "namespace": "default"}}).replaces


def test_a_secret_stays_one(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs = {"metadata": {"name": "login", "namespace": namespace}, "stringData": {"password": Secret("planted-1")}}
    made = plugin.create(SECRET, inputs)
    assert isinstance(made.outputs["data"], Secret)
    assert "planted" not in repr(made)
    control_plane.edit("Secret", made.id, {"stringData": {"password": "planted-2"}})
    found = plugin.read(made)
    assert found
    assert found.inputs["stringData"] == Secret({"password": "planted-2"})
    with pytest.raises(CallError) as caught:
        plugin.create(SECRET, {"metadata": {"namespace": namespace}, "data": {"password": "planted-3!"}}, name="bad")
    assert "planted" not in str(caught.value)
    assert not [line.message for line in plugin.engine.logs if "planted" in line.message]


def test_custom_resources(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    """A custom resource waits for its definition, which may be made at the same time."""
    token = "kubernetes:lab.example/v1:Widget"  # noqa: S105
    widget = {
        "apiVersion": "lab.example/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": namespace},
        "spec": {"size": 1},
    }
    assert plugin.preview(token, widget)["spec"] == {"size": 1}
    with ThreadPoolExecutor() as pool:
        early = pool.submit(plugin.create, token, widget)
        kind = plugin.create(DEFINITION, definition("lab.example"))
        made = early.result(60)
    version = kind.outputs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert version["x_kubernetes_preserve_unknown_fields"] is True
    assert made.id == f"{namespace}/w"
    after = plugin.update(made, {**widget, "spec": {"size": 2}})
    assert (control_plane.get("Widget", made.id, "lab.example/v1") or {})["spec"] == {"size": 2}
    plugin.delete(kind)
    assert plugin.read(after) is None, "a definition takes its objects along"
    plugin.delete(after)


# Names and ownership.


def test_what_exists_is_not_taken(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    control_plane.post({"apiVersion": "v1", "kind": "ConfigMap", **config_map(namespace, theirs="1")})
    for attempt in (plugin.preview, plugin.create):
        with pytest.raises(CallError, match=r"settings exists in the cluster[^$]*Import it") as caught:
            attempt(CONFIG_MAP, config_map(namespace, ours="1"))
        assert not caught.value.outcome_unknown
    assert (control_plane.get("ConfigMap", f"{namespace}/settings") or {})["data"] == {"theirs": "1"}


def test_upsert_takes_what_exists(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.post({"apiVersion": "v1", "kind": "ConfigMap", **config_map(namespace, theirs="1")})
    with Plugin({"PATH": os.environ["PATH"]}, EXECUTABLE) as plugin:
        plugin.configure(kubeconfig=control_plane.kubeconfig.read_text(), upsertExistingObjects="true")
        made = plugin.create(CONFIG_MAP, config_map(namespace, ours="1"))
    assert made.outputs["data"] == {"ours": "1", "theirs": "1"}


def test_a_conflict_names_field_and_owner(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    made = plugin.create(CONFIG_MAP, config_map(namespace, a="1"))
    control_plane.edit("ConfigMap", made.id, {"data": {"a": "theirs"}}, manager="someone-else")
    change = {**config_map(namespace, a="1"), "metadata": {"name": "settings", "namespace": namespace, "labels": {}}}
    for preview in (True, False):
        with pytest.raises(CallError) as caught:
            plugin.update(made, change, preview=preview)
        assert '.data.a: conflict with "someone-else"' in str(caught.value)
        assert "pulumi.com/patchForce" in str(caught.value)
    change["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    plugin.update(made, change)
    assert (control_plane.get("ConfigMap", made.id) or {})["data"] == {"a": "1"}


def test_patches_change_single_fields(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    control_plane.post({"apiVersion": "v1", "kind": "ConfigMap", **config_map(namespace, theirs="1")})
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    one = plugin.create(CONFIG_MAP_PATCH, {**kind, **config_map(namespace, one="1")}, name="one")
    two = plugin.create(CONFIG_MAP_PATCH, {**kind, **config_map(namespace, two="2")}, name="two")
    assert one.outputs["__fieldManager"] != two.outputs["__fieldManager"]
    with pytest.raises(CallError, match="conflict with"):
        plugin.create(CONFIG_MAP_PATCH, {**kind, **config_map(namespace, theirs="2")}, name="three")
    assert not plugin.diff(one, {**kind, **config_map(namespace, one="3")}).replaces
    one = plugin.update(one, {**kind, **config_map(namespace, uno="1")})
    assert (control_plane.get("ConfigMap", one.id) or {})["data"] == {"theirs": "1", "uno": "1", "two": "2"}
    plugin.delete(one)
    plugin.delete(two)
    assert (control_plane.get("ConfigMap", one.id) or {})["data"] == {"theirs": "1"}


def test_what_the_official_plugin_made_is_taken_over(
    plugin: Plugin, control_plane: ControlPlane, namespace: str
) -> None:
    """It creates with POST, under a field manager of another name than its updates have."""
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", **config_map(namespace, a="1", b="2")}
    control_plane.post(manifest, manager="pulumi-kubernetes")
    live = control_plane.get("ConfigMap", f"{namespace}/settings") or {}
    state = {**live, "__inputs": manifest, "__fieldManager": "pulumi-kubernetes-12345678"}
    made = Resource(CONFIG_MAP, "thing", f"{namespace}/settings", manifest, state)
    assert not changed(plugin.diff(made, config_map(namespace, a="1", b="2")))
    plugin.update(made, config_map(namespace, a="3"))
    live = control_plane.get("ConfigMap", made.id) or {}
    assert live["data"] == {"a": "3"}
    assert {entry["manager"] for entry in live["metadata"]["managedFields"]} == {"pulumi-kubernetes-12345678"}


def test_ignored_changes_leave_a_field_to_its_owner(
    plugin: Plugin, control_plane: ControlPlane, namespace: str
) -> None:
    made = plugin.create(DEPLOYMENT, {**workload(namespace, replicas=0)})
    control_plane.edit("Deployment", made.id, {"spec": {"replicas": 1}}, "apps/v1", manager="autoscaler")
    control_plane.edit("Deployment", made.id, {"spec": {"paused": True}}, "apps/v1")
    inputs = workload(namespace, replicas=0, minReadySeconds=1)
    assert changed(plugin.diff(made, inputs, ("spec.replicas",))) == {"spec.minReadySeconds"}
    plugin.update(made, inputs, ignore=("spec.replicas",))
    assert (control_plane.get("Deployment", made.id, "apps/v1") or {})["spec"]["replicas"] == 1


# Previews.


def test_previews_are_the_api_servers(plugin: Plugin, namespace: str) -> None:
    shown = plugin.preview(
        SERVICE,
        {
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}},
        },
    )
    assert shown["spec"]["type"] == "ClusterIP"
    assert shown["spec"]["clusterIP"] is UNKNOWN
    assert shown["metadata"]["uid"] is UNKNOWN
    assert "status" not in shown
    bad = workload(namespace, replicas=0, replcas=1)
    bad["spec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    with pytest.raises(CallError) as caught:
        plugin.preview(DEPLOYMENT, bad)
    for field in ("replcas", "imag"):
        assert field in str(caught.value)


def test_previews_of_what_is_not_there_yet(plugin: Plugin) -> None:
    assert plugin.preview(CONFIG_MAP, config_map("nowhere", a="1"))["data"] == {"a": "1"}
    assert plugin.preview(CONFIG_MAP, {**config_map("default"), "data": {"a": UNKNOWN}})["data"] == {"a": UNKNOWN}


def test_previews_change_nothing(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    made = plugin.create(CONFIG_MAP, config_map(namespace, a="1"))
    before = control_plane.get("ConfigMap", made.id)
    changed_inputs = {**config_map(namespace, a="1"), "binaryData": {"b": "AA=="}}
    assert plugin.update(made, changed_inputs, preview=True).outputs["binaryData"] == {"b": "AA=="}
    assert control_plane.get("ConfigMap", made.id) == before


# Waiting.


def in_background(plugin: Plugin, token: str, inputs: dict[str, Any], **options: Any) -> Any:
    return ThreadPoolExecutor(1).submit(plugin.create, token, inputs, **options)


def test_a_deployment_waits_for_its_pods(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    creating = in_background(plugin, DEPLOYMENT, workload(namespace, replicas=2))
    wait_for(lambda: len(control_plane.pods(namespace)) == 2, "the pods")
    assert not creating.done()
    control_plane.run_pods(namespace)
    made = creating.result(60)
    assert made.outputs["status"]["availableReplicas"] == 2
    # A rollout: the old pods stay available, which is not enough.
    updating = ThreadPoolExecutor(1).submit(
        plugin.update, made, workload(namespace, replicas=2, image="registry/web:2")
    )

    def rolled() -> bool:
        control_plane.run_pods(namespace)
        return bool(updating.done())

    wait_for(rolled, "the rollout")
    assert updating.result().outputs["status"]["updatedReplicas"] == 2


def test_a_deployment_that_fails_tells_why(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs = workload(namespace, replicas=1)
    creating = in_background(plugin, DEPLOYMENT, inputs, timeout=12)
    wait_for(lambda: control_plane.pods(namespace), "the pod")
    (item,) = control_plane.pods(namespace)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry/web:1"'}
    status = running(item, ready=False, state={"waiting": waiting})
    control_plane.report(
        "Pod", f"{namespace}/{item['metadata']['name']}", {**status, "phase": "Pending", "conditions": []}
    )
    control_plane.warn(item, "Failed", "registry: no such host")
    with pytest.raises(CallError) as caught:
        creating.result(60)
    message = str(caught.value)
    for part in (
        f"Deployment {namespace}/web is not ready after 12 s: 0 of 1 replicas available",
        'container main: ImagePullBackOff: Back-off pulling image "registry/web:1"',
        "Failed: registry: no such host (3 times)",
        "pulumi.com/timeoutSeconds",
    ):
        assert part in message
    partial = caught.value.partial
    assert partial
    assert partial.id == f"{namespace}/web"
    # The next update waits again; a refresh still tells that it is not ready.
    made = Resource(DEPLOYMENT, "thing", partial.id, plugin.check(DEPLOYMENT, inputs), {"__inputs": inputs, **inputs})
    with pytest.raises(CallError, match="is not ready: 0 of 1 replicas available") as caught:
        plugin.read(made)
    assert caught.value.partial
    control_plane.run_pods(namespace)
    wait_for(lambda: plugin.update(made, inputs), "the update")
    assert plugin.read(made)


def test_a_failed_job_fails_at_once(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    pod = {"containers": [{"name": "train", "image": "i"}], "restartPolicy": "Never"}
    inputs = {
        "metadata": {"name": "train", "namespace": namespace, "annotations": {"pulumi.com/replaceUnready": "true"}},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
    creating = in_background(plugin, JOB, inputs)
    wait_for(lambda: control_plane.pods(namespace), "the pod")
    (item,) = control_plane.pods(namespace)
    ended = {"terminated": {"exitCode": 3, "reason": "Error"}}
    control_plane.report(
        "Pod", f"{namespace}/{item['metadata']['name']}", {**running(item, ready=False, state=ended), "phase": "Failed"}
    )
    with pytest.raises(CallError) as caught:
        creating.result(60)
    assert "the Job failed: BackoffLimitExceeded" in str(caught.value)
    assert "container train: ended with exit code 3 (Error)" in str(caught.value)
    assert caught.value.partial
    made = Resource(
        JOB,
        "thing",
        f"{namespace}/train",
        plugin.check(JOB, inputs),
        control_plane.get("Job", f"{namespace}/train", "batch/v1") or {},
    )
    assert list(plugin.diff(made, inputs).replaces) == ["metadata"]


@pytest.mark.parametrize(
    ("expression", "status"),
    [
        ("condition=Ready", {"conditions": [{"type": "Ready", "status": "True"}]}),
        ("jsonpath={.status.phase}=Bound", {"phase": "Bound"}),
        (
            '["jsonpath={.status.phase}", "condition=Late=False"]',
            {"phase": "x", "conditions": [{"type": "Late", "status": "False"}]},
        ),
    ],
)
def test_wait_for_what_an_annotation_says(
    plugin: Plugin, control_plane: ControlPlane, namespace: str, expression: str, status: dict[str, Any]
) -> None:
    plugin.create(DEFINITION, definition(f"{namespace}.example"))
    widget = {
        "apiVersion": f"{namespace}.example/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": namespace, "annotations": {"pulumi.com/waitFor": expression}},
    }
    token = f"kubernetes:{namespace}.example/v1:Widget"
    with pytest.raises(CallError, match=r"is not ready after 2 s: (condition|\{\.status\.phase\}) "):
        plugin.create(token, widget, timeout=2)
    control_plane.edit("Widget", f"{namespace}/w", {"status": status}, f"{namespace}.example/v1")
    made = Resource(token, "thing", f"{namespace}/w", plugin.check(token, widget), dict(widget))
    assert plugin.update(made, widget).outputs["status"] == status


def test_claims_services_quotas(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    for name, mode in (("late", "WaitForFirstConsumer"), ("now", "Immediate")):
        storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "test/none"}
        control_plane.post({**storage, "metadata": {"name": name}, "volumeBindingMode": mode})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}

    def claim(name: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": namespace}, "spec": {**spec, "storageClassName": name}}

    plugin.create(CLAIM, claim("late"), name="late")
    with pytest.raises(CallError, match="no volume of storage class now is bound to it"):
        plugin.create(CLAIM, claim("now"), name="now", timeout=3)
    ports = [{"port": 80}]
    headless = {
        "metadata": {"namespace": namespace},
        "spec": {"clusterIP": "None", "ports": ports, "selector": {"a": "b"}},
    }
    plugin.create(SERVICE, headless, name="headless")
    balanced = {"metadata": {"name": "lb", "namespace": namespace}, "spec": {"type": "LoadBalancer", "ports": ports}}
    creating = in_background(plugin, SERVICE, balanced, name="balanced")
    wait_for(lambda: control_plane.get("Service", f"{namespace}/lb"), "the service")
    control_plane.report("Service", f"{namespace}/lb", {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})
    assert creating.result(60).outputs["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.1"
    quota = plugin.create(QUOTA, {"metadata": {"namespace": namespace}, "spec": {"hard": {"pods": "3"}}}, name="quota")
    assert quota.outputs["status"]["hard"] == {"pods": "3"}


def test_a_service_waits_for_pods_that_become_ready(
    plugin: Plugin, control_plane: ControlPlane, namespace: str
) -> None:
    inputs = workload(namespace, replicas=1)
    inputs["metadata"]["annotations"] = SKIP
    inputs["spec"]["template"]["spec"]["nodeName"] = NODE
    plugin.create(DEPLOYMENT, inputs)
    wait_for(lambda: control_plane.pods(namespace), "the pod")
    (item,) = control_plane.pods(namespace)
    pod = f"{namespace}/{item['metadata']['name']}"
    starting = {**running(item, ready=False), "conditions": [{"type": "Ready", "status": "False"}]}
    control_plane.report("Pod", pod, starting)
    service = {"metadata": {"namespace": namespace}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}
    with pytest.raises(CallError, match="0 of 1 endpoints ready"):
        plugin.create(SERVICE, service, name="early", timeout=4)
    creating = in_background(plugin, SERVICE, service)
    control_plane.run_pods(namespace)
    creating.result(60)


def test_deletion_waits_until_it_is_gone(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    inputs = config_map(namespace, a="1")
    made = plugin.create(CONFIG_MAP, inputs)
    control_plane.edit("ConfigMap", made.id, {"metadata": {"finalizers": ["lab.example/hold"]}})
    with pytest.raises(CallError, match=r"is still being deleted: [^$]*finalizer lab.example/hold"):
        plugin.delete(made, timeout=8)
    deleting = ThreadPoolExecutor(1).submit(plugin.delete, made)
    control_plane.edit("ConfigMap", made.id, {"metadata": {"finalizers": None}})
    deleting.result(60)
    whole = plugin.create(NAMESPACE, {"metadata": {"name": "going"}}, name="going")
    plugin.create(CONFIG_MAP, config_map("going", a="1"), name="inner")
    plugin.delete(whole)
    assert control_plane.get("Namespace", "going") is None


def test_cancel_ends_the_wait_and_keeps_the_object(control_plane: ControlPlane, namespace: str) -> None:
    with Plugin({"PATH": os.environ["PATH"]}, EXECUTABLE) as plugin:
        plugin.configure(kubeconfig=str(control_plane.kubeconfig))
        creating = in_background(plugin, DEPLOYMENT, workload(namespace, replicas=1))
        wait_for(lambda: control_plane.pods(namespace), "the pod")
        plugin.call("Cancel", empty_pb2.Empty())
        with pytest.raises(CallError, match="cancelled") as caught:
            creating.result(20)
        assert caught.value.partial
        assert caught.value.partial.id == f"{namespace}/web"


# Faults.


def test_what_an_interrupted_create_has_made_is_found(
    plugin: Plugin, control_plane: ControlPlane, namespace: str
) -> None:
    began = datetime.now(UTC).isoformat()
    made = plugin.create(CONFIG_MAP, config_map(namespace, a="1"))
    lost = replace(made, id="", outputs={})
    found = plugin.recover(lost, began)
    assert found
    assert found.id == made.id
    assert found.outputs == made.outputs
    control_plane.post({"apiVersion": "v1", "kind": "ConfigMap", **config_map(namespace, "theirs")})
    other = Resource(CONFIG_MAP, "other", "", plugin.check(CONFIG_MAP, config_map(namespace, "theirs")), {})
    assert plugin.recover(other, "2020-01-01T00:00:00Z") is None, "another's object is not taken"


def test_the_api_server_may_restart_while_it_is_waited_for(
    plugin: Plugin, control_plane: ControlPlane, namespace: str
) -> None:
    creating = in_background(plugin, DEPLOYMENT, workload(namespace, replicas=1))
    wait_for(lambda: control_plane.pods(namespace), "the pod")
    control_plane.kill_api()
    control_plane.start_api()
    wait_for(control_plane.is_healthy, "the API server")
    control_plane.run_pods(namespace)
    assert creating.result(120).outputs["status"]["availableReplicas"] == 1


def test_whoever_may_only_work_in_a_namespace(control_plane: ControlPlane, namespace: str) -> None:
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
    group = "rbac.authorization.k8s.io"
    control_plane.post(
        {
            **binding,
            "metadata": {"name": "student", "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "student"}],
        }
    )
    with Plugin({"PATH": os.environ["PATH"]}, EXECUTABLE) as plugin:
        plugin.configure(kubeconfig=str(control_plane.kubeconfig), context="student", namespace=namespace)
        made = plugin.create(CONFIG_MAP, {"data": {"a": "1"}})
        assert made.id.startswith(f"{namespace}/")
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "c",
            "resources": {"requests": {"storage": "1Gi"}},
        }
        with pytest.raises(CallError, match=r"its storage class cannot be read \(Forbidden\)"):
            plugin.create(CLAIM, {"spec": spec}, timeout=3)
        quota = {"metadata": {"namespace": namespace}, "spec": {"hard": {"pods": "3"}}}
        assert plugin.preview(QUOTA, quota)["spec"] == quota["spec"]
        assert "this preview was not checked by the API server" in plugin.engine.logs[-1].message
        with pytest.raises(CallError, match=r"answered 403 Forbidden: [^$]*Ask the cluster's administrator"):
            plugin.create(QUOTA, quota)


def test_many_at_once(plugin: Plugin, namespace: str) -> None:
    barrier = threading.Barrier(32)

    def one(number: int) -> str:
        barrier.wait()
        return plugin.create(CONFIG_MAP, config_map(namespace, f"map-{number}", a="1"), name=f"map-{number}").id

    with ThreadPoolExecutor(32) as pool:
        assert len(set(pool.map(one, range(32)))) == 32
