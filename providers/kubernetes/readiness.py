"""When an object is ready, and how to explain that it is not.

The conditions are those of the official plugin and of ``kubectl rollout status``. A
check looks at one state of the cluster and returns what is missing, None when nothing is; it raises ProviderError when
the object can no longer become ready.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import jsonpath

from providers.framework import CancelledError, NotYetError, ProviderError
from providers.kubernetes.client import ClusterError, UnreachableError
from providers.kubernetes.objects import Identity, annotations_of, flagged, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from providers.framework import Operation
    from providers.kubernetes.client import Cluster
    from providers.kubernetes.objects import Object
    from providers.values import Properties

ENDPOINT_GRACE_SECONDS: Final = 10.0
"""How long a Service without endpoints waits for the first one; its pods may be created after it."""
PROBLEM_SECONDS: Final = 5.0
"""The problems of pods are shown when a workload takes longer than this."""
MAX_POLL_SECONDS: Final = 3.0
MAX_PODS: Final = 3
SHOWN_EVENTS: Final = 5
SHOWN_LOG_LINES: Final = 10
TIMEOUT_REMEDY: Final = (
    'Raise the limit with custom_timeouts or the annotation pulumi.com/timeoutSeconds, or do not wait, with '
    'pulumi.com/skipAwait: "true".'
)  # fmt: skip
STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
NO_DELETE_WAIT: Final = frozenset(
    {"Namespace", "Pod", "ReplicationController", "DaemonSet", "Deployment", "StatefulSet", "Job"}
)
"""Kinds whose deletion is not awaited either where ``pulumi.com/skipAwait`` is set, as in the official plugin."""


class View(Protocol):
    """What checks need of the cluster."""

    def find(self, target: Identity) -> Object | None:
        """The object, or None."""

    def items(self, api_version: str, kind: str, namespace: str, **selectors: str) -> list[Object]:
        """Objects of a kind."""


@dataclass(frozen=True)
class Check:
    """A check of one object: its state, the cluster, and for how many seconds it has been waited for."""

    live: Object
    view: View
    elapsed: float = 0

    @property
    def namespace(self) -> str:
        return str(self.live["metadata"].get("namespace", ""))

    @property
    def name(self) -> str:
        return str(self.live["metadata"]["name"])

    def at(self, *path: str) -> Any:
        """A value of the object."""
        return get(self.live, *path)

    def count(self, *path: str, default: int = 0) -> int:
        """A number of the object."""
        found = self.at(*path)
        return default if found is None else int(found)

    def condition(self, kind: str) -> Mapping[str, Any]:
        """A condition of its status; empty while there is none of its present generation."""
        for condition in self.at("status", "conditions") or ():
            seen = condition.get("observedGeneration") or self.at("status", "observedGeneration")
            if condition["type"] == kind and not (seen and seen < self.count("metadata", "generation")):
                return dict(condition)
        return {}

    def unobserved(self) -> str | None:
        """What to wait for while the controller has not observed the last change."""
        if self.count("status", "observedGeneration") < self.count("metadata", "generation"):
            return "its controller has not observed the change yet"
        return None


def _status_message(condition: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))


def deployment(check: Check) -> str | None:
    """All replicas are of the new template and available, as in ``kubectl rollout status``."""
    if missing := check.unobserved():
        return missing
    if check.at("spec", "paused"):
        return None
    progress = check.condition("Progressing")
    if progress.get("reason") == "ProgressDeadlineExceeded":
        raise ProviderError(f"the rollout makes no progress: {_status_message(progress)}")
    wanted = check.count("spec", "replicas", default=1)
    updated, total = check.count("status", "updatedReplicas"), check.count("status", "replicas")
    available = check.count("status", "availableReplicas")
    failure = check.condition("ReplicaFailure")
    because = f" ({_status_message(failure)})" if failure.get("status") == "True" else ""
    if updated < wanted:
        return f"{updated} of {wanted} replicas updated{because}"
    if total > updated:
        return f"{total - updated} old replicas have not ended"
    return f"{available} of {wanted} replicas available{because}" if available < wanted else None


def stateful_set(check: Check) -> str | None:
    """All replicas are ready and, down to the partition, of the new revision."""
    if missing := check.unobserved():
        return missing
    wanted, ready = check.count("spec", "replicas", default=1), check.count("status", "readyReplicas")
    if ready < wanted:
        return f"{ready} of {wanted} replicas ready"
    if check.at("spec", "updateStrategy", "type") == "OnDelete":
        return None
    partition = check.count("spec", "updateStrategy", "rollingUpdate", "partition")
    updated = check.count("status", "updatedReplicas")
    if partition:
        return f"{updated} of {wanted - partition} replicas updated" if updated < wanted - partition else None
    if check.at("status", "currentRevision") != check.at("status", "updateRevision"):
        return f"{updated} of {wanted} replicas updated"
    return None


def daemon_set(check: Check) -> str | None:
    """Every node that should have a pod has an available one of the new template."""
    if missing := check.unobserved():
        return missing
    wanted = check.count("status", "desiredNumberScheduled")
    updated, available = check.count("status", "updatedNumberScheduled"), check.count("status", "numberAvailable")
    if check.at("spec", "updateStrategy", "type") != "OnDelete" and updated < wanted:
        return f"{updated} of {wanted} pods updated"
    return f"{available} of {wanted} pods available" if available < wanted else None


def replicas(check: Check) -> str | None:
    """A ReplicaSet's or ReplicationController's replicas are available."""
    wanted, available = check.count("spec", "replicas", default=1), check.count("status", "availableReplicas")
    return check.unobserved() or (f"{available} of {wanted} replicas available" if available < wanted else None)


def job(check: Check) -> str | None:
    """It is complete; a failed one never will be."""
    if check.condition("Complete").get("status") == "True":
        return None
    failed = check.condition("Failed")
    if failed.get("status") == "True":
        raise ProviderError(f"the Job failed: {_status_message(failed)}")
    if check.at("spec", "suspend"):
        return "it is suspended"
    counts = ", ".join(f"{check.count('status', state)} {state}" for state in ("active", "succeeded", "failed"))
    return f"it is not complete ({counts})"


def pod(check: Check) -> str | None:
    """It is ready, or has succeeded."""
    if check.at("status", "phase") == "Succeeded" or check.condition("Ready").get("status") == "True":
        return None
    if check.at("status", "phase") == "Failed":
        message = _status_message(check.at("status") or {})
        raise ProviderError(f"the Pod failed{': ' if message else ''}{message}")
    return "; ".join(pod_problems(check.live)) or f"phase {check.at('status', 'phase') or 'Pending'}"


def claim(check: Check) -> str | None:
    """It is bound, or its storage class binds when the first pod uses it."""
    phase = check.at("status", "phase")
    if phase == "Lost":
        raise ProviderError("the claim has lost its volume")
    if phase == "Bound":
        return None
    name = check.at("spec", "storageClassName")
    try:
        found = _storage_class(check.view, name)
    except ClusterError as error:
        if error.code != 403:
            raise
        return f"no volume is bound to it, and its storage class cannot be read ({error.reason})"
    if phase and found and found.get("volumeBindingMode") == "WaitForFirstConsumer":
        return None
    if found:
        return f"no volume of storage class {found['metadata']['name']} is bound to it"
    return f"there is no storage class {name}" if name else "no volume is bound to it, and it has no storage class"


def _storage_class(view: View, name: str | None) -> Object | None:
    """The class of that name; the default one for None, none for the empty name."""
    if name is None:
        classes = view.items("storage.k8s.io/v1", "StorageClass", "")
        return next((item for item in classes if annotations_of(item).get(DEFAULT_CLASS) == "true"), None)
    return view.find(Identity("storage.k8s.io/v1", "StorageClass", "", name)) if name else None


def volume(check: Check) -> str | None:
    """It is available or bound."""
    phase = check.at("status", "phase")
    return None if phase in {"Available", "Bound"} else f"phase {phase or 'Pending'}"


def service(check: Check) -> str | None:
    """A load balancer has an address; a Service that selects pods has endpoints, and all of them are ready.

    One without endpoints is ready after a while: pods may be made by what depends on it.
    """
    kind = check.at("spec", "type")
    if kind == "LoadBalancer" and not check.at("status", "loadBalancer", "ingress"):
        return "the load balancer has no address"
    if kind == "ExternalName" or check.at("spec", "clusterIP") == "None" or not check.at("spec", "selector"):
        return None
    slices = check.view.items(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        check.namespace,
        labelSelector=f"kubernetes.io/service-name={check.name}",
    )
    endpoints = [endpoint for item in slices for endpoint in item.get("endpoints") or ()]
    ready = sum(get(endpoint, "conditions", "ready") is not False for endpoint in endpoints)
    if ready < len(endpoints):
        return f"{ready} of {len(endpoints)} endpoints ready"
    return None if endpoints or check.elapsed > ENDPOINT_GRACE_SECONDS else "no pods match its selector"


def ingress(check: Check) -> str | None:
    """It has an address, and the Services of its rules exist."""
    paths = [path for rule in check.at("spec", "rules") or () for path in get(rule, "http", "paths") or ()]
    wanted = {name for path in paths if (name := get(path, "backend", "service", "name"))}
    here = [Identity("v1", "Service", check.namespace, str(name)) for name in sorted(wanted)]
    if missing := [target.name for target in here if check.view.find(target) is None]:
        return f"its rules name Services that are not there: {', '.join(missing)}"
    return None if check.at("status", "loadBalancer", "ingress") else "no ingress controller has given it an address"


def gateway(check: Check) -> str | None:
    """It is programmed. One that is not accepted has a reason, and may be accepted when its class is created."""
    if check.condition("Programmed").get("status") == "True":
        return None
    accepted, programmed = check.condition("Accepted"), check.condition("Programmed")
    because = _status_message(accepted if accepted.get("status") != "True" else programmed)
    return f"it is not programmed{': ' if because else ''}{because}"


def definition(check: Check) -> str | None:
    """Its kinds are served."""
    if check.condition("Established").get("status") == "True":
        return None
    names = check.condition("NamesAccepted")
    if names.get("status") == "False":
        raise ProviderError(f"its names are taken: {_status_message(names)}")
    return "it is not established"


def namespace(check: Check) -> str | None:
    """It is active."""
    return None if check.at("status", "phase") == "Active" else f"phase {check.at('status', 'phase')}"


def quota(check: Check) -> str | None:
    """The limits are in force."""
    wanted = check.at("spec", "hard") or {}
    return None if wanted.keys() <= (check.at("status", "hard") or {}).keys() else "its limits are not in force"


def secret(check: Check) -> str | None:
    """A service account's token has been made."""
    is_token = check.at("type") == "kubernetes.io/service-account-token"
    return "its token is not made" if is_token and not check.at("data") else None


CHECKS: Final[Mapping[tuple[str, str], Callable[[Check], str | None]]] = {
    ("", "Namespace"): namespace,
    ("", "PersistentVolume"): volume,
    ("", "PersistentVolumeClaim"): claim,
    ("", "Pod"): pod,
    ("", "ReplicationController"): replicas,
    ("", "ResourceQuota"): quota,
    ("", "Secret"): secret,
    ("", "Service"): service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definition,
    ("apps", "DaemonSet"): daemon_set,
    ("apps", "Deployment"): deployment,
    ("apps", "ReplicaSet"): replicas,
    ("apps", "StatefulSet"): stateful_set,
    ("batch", "Job"): job,
    ("gateway.networking.k8s.io", "Gateway"): gateway,
    ("networking.k8s.io", "Ingress"): ingress,
}


def conditions(annotation: str) -> list[Callable[[Check], str | None]]:
    """The checks of ``pulumi.com/waitFor``: ``condition=Ready[=True]``, ``jsonpath={.status.phase}[=Bound]``, or a JSON
    list of such. Raises ValueError with the reason."""
    try:
        listed = json.loads(annotation)
    except ValueError:
        listed = annotation
    expressions = [listed] if isinstance(listed, str) else listed
    if not isinstance(expressions, list) or not expressions or not all(isinstance(item, str) for item in expressions):
        raise ValueError("must be an expression, or a JSON list of some")
    return [_condition(expression) for expression in expressions]


def _condition(expression: str) -> Callable[[Check], str | None]:
    word, _, rest = expression.partition("=")
    if word == "condition":
        kind, _, wanted = rest.partition("=")
        wanted = wanted or "True"

        def holds(check: Check) -> str | None:
            found = check.condition(kind)
            if str(found.get("status")).lower() == wanted.lower():
                return None
            return f"condition {kind} is not {wanted}" + (f" ({_status_message(found)})" if found else "")

        return holds
    path, brace, wanted = rest.rpartition("}")
    if word != "jsonpath" or not brace or not path.startswith("{") or (wanted and not wanted.startswith("=")):
        raise ValueError(f"must be condition=<type>[=<status>] or jsonpath={{<path>}}[=<value>], not {expression!r}")
    try:
        query = jsonpath.compile(f"${path[1:].strip().removeprefix('$')}")
    except jsonpath.JSONPathError as error:
        raise ValueError(f"has a bad path {path}}}: {error}") from error

    def matches(check: Check) -> str | None:
        found = query.findall(check.live)
        text = json.dumps(found[0]) if found and isinstance(found[0], bool | dict | list) else str(*found[:1])
        if found and (not wanted or text == wanted[1:]):
            return None
        return f"{path}}} is {text if found else 'not there'}" + (f", not {wanted[1:]}" if wanted else "")

    return matches


def checks_of(target: Identity, inputs: Properties) -> list[Callable[[Check], str | None]]:
    """What an object waits for after a create or an update."""
    if flagged(inputs, "skipAwait"):
        return []
    if chosen := annotations_of(inputs).get("pulumi.com/waitFor"):
        return conditions(chosen)
    found = CHECKS.get((target.group, target.kind))
    return [found] if found else []


def missing(cluster: View, live: Object, target: Identity, inputs: Properties, elapsed: float) -> str | None:
    """What is still missing."""
    for check in checks_of(target, inputs):
        if found := check(Check(live, cluster, elapsed)):
            return found
    return None


def settle(cluster: Cluster, target: Identity, inputs: Properties, operation: Operation) -> None:
    """Wait until an object is ready. Errors include what is known of its pods."""
    if not checks_of(target, inputs):
        return
    began = time.monotonic()
    seen: list[Object] = []

    def poll() -> bool | None:
        try:
            live = cluster.find(target)
            if live is None:
                raise ProviderError("it was deleted meanwhile")
            seen[:] = [live]
            elapsed = time.monotonic() - began
            lacking = missing(cluster, live, target, inputs, elapsed)
            if lacking is None:
                return True
            if elapsed > PROBLEM_SECONDS:
                lacking += "".join(f"; {problem}" for problem in _problems(cluster, live))
        except (ClusterError, UnreachableError) as error:
            if not error.transient:
                raise
            raise NotYetError(error) from error
        raise NotYetError(ProviderError(lacking, remedy=TIMEOUT_REMEDY))

    try:
        operation.wait(f"{target}", poll, max_delay=MAX_POLL_SECONDS)
    except CancelledError:
        raise
    except ProviderError as failure:
        details = "".join(f"\n  {line}" for item in seen for line in explain(cluster, item))
        spent = f"{target} is not ready after {time.monotonic() - began:.0f} s"
        raise ProviderError(f"{spent}: {failure.args[0]}{details}", remedy=failure.remedy) from failure


def until_gone(cluster: Cluster, target: Identity, uid: str | None, operation: Operation) -> None:
    """Wait until the object is deleted. Errors name its finalizers."""

    began = time.monotonic()

    def gone() -> bool | None:
        try:
            live = cluster.find(target)
        except (ClusterError, UnreachableError) as error:
            if not error.transient:
                raise
            raise NotYetError(error) from error
        if live is None or live["metadata"]["uid"] != (uid or live["metadata"]["uid"]):
            return True
        if time.monotonic() - began < PROBLEM_SECONDS:
            return None
        holds = [f"finalizer {name}" for name in live["metadata"].get("finalizers", ())]
        conditions = get(live, "status", "conditions") or ()
        holds += [item["message"] for item in conditions if item["status"] == "True" and item.get("message")]
        remedy = "Check the controllers of the finalizers: a deleted controller never removes its own."
        raise NotYetError(ProviderError(f"{target} is still being deleted: {'; '.join(holds)}", remedy=remedy))

    operation.wait(f"{target} to be gone", gone, max_delay=MAX_POLL_SECONDS)


def _pods(view: View, live: Object) -> list[Object]:
    """The pods that a workload selects; a Pod itself."""
    if live["kind"] == "Pod":
        return [live]
    labels = get(live, "spec", "selector", "matchLabels")
    if not labels:
        return []
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    return view.items("v1", "Pod", live["metadata"].get("namespace", ""), labelSelector=selector)


def _problems(view: View, live: Object) -> list[str]:
    """Some problems of a workload's pods; empty where they may not be read."""
    try:
        return [problem for item in _pods(view, live) for problem in pod_problems(item)][:MAX_PODS]
    except ProviderError:
        return []


def _statuses(item: Object) -> Iterator[Object]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from get(item, "status", kind) or ()


def _container_problem(status: Object) -> str | None:
    waiting, ended = get(status, "state", "waiting"), get(status, "state", "terminated")
    ended = ended or get(status, "lastState", "terminated")
    parts = []
    if waiting and waiting.get("reason") not in STARTING:
        parts.append(_status_message(waiting))
    if ended and (ended.get("exitCode") or waiting):
        parts.append(f"ended with exit code {ended.get('exitCode')} ({_status_message(ended)})")
    return f"container {status['name']}: {'; '.join(parts)}" if parts and not status.get("ready") else None


def pod_problems(item: Object) -> list[str]:
    """Why a pod is not ready, as far as its status shows."""
    found = [problem for status in _statuses(item) if (problem := _container_problem(status))]
    found += [
        f"it cannot be scheduled: {condition.get('message') or condition.get('reason')}"
        for condition in get(item, "status", "conditions") or ()
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    ]
    if get(item, "status", "phase") == "Failed":
        found.append(_status_message(item["status"]) or "it failed")
    return [f"Pod {item['metadata']['name']}: {problem}" for problem in found]


def explain(cluster: Cluster, live: Object) -> list[str]:
    """Warnings about an object; problems, warnings and last log lines of its pods."""
    try:
        lines = _warnings(cluster, live)
        troubled = [item for item in _pods(cluster, live) if pod_problems(item)][:MAX_PODS]
        for item in troubled:
            lines += pod_problems(item)
            if item is not live:
                lines += _warnings(cluster, item)
            target = Identity("v1", "Pod", item["metadata"].get("namespace", ""), item["metadata"]["name"])
            for status in _statuses(item):
                if _container_problem(status):
                    again = not get(status, "state", "terminated") and bool(status.get("restartCount"))
                    tail = cluster.log_tail(target, status["name"], previous=again, lines=SHOWN_LOG_LINES)
                    lines += [f"{target.name}/{status['name']} | {line}" for line in tail]
    except ProviderError as error:
        return [f"(its pods and events cannot be read: {error.args[0]})"]
    return lines


def _warnings(view: View, live: Object) -> list[str]:
    selector = f"involvedObject.uid={live['metadata']['uid']},type=Warning"
    events = view.items("v1", "Event", live["metadata"].get("namespace") or "default", fieldSelector=selector)
    recent = sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")))
    return [
        f"{live['kind']} {live['metadata']['name']}: {_status_message(event)} ({event.get('count') or 1} times)"
        for event in recent[-SHOWN_EVENTS:]
    ]
