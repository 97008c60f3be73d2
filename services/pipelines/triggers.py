"""What starts a pipeline besides people and pull requests: a time, a new version of the data, an alert about drift."""

# Without postponed annotations: Dagster reads those of sensors.
import json
import os
import urllib.parse
import urllib.request
from typing import Any

import dagster as dg

from services.pipelines import data
from services.pipelines.errors import PipelineError
from services.pipelines.launcher import MODEL_TAG
from services.pipelines.settings import Known
from services.pipelines.steps import DATA_TAG

SECONDS_TO_ANSWER, SECONDS_BETWEEN = 10, 60
ALERT = "ModelInputDrift"
"""k8s/platform/monitoring/alerts/rules/models.yaml"""
CAUSE_TAG = "ml-cluster/cause"


def schedule(model: Known, job: dg.JobDefinition) -> dg.ScheduleDefinition | None:
    """Starts a pipeline at its times; None where it has none."""
    if model.pipeline.schedule is None:
        return None
    return dg.ScheduleDefinition(
        name=f"{job.name}_schedule", job=job, cron_schedule=model.pipeline.schedule, execution_timezone="UTC",
        tags={CAUSE_TAG: "schedule"}, default_status=dg.DefaultScheduleStatus.RUNNING,
    )  # fmt: skip


def sensors(model: Known, job: dg.JobDefinition) -> list[dg.SensorDefinition]:
    """What starts a pipeline where it is seen."""
    asks = {"data": _on_data, "drift": _on_drift}
    return [asks[one](model, job) for one in dict.fromkeys(model.pipeline.triggers)]


def _on_data(model: Known, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{job.name}_data", job=job, minimum_interval_seconds=SECONDS_BETWEEN,
        default_status=dg.DefaultSensorStatus.RUNNING, description="A new version of the dataset.",
    )  # fmt: skip
    def on_data(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            version = data.current(model.name)
        except PipelineError as error:
            return dg.SkipReason(str(error))
        if version is None or version == context.cursor:
            return dg.SkipReason(f"version {version} is known" if version else "there is no dataset yet")
        # The first look, and what a pipeline has ingested itself, are no news.
        tags = {MODEL_TAG: model.name, DATA_TAG: version}
        known = context.cursor is None or context.instance.get_runs(dg.RunsFilter(tags=tags), limit=1)
        return dg.SensorResult(cursor=version, run_requests=[] if known else [_asked(job, "data", version, version)])

    return on_data


def _on_drift(model: Known, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{job.name}_drift", job=job, minimum_interval_seconds=SECONDS_BETWEEN,
        default_status=dg.DefaultSensorStatus.RUNNING, description=f"The alert {ALERT}.",
    )  # fmt: skip
    def on_drift() -> dg.SensorResult | dg.SkipReason:
        try:
            alerts = firing(model.name)
        except (OSError, ValueError) as error:
            return dg.SkipReason(f"the alerts do not answer: {error}")
        # An alert is one run, as long as it fires.
        return dg.SensorResult(
            run_requests=[_asked(job, "drift", f"{one['fingerprint']} {one['startsAt']}") for one in alerts]
        )

    return on_drift


def firing(model: str) -> list[dict[str, Any]]:
    """The alerts that fire about what production of a model is asked; those that somebody has silenced are left out.

    Raises:
        OSError: Alertmanager does not answer.
        ValueError: it answers something else.
    """
    filters = [f'alertname="{ALERT}"', f'model="{model}"', 'alias="production"']
    query = urllib.parse.urlencode({"active": "true", "silenced": "false", "filter": filters}, doseq=True)
    address = f"{os.environ['ALERTS_URL']}/api/v2/alerts?{query}"
    with urllib.request.urlopen(address, timeout=SECONDS_TO_ANSWER) as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.load(answer)
        return found


def _asked(job: dg.JobDefinition, cause: str, key: str, data_version: str = "") -> dg.RunRequest:
    config = {"ops": {"code": {"config": {"data_version": data_version}}}}
    return dg.RunRequest(run_key=key, run_config=config, tags={CAUSE_TAG: cause}, job_name=job.name)
