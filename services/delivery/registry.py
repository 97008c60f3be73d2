"""Events of a model registry: models trained and registered, versions promoted, rolled back and withdrawn.

Each time the promotion service moves a stage, it sets a tag of the registered model: `moved.STAGE.TIME`, with JSON of
`did`, `version` and, if given, `incident`.
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
    format_time,
    from_epoch,
    model_subject,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Request = Callable[[str, str, dict[str, Any] | None], Any]
    """Sends a request to MLflow's REST API: method, path below `mlflow/`, body; returns the JSON of the response."""

MOVED = re.compile(r"moved\.([a-z]+)\.(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)")
MOVES = {"promoted": PROMOTED, "rolled back": ROLLED_BACK, "withdrawn": WITHDRAWN}
PAGE = 200
CODE, GATE = "code_version", "gate"


def events(request: Request) -> Iterator[Event]:
    """All events of the registry."""
    experiments = [found["experiment_id"] for found in _all(request, "experiments/search", "experiments")]
    for run in _all(request, "runs/search", "runs", experiment_ids=experiments) if experiments else ():
        yield from _trained(run)
    for model in _all(request, "registered-models/search", "registered_models", method="GET"):
        subject = model_subject(model["name"])
        for tag in model.get("tags", ()):
            yield from _moved(subject, tag["key"], tag["value"])
    for version in _all(request, "model-versions/search", "model_versions", method="GET"):
        # To the second, as times of moves are: a promotion in the same second is not before the registration.
        created = from_epoch(int(version["creation_timestamp"]) // 1000)
        tags = {tag["key"]: tag["value"] for tag in version.get("tags", ())}
        data = {"version": str(version["version"]), "run": version.get("run_id"), "code": tags.get(CODE)}
        # The versions of a model that was deleted and registered again start at 1.
        yield Event(
            REGISTERED, model_subject(version["name"]), f"{version['version']}@{format_time(created)}", created, data
        )


def _trained(run: dict[str, Any]) -> Iterator[Event]:
    info, tags = run["info"], {tag["key"]: tag["value"] for tag in run.get("data", {}).get("tags", ())}
    if CODE not in tags:
        return  # the run logged no model
    started = from_epoch(int(info["start_time"]) / 1000)
    yield Event(TRAINED, "", info["run_id"], started, {"code": tags[CODE], "gate": tags.get(GATE)})


def _moved(subject: str, key: str, value: str) -> Iterator[Event]:
    if not (found := MOVED.fullmatch(key)):
        return
    try:
        move = json.loads(value)
        kind, version = MOVES[move["did"]], str(int(move["version"]))
    except (ValueError, KeyError, TypeError):
        return  # not the promotion service's tag
    stage, at = found.groups()
    data = {"stage": stage, "version": version, "incident": move.get("incident")}
    yield Event(kind, subject, f"{stage}@{at}", datetime.fromisoformat(at), data)


def _all(request: Request, path: str, field: str, method: str = "POST", **body: Any) -> Iterator[dict[str, Any]]:
    """The results of all pages of a search."""
    token = ""
    while True:
        query = {**body, "max_results": PAGE, **({"page_token": token} if token else {})}
        response = request(method, path, query)
        yield from response.get(field, ())
        if not (token := response.get("next_page_token", "")):
            return
