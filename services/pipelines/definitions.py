"""All pipelines, one for each model that the cluster has: what Dagster's processes load."""

from __future__ import annotations

import dagster as dg

from services.pipelines import triggers
from services.pipelines.models import known
from services.pipelines.steps import pipeline


def all_of_them() -> dg.Definitions:
    """The pipelines of all models, with what starts them."""
    pipelines = [(model, pipeline(model)) for model in known()]
    schedules = [found for model, job in pipelines if (found := triggers.schedule(model, job))]
    return dg.Definitions(
        jobs=[job for _, job in pipelines],
        schedules=schedules,
        sensors=[sensor for model, job in pipelines for sensor in triggers.sensors(model, job)],
    )


defs = all_of_them()
