"""train: a model's code to the cluster, a Job that trains it, its result."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import LabError
from cli.model_code import pack, settings_of
from cli.models import REFUSED, train_model
from cli.own_models import folder_of, write_manifests
from cli.promotion import Model, ask, in_git
from cli.provision import applied_from_git
from cli.rollout import finish_promotion
from cli.text import table
from cli.workloads import Object, Platform, Stage, report_cluster_errors

if TYPE_CHECKING:
    from cli.session import Session


@report_cluster_errors
def train(
    context: typer.Context,
    model: Model,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Variant of the training, e.g. bad or torch.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Random seed.", show_default=False)] = None,
    data_version: Annotated[
        str | None, typer.Option("--data-version", help="Version of the dataset. Default: the current one.")
    ] = None,
    to: Annotated[Stage | None, typer.Option("--promote", help="Then promote it to this stage.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="If the stack must be updated first, do so without asking.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", "-j", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model on the cluster, test it, and register it if it passes its gate.

    Sends the model's code as it is now to the stack's object store. If the stack does not have the model yet, or has
    another gate, this updates the stack first. Prints the run, its metrics and the gate's result. Fails if the gate
    refuses the model.
    """
    session: Session = context.obj
    platform = Platform.of(session)
    # With --json, standard output has only the result.
    with redirect_stdout(sys.stderr) if json_output else nullcontext():
        require_on_cluster(session, platform, model, yes=yes)
        if to is not None and in_git(platform, model) is not None:
            remedy = f"train without --promote, then `lab promote {model} --to {to} --pull-request`"
            raise LabError(f"stages of {model} are set in Git", remedy=remedy)
        result = train_model(session, platform, model, variant, seed=seed, data_version=data_version, promote=to)
        if to is not None and not result["exit"]:
            finish_promotion(platform, model, to, str(result["version"]))
    if json_output:
        print(json.dumps(result))
        _require_success(result)
        return
    _require_success(result)
    rows = [(key, f"{value:.4f}" if isinstance(value, float) else str(value)) for key, value in result.items()]
    print(table(("RESULT", ""), [row for row in rows if row[0] != "exit"]))
    print(f"Registered as version {result['version']} of {model}: it passed the gate.")


def require_on_cluster(session: Session, platform: Platform, model: str, *, yes: bool) -> None:
    """Have the cluster's gate and servers of a model be what its settings say; update the stack where they are not.

    Raises:
        LabError: there is no such model; its settings or files are refused; the stack is applied from Git, or was not
            updated.
    """
    from cli.operations import operate
    from services.promotion.gates import Gate

    settings = settings_of(folder_of(model))
    pack(folder_of(model))  # refuses files before it changes anything
    if changed := write_manifests():
        print(f"Wrote {', '.join(f'k8s/models/{name}' for name in changed)}.")
    wanted, reason = Gate.model_validate(settings.gate).model_dump(), f"has another gate of {model} than models/{model}"
    try:
        found = json.loads(json.dumps(ask(platform, model, "gate")["gate"]))
    except LabError as error:
        if f"{model} has no gate" not in str(error):
            raise
        found, reason = None, f"does not have {model} yet"
    if found == json.loads(json.dumps(wanted)):
        return
    stack = session.stack()
    if applied_from_git(session, stack):
        remedy = (
            f"commit models/{model} and k8s/models, and merge; `lab train {model}` once the controller has applied it"
        )
        raise LabError(f"stack '{stack}' {reason}, and is applied from Git", remedy=remedy)
    print(f"Stack '{stack}' {reason}: updating it.")
    operate(session, "update", {"yes": yes})


def _require_success(result: Object) -> Object:
    """The result of a Job that succeeded.

    Raises:
        LabError: it failed; the text is the program's.
    """
    if result["exit"]:
        remedy = "the model is not registered, and no stage serves it" if result["exit"] == REFUSED else None
        raise LabError(result.get("error", "the Job failed"), remedy=remedy)
    return result
