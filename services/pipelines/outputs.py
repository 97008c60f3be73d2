"""What a step hands to the next: small JSON, in the database with the run's events. No pod's disk has any of it."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg

from services.pipelines.errors import PipelineError

VALUE = "value"


class Outputs(dg.IOManager):
    """Values of steps, in their events. A run that goes on where another failed finds that one's."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep a value."""
        context.add_output_metadata({VALUE: dg.MetadataValue.text(json.dumps(obj, sort_keys=True))})

    def load_input(self, context: dg.InputContext) -> Any:
        """The value of a step before.

        Raises:
            PipelineError: the run that had it is gone.
        """
        upstream = context.upstream_output
        assert upstream is not None
        events = context.instance.all_logs(upstream.run_id, of_type=dg.DagsterEventType.HANDLED_OUTPUT)
        for entry in reversed(events):
            event = entry.dagster_event
            if event is None or event.step_key != upstream.step_key:
                continue
            data: Any = event.event_specific_data
            if data.output_name == upstream.name and VALUE in data.metadata:
                return json.loads(data.metadata[VALUE].value)
        raise PipelineError(f"run {upstream.run_id} has no value of step {upstream.step_key} any more: start anew")
