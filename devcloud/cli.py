"""`lab devcloud`: a real OpenStack on this machine."""

from __future__ import annotations

import functools
import json
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from devcloud import DEFAULT_STATE
from devcloud.errors import DevcloudError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devcloud.bringup import Devcloud
    from devcloud.control import Status
    from devcloud.layout import Settings as ChosenSettings

P = ParamSpec("P")
VIRTUALISATION = {"kvm": "on KVM", "qemu": "emulated, as KVM does not work here", None: "none"}
app = typer.Typer(
    name="devcloud",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
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
        except KeyboardInterrupt:
            typer.echo("interrupted: `lab devcloud up` goes on from here, `lab devcloud reset` undoes it", err=True)
            raise typer.Exit(130) from None

    return wrapped


def _devcloud(state: Path, settings: ChosenSettings | None = None) -> Devcloud:
    from devcloud.bringup import Devcloud  # OpenStack's SDK takes a second to load: `--help` does without

    return Devcloud(state, settings)


@app.command()
@reported
def up(
    state: State = DEFAULT_STATE,
    subnet: Annotated[
        str | None,
        typer.Option(envvar="DEVCLOUD_SUBNET", help="External network, /24 or larger; at the first `up`."),
    ] = None,
    fake_host: Annotated[
        bool, typer.Option("--fake-host", help="Also have a compute host that only pretends, for tests of scale.")
    ] = False,
    virtual_machines: Annotated[
        bool | None,
        typer.Option("--virtual-machines/--no-virtual-machines", help="Also run virtual machines (default: no)."),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="Make this image too (minutes): CC-Debian13 or CC-Ubuntu24.04.")
    ] = None,
) -> None:
    """Bring the cloud up, or what is missing of it. The first time takes minutes and downloads Debian packages."""
    from devcloud.layout import chosen

    settings = chosen(
        subnet=subnet,
        fake_host=fake_host or None,
        virtual_machines=virtual_machines,
        more_images=image or None,
    )
    cloud = _devcloud(state, settings)
    cloud.up()
    typer.echo(f"  export OS_CLIENT_CONFIG_FILE={cloud.layout.clouds_yaml} OS_CLOUD=devcloud")
    if not cloud.is_complete:
        cloud.complete()


@app.command()
@reported
def down(state: State = DEFAULT_STATE) -> None:
    """Stop the cloud and its instances; data stay, and `up` brings both back."""
    _devcloud(state).down()


@app.command()
@reported
def reset(state: State = DEFAULT_STATE, yes: Yes = False) -> None:
    """Stop the cloud and delete all its data; packages and the image stay."""
    if not yes:
        typer.confirm(f"Delete every instance, volume and account of the devcloud in {state}?", abort=True)
    _devcloud(state).reset()


@app.command()
@reported
def purge(state: State = DEFAULT_STATE, yes: Yes = False) -> None:
    """Remove everything that devcloud ever made on this machine."""
    if not yes:
        typer.confirm(f"Delete {state} with all it holds?", abort=True)
    _devcloud(state).purge()


@app.command()
@reported
def status(
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", "-j", help="JSON.")] = False,
    health: Annotated[bool, typer.Option(help="Ask every API too.")] = True,
) -> None:
    """Show every service: state, restarts, memory (PSS), last error; and whether the APIs really answer."""
    cloud = _devcloud(state)
    if not cloud.is_running:
        raise DevcloudError("devcloud is down", remedy="lab devcloud up")
    told = cloud.control.call("status", memory=True)
    faults = dict(cloud.health()) if health else {}
    total = told.rest + sum(entry.memory or 0 for entry in told.services)
    broken = any(faults.values()) or any(entry.state not in {"running", "stopped"} for entry in told.services)
    if as_json:
        services = [asdict(entry) for entry in told.services]
        told_more = {"memory": total, "virtual_machines": cloud.virtualisation, "faults": faults}
        typer.echo(json.dumps({"services": services, **told_more}, indent=2))
    else:
        _show(told, total, faults, cloud.virtualisation)
    if broken:
        raise typer.Exit(1)


def _show(told: Status, total: int, faults: dict[str, str | None], virtualisation: str | None) -> None:
    names = max(len(entry.name) for entry in told.services)
    states = max(len(entry.state) for entry in told.services)
    start = f"{'SERVICE':<{names}}  {'STATE':<{states}}  RESTARTS     MEMORY  "
    typer.echo(f"{start}LAST ERROR")
    # Lines in a pipe are whole: they are there to be searched.
    width = max(20, shutil.get_terminal_size(fallback=(10_000, 0)).columns - len(start))
    for entry in told.services:
        size = f"{entry.memory / 2**20:.0f} MiB" if entry.memory else "-"
        first, *rest = textwrap.wrap(entry.last_error or "", width) or [""]
        row = f"{entry.name:<{names}}  {entry.state:<{states}}  {entry.restarts:>8}  {size:>9}  {first}"
        typer.echo("\n".join([row.rstrip(), *(" " * len(start) + line for line in rest)]))
    typer.echo(f"\nmemory in all: {total / 2**30:.2f} GiB, without instances")
    typer.echo(f"virtual machines: {VIRTUALISATION[virtualisation]}")
    for name, fault in faults.items():
        typer.echo(f"{name:<{names}}  {fault or 'answers'}")


@app.command()
@reported
def logs(
    name: Annotated[str, typer.Argument(help="A service's name, as in `status`.")],
    state: State = DEFAULT_STATE,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 50,
) -> None:
    """Show the end of a service's log."""
    folder = _devcloud(state).layout.log
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
    path = _devcloud(state).layout.clouds_yaml
    if not path.exists():
        raise DevcloudError("devcloud was not up yet", remedy="lab devcloud up")
    typer.echo(f"export OS_CLIENT_CONFIG_FILE={path} OS_CLOUD=devcloud")
