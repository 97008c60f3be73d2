"""open, and the last step of `lab up`: the example's prediction and the services' addresses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import LabError
from cli.workloads import Platform, Stage, report_cluster_errors, served_version, wait

if TYPE_CHECKING:
    from cli.session import Session

EXAMPLE = "digits"
SAMPLE = Path(__file__).resolve().parent.parent / "models" / EXAMPLE / "sample.json"
READY_SECONDS = 300


@report_cluster_errors
def open_services(
    context: typer.Context,
    authority: Annotated[
        Path | None, typer.Option("--authority", help="Write the CA's certificate to this file.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the overview, if there is a browser.")
    ] = True,
) -> None:
    """Print the address of every service, and where to find its credentials; open the overview in a browser."""
    session: Session = context.obj
    platform = Platform.of(session)
    if authority is not None:
        authority.write_text(platform.authority)
        print(f"Wrote {authority}. Import it in browsers; for clients, set REQUESTS_CA_BUNDLE={authority}.")
        return
    print(platform.table())
    if browser and session.interactive:
        import webbrowser

        webbrowser.open(platform.url())


def finish_up(session: Session, stack: str) -> bool:
    """The end of `lab up`: a prediction of the example, which is trained first if necessary, and the addresses.

    Return whether the stack has a platform.
    """
    from infra.settings import Platform as Settings

    setting = session.config(stack).get("ml-cluster:platform")
    if setting is None or not setting.is_object:
        return False
    settings = Settings.model_validate(json.loads(setting.value))
    if settings.apply == "gitops" and settings.gitops.controller == "none":
        return False
    platform = Platform.of(session, stack)
    if settings.forge:
        from cli.box import provide_repository

        provide_repository(platform, session.project.root)
    if settings.apply == "gitops":
        from cli.gitops import wait_until_applied

        wait_until_applied(platform)
    if settings.example:
        serve_example(session, platform)
    print("\n" + platform.table() + "\n")
    return True


def serve_example(session: Session, platform: Platform) -> None:
    """Train and promote the example unless it is already serving; then ask it for a prediction."""
    from cli.models import ask_model, train_model
    from cli.promotion import in_git
    from cli.rollout import finish_promotion

    start = time.monotonic()
    live = platform.deployments(EXAMPLE).get("production")
    if live is None or served_version(live) is None:
        if in_git(platform, EXAMPLE) is not None:
            print(f"{EXAMPLE} serves nothing yet, and stages are set in Git. Next: `lab train {EXAMPLE}`, then")
            print(f"`lab promote {EXAMPLE} --to production --pull-request`.")
            return
        print(f"Training the example model, {EXAMPLE}, on the cluster.")
        # In one Job, because a second one might run on a node that must pull the image first.
        result = train_model(session, platform, EXAMPLE, promote=Stage.production)
        if result["exit"]:
            raise LabError(result.get("error", f"{EXAMPLE} could not be trained"))
        print(f"  test accuracy {result['test_accuracy']:.4f}: it passed the gate ({time.monotonic() - start:.0f} s)")
        finish_promotion(platform, EXAMPLE, Stage.production, str(result["version"]))
    last = ""

    def answers() -> bool:
        nonlocal last
        try:
            answer = ask_model(platform, EXAMPLE, SAMPLE)
        except LabError as error:
            last = str(error)
            return False
        label = next(output["data"] for output in answer["outputs"] if output["name"] == "label")
        print(f"{EXAMPLE}, version {answer['model_version']}, predicts for {SAMPLE.name}: {label}")
        return True

    wait(answers, READY_SECONDS, lambda: f"waiting for {EXAMPLE}: {last}")


def platform_status(session: Session, stack: str) -> str:
    """The part of `lab status` about the platform; empty where there is none."""
    from providers.framework import ProviderError

    try:
        platform = Platform.of(session, stack)
    except LabError:
        return ""
    from cli.gitops import applications, describe

    try:
        from_git = applications(platform.cluster)
        applied = f"Applied from Git:\n{describe(from_git)}\n" if from_git else ""
        return f"Capabilities:\n{platform.health()}\n{applied}Models:\n{platform.models()}"
    except ProviderError as error:
        return f"Capabilities: the cluster does not answer: {error}"
