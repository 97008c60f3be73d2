"""Metrics of Kubernetes objects, with the names and meanings of kube-state-metrics."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from state_exporter.exposition import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Object = dict[str, Any]
    Samples = Iterator[Sample]

PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")
CLAIM_PHASES = ("Lost", "Bound", "Pending")
LABELS = ("app", "app.kubernetes.io/name", "ml-cluster.dev/model", "ml-cluster.dev/alias")
"""Labels in `kube_<kind>_labels`; others would only make more series."""
UNITS = {"cpu": "core", "pods": "integer"}
SUFFIXES: dict[str, int | str] = {
    "": 1, "n": "1e-9", "u": "1e-6", "m": "1e-3", "k": 10**3, "M": 10**6, "G": 10**9,
    "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


def quantity(text: str) -> float:
    """Parse a Kubernetes quantity: `250m` is 0.25, `2Gi` is 2147483648.

    Raises:
        ValueError: the text is not a quantity.
    """
    found = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?", str(text))
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    return float(Decimal(found[1]) * Decimal(SUFFIXES[found[2] or ""]))


def seconds(time: str) -> float:
    """Parse a Kubernetes time: seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def nodes(found: list[Object]) -> Samples:
    """`kube_node_*`."""
    for node in found:
        name, info = node["metadata"]["name"], node["status"].get("nodeInfo", {})
        labels = {"node": name}
        keys = {
            "kernel_version": "kernelVersion", "os_image": "osImage", "kubelet_version": "kubeletVersion",
            "container_runtime_version": "containerRuntimeVersion",
        }  # fmt: skip
        yield Sample("kube_node_info", 1, labels | {label: info.get(key, "") for label, key in keys.items()})
        yield Sample("kube_node_created", seconds(node["metadata"]["creationTimestamp"]), labels)
        yield Sample("kube_node_spec_unschedulable", float(node["spec"].get("unschedulable", False)), labels)
        for label in node["metadata"].get("labels", {}):
            prefix, _, role = label.partition("/")
            if prefix == "node-role.kubernetes.io":
                yield Sample("kube_node_role", 1, labels | {"role": role})
        for condition in node["status"].get("conditions", ()):
            for status in ("true", "false", "unknown"):
                about = labels | {"condition": condition["type"], "status": status}
                yield Sample("kube_node_status_condition", float(condition["status"].lower() == status), about)
        for kind in ("capacity", "allocatable"):
            yield from _resources(f"kube_node_status_{kind}", node["status"].get(kind, {}), labels)


def pods(found: list[Object]) -> Samples:
    """`kube_pod_*`."""
    for pod in found:
        labels, status, spec = _identity(pod, "pod"), pod.get("status", {}), pod["spec"]
        owner: Object = next((one for one in pod["metadata"].get("ownerReferences", ()) if one.get("controller")), {})
        yield Sample(
            "kube_pod_info",
            1,
            labels | {
                "node": spec.get("nodeName", ""),
                "created_by_kind": owner.get("kind", ""),
                "created_by_name": owner.get("name", ""),
                "priority_class": spec.get("priorityClassName", ""),
            },
        )  # fmt: skip
        yield from _labels("kube_pod_labels", pod, labels)
        for phase in PHASES:
            yield Sample("kube_pod_status_phase", float(status.get("phase") == phase), labels | {"phase": phase})
        ready = next((one["status"] for one in status.get("conditions", ()) if one["type"] == "Ready"), "unknown")
        for condition in ("true", "false", "unknown"):
            about = labels | {"condition": condition}
            yield Sample("kube_pod_status_ready", float(ready.lower() == condition), about)
        for prefix, key in (
            ("kube_pod_init_container", "initContainerStatuses"),
            ("kube_pod_container", "containerStatuses"),
        ):
            for container in status.get(key, ()):
                yield from _container(prefix, container, labels)
        for container in spec["containers"]:
            of = labels | {"container": container["name"], "node": spec.get("nodeName", "")}
            for kind, given in container.get("resources", {}).items():
                if kind in {"requests", "limits"}:
                    yield from _resources(f"kube_pod_container_resource_{kind}", given, of)


def _container(prefix: str, container: Object, pod: Mapping[str, str]) -> Samples:
    labels = {**pod, "container": container["name"]}
    yield Sample(f"{prefix}_status_restarts_total", container["restartCount"], labels, "counter")
    yield Sample(f"{prefix}_status_ready", float(container["ready"]), labels)
    state = container.get("state", {})
    yield Sample(f"{prefix}_status_running", float("running" in state), labels)
    for kind in ("waiting", "terminated"):
        if reason := state.get(kind, {}).get("reason"):
            yield Sample(f"{prefix}_status_{kind}_reason", 1, labels | {"reason": reason})
    if reason := container.get("lastState", {}).get("terminated", {}).get("reason"):
        yield Sample(f"{prefix}_status_last_terminated_reason", 1, labels | {"reason": reason})


def deployments(found: list[Object]) -> Samples:
    """`kube_deployment_*`."""
    for one in found:
        labels, status = _identity(one, "deployment"), one.get("status", {})
        yield from _labels("kube_deployment_labels", one, labels)
        yield Sample("kube_deployment_spec_replicas", one["spec"].get("replicas", 1), labels)
        yield Sample("kube_deployment_metadata_generation", one["metadata"]["generation"], labels)
        yield Sample("kube_deployment_status_observed_generation", status.get("observedGeneration", 0), labels)
        for name, key in (
            ("", "replicas"), ("_available", "availableReplicas"), ("_ready", "readyReplicas"),
            ("_unavailable", "unavailableReplicas"), ("_updated", "updatedReplicas"),
        ):  # fmt: skip
            yield Sample(f"kube_deployment_status_replicas{name}", status.get(key, 0), labels)


def stateful_sets(found: list[Object]) -> Samples:
    """`kube_statefulset_*`."""
    for one in found:
        labels, status = _identity(one, "statefulset"), one.get("status", {})
        yield Sample("kube_statefulset_replicas", one["spec"].get("replicas", 1), labels)
        for name, key in (("", "replicas"), ("_ready", "readyReplicas"), ("_available", "availableReplicas")):
            yield Sample(f"kube_statefulset_status_replicas{name}", status.get(key, 0), labels)


def daemon_sets(found: list[Object]) -> Samples:
    """`kube_daemonset_*`."""
    for one in found:
        labels, status = _identity(one, "daemonset"), one.get("status", {})
        for name, key in (
            ("desired_number_scheduled", "desiredNumberScheduled"), ("number_ready", "numberReady"),
            ("number_unavailable", "numberUnavailable"), ("updated_number_scheduled", "updatedNumberScheduled"),
        ):  # fmt: skip
            yield Sample(f"kube_daemonset_status_{name}", status.get(key, 0), labels)


def jobs(found: list[Object]) -> Samples:
    """`kube_job_*`."""
    for one in found:
        labels, status = _identity(one, "job_name"), one.get("status", {})
        owner: Object = next(iter(one["metadata"].get("ownerReferences", ())), {})
        about = {"owner_kind": owner.get("kind", ""), "owner_name": owner.get("name", "")}
        yield Sample("kube_job_owner", 1, labels | about)
        yield Sample("kube_job_created", seconds(one["metadata"]["creationTimestamp"]), labels)
        yield from _labels("kube_job_labels", one, labels)
        for key in ("active", "failed", "succeeded"):
            yield Sample(f"kube_job_status_{key}", status.get(key, 0), labels)
        conditions = {each["type"]: each["status"].lower() for each in status.get("conditions", ())}
        for kind in ("Complete", "Failed"):
            if kind in conditions:
                for state in ("true", "false", "unknown"):
                    value = float(conditions[kind] == state)
                    yield Sample(f"kube_job_{kind.lower()}", value, labels | {"condition": state})
        for name, key in (("start_time", "startTime"), ("completion_time", "completionTime")):
            if key in status:
                yield Sample(f"kube_job_status_{name}", seconds(status[key]), labels)


def cron_jobs(found: list[Object]) -> Samples:
    """`kube_cronjob_*`."""
    for one in found:
        labels, status = _identity(one, "cronjob"), one.get("status", {})
        yield Sample("kube_cronjob_created", seconds(one["metadata"]["creationTimestamp"]), labels)
        yield Sample("kube_cronjob_spec_suspend", float(one["spec"].get("suspend", False)), labels)
        yield Sample("kube_cronjob_status_active", len(status.get("active", ())), labels)
        for name, key in (("schedule", "lastScheduleTime"), ("successful", "lastSuccessfulTime")):
            if key in status:
                yield Sample(f"kube_cronjob_status_last_{name}_time", seconds(status[key]), labels)


def claims(found: list[Object]) -> Samples:
    """`kube_persistentvolumeclaim_*`."""
    for one in found:
        labels, spec = _identity(one, "persistentvolumeclaim"), one["spec"]
        about = {"storageclass": spec.get("storageClassName", ""), "volumename": spec.get("volumeName", "")}
        yield Sample("kube_persistentvolumeclaim_info", 1, labels | about)
        requested = quantity(spec["resources"]["requests"]["storage"])
        yield Sample("kube_persistentvolumeclaim_resource_requests_storage_bytes", requested, labels)
        for phase in CLAIM_PHASES:
            value = float(one.get("status", {}).get("phase") == phase)
            yield Sample("kube_persistentvolumeclaim_status_phase", value, labels | {"phase": phase})


KINDS: dict[str, Callable[[list[dict[str, Any]]], Iterator[Sample]]] = {
    "/api/v1/nodes": nodes,
    "/api/v1/pods": pods,
    "/api/v1/persistentvolumeclaims": claims,
    "/apis/apps/v1/deployments": deployments,
    "/apis/apps/v1/statefulsets": stateful_sets,
    "/apis/apps/v1/daemonsets": daemon_sets,
    "/apis/batch/v1/jobs": jobs,
    "/apis/batch/v1/cronjobs": cron_jobs,
}
"""The function that makes metrics from a list of objects, by the list's API path."""


def _identity(one: Object, name: str) -> dict[str, str]:
    return {"namespace": one["metadata"]["namespace"], name: one["metadata"]["name"]}


def _labels(name: str, one: Object, labels: Mapping[str, str]) -> Samples:
    given = one["metadata"].get("labels", {})
    exposed = {f"label_{re.sub('[^a-zA-Z0-9]', '_', label)}": given[label] for label in LABELS if label in given}
    if exposed:
        yield Sample(name, 1, {**labels, **exposed})


def _resources(name: str, given: Mapping[str, str], labels: Mapping[str, str]) -> Samples:
    for resource, amount in given.items():
        about = {"resource": re.sub("[^a-zA-Z0-9]", "_", resource), "unit": UNITS.get(resource, "byte")}
        yield Sample(name, quantity(amount), {**labels, **about})
