"""The command line of `lab`. Each verb imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bundle.cli import app as bundle_app
from cli import (
    alerts,
    backup,
    ci,
    classroom,
    configuration,
    development,
    doctor,
    dora,
    kubeconfig,
    lease,
    logs,
    models,
    own_models,
    pipeline,
    promotion,
    services,
    ssh,
    stack,
    state,
    status,
    sweep,
    train,
    update,
)
from cli.errors import ExitCode, LabError, exit_code, report, report_unexpected
from devcloud.cli import app as devcloud_app
from engine.errors import EngineError

# Global options may stand before or after the verb, as with the Pulumi CLI.
GLOBAL_FLAGS = {"--non-interactive", "--verbose", "-v"}
GLOBAL_OPTIONS = {"--cwd", "-C", "--stack", "-s", "--engine", "--color"}
PASS_THROUGH = {"test", "bench", "ssh"}


class EngineChoice(StrEnum):
    """--engine."""

    auto = "auto"
    pulumi = "pulumi"
    embedded = "embedded"


class Color(StrEnum):
    """--color, with the Pulumi CLI's choices."""

    auto = "auto"
    always = "always"
    never = "never"


app = typer.Typer(
    name="lab",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Deploys and operates ML clusters: OpenStack, Kubernetes and an MLOps platform.",
    epilog="Global options may stand before or after the verb.",
)


def main() -> None:
    """Run the command line and exit."""
    try:
        app(hoist_globals(sys.argv[1:]), prog_name="lab", standalone_mode=True)
    except EngineError as error:
        report(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.ERROR)
    except OSError as error:
        report(LabError(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")))
        sys.exit(ExitCode.ERROR)
    except Exception as error:
        report_unexpected(error)
        sys.exit(255)


def hoist_globals(arguments: list[str]) -> list[str]:
    """`arguments` with the global options moved before the verb."""
    hoisted: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, _ = argument.partition("=")
        if argument == "--" or (argument in PASS_THROUGH and not rest):
            rest += [argument, *remaining]
        elif argument in GLOBAL_FLAGS or (equals and name in GLOBAL_OPTIONS):
            hoisted.append(argument)
        elif argument in GLOBAL_OPTIONS:
            hoisted += [argument, *([value] if (value := next(remaining, None)) is not None else [])]
        else:
            rest.append(argument)
    return hoisted + rest


@app.callback()
def configure(
    context: typer.Context,
    cwd: Annotated[
        Path | None,
        typer.Option(
            "--cwd", "-C", help="Run as if started in DIR, a Pulumi project. Default: this repository.", metavar="DIR"
        ),
    ] = None,
    stack_name: Annotated[
        str | None,
        typer.Option("--stack", "-s", metavar="STACK", help="The stack to work on. Default: the selected one."),
    ] = None,
    engine: Annotated[
        EngineChoice,
        typer.Option(help="The engine: the Pulumi CLI, the embedded engine, or (auto) the CLI if it is on PATH."),
    ] = EngineChoice.auto,
    non_interactive: Annotated[bool, typer.Option("--non-interactive", help="Do not ask questions.")] = False,
    color: Annotated[Color, typer.Option(help="Colour the output.")] = Color.auto,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log HTTP requests and engine messages.")] = False,
) -> None:
    """Create the session from the global options."""
    import shutil

    from cli.session import ROOT, Session

    if cwd is not None and not cwd.is_dir():
        raise LabError(f"--cwd: folder {cwd} does not exist", code=ExitCode.CONFIGURATION)
    if engine is EngineChoice.pulumi and not shutil.which("pulumi"):
        raise LabError("--engine pulumi: pulumi is not on PATH", remedy="install it, or use --engine embedded")
    use_pulumi = engine is not EngineChoice.embedded and shutil.which("pulumi") is not None
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
        logging.getLogger("keystoneauth").setLevel(logging.DEBUG)
    context.obj = Session(
        cwd=(cwd or ROOT).resolve(),
        stack_option=stack_name,
        engine="pulumi" if use_pulumi else "embedded",
        interactive=not non_interactive and sys.stdin.isatty() and sys.stdout.isatty() and not os.environ.get("CI"),
        color=color.value,
        verbose=verbose,
    )


app.command("up")(update.up)
app.command("preview")(update.preview)
app.command("destroy")(update.destroy)
app.command("refresh")(update.refresh)
app.command("status")(status.status)
app.command("history")(status.history)
app.command("extend")(lease.extend)
app.command("cancel", hidden=True)(state.unlock)
app.command("kubeconfig")(kubeconfig.kubeconfig)
app.command("ssh", context_settings=development.PASS_THROUGH)(ssh.ssh)
app.command("train")(train.train)
app.command("promote")(models.promote)
app.command("rollback")(models.rollback)
app.command("withdraw")(models.withdraw)
app.command("stages")(promotion.stages)
app.command("gate")(promotion.gate)
app.command("predict")(models.predict)
app.command("open")(services.open_services)
app.command("logs")(logs.logs)
app.command("dora")(dora.dora)
app.command("doctor")(doctor.doctor)
app.command("sweep")(sweep.sweep)
app.command("test", context_settings=development.PASS_THROUGH)(development.run_tests)
app.command("bench", context_settings=development.PASS_THROUGH)(development.bench)
app.add_typer(own_models.app, name="model")
app.add_typer(pipeline.app, name="pipeline")
app.add_typer(backup.app, name="backup")
app.add_typer(alerts.app, name="alerts")
app.add_typer(stack.app, name="stack")
app.add_typer(configuration.app, name="config")
app.add_typer(state.app, name="state")
app.add_typer(classroom.app, name="class")
app.add_typer(ci.app, name="ci")
app.add_typer(dora.app, name="incident")
app.add_typer(bundle_app, name="bundle")
app.add_typer(devcloud_app, name="devcloud")
