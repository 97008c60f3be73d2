"""Kubernetes Jobs of `lab` verbs: renders, starts and follows them, and reads their results."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from cli.errors import LabError
from cli.provision import cluster_of, kubectl_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.session import Session
    from cli.workloads import Object, Platform

JOB_SECONDS = 3600
MANAGER = "lab"


def rendered(session: Session, folder: str) -> list[Object]:
    """The objects of a kustomization of k8s/, with the images of the stack's bundle.

    Raises:
        LabError: kubectl is missing, or the kustomization cannot be rendered.
    """
    from infra.bundle import InventoryError, image_digests
    from infra.manifests import ManifestError, render

    stack = session.stack()
    try:
        return render(folder, kubectl_of(session, stack), image_digests(cluster_of(session, stack).bundle))
    except (InventoryError, ManifestError) as error:
        raise LabError(str(error)) from None


def start_job(platform: Platform, job: Object, name: str, namespace: str) -> str:
    """Create a Job from a manifest, with a generated name that starts with `name`; return the name."""
    from providers.kubernetes.objects import Identity

    manifest = json.loads(json.dumps(job))
    manifest["metadata"]["generateName"] = f"{name}-"
    manifest["metadata"].pop("name", None)
    jobs = Identity(job["apiVersion"], "Job", namespace, "")
    cluster = platform.cluster
    created = cluster.request(f"create a Job of {name}", "POST", cluster.path(jobs), manifest, fieldManager=MANAGER)
    job_name: str = created["metadata"]["name"]
    print(f"Job {namespace}/{job_name}", flush=True)
    return job_name


def follow_job(platform: Platform, job: str, namespace: str) -> Object:
    """Print a Job's output until it ends; return its result, with the exit status in `exit`.

    Raises:
        LabError: it was deleted, or has not ended in time.
    """
    from cli.joblog import JobLog
    from providers.kubernetes.client import ClusterError
    from providers.kubernetes.objects import Identity

    cluster, target = platform.cluster, Identity("batch/v1", "Job", namespace, job)
    logs: dict[str, JobLog] = {}
    start, waiting, printed = time.monotonic(), "", 0.0
    while True:
        live = cluster.find(target)
        if live is None:
            raise LabError(f"Job {job} was deleted")
        pods = cluster.items("v1", "Pod", namespace, labelSelector=f"batch.kubernetes.io/job-name={job}")
        pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        conditions = {one["type"] for one in live["status"].get("conditions", ()) if one["status"] == "True"}
        ended = bool(conditions & {"Complete", "Failed"})
        for pod in pods:
            for container, label in _containers(pod, job):
                name = f"{pod['metadata']['name']} --container {container}"
                try:
                    path = f"{cluster.path(Identity('v1', 'Pod', namespace, pod['metadata']['name']))}/log"
                    text = str(cluster.request(f"log of {name}", "GET", path, container=container))
                except ClusterError:
                    continue  # it has not started
                for line in logs.setdefault(name, JobLog()).more(text, ended=ended):
                    print(f"  {label} | {line}", flush=True)
        if ended:
            for name, log in logs.items():
                if log.hidden:
                    print(
                        f"  {log.hidden} more lines, mostly from libraries: `lab logs {name.split()[0]} --tail 1000`",
                        flush=True,
                    )
            return _job_result(job, pods)
        waited = time.monotonic() - start
        text = _waiting_reason(live, pods, namespace)
        if text and (text != waiting or waited - printed > 30):
            print(f"  … {text} ({waited:.0f} s)", flush=True)
            waiting, printed = text, waited
        if waited > JOB_SECONDS:
            raise LabError(f"Job {job} has not ended after {JOB_SECONDS} s")
        time.sleep(1)


def _containers(pod: Object, job: str) -> Iterator[tuple[str, str]]:
    """The containers of a pod, in order, each with the label of its lines."""
    names = [one["name"] for one in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])]
    for name in names:
        yield name, name if len(names) > 1 else pod["metadata"]["name"].removeprefix(f"{job}-")


def _waiting_reason(job: Object, pods: list[Object], namespace: str) -> str:
    if not pods:
        return f"waiting for the quota of namespace {namespace}" if job["status"].get("startTime") else "starting"
    for pod in pods:
        for state in _states(pod):
            reason = state["state"].get("waiting", {}).get("reason")
            if reason and reason != "PodInitializing":
                return f"{pod['metadata']['name']}: {reason}"
        for condition in pod["status"].get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] != "True":
                return f"{pod['metadata']['name']}: {condition.get('message', 'waiting for a node')}"
    return ""


def _states(pod: Object) -> list[Object]:
    """The statuses of a pod's containers, in order."""
    return [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]


def _job_result(job: str, pods: list[Object]) -> Object:
    """The result that the programs wrote; with several workers, the one that has written one."""
    newest = [
        [state["state"]["terminated"] for state in _states(pod) if "terminated" in state["state"]]
        for pod in reversed(pods)
    ]
    ends = [end for of_pod in newest for end in reversed(of_pod)]
    code = max((end["exitCode"] for end in ends[:1]), default=1)
    result: Object = {}
    for end in ends:
        try:
            result = {**json.loads(end.get("message", "")), **result}
        except ValueError:
            continue
    if result:
        return {**result, "exit": code}
    return {"exit": code, "error": f"Job {job} failed: {', '.join(str(end.get('reason')) for end in ends) or 'no pod'}"}
