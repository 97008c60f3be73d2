"""What the plugin knows of manifests without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pulumi.runtime.proto import provider_pb2

from providers.kubernetes import objects, replacing
from providers.kubernetes.client import config_differences
from providers.kubernetes.manifest import _decode
from providers.values import UNKNOWN, Secret, marshal, plain, unmarshal
from tests.providers.plugin import CallError, Plugin, Resource

if TYPE_CHECKING:
    from providers.values import Properties

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
POD = {"containers": [{"name": "a", "image": "i", "env": [{"name": "X", "value": "1"}]}]}
ANNOTATION = 'metadata.annotations["pulumi.com/waitFor"]'


@pytest.mark.parametrize(
    ("token", "inputs", "parsed"),
    [
        ("kubernetes:core/v1:Secret", {"apiVersion": "v1", "kind": "Secret"}, ("v1", "Secret", False)),
        ("kubernetes:core/v1:Secret", {}, ("v1", "Secret", False)),
        ("kubernetes:apps/v1:DeploymentPatch", {"kind": "Deployment"}, ("apps/v1", "Deployment", True)),
        ("kubernetes:apps/v1:DeploymentPatch", {}, ("apps/v1", "Deployment", True)),
        ("kubernetes:x.io/v1:DogPatch", {"apiVersion": "x.io/v1", "kind": "DogPatch"}, ("x.io/v1", "DogPatch", False)),
        ("kubernetes:v1:ConfigMap", {"apiVersion": "v1", "kind": "ConfigMap"}, ("v1", "ConfigMap", False)),
    ],
)
def test_tokens(token: str, inputs: Properties, parsed: tuple[str, str, bool]) -> None:
    assert objects.parse_token(token, inputs) == parsed


def replaced(kind: str, old: Any, new: Any, **mutable: bool) -> set[str]:
    flags = {"mutable_maps": False, "mutable_secrets": False, **mutable}
    api_version, _, kind = kind.rpartition(" ")
    rules = (*replacing.policy(api_version, kind, **flags), *replacing.immutable_fields(api_version, kind, old))
    return {item.path for item in objects.differences(old, new, rules) if item.replace}


@pytest.mark.parametrize(
    ("kind", "old", "new", "expected"),
    [
        ("v1 ConfigMap", {"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}, {"metadata.name"}),
        ("v1 ConfigMap", {"metadata": {"labels": {"a": "b"}}}, {"metadata": {}}, set()),
        ("v1 ConfigMap", {"data": {"a": "1"}}, {"data": {"a": "2"}}, {"data.a"}),
        ("v1 ConfigMap", {}, {"data": {"a": "2"}}, {"data"}),
        ("v1 Secret", {"type": "a"}, {"type": "b"}, {"type"}),
        ("v1 Secret", {"stringData": {"a": "1"}}, {"stringData": {"a": "2"}}, {"stringData.a"}),
        ("v1 Service", {"spec": {"clusterIP": "None"}}, {"spec": {}}, {"spec.clusterIP"}),
        ("v1 Service", {"spec": {"type": "ClusterIP"}}, {"spec": {"type": "NodePort"}}, set()),
        ("v1 Pod", {"spec": POD}, {"spec": {"containers": [{**POD["containers"][0], "image": "j"}]}}, set()),
        ("v1 Pod", {"spec": POD}, {"spec": {"containers": [{**POD["containers"][0], "args": ["j"]}]}},
         {"spec.containers[0].args"}),
        ("v1 Pod", {"spec": POD}, {"spec": {"containers": POD["containers"] * 2}}, {"spec.containers[1]"}),
        ("v1 Pod", {}, {"spec": POD}, {"spec"}),
        ("v1 Pod", {"spec": {"activeDeadlineSeconds": 1}}, {"spec": {"activeDeadlineSeconds": 2}}, set()),
        ("apps/v1 Deployment", {"spec": {"selector": {"matchLabels": {"a": "b"}}}},
         {"spec": {"selector": {"matchLabels": {"a": "c"}}}}, {"spec.selector.matchLabels.a"}),
        ("apps/v1 Deployment", {"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, set()),
        ("apps/v1 StatefulSet", {"spec": {"serviceName": "a"}}, {"spec": {"serviceName": "b"}}, {"spec.serviceName"}),
        ("batch/v1 Job", {"spec": {"template": {"spec": POD}}}, {"spec": {"template": {"spec": {}}}},
         {"spec.template.spec.containers"}),
        ("batch/v1 Job", {"spec": {"completionMode": "Indexed"}}, {"spec": {}}, {"spec.completionMode"}),
        ("batch/v1 Job", {"spec": {"parallelism": 1}}, {"spec": {"parallelism": 2}}, set()),
        ("v1 ConfigMap", {"immutable": True}, {}, {"immutable"}),
        ("v1 Secret", {"immutable": True}, {"immutable": False}, {"immutable"}),
        ("v1 ConfigMap", {}, {"immutable": True}, set()),
        ("v1 PersistentVolumeClaim", {"spec": {}}, {"spec": {"volumeMode": "Block"}}, {"spec.volumeMode"}),
        ("storage.k8s.io/v1 StorageClass", {"reclaimPolicy": "Delete"}, {"reclaimPolicy": "Retain"},
         {"reclaimPolicy"}),
        ("scheduling.k8s.io/v1 PriorityClass", {"value": 1}, {"value": 2}, {"value"}),
        ("batch/v1 Job", {"spec": {"backoffLimit": 1}}, {"spec": {"backoffLimit": 2}}, set()),
        ("v1 PersistentVolumeClaim", {"spec": {"storageClassName": "a"}}, {"spec": {"storageClassName": "b"}},
         {"spec.storageClassName"}),
        ("v1 PersistentVolumeClaim", {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
         {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}, set()),
        ("rbac.authorization.k8s.io/v1 RoleBinding", {"roleRef": {"name": "a"}}, {"roleRef": {"name": "b"}},
         {"roleRef.name"}),
        ("lab.example/v1 Pod", {"spec": {"hostname": "a"}}, {"spec": {"hostname": "b"}}, set()),
    ],
)  # fmt: skip
def test_what_replaces(kind: str, old: Any, new: Any, expected: set[str]) -> None:
    assert replaced(kind, old, new) == expected


def test_config_maps_and_secrets_that_may_be_changed() -> None:
    old, new = {"data": {"a": "1"}}, {"data": {"a": "2"}}
    assert not replaced("v1 ConfigMap", old, new, mutable_maps=True)
    assert not replaced("v1 Secret", old, new, mutable_secrets=True)
    assert replaced("v1 ConfigMap", {**old, "immutable": True}, new, mutable_maps=True) == {"data.a", "immutable"}
    assert replaced("v1 Secret", {**old, "immutable": True}, new, mutable_secrets=True) == {"data.a", "immutable"}


def test_differences_are_told_by_path() -> None:
    old = {"a": [1, {"b": "x"}], "gone": {"c": 1}, "emptyDir": None, "n": 1, "u": "known"}
    new = {"a": [1, {"b": "y"}, 3], "labels": {"x/y": "z"}, "emptyDir": {}, "n": True, "u": UNKNOWN}
    assert {(item.path, item.kind) for item in objects.differences(old, new)} == {
        ("a[1].b", "UPDATE"),
        ("a[2]", "ADD"),
        ("gone", "DELETE"),
        ("labels", "ADD"),
        ("emptyDir", "ADD"),
        ("n", "UPDATE"),
        ("u", "UPDATE"),
    }
    (one,) = objects.differences({"labels": {"x/y": "1"}}, {"labels": {"x/y": "2"}})
    assert one.path == 'labels["x/y"]'


def test_a_refresh_keeps_how_it_was_written() -> None:
    given = {"cpu": "1000m", "image": "a", "gone": "x", "list": [{"cpu": "0.5", "n": 1}]}
    planned = {"cpu": "1", "image": "a", "gone": "x", "default": 1, "list": [{"cpu": "500m", "n": 1}]}
    found = {"cpu": "1", "image": "b", "default": 1, "list": [{"cpu": "500m", "n": 2}]}
    assert objects.adopt(given, planned, planned) == given
    assert objects.adopt(given, planned, found) == {"cpu": "1000m", "image": "b", "list": [{"cpu": "0.5", "n": 2}]}


def test_secrets_are_marked() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "Yg=="}, "metadata": {"name": "s"}}
    assert objects.mark(secret, {})["data"] == Secret({"a": "Yg=="})
    env = {"kind": "Pod", "spec": {"env": [{"value": "x"}]}, "metadata": {"name": "p"}}
    marked = objects.mark(env, {"spec": {"env": [{"value": Secret("x")}]}})
    assert marked["spec"]["env"] == Secret([{"value": "x"}])
    assert marked["metadata"] == {"name": "p"}
    other = {"apiVersion": "lab.example/v1", "kind": "Secret", "data": {}}
    assert objects.mark(other, {}) == other


def test_yaml_as_kubectl_reads_it() -> None:
    text = "apiVersion: v1\nkind: A\nmode: 0644\nlist: [2026-01-02, =, 1:30]\nyes: on\n---\n---\nnothing: here\n"
    (found,) = _decode(None, {"text": text, "defaultNamespace": "lab"}, None)["result"]  # type: ignore[arg-type]
    assert found == {
        "apiVersion": "v1",
        "kind": "A",
        "mode": 420,
        "list": ["2026-01-02", "=", "1:30"],
        "true": True,
        "metadata": {"namespace": "lab"},
    }


# The plugin, without a cluster.


def test_names_are_made_of_the_resources(bare: Plugin) -> None:
    checked = bare.check(CONFIG_MAP, {"data": {"a": "b"}}, name="settings")
    metadata = checked["metadata"]
    assert metadata["name"].startswith("settings-")
    assert len(metadata["name"]) == len("settings-") + 8
    assert metadata["annotations"] == {"pulumi.com/autonamed": "true"}
    assert bare.check(CONFIG_MAP, {}, name="settings", olds=checked)["metadata"] == metadata
    assert bare.check(CONFIG_MAP, {"metadata": {"name": "mine"}}, olds=checked)["metadata"] == {"name": "mine"}
    assert bare.check(CONFIG_MAP, {"metadata": {"name": UNKNOWN}})["metadata"] == {"name": UNKNOWN}
    options = provider_pb2.CheckRequest.AutonamingOptions
    proposed = options(proposed_name="lab-x", mode=options.Mode.ENFORCE)
    assert bare.check(CONFIG_MAP, {}, autonaming=proposed)["metadata"]["name"] == "lab-x"


def test_bad_inputs_are_refused_at_once(bare: Plugin) -> None:
    inputs = {"metadata": {"generateName": "x-", "annotations": {"pulumi.com/waitFor": "phase=Bound"}}}
    _, failures = bare.check_failures(CONFIG_MAP, inputs)
    assert set(failures) == {"metadata.generateName", ANNOTATION}
    _, failures = bare.check_failures("kubernetes:core/v1:ConfigMapPatch", {"kind": "ConfigMap"})
    assert failures == {"metadata.name": "is required: a Patch changes an existing object"}
    listed = {"apiVersion": "v1", "kind": "ConfigMapList", "items": []}
    _, failures = bare.check_failures("kubernetes:core/v1:ConfigMapList", listed)
    assert "a resource of its own" in failures["items"]


def test_what_the_server_sets_is_left_out_of_an_exported_manifest(bare: Plugin) -> None:
    metadata: Properties = {
        "name": "a",
        "uid": "u",
        "resourceVersion": "1",
        "managedFields": [],
        "creationTimestamp": None,
    }
    assert bare.check(CONFIG_MAP, {"metadata": metadata})["metadata"] == {"name": "a"}


def test_secret_inputs_stay_secret(bare: Plugin) -> None:
    checked = bare.check("kubernetes:core/v1:Secret", {"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}})
    assert checked["stringData"] == Secret({"a": "b"})


def test_previews_without_a_cluster(bare: Plugin) -> None:
    shown = bare.preview(CONFIG_MAP, {"data": {"a": UNKNOWN}})
    assert shown["data"] == {"a": UNKNOWN}
    assert "status" not in shown


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "the kubeconfig is not usable: there is no file"),
        ({"kubeconfig": "/nonexistent"}, "there is no file /nonexistent"),
        ({"kubeconfig": "{}"}, "the kubeconfig is not usable"),
        ({"kubeconfig": "a: ["}, "the kubeconfig is not usable"),
        ({"kubconfig": "x"}, "kubconfig is not a known property; did you mean 'kubeconfig'?"),
        ({"enableServerSideApply": "false"}, "this provider knows server-side apply only"),
        ({"renderYamlToDirectory": "out"}, "is not supported by this provider"),
    ],
)
def test_bad_configuration(bare: Plugin, config: Properties, message: str) -> None:
    with pytest.raises(CallError) as caught:
        bare.call("Configure", provider_pb2.ConfigureRequest(args=marshal(config), acceptSecrets=True))
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)


def kubeconfig(server: str, context: str = "one") -> str:
    return f"""
apiVersion: v1
kind: Config
current-context: {context}
contexts:
- {{name: one, context: {{cluster: c, user: u}}}}
- {{name: two, context: {{cluster: d, user: u}}}}
clusters:
- {{name: c, cluster: {{server: "{server}"}}}}
- {{name: d, cluster: {{server: "https://d.example"}}}}
users: [{{name: u, user: {{token: planted}}}}]
"""


def test_another_cluster_replaces_what_is_in_it() -> None:
    def replaces(old: Properties, new: Properties) -> set[str]:
        return {item.path for item in config_differences(old, new) if item.replace}

    one = {"kubeconfig": kubeconfig("https://c.example")}
    assert not replaces(one, {"kubeconfig": kubeconfig("https://c.example") + "# rotated\n"})
    assert replaces(one, {"kubeconfig": kubeconfig("https://new.example")}) == {"kubeconfig"}
    assert replaces(one, {**one, "context": "two"}) == {"context"}
    assert replaces(one, {"kubeconfig": UNKNOWN}) == {"kubeconfig"}
    named = {**one, "clusterIdentifier": "a"}
    assert not replaces(named, {"kubeconfig": kubeconfig("https://new.example"), "clusterIdentifier": "a"})
    assert replaces(named, {**named, "clusterIdentifier": "b"}) == {"clusterIdentifier"}


def test_a_cluster_that_does_not_answer(bare: Plugin) -> None:
    bare.configure(kubeconfig=kubeconfig("https://127.0.0.1:9"))
    with pytest.raises(CallError) as caught:
        bare.create(CONFIG_MAP, {"data": {"a": Secret("planted")}})
    message = str(caught.value)
    assert "no answer from the Kubernetes API server https://127.0.0.1:9" in message
    assert "\n  Check whether the cluster runs" in message
    assert "planted" not in message
    assert caught.value.partial is None


def test_what_is_in_a_cluster_that_is_gone_can_be_dropped(bare: Plugin) -> None:
    bare.configure(kubeconfig=kubeconfig("https://127.0.0.1:9"), deleteUnreachable="true")
    state = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}}
    lost = Resource(CONFIG_MAP, "thing", "b/a", dict(state), dict(state))
    assert bare.read(lost) is None
    bare.delete(lost)


@pytest.mark.parametrize(
    ("method", "request_", "remedy"),
    [
        ("Construct", provider_pb2.ConstructRequest(type="kubernetes:kustomize/v2:Directory"), "kubectl kustomize"),
        ("Construct", provider_pb2.ConstructRequest(type="kubernetes:helm.sh/v4:Chart"), "helm template"),
        ("Construct", provider_pb2.ConstructRequest(type="kubernetes:yaml/v2:ConfigGroup"), "version 1"),
        ("Invoke", provider_pb2.InvokeRequest(tok="kubernetes:helm:template"), "helm template"),
        (
            "Check",
            provider_pb2.CheckRequest(urn="urn:pulumi:a::b::kubernetes:helm.sh/v3:Release::c"),
            "helm template",
        ),
    ],
)
def test_what_only_the_official_plugin_does(bare: Plugin, method: str, request_: Any, remedy: str) -> None:
    with pytest.raises(CallError, match=f"needs the official kubernetes plugin\n .*{remedy}"):
        bare.call(method, request_)


def test_yaml_is_parsed_before_the_cluster_is_known(bare: Plugin) -> None:
    answer = bare.invoke("kubernetes:yaml:decode", {"text": "apiVersion: v1\nkind: ConfigMap\n"})
    assert answer["result"] == [{"apiVersion": "v1", "kind": "ConfigMap"}]


def test_configuration_hides_the_kubeconfig(bare: Plugin) -> None:
    request = provider_pb2.CheckRequest(news=marshal({"kubeconfig": kubeconfig("https://c.example")}))
    checked = unmarshal(bare.call("CheckConfig", request).inputs)
    assert isinstance(checked["kubeconfig"], Secret)
    assert plain(checked)["kubeconfig"] == kubeconfig("https://c.example")
