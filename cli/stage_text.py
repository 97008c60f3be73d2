"""What reviewers see of a change of stages: the versions, the gate's figures, the comparison with production, links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.errors import LabError
from cli.promotion import ask, flat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.stage_file import Stages
    from cli.workloads import Object, Platform

TRACKING = "tracking"
PRODUCTION = "production"
DOES = {
    "promoted": "{stage} serves version {version} in place of {before}",
    "rolled back": "{stage} returns to version {version}, from {before}",
    "withdrawn": "{stage} is taken down; it serves version {before}",
}


def headline(model: str, before: Stages, wanted: Stages) -> str:
    """One line: which stages would serve what."""
    told = []
    for stage in {**before.versions, **wanted.versions}:
        old, new = before.versions.get(stage), wanted.versions.get(stage)
        if old != new:
            told.append(f"{stage} serves version {new}" if new else f"{stage} serves nothing")
    if before.share != wanted.share:
        told.append(f"the canary gets {wanted.share} % of requests")
    return f"{model}: {', '.join(told) or 'nothing changes'}"


def describe(platform: Platform, model: str, before: Stages, wanted: Stages, steps: Mapping[str, Object]) -> str:
    """Markdown about a change of a model's stages: each step, and the figures of each version that comes.

    `steps`: what the promotion service would do, of each stage.
    """
    lines = [f"### `{model}`", ""]
    for stage, one in steps.items():
        text = ""
        if one["kept"]:
            text = f"{stage} stays at version {one['before']}: it was rolled back, and this does not change its version"
        elif one["did"]:
            text = DOES[one["did"]].format(stage=stage, version=one["version"], before=one["before"] or "none")
        if one["refused"]:
            lines.append(f"- **refused:** {one['refused']}")
        elif text:
            lines.append(f"- {text}")
    if before.share != wanted.share:
        lines.append(f"- the canary gets {wanted.share} % of production's requests; now {before.share} %")
    if len(lines) == 2:
        lines.append("All stages serve these versions already.")
    coming = {one["version"]: one for one in steps.values() if one["did"] and one["version"]}
    now = steps[PRODUCTION]["before"]
    for version, one in coming.items():
        lines += ["", *_figures(platform, model, version, now, one)]
    return "\n".join(lines)


def _figures(platform: Platform, model: str, version: str, now: str | None, one: Object) -> list[str]:
    """The verdict about a version beside production's, and how they compare."""
    verdict = _verdict(platform, model, version)
    if verdict is None:
        return [f"There is no verdict about version {version}."]
    passed = "passed" if verdict["passed"] else f"did not pass: {'; '.join(verdict['reasons'])}"
    lines = [f"Version {version} {passed} the gate on {verdict['at']}. {_links(platform, model, version, verdict)}", ""]
    columns = {version: _cells(verdict)}
    if now and now != version and (other := _verdict(platform, model, now)):
        columns[now] = _cells(other)
    heads = [f"version {one}{', in production' if one == now else ''}" for one in columns]
    lines += [f"| figure | {' | '.join(heads)} |", "|---|" + "---:|" * len(columns)]
    for name in columns[version]:
        lines.append(f"| {name} | {' | '.join(cells.get(name, '') for cells in columns.values())} |")
    if compared := one["compared"]:
        difference, least = compared["difference"], compared["at_least"]
        margin = verdict["gate"].get("production", {}).get("margin") if verdict["gate"] else None
        allowed = f"; the gate allows {margin:g} worse" if margin is not None else ""
        text = (
            f"On the same test rows, version {version} is {abs(difference):.4f} {_better(difference)} than production's"
            f" version {compared['version']}; with {compared['confidence']:.0%} confidence, it is at most"
            f" {max(0.0, -least):.4f} worse{allowed}."
        )
        lines += ["", text]
    return lines


def _better(difference: float) -> str:
    return "better" if difference >= 0 else "worse"


def _verdict(platform: Platform, model: str, version: str) -> Object | None:
    try:
        return ask(platform, model, f"verdict?version={version}")
    except LabError:
        return None  # it was registered before there were verdicts


def _cells(verdict: Object) -> dict[str, str]:
    figures = {key: value for key, value in verdict["figures"].items() if key != PRODUCTION}
    return dict(flat(figures))


def _links(platform: Platform, model: str, version: str, verdict: Object) -> str:
    page = f"{platform.url(TRACKING)}/#"
    run: Any = verdict["run"]
    links = [f"[version {version} in MLflow]({page}/models/{model}/versions/{version})"]
    try:
        found = platform.ask(TRACKING, "GET", f"/api/2.0/mlflow/runs/get?run_id={run}")["run"]
        links.append(f"[its run]({page}/experiments/{found['info']['experiment_id']}/runs/{run})")
    except LabError:
        links.append(f"run `{run}`, which MLflow does not find")
    return ", ".join(links)
