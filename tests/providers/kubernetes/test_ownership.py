"""Who manages which field, and what `ignoreChanges` leaves to them, without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pulumi.runtime.proto import provider_pb2

from protocol.paths import parse_path
from providers.kubernetes import ownership
from providers.values import marshal

if TYPE_CHECKING:
    from tests.providers.plugin import Plugin


def test_fields_of_former_managers_are_taken_over() -> None:
    def entry(manager: str, operation: str, *fields: str, **more: Any) -> dict[str, Any]:
        owned: dict[str, Any] = {f"f:{name}": {} for name in fields}
        return {"manager": manager, "operation": operation, "fieldsV1": {"f:data": owned}, **more}

    theirs = entry("other", "Update", "c")
    status = entry("kubectl", "Update", "s", subresource="status")
    live: dict[str, Any] = {
        "apiVersion": "v1",
        "metadata": {"managedFields": [entry("pulumi-kubernetes", "Update", "a"), theirs, status]},
    }
    entries = ownership.taken_over(live, "ours") or []
    assert entries[:2] == [theirs, status]
    assert entries[2]["manager"] == "ours"
    assert entries[2]["fieldsV1"] == {"f:data": {"f:a": {}}}
    live["metadata"]["managedFields"] = [entry("ours", "Apply", "b"), entry("kubectl", "Apply", "a"), theirs]
    entries = ownership.taken_over(live, "ours") or []
    assert entries[-1]["fieldsV1"] == {"f:data": {"f:a": {}, "f:b": {}}}
    live["metadata"]["managedFields"] = entries
    assert ownership.taken_over(live, "ours") is None


def entry(manager: str, fields: Any, operation: str = "Apply", **more: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def left(new: Any, live: Any, *entries: dict[str, Any], ignored: str, managers: tuple[str, ...] = ("ours",)) -> Any:
    whole = {**live, "metadata": {**live.get("metadata", {}), "managedFields": list(entries)}}
    return ownership.without_ignored(new, whole, managers, (parse_path(ignored),))


SPEC: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
CONTAINERS: dict[str, Any] = {
    "f:spec": {"f:containers": {'k:{"name":"main"}': {".": {}, "f:name": {}, "f:args": {}, "f:ports": {
        ".": {}, 'k:{"containerPort":53,"protocol":"UDP"}': {".": {}, "f:containerPort": {}, "f:protocol": {}},
        'k:{"containerPort":53,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:name": {}},
    }}}}
}  # fmt: skip
SIDECAR: dict[str, Any] = {'k:{"name":"sidecar"}': {".": {}, "f:name": {}}}
IMAGE = {"f:spec": {"f:containers": {'k:{"name":"main"}': {"f:image": {}}, **SIDECAR}}}
OWNED = (entry("ours", CONTAINERS), entry("theirs", IMAGE, "Update"))


def pod(image: str | None, **more: Any) -> dict[str, Any]:
    ports = [{"containerPort": 53, "name": "tcp"}, {"containerPort": 53, "protocol": "UDP"}]
    return {"spec": {"containers": [{"name": "main", **({"image": image} if image else {}), "ports": ports, **more}]}}


def test_what_is_ours_stays_as_it_is_and_what_is_theirs_is_left_out() -> None:
    new, live = {"spec": {"replicas": 1, "paused": False}}, {"spec": {"replicas": 3, "paused": True}}
    theirs = entry("theirs", SPEC, "Update", subresource="scale")
    assert left(new, live, entry("ours", SPEC), ignored="spec.replicas") == {"spec": {"replicas": 3, "paused": False}}
    assert left(new, live, entry("former", SPEC), ignored="spec.replicas", managers=("ours", "former"))["spec"] == {
        "replicas": 3,
        "paused": False,
    }
    assert left(new, live, theirs, ignored="spec.replicas") == {"spec": {"paused": False}}
    assert left(new, live, entry("ours", SPEC), theirs, ignored="spec.replicas") == {"spec": {"paused": False}}
    assert left(new, live, theirs, ignored="spec.nothing") == new
    assert left(new, {"spec": {"paused": True}}, ignored="spec.replicas") == {"spec": {"paused": False}}, "gone"


@pytest.mark.parametrize(
    "ignored",
    ["spec.containers[0].image", "spec.containers[*].image", 'spec.containers[0]["image"]', "spec.*[0].image"],
)
def test_an_element_is_found_by_its_merge_keys(ignored: str) -> None:
    (main,) = pod("theirs", args=["a"])["spec"]["containers"]
    live = {"spec": {"containers": [{"name": "sidecar", "image": "s"}, main]}}
    found = left(pod("ours", args=["b"]), live, *OWNED, ignored=ignored)
    assert found == pod(None, args=["b"])


@pytest.mark.parametrize(
    "ignored", ["spec.containers", "spec.containers[*]", "spec.containers[0].*", "spec", "spec.*", "*"]
)
def test_of_a_whole_list_ours_stays_as_it_is(ignored: str) -> None:
    live = pod("theirs", args=["a"])
    found = left(pod("ours", args=["b"]), live, *OWNED, ignored=ignored)
    assert found["spec"] == pod(None, args=["a"])["spec"]


def test_a_new_element_is_applied_as_a_whole() -> None:
    new = {"spec": {"containers": [*pod("ours")["spec"]["containers"], {"name": "new", "image": "n"}]}}
    found = left(new, pod("theirs"), *OWNED, ignored="spec.containers[*].image")
    assert found["spec"]["containers"] == [*pod(None)["spec"]["containers"], {"name": "new", "image": "n"}]
    assert left(new, pod("theirs"), *OWNED, ignored="spec.containers[1]") == pod("ours"), "it was taken away"


def test_ports_are_told_apart_by_their_protocol() -> None:
    live = pod("ours")
    live["spec"]["containers"][0]["ports"][0]["name"] = "theirs"
    ports: dict[str, Any] = {'k:{"containerPort":53,"protocol":"TCP"}': {"f:name": {}}}
    theirs = entry("theirs", {"f:spec": {"f:containers": {'k:{"name":"main"}': {"f:ports": ports}}}}, "Update")
    found = left(pod("ours"), live, entry("ours", CONTAINERS), theirs, ignored="spec.containers[0].ports[*].name")
    assert found["spec"]["containers"][0]["ports"] == [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]


def test_keys_with_dots() -> None:
    new = {"metadata": {"name": "a", "annotations": {"a.b/c": "1", "other": "2"}}}
    live = {"metadata": {"name": "a", "annotations": {"a.b/c": "9", "other": "1"}}}
    theirs = entry("theirs", {"f:metadata": {"f:annotations": {"f:a.b/c": {}}}}, "Update")
    found = left(new, live, theirs, ignored='metadata.annotations["a.b/c"]')
    assert found == {"metadata": {"name": "a", "annotations": {"other": "2"}}}
    assert left(new, live, theirs, ignored="metadata.annotations") == {"metadata": {"name": "a"}}
    assert left(new, live, theirs, ignored="metadata") == {"metadata": {"name": "a"}}
    bare = {"metadata": {"name": "a"}}
    assert left({**bare, "kind": "A"}, live, theirs, ignored="*") == {**bare, "kind": "A"}, "which object it is is kept"


def test_of_what_is_atomic_the_whole_is_left_out_or_none() -> None:
    rules: dict[str, Any] = {"f:spec": {"f:rules": {}}}
    new = {"spec": {"rules": [{"host": "ours", "http": 1}]}}
    live = {"spec": {"rules": [{"host": "theirs", "http": 1}]}}
    assert left(new, live, entry("theirs", rules, "Update"), ignored="spec.rules[0].host") == {}
    new["spec"]["rules"][0]["http"] = 2
    found = left(new, live, entry("theirs", rules, "Update"), ignored="spec.rules[*].host")
    assert found == {"spec": {"rules": [{"host": "theirs", "http": 2}]}}
    assert left(new, live, entry("ours", rules), ignored="spec.rules") == live


def test_elements_of_a_set() -> None:
    new = {"metadata": {"finalizers": ["a/ours", "b/theirs"]}}
    ours = entry("ours", {"f:metadata": {"f:finalizers": {".": {}, 'v:"a/ours"': {}}}})
    theirs = entry("theirs", {"f:metadata": {"f:finalizers": {'v:"b/theirs"': {}}}}, "Update")
    assert left(new, new, ours, theirs, ignored="metadata.finalizers") == {"metadata": {"finalizers": ["a/ours"]}}
    assert left(new, new, ours, theirs, ignored="metadata.finalizers[0]") == new
    assert left(new, new, ours, theirs, ignored="metadata.finalizers[1]") == {"metadata": {"finalizers": ["a/ours"]}}


def test_words_of_a_secret_are_its_data() -> None:
    new = {"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "1", "b": "2"}}
    live = {"data": {"a": "dGhlaXJz", "b": "b3Vycw=="}}
    ours, theirs = entry("ours", {"f:data": {"f:b": {}}}), entry("theirs", {"f:data": {"f:a": {}}}, "Update")
    for ignored in ("stringData", "stringData.*"):
        found = left(new, live, ours, theirs, ignored=ignored)
        assert {key: found.get(key) or {} for key in ("data", "stringData")} == {
            "data": {"b": "b3Vycw=="},
            "stringData": {},
        }
    found = left(new, live, ours, theirs, ignored="stringData.a")
    assert (found["stringData"], found.get("data")) == ({"b": "2"}, None)


def test_ignored_changes_of_a_provider(bare: Plugin) -> None:
    def changed(*ignored: str) -> list[str]:
        request = provider_pb2.DiffRequest(
            old_inputs=marshal({"namespace": "a"}), news=marshal({"namespace": "b"}), ignoreChanges=ignored
        )
        return list(bare.call("DiffConfig", request).diffs)

    assert changed() == ["namespace"]
    assert changed("namespace") == []
    assert changed("*") == []
