"""`lab devcloud`: a real OpenStack on this machine."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer
from pydantic import ValidationError

from devcloud.bringup import Devcloud, Progress
from devcloud.errors import DevcloudError
from devcloud.layout import DEFAULT_STATE, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
app = typer.Typer(
    name="devcloud",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A real OpenStack on this machine: the default cloud.",
)
State = Annotated[Path, typer.Option("--state", envvar="DEVCLOUD_STATE", help="Folder of everything devcloud keeps.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def reported(verb: Callable[P, None]) -> Callable[P, None]:
    """Turn a DevcloudError into a message and exit code 1."""

    @functools.wraps(verb)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except DevcloudError as error:
            typer.echo(f"error: {error}", err=True)
            if error.remedy:
                typer.echo(f"  remedy: {error.remedy}", err=True)
            raise typer.Exit(1) from None

    return wrapped


@app.command()
@reported
def up(
    state: State = DEFAULT_STATE,
    subnet: Annotated[str | None, typer.Option(help="External network, /24 or larger; at the first `up`.")] = None,
) -> None:
    """Bring the cloud up, or what is missing of it. The first time takes minutes and downloads Debian packages."""
    try:
        settings = Settings(subnet=IPv4Network(subnet)) if subnet else None
    except (ValidationError, ValueError) as error:
        raise DevcloudError(f"--subnet {subnet} cannot be used: {error}") from None
    cloud, progress = Devcloud(state, settings), Progress()
    cloud.up(progress)
    typer.echo(f"devcloud is up after {sum(took for _, took in progress.stages):.0f} s.")
    typer.echo(f"  export OS_CLIENT_CONFIG_FILE={cloud.layout.clouds_yaml} OS_CLOUD=devcloud")


@app.command()
@reported
def down(state: State = DEFAULT_STATE) -> None:
    """Stop the cloud and its instances; data stay, and `up` brings both back."""
    Devcloud(state).down()


@app.command()
@reported
def reset(state: State = DEFAULT_STATE, yes: Yes = False) -> None:
    """Stop the cloud and delete all its data; packages and the image stay."""
    if not yes:
        typer.confirm(f"Delete every instance, volume and account of the devcloud in {state}?", abort=True)
    Devcloud(state).reset()


@app.command()
@reported
def purge(state: State = DEFAULT_STATE, yes: Yes = False) -> None:
    """Remove everything that devcloud ever made on this machine."""
    if not yes:
        typer.confirm(f"Delete {state} with all it holds?", abort=True)
    Devcloud(state).purge()


@app.command()
@reported
def status(
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", "-j", help="JSON.")] = False,
    health: Annotated[bool, typer.Option(help="Ask every API too.")] = True,
) -> None:
    """Show every service: state, restarts, memory (PSS), last error; and whether the APIs really answer."""
    cloud = Devcloud(state)
    if not cloud.is_running:
        raise DevcloudError("devcloud is down", remedy="lab devcloud up")
    told = cloud.control.call("status", memory=True)
    faults = dict(cloud.health()) if health else {}
    total = told.rest + sum(entry.memory or 0 for entry in told.services)
    broken = any(faults.values()) or any(entry.state != "running" for entry in told.services)
    if as_json:
        services = [asdict(entry) for entry in told.services]
        typer.echo(json.dumps({"services": services, "memory": total, "faults": faults}, indent=1))
    else:
        typer.echo(f"{'SERVICE':<18}{'STATE':<14}{'RESTARTS':>8}{'MEMORY':>9}  LAST ERROR")
        for entry in told.services:
            size = f"{entry.memory / 2**20:.0f} MiB" if entry.memory else "-"
            typer.echo(
                f"{entry.name:<18}{entry.state:<14}{entry.restarts:>8}{size:>9}  {entry.last_error or ''}".rstrip()
            )
        typer.echo(f"memory in all: {total / 2**30:.2f} GiB, without instances")
        for name, fault in faults.items():
            typer.echo(f"{name:<18}{fault or 'answers'}")
    if broken:
        raise typer.Exit(1)


@app.command()
@reported
def logs(
    name: Annotated[str, typer.Argument(help="A service's name, as in `status`.")],
    state: State = DEFAULT_STATE,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 50,
) -> None:
    """Show the end of a service's log."""
    folder = Devcloud(state).layout.log
    path = folder / f"{name}.log"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none: devcloud was never up"
        raise DevcloudError(f"there is no log of {name}; there are: {known}")
    for line in path.read_text(errors="replace").splitlines()[-lines:]:
        typer.echo(line)


@app.command()
@reported
def env(state: State = DEFAULT_STATE) -> None:
    """Print the shell commands that point OpenStack clients here: eval "$(lab devcloud env)"."""
    path = Devcloud(state).layout.clouds_yaml
    if not path.exists():
        raise DevcloudError("devcloud was not up yet", remedy="lab devcloud up")
    typer.echo(f"export OS_CLIENT_CONFIG_FILE={path} OS_CLOUD=devcloud")
