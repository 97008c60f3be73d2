"""Events of a model registry: what was trained and registered, and what stages were told to serve.

The promotion service writes a tag of the registered model each time it moves a stage, so that the registry can tell
of it later: `moved.STAGE.TIME`, with JSON of `did`, `version` and, where it is named, `incident`.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.delivery.events import (
    PROMOTED,
    REGISTERED,
    ROLLED_BACK,
    TRAINED,
    WITHDRAWN,
    Event,
    moment,
    of_model,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[[str, str, dict[str, Any] | None], Any]
    """Asks MLflow's REST API: method, path below `mlflow/`, body; gives the JSON of its answer."""

MOVED = re.compile(r"moved\.([a-z]+)\.(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)")
MOVES = {"promoted": PROMOTED, "rolled back": ROLLED_BACK, "withdrawn": WITHDRAWN}
PAGE = 200
CODE, GATE = "code_version", "gate"


def events(ask: Ask) -> Iterator[Event]:
    """All that the registry tells."""
    experiments = [found["experiment_id"] for found in _all(ask, "experiments/search", "experiments")]
    for run in _all(ask, "runs/search", "runs", experiment_ids=experiments) if experiments else ():
        yield from _trained(run)
    for model in _all(ask, "registered-models/search", "registered_models", method="GET"):
        subject = of_model(model["name"])
        for tag in model.get("tags", ()):
            yield from _moved(subject, tag["key"], tag["value"])
    for version in _all(ask, "model-versions/search", "model_versions", method="GET"):
        # To the second, as times of moves are: what is promoted as it is registered was not promoted before.
        created = moment(int(version["creation_timestamp"]) // 1000)
        tags = {tag["key"]: tag["value"] for tag in version.get("tags", ())}
        data = {"version": str(version["version"]), "run": version.get("run_id"), "code": tags.get(CODE)}
        # A model that was deleted and registered again counts its versions from 1 again.
        yield Event(REGISTERED, of_model(version["name"]), f"{version['version']}@{written(created)}", created, data)


def _trained(run: dict[str, Any]) -> Iterator[Event]:
    info, tags = run["info"], {tag["key"]: tag["value"] for tag in run.get("data", {}).get("tags", ())}
    if CODE not in tags:
        return  # no model came of it
    started = moment(int(info["start_time"]) / 1000)
    yield Event(TRAINED, "", info["run_id"], started, {"code": tags[CODE], "gate": tags.get(GATE)})


def _moved(subject: str, key: str, value: str) -> Iterator[Event]:
    if not (found := MOVED.fullmatch(key)):
        return
    try:
        told = json.loads(value)
        kind, version = MOVES[told["did"]], str(int(told["version"]))
    except (ValueError, KeyError, TypeError):
        return  # somebody else's tag
    stage, at = found.groups()
    data = {"stage": stage, "version": version, "incident": told.get("incident")}
    yield Event(kind, subject, f"{stage}@{at}", datetime.fromisoformat(at), data)


def _all(ask: Ask, path: str, field: str, method: str = "POST", **body: Any) -> Iterator[dict[str, Any]]:
    """Every page of a search."""
    token = ""
    while True:
        asked = {**body, "max_results": PAGE, **({"page_token": token} if token else {})}
        answer = ask(method, path, asked)
        yield from answer.get(field, ())
        if not (token := answer.get("next_page_token", "")):
            return
