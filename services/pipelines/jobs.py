"""Training's Jobs: made of the cluster's own templates, found again by who lost sight of them, followed to their end.

`lab train` makes its Job of the same manifests with the same function: there is one way to train.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from services.pipelines.cluster import JOBS, PODS, TEMPLATES, Cluster, ThereAlreadyError
from services.pipelines.errors import DecidedError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.pipelines.cluster import Object
    from services.pipelines.settings import Takes

NAMESPACE, CONTAINER = "training", "train"
ONE_POD, WORKERS = "run", "run-workers"
"""The templates: CronJobs that never start by themselves (k8s/platform/training/templates)."""
MODEL, RUN, STEP = (f"ml-cluster.dev/{word}" for word in ("model", "pipeline-run", "pipeline-step"))
REFUSED = 3
DECIDED = {2, REFUSED, 65, 70, 78}
"""Exit statuses of training that trying again does not change (services/training/README.md)."""
SECONDS_BETWEEN = 1.0
PROGRESS = re.compile(r"\d+%\|")
"""In a bar of tqdm's."""


class Coded(Protocol):
    """A model's code: an archive on the object store, and where it came from."""

    @property
    def digest(self) -> str:
        """SHA-256 of the archive."""

    @property
    def version(self) -> str:
        """The commit or, where the files differ from it, a digest of the Python files."""

    @property
    def commit(self) -> str:
        """The commit that was checked out."""

    @property
    def dirty(self) -> bool:
        """Whether the files differ from it."""


@dataclass(frozen=True)
class Code:
    """As `Coded`."""

    digest: str
    version: str = "none"
    commit: str = "none"
    dirty: bool = False


def filled(job: Object, model: str, code: Coded, takes: Takes) -> Object:
    """A Job of k8s/platform/training/run for a model, its code, and what training it takes."""
    made: Object = json.loads(json.dumps(job))
    template = made["spec"]["template"]
    (container,) = template["spec"]["containers"]
    told = {
        "MODEL_NAME": model, "MODEL_CODE": code.digest, "CODE_VERSION": code.version, "CODE_COMMIT": code.commit,
        "CODE_DIRTY": str(code.dirty).lower(), "WORKERS": str(takes.workers),
    }  # fmt: skip
    container["env"] = [
        {**entry, **({"value": told[entry["name"]]} if entry["name"] in told else {})} for entry in container["env"]
    ]
    container["resources"] = {"requests": {"cpu": takes.cpu, "memory": "384Mi"}, "limits": {"memory": takes.memory}}
    for labels in (made["metadata"]["labels"], template["metadata"]["labels"]):
        labels[MODEL] = model
    if takes.workers > 1:
        made["spec"] |= {"completions": takes.workers, "parallelism": takes.workers}
    return made


@dataclass(frozen=True)
class Asked:
    """One command of training (services/training), as a Job."""

    model: str
    code: Code
    takes: Takes
    arguments: tuple[str, ...]
    root: str
    """The pipeline's run, or the one that it repeats: whoever takes it up again finds its Jobs."""
    step: str

    def name(self, attempt: int) -> str:
        """The Job's name, always the same one; at most 52 characters, as the pods' names are longer."""
        key = hashlib.sha256(json.dumps([self.root, self.step, self.arguments, attempt]).encode()).hexdigest()[:10]
        return f"{self.model[:24].rstrip('-')}-{self.step.replace('_', '-')[:16].strip('-')}-{key}"


@dataclass(frozen=True)
class Jobs:
    """The Jobs of a cluster.

    Raises:
        PipelineError: the Kubernetes API does not answer, or a Job was lost; of every method.
        DecidedError: the API refuses.
    """

    cluster: Cluster
    say: Callable[[str], None]

    def template(self, takes: Takes) -> Object:
        """The Job that training one variant is made of; with `image`, what its pods run."""
        name = WORKERS if takes.workers > 1 else ONE_POD
        found = self.cluster.find(TEMPLATES, NAMESPACE, name)
        if found is None:
            raise DecidedError(f"the cluster has no CronJob {NAMESPACE}/{name} to make Jobs of: `lab up` makes it")
        return {"apiVersion": "batch/v1", "kind": "Job", **found["spec"]["jobTemplate"]}

    def run(self, asked: Asked) -> dict[str, Any]:
        """Have a command run to its end, or find the Job that has; its result, with `exit`.

        Raises:
            DecidedError: it failed in a way that it would fail in again; not where a gate refuses: `exit` is 3 then.
            PipelineError: it failed in another way.
        """
        for attempt in count():
            name = asked.name(attempt)
            if live := self.cluster.find(JOBS, NAMESPACE, name):
                if _ended(live) and self._result(name)["exit"] not in {0, *DECIDED}:
                    continue
                self.say(f"Job {NAMESPACE}/{name} is there already")
            else:
                self._create(asked, name)
            result = self._follow(name)
            if result["exit"] not in {0, REFUSED}:
                kind = DecidedError if result["exit"] in DECIDED else PipelineError
                raise kind(f"Job {NAMESPACE}/{name}: {result.get('error', 'failed')}")
            return result
        raise AssertionError

    def stop(self, asked: Asked) -> None:
        """End what still runs of a command."""
        for attempt in count():
            name = asked.name(attempt)
            if (live := self.cluster.find(JOBS, NAMESPACE, name)) is None:
                return
            if not _ended(live):
                self.cluster.delete(JOBS, NAMESPACE, name)
                self.say(f"Job {NAMESPACE}/{name} was ended")

    def _create(self, asked: Asked, name: str) -> None:
        job = filled(self.template(asked.takes), asked.model, asked.code, asked.takes)
        job["metadata"] = {
            "name": name, "namespace": NAMESPACE,
            "labels": {**job["metadata"]["labels"], RUN: asked.root, STEP: asked.step},
        }  # fmt: skip
        container = job["spec"]["template"]["spec"]["containers"][0]
        # In the place of the last word, `run`; torchrun's come before it.
        container["args"] = [*container["args"][:-1], *asked.arguments]
        # Tags of every run of MLflow that the program makes: its lineage names the pipeline's run.
        container["env"].append({"name": "MLFLOW_RUN_CONTEXT", "value": json.dumps({"pipeline_run": asked.root})})
        try:
            self.cluster.create(JOBS, NAMESPACE, job)
        except ThereAlreadyError:
            return
        self.say(f"Job {NAMESPACE}/{name}: {' '.join(asked.arguments)}")

    def _follow(self, name: str) -> dict[str, Any]:
        shown: dict[str, int] = {}
        told = ""
        while True:
            live = self.cluster.find(JOBS, NAMESPACE, name)
            if live is None:
                raise PipelineError(f"Job {NAMESPACE}/{name} was deleted")
            ended, pods = _ended(live), self._pods(name)
            for pod in pods:
                self._relay(pod["metadata"]["name"], shown, ended=ended)
            if ended:
                return self._result(name)
            if (waits := _waits(live, pods)) and waits != told:
                self.say(waits)
                told = waits
            time.sleep(SECONDS_BETWEEN)

    def _relay(self, pod: str, shown: dict[str, int], *, ended: bool) -> None:
        """Say the lines that are new; half a line is held back until the end."""
        text = self.cluster.log(NAMESPACE, pod, CONTAINER)
        start = shown.get(pod, 0)
        end = len(text) if ended else text.rfind("\n") + 1
        if end > start:
            shown[pod] = end
            if lines := _shown(text[start:end]):
                self.say(lines)

    def _pods(self, name: str) -> list[Object]:
        pods = self.cluster.items(PODS, NAMESPACE, labelSelector=f"batch.kubernetes.io/job-name={name}")
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _result(self, name: str) -> dict[str, Any]:
        """What the programs wrote at their end; of several workers, what the one wrote that has written."""
        ends = [
            state["state"]["terminated"]
            for pod in reversed(self._pods(name))
            for state in pod.get("status", {}).get("containerStatuses", ())
            if "terminated" in state["state"]
        ]
        result: dict[str, Any] = {}
        for end in ends:
            try:
                result = {**json.loads(end.get("message", "")), **result}
            except (ValueError, TypeError):
                continue
        if not result:
            return {"exit": 1, "error": "no pod is left that says what it ended with" if not ends else "failed"}
        return {**result, "exit": ends[0]["exitCode"]}


def _shown(text: str) -> str:
    """Lines as a terminal ends up with them: of bars of progress, nothing."""
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not PROGRESS.search(line))


def _ended(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(one["type"] in {"Complete", "Failed"} and one["status"] == "True" for one in conditions)


def _waits(job: Object, pods: list[Object]) -> str:
    """What a Job waits for; nothing once a pod of it runs."""
    if not pods:
        return f"waiting for the quota of namespace {NAMESPACE}" if job.get("status", {}).get("startTime") else ""
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] != "True":
                return f"{pod['metadata']['name']}: {condition.get('message', 'waiting for a node')}"
    return ""
