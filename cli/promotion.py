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


def in_git(platform: Platform, model: str) -> Object | None:
    """The commit whose stages were done last, and what it said of them; None where stages are not set in Git.

    Raises:
        LabError: the promotion service does not answer, or does not know the model.
    """
    found: Object | None = ask(platform, model, "stages")["git"]
    return found


def number_of(version: str | None) -> int | None:
    """The number of a version on the command line.

    Raises:
        LabError: it is not one.
    """
    if version is not None and not version.isdecimal():
        raise LabError(f"--version {version} is not a number", code=ExitCode.CONFIGURATION)
    return int(version) if version else None


def decide(
    platform: Platform,
    model: str,
    stage: Stage,
    verb: str,
    version: str | None = None,
    incident: str | None = None,
    *,
    ahead_of_git: bool = False,
) -> str:
    """Have the promotion service change what a stage serves; return the version.

    Raises:
        LabError: it does not answer, or refuses.
    """
    number = number_of(version)
    body: Object = {"version": number} if number else {}
    body |= {"incident": incident} if incident else {}
    body |= {"ahead_of_git": True} if ahead_of_git else {}
    answer = ask(platform, model, f"stages/{stage.value}/{verb}", body)
    if passed_over := answer.get("passed_over"):
        print(f"Skipped deleted versions: {', '.join(passed_over)}.")
    return str(answer["version"])


@report_cluster_errors
def stages(context: typer.Context, model: Model, json: Json = False) -> None:
    """Show which version each stage of a model is to serve, since when, and what was done last, by whom.

    Also the version that is kept warm for a rollback of production, and until when; where stages are set in Git, by
    which pull request and commit.
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
    if (git := found["git"]) is not None:
        print(f"Stages are set in Git: they are as commit {git['commit'][:12] or 'none'} of models/{model} says.")
        for stage, said in git["said"].items():
            if said["ahead"]:
                print(
                    f"  {stage} was rolled back; Git names version {said['version']} until the pull request is merged."
                )
    if moves := history["history"]:
        done = [(one["at"], one["stage"], f"{one['did']} {one['version']}", _by(one)) for one in moves]
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
        print(table(("GATE", ""), list(flat(answer["gate"]))))
        return
    print(table(("VERDICT", ""), [("passed", "yes" if answer["passed"] else "no"), *flat(answer["figures"])]))
    for reason in answer["reasons"]:
        print(f"Refused: {reason}")


def _by(move: Object) -> str:
    """Who did it: where Git did, the author of the pull request, its number and the commit."""
    if not (git := move["git"]):
        return str(move["by"])
    number = f"#{git['pull_request']}, " if git["pull_request"] else ""
    return f"{git['author'] or 'Git'} ({number}commit {git['commit'][:12]})"


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Rows of the leaves of nested objects."""
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in flat(inner, f"{name} {key}".strip())]
    return [] if value is None else [(name, f"{value:.4g}" if isinstance(value, float) else str(value))]
