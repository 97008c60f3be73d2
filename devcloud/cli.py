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
VIRTUALISATION = {"kvm": "on KVM", "qemu": "emulated, because KVM does not work on this machine", None: "none"}
app = typer.Typer(
    name="devcloud",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A real OpenStack on this machine: the default cloud.",
)
State = Annotated[Path, typer.Option("--state", envvar="DEVCLOUD_STATE", help="devcloud's state folder.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def report_errors(verb: Callable[P, None]) -> Callable[P, None]:
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
            typer.echo("interrupted: `lab devcloud up` continues, `lab devcloud reset` undoes it", err=True)
            raise typer.Exit(130) from None

    return wrapped


def _devcloud(state: Path, settings: ChosenSettings | None = None) -> Devcloud:
    from devcloud.bringup import Devcloud  # imported here because OpenStack's SDK takes a second to load

    return Devcloud(state, settings)


@app.command()
@report_errors
def up(
    state: State = DEFAULT_STATE,
    subnet: Annotated[
        str | None,
        typer.Option(envvar="DEVCLOUD_SUBNET", help="External network, /24 or larger; only at the first `up`."),
    ] = None,
    fake_host: Annotated[
        bool, typer.Option("--fake-host", help="Also add a fake compute host, for scale tests.")
    ] = False,
    virtual_machines: Annotated[
        bool | None,
        typer.Option("--virtual-machines/--no-virtual-machines", help="Also run virtual machines (default: no)."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            help="Also create this image (minutes): CC-Debian13, CC-Ubuntu24.04; of a machine: CC-Ubuntu24.04-VM."
        ),
    ] = None,
) -> None:
    """Start the cloud. The first start takes minutes and downloads Debian packages."""
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
@report_errors
def down(state: State = DEFAULT_STATE) -> None:
    """Stop the cloud and its instances. Data are kept; `up` starts both again."""
    _devcloud(state).down()


@app.command()
@report_errors
def reset(state: State = DEFAULT_STATE, yes: Yes = False) -> None:
    """Stop the cloud and delete all its data. Packages and images are kept."""
    if not yes:
        typer.confirm(f"Delete every instance, volume and account of the devcloud in {state}?", abort=True)
    _devcloud(state).reset()


@app.command()
@report_errors
def purge(state: State = DEFAULT_STATE, yes: Yes = False) -> None:
    """Stop the cloud and remove everything that devcloud has created on this machine."""
    if not yes:
        typer.confirm(f"Delete {state} with all its contents?", abort=True)
    _devcloud(state).purge()


@app.command()
@report_errors
def status(
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", "-j", help="JSON.")] = False,
    health: Annotated[bool, typer.Option(help="Also check every API.")] = True,
) -> None:
    """Show every service: state, restarts, memory (PSS), last error; and whether the APIs answer."""
    cloud = _devcloud(state)
    if not cloud.is_running:
        raise DevcloudError("devcloud is not running", remedy="start it: lab devcloud up")
    result = cloud.control.call("status", memory=True)
    problems = dict(cloud.health()) if health else {}
    total = result.rest + sum(entry.memory or 0 for entry in result.services)
    broken = any(problems.values()) or any(entry.state not in {"running", "stopped"} for entry in result.services)
    if as_json:
        services = [asdict(entry) for entry in result.services]
        summary = {"memory": total, "virtual_machines": cloud.virtualisation, "faults": problems}
        typer.echo(json.dumps({"services": services, **summary}, indent=2))
    else:
        _show(result, total, problems, cloud.virtualisation)
    if broken:
        raise typer.Exit(1)


def _show(result: Status, total: int, problems: dict[str, str | None], virtualisation: str | None) -> None:
    names = max(len(entry.name) for entry in result.services)
    states = max(len(entry.state) for entry in result.services)
    start = f"{'SERVICE':<{names}}  {'STATE':<{states}}  RESTARTS     MEMORY  "
    typer.echo(f"{start}LAST ERROR")
    # Do not wrap lines in a pipe, so that they can be searched.
    width = max(20, shutil.get_terminal_size(fallback=(10_000, 0)).columns - len(start))
    for entry in result.services:
        size = f"{entry.memory / 2**20:.0f} MiB" if entry.memory else "-"
        first, *rest = textwrap.wrap(entry.last_error or "", width) or [""]
        row = f"{entry.name:<{names}}  {entry.state:<{states}}  {entry.restarts:>8}  {size:>9}  {first}"
        typer.echo("\n".join([row.rstrip(), *(" " * len(start) + line for line in rest)]))
    typer.echo(f"\ntotal memory: {total / 2**30:.2f} GiB, without instances")
    typer.echo(f"virtual machines: {VIRTUALISATION[virtualisation]}")
    for name, problem in problems.items():
        typer.echo(f"{name:<{names}}  {problem or 'answers'}")


@app.command()
@report_errors
def logs(
    name: Annotated[str, typer.Argument(help="A service's name, as in `status`.")],
    state: State = DEFAULT_STATE,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of lines.")] = 50,
) -> None:
    """Show the end of a service's log."""
    folder = _devcloud(state).layout.log
    path = folder / f"{name}.log"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none: devcloud has never been started"
        raise DevcloudError(f"service {name} has no log; logs: {known}")
    for line in path.read_text(errors="replace").splitlines()[-lines:]:
        typer.echo(line)


@app.command()
@report_errors
def env(state: State = DEFAULT_STATE) -> None:
    """Print shell commands that configure OpenStack clients for devcloud: eval "$(lab devcloud env)"."""
    path = _devcloud(state).layout.clouds_yaml
    if not path.exists():
        raise DevcloudError("devcloud has not been started yet", remedy="start it: lab devcloud up")
    typer.echo(f"export OS_CLIENT_CONFIG_FILE={path} OS_CLOUD=devcloud")
