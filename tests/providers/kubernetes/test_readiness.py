"""When objects are ready: the states that their controllers report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from providers.framework import ProviderError
from providers.kubernetes import readiness
from providers.kubernetes.objects import Identity
from providers.kubernetes.readiness import Check

if TYPE_CHECKING:
    from providers.kubernetes.objects import Object


class Recorded:
    """A cluster with these objects."""

    def __init__(self, *objects: Object) -> None:
        self.objects = objects

    def find(self, target: Identity) -> Object | None:
        return next(
            (item for item in self.items(target.api_version, target.kind, "") if name(item) == target.name), None
        )

    def items(self, api_version: str, kind: str, namespace: str, **selectors: str) -> list[Object]:  # noqa: ARG002
        return [item for item in self.objects if (item["apiVersion"], item["kind"]) == (api_version, kind)]


def name(item: Object) -> str:
    return str(item["metadata"]["name"])


def lacking(kind: str, live: Object, *others: Object, elapsed: float = 0) -> str | None:
    api_version, _, kind = kind.rpartition(" ")
    whole: dict[str, Any] = {"apiVersion": api_version, "kind": kind, **live}
    whole["metadata"] = {"name": "x", "namespace": "lab", "generation": 2, **live.get("metadata", {})}
    target = Identity(api_version, kind, "lab", "x")
    return readiness.missing(Recorded(*others), whole, target, whole, elapsed)


def condition(kind: str, status: str = "True", **more: Any) -> Object:
    return {"conditions": [{"type": kind, "status": status, **more}]}


def rollout(seen: int = 2, **counts: int) -> Object:
    return {"spec": {"replicas": 2}, "status": {"observedGeneration": seen, **counts}}


def storage_class(name: str, mode: str, **annotations: str) -> Object:
    metadata = {"name": name, "annotations": annotations}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": metadata,
        "volumeBindingMode": mode,
    }


def endpoints(*ready: bool) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "x-1"},
        "endpoints": [{"conditions": {"ready": state}} for state in ready],
    }


READY = {"updatedReplicas": 2, "replicas": 2, "availableReplicas": 2, "readyReplicas": 2}
SERVICE = {"spec": {"selector": {"a": "b"}}}
CLAIM = {"spec": {"storageClassName": "c"}, "status": {"phase": "Pending"}}
RULE = {"http": {"paths": [{"backend": {"service": {"name": "web"}}}]}}
ADDRESS = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
WEB = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}


@pytest.mark.parametrize(
    ("kind", "live", "others", "expected"),
    [
        ("apps/v1 Deployment", rollout(**READY), [], None),
        ("apps/v1 Deployment", rollout(1, **READY), [], "its controller has not observed the change yet"),
        ("apps/v1 Deployment", rollout(**READY | {"updatedReplicas": 1}), [], "1 of 2 replicas updated"),
        ("apps/v1 Deployment", rollout(**READY | {"replicas": 3}), [], "1 old replicas have not ended"),
        ("apps/v1 Deployment", rollout(**READY | {"availableReplicas": 1}), [], "1 of 2 replicas available"),
        ("apps/v1 Deployment", {"spec": {"replicas": 0}, "status": {"observedGeneration": 2}}, [], None),
        ("apps/v1 Deployment", {"spec": {"paused": True}, "status": {"observedGeneration": 2}}, [], None),
        ("apps/v1 StatefulSet", rollout(**READY), [], None),
        ("apps/v1 StatefulSet", rollout(readyReplicas=1), [], "1 of 2 replicas ready"),
        ("apps/v1 DaemonSet", {"status": {"observedGeneration": 2}}, [], None),
        ("apps/v1 DaemonSet", {"status": {"observedGeneration": 2, "desiredNumberScheduled": 3,
         "updatedNumberScheduled": 3, "numberAvailable": 2}}, [], "2 of 3 pods available"),
        ("batch/v1 Job", {"status": condition("Complete")}, [], None),
        ("batch/v1 Job", {"status": {"active": 1}}, [], "it is not complete (1 active, 0 succeeded, 0 failed)"),
        ("v1 Pod", {"status": condition("Ready")}, [], None),
        ("v1 Pod", {"status": {"phase": "Succeeded"}}, [], None),
        ("v1 Pod", {"status": {}}, [], "phase Pending"),
        ("v1 PersistentVolumeClaim", {"status": {"phase": "Bound"}}, [], None),
        ("v1 PersistentVolumeClaim", CLAIM, [storage_class("c", "WaitForFirstConsumer")], None),
        ("v1 PersistentVolumeClaim", CLAIM, [storage_class("c", "Immediate")],
         "no volume of storage class c is bound to it"),
        ("v1 PersistentVolumeClaim", CLAIM, [], "there is no storage class c"),
        ("v1 PersistentVolumeClaim", {"spec": {}, "status": {"phase": "Pending"}},
         [storage_class("d", "WaitForFirstConsumer", **{readiness.DEFAULT_CLASS: "true"})], None),
        ("v1 PersistentVolume", {"status": {"phase": "Available"}}, [], None),
        ("v1 Service", SERVICE, [endpoints(True)], None),
        ("v1 Service", SERVICE, [endpoints(True, False)], "1 of 2 endpoints ready"),
        ("v1 Service", SERVICE, [], "no pods match its selector"),
        ("v1 Service", {"spec": {"clusterIP": "None", "selector": {"a": "b"}}}, [], None),
        ("v1 Service", {"spec": {}}, [], None),
        ("v1 Service", {"spec": {"type": "ExternalName"}}, [], None),
        ("v1 Service", {"spec": {"type": "LoadBalancer"}}, [], "the load balancer has no address"),
        ("v1 Service", {"spec": {"type": "LoadBalancer"}, "status": ADDRESS}, [], None),
        ("networking.k8s.io/v1 Ingress", {"spec": {"rules": [RULE]}, "status": ADDRESS}, [WEB], None),
        ("networking.k8s.io/v1 Ingress", {"spec": {"rules": [RULE]}, "status": ADDRESS}, [],
         "its rules name Services that are not there: web"),
        ("networking.k8s.io/v1 Ingress", {"spec": {}, "status": {}}, [],
         "no ingress controller has given it an address"),
        ("gateway.networking.k8s.io/v1 Gateway", {"status": condition("Programmed", observedGeneration=2)}, [], None),
        ("gateway.networking.k8s.io/v1 Gateway", {"status": condition("Programmed", observedGeneration=1)}, [],
         "it is not programmed"),
        ("gateway.networking.k8s.io/v1 Gateway", {"status": condition("Accepted", "False", reason="NoClass")}, [],
         "it is not programmed: NoClass"),
        ("apiextensions.k8s.io/v1 CustomResourceDefinition", {"status": condition("Established")}, [], None),
        ("apiextensions.k8s.io/v1 CustomResourceDefinition", {}, [], "it is not established"),
        ("v1 Namespace", {"status": {"phase": "Active"}}, [], None),
        ("v1 ResourceQuota", {"spec": {"hard": {"pods": "1"}}}, [], "its limits are not in force"),
        ("v1 Secret", {"type": "kubernetes.io/service-account-token"}, [], "its token is not made"),
        ("v1 ConfigMap", {}, [], None),
        ("lab.example/v1 Deployment", {}, [], None),
    ],
)  # fmt: skip
def test_what_is_missing(kind: str, live: Object, others: list[Object], expected: str | None) -> None:
    assert lacking(kind, live, *others) == expected


def test_a_service_without_pods_is_ready_after_a_while() -> None:
    assert lacking("v1 Service", SERVICE, elapsed=readiness.ENDPOINT_GRACE_SECONDS + 1) is None


def test_stateful_sets_roll_down_to_their_partition() -> None:
    status = {"observedGeneration": 2, "readyReplicas": 2, "currentRevision": "a", "updateRevision": "b"}

    def judged(updated: int, **strategy: Any) -> str | None:
        live = {"spec": {"replicas": 2, "updateStrategy": strategy}, "status": {**status, "updatedReplicas": updated}}
        return lacking("apps/v1 StatefulSet", live)

    assert judged(1) == "1 of 2 replicas updated"
    assert judged(1, type="RollingUpdate", rollingUpdate={"partition": 1}) is None
    assert judged(0, type="RollingUpdate", rollingUpdate={"partition": 1}) == "0 of 1 replicas updated"
    assert judged(0, type="OnDelete") is None


@pytest.mark.parametrize(
    ("kind", "live", "message"),
    [
        (
            "apps/v1 Deployment",
            {
                "status": {
                    "observedGeneration": 2,
                    **condition("Progressing", "False", reason="ProgressDeadlineExceeded", message="timed out"),
                }
            },
            "the rollout makes no progress: ProgressDeadlineExceeded: timed out",
        ),
        (
            "batch/v1 Job",
            {"status": condition("Failed", reason="DeadlineExceeded", message="too long")},
            "the Job failed: DeadlineExceeded: too long",
        ),
        ("v1 Pod", {"status": {"phase": "Failed", "reason": "Evicted"}}, "the Pod failed: Evicted"),
        ("v1 PersistentVolumeClaim", {"status": {"phase": "Lost"}}, "lost its volume"),
        (
            "apiextensions.k8s.io/v1 CustomResourceDefinition",
            {"status": condition("NamesAccepted", "False", message="in use")},
            "its names are taken: in use",
        ),
    ],
)
def test_what_will_never_be_ready(kind: str, live: Object, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        lacking(kind, live)


def waited(expression: str, live: Object) -> str | None:
    return lacking("lab.example/v1 Widget", {**live, "metadata": {"annotations": {"pulumi.com/waitFor": expression}}})


@pytest.mark.parametrize(
    ("expression", "live", "expected"),
    [
        ("condition=Ready", {"status": condition("Ready")}, None),
        ("condition=Ready", {"status": condition("Ready", observedGeneration=1)}, "condition Ready is not True"),
        ("condition=Ready", {"status": condition("Ready", "False", reason="Why")}, "condition Ready is not True (Why)"),
        ("condition=Ready=false", {"status": condition("Ready", "False")}, None),
        ("jsonpath={.status.phase}", {"status": {"phase": "a"}}, None),
        ("jsonpath={.status.phase}", {}, "{.status.phase} is not there"),
        ("jsonpath={.status.phase}=b", {"status": {"phase": "a"}}, "{.status.phase} is a, not b"),
        ("jsonpath={.status.count}=3", {"status": {"count": 3}}, None),
        ("jsonpath={.status.ok}=true", {"status": {"ok": True}}, None),
        ('jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', {"status": condition("Ready")}, None),
        ('["condition=Ready", "jsonpath={.spec.a}"]', {"status": condition("Ready")}, "{.spec.a} is not there"),
    ],
)
def test_wait_for(expression: str, live: Object, expected: str | None) -> None:
    assert waited(expression, live) == expected


@pytest.mark.parametrize("expression", ["", "[]", "[1]", "phase=x", "jsonpath=.status", "jsonpath={.a[}", "{}"])
def test_bad_expressions(expression: str) -> None:
    with pytest.raises(ValueError, match=r"must be|has a bad path"):
        readiness.conditions(expression)


def test_nothing_is_waited_for_where_told_so() -> None:
    skipping = {"metadata": {"annotations": {"pulumi.com/skipAwait": "true"}}}
    assert lacking("apps/v1 Deployment", skipping) is None


def pod(status: Object) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": status}


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
        (
            {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}]},
            "container c: ErrImagePull: no",
        ),
        (
            {
                "initContainerStatuses": [
                    {
                        "name": "c",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
                    }
                ]
            },
            "container c: CrashLoopBackOff; ended with exit code 3 (Error)",
        ),
        (condition("PodScheduled", "False", message="no node fits"), "it cannot be scheduled: no node fits"),
        ({"containerStatuses": [{"name": "c", "ready": True, "state": {"running": {}}}]}, None),
    ],
)
def test_troubles_of_pods(status: Object, problem: str | None) -> None:
    assert readiness.pod_problems(pod(status)) == ([f"Pod p: {problem}"] if problem else [])


def test_a_pod_that_waits_says_why() -> None:
    live = pod(condition("PodScheduled", "False", message="no node fits"))
    assert readiness.pod(Check(live, Recorded())) == "Pod p: it cannot be scheduled: no node fits"
