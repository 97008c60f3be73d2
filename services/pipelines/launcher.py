"""Each run of a pipeline is a Job, made of its template: the CronJob `run`, which never starts by itself."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Self

from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from services.pipelines.cluster import JOBS, TEMPLATES, Cluster, ThereAlreadyError
from services.pipelines.errors import DecidedError, PipelineError
from services.pipelines.jobs import MODEL, RUN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import DagsterRun

TEMPLATE = "run"
MODEL_TAG = "ml-cluster/model"


class JobLauncher(RunLauncher[Any], ConfigurableClass):
    """Starts runs as Jobs in the namespace of this pod, and says how they are."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._cluster = Cluster()
        self._namespace = os.environ.get("NAMESPACE", "pipelines")
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Where its settings are."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """It has none: a pod's environment says where it is."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """As Dagster makes it."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Make the run's Job.

        Raises:
            PipelineError: the Kubernetes API does not answer, or refuses.
        """
        run = context.dagster_run
        template = self._cluster.find(TEMPLATES, self._namespace, TEMPLATE)
        if template is None:
            raise DecidedError(f"there is no CronJob {self._namespace}/{TEMPLATE} to make runs of: `lab up` makes it")
        job = json.loads(json.dumps(template["spec"]["jobTemplate"]))
        labels = {RUN: run.run_id, MODEL: run.tags.get(MODEL_TAG, "none")}
        metadata = {"name": _name(run.run_id), "namespace": self._namespace}
        job["metadata"] = {**metadata, "labels": {**job.get("metadata", {}).get("labels", {}), **labels}}
        job["spec"]["template"]["metadata"]["labels"] |= labels
        job["spec"]["template"]["spec"]["containers"][0]["args"] = ["run", run.run_id]
        try:
            self._cluster.create(JOBS, self._namespace, {"apiVersion": "batch/v1", "kind": "Job", **job})
        except ThereAlreadyError:
            return
        self._instance.report_engine_event(f"Job {self._namespace}/{_name(run.run_id)}", run, cls=self.__class__)

    def terminate(self, run_id: str) -> bool:
        """End a run; what it started ends with it. Whether there was anything to end."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return self._cluster.delete(JOBS, self._namespace, _name(run_id))

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """How the Job of a run is."""
        try:
            job = self._cluster.find(JOBS, self._namespace, _name(run.run_id))
        except PipelineError as error:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"not known: {error}")
        if job is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Job {_name(run.run_id)} is gone")
        for condition in job.get("status", {}).get("conditions", ()):
            if condition["status"] == "True" and condition["type"] == "Failed":
                return CheckRunHealthResult(WorkerStatus.FAILED, condition.get("message", "the Job failed"))
            if condition["status"] == "True" and condition["type"] == "Complete":
                return CheckRunHealthResult(WorkerStatus.SUCCESS)
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _name(run_id: str) -> str:
    return f"run-{run_id}"
