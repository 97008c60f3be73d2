"""stages, gate: what the promotion service has decided about a model; and how verbs ask it to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from cli.errors import ExitCode, LabError
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import as_json, table
from cli.workloads import Platform, Stage, report_cluster_errors

if TYPE_CHECKING:
    from cli.session import Session
    from cli.workloads import Object

SERVICE, LOGIN = "promotion", "tracking"
"""Host name of the service. MLflow's users are its callers."""
SHOWN = 10
Model = Annotated[str, typer.Argument(help="A model: a folder of models/.", metavar="MODEL")]


def ask(platform: Platform, model: str, path: str, body: Object | None = None) -> Object:
    """What the promotion service answers about a model, to a decision that `body` asks for.

    Raises:
        LabError: it does not answer, or refuses.
    """
    method = "GET" if body is None else "POST"
    answer: Object = platform.ask(
        SERVICE, method, f"/v1/models/{quote(model, safe='')}/{path}", body, login=LOGIN
    )  # fmt: skip
    return answer


def decide(
    platform: Platform, model: str, stage: Stage, verb: str, version: str | None = None, incident: str | None = None
) -> str:
    """Have the promotion service change what a stage serves; return the version.

    Raises:
        LabError: it does not answer, or refuses.
    """
    if version is not None and not version.isdecimal():
        raise LabError(f"--version {version} is not a number", code=ExitCode.CONFIGURATION)
    body: Object = {"version": int(version)} if version else {}
    answer = ask(platform, model, f"stages/{stage.value}/{verb}", body | ({"incident": incident} if incident else {}))
    if passed_over := answer.get("passed_over"):
        print(f"Skipped deleted versions: {', '.join(passed_over)}.")
    return str(answer["version"])


@report_cluster_errors
def stages(context: typer.Context, model: Model, json: Json = False) -> None:
    """Show which version each stage of a model is to serve, since when, and what was done last, by whom.

    Also the version that is kept warm for a rollback of production, and until when.
    """
    platform = Platform.of(context.obj)
    found, history = ask(platform, model, "stages"), ask(platform, model, f"history?count={SHOWN}")
    warm = platform.kept_warm(model)
    if json:
        print(as_json({**found, "history": history["history"], "warm": warm}))
        return
    known = {stage.value: found["stages"].get(stage.value, {}) for stage in Stage}
    rows = [
        (stage, one.get("version") or "none", one.get("since") or "", ", ".join(one.get("former", ())[:SHOWN]))
        for stage, one in known.items()
    ]
    print(table(("STAGE", "VERSION", "SINCE", "BEFORE"), rows))
    for stage, one in warm.items():
        state = "is kept warm" if one["ready"] else "is being made warm"
        print(f"Version {one['version']} {state} for a rollback of {stage}, until {one['until']}.")
    if moves := history["history"]:
        done = [(one["at"], one["stage"], f"{one['did']} {one['version']}", one["by"]) for one in moves]
        print("\n" + table(("TIME", "STAGE", "WHAT", "BY"), done))


@report_cluster_errors
def gate(
    context: typer.Context,
    model: Model,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Show the verdict about this version.", show_default=False)
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Show the verdict about this run.", metavar="ID")] = None,
    json: Json = False,
) -> None:
    """Show a model's gate or, with --version or --run, its verdict with all figures."""
    session: Session = context.obj
    platform = Platform.of(session)
    query = f"version={version}" if version else f"run={quote(run, safe='')}" if run else ""
    answer = ask(platform, model, f"verdict?{query}" if query else "gate")
    if json:
        print(as_json(answer))
        return
    if not query:
        print(table(("GATE", ""), list(_flat(answer["gate"]))))
        return
    print(table(("VERDICT", ""), [("passed", "yes" if answer["passed"] else "no"), *_flat(answer["figures"])]))
    for reason in answer["reasons"]:
        print(f"Refused: {reason}")


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Rows of the leaves of nested objects."""
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in _flat(inner, f"{name} {key}".strip())]
    return [] if value is None else [(name, f"{value:.4g}" if isinstance(value, float) else str(value))]
