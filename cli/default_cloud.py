"""devcloud as the cloud of whoever has none: found without exporting anything, and brought up when it is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.errors import ExitCode, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.operations import Kind
    from cli.session import Session

CLOUD = "devcloud"
"""The entry of clouds.yaml that devcloud writes, and stack `dev` uses."""
STACK = "dev"


def state_folder() -> Path:
    """Where devcloud keeps what it has."""
    from devcloud import DEFAULT_STATE

    return Path(os.environ.get("DEVCLOUD_STATE", DEFAULT_STATE))


def clouds_files() -> Iterator[Path]:
    """The clouds.yaml that OpenStack's clients would read first, where there is one (openstacksdk, Configuration)."""
    if named := os.environ.get("OS_CLIENT_CONFIG_FILE"):
        yield Path(named)
    configured = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for folder in (Path.cwd(), configured / "openstack", Path("/etc/openstack")):
        yield from (path for ending in ("yaml", "yml", "json") if (path := folder / f"clouds.{ending}").exists())


def cloud_in_sight() -> bool:
    """Whether the user has a cloud: a clouds.yaml, or a login in the environment."""
    return any(clouds_files()) or any(name.startswith("OS_") for name in os.environ)


def stack_without_cloud(session: Session) -> str | None:
    """The stack that is meant by someone who has chosen none and has no cloud."""
    if session.stack_option or not session.project.stack_config_path(STACK).exists():
        return None
    current = session.current_stack()
    if (current and session.backend.exists(session.project.name, current)) or cloud_in_sight():
        return None
    return STACK if is_on_devcloud(session, STACK) else None


def is_on_devcloud(session: Session, stack: str) -> bool:
    """Whether the settings of `stack` name devcloud, and the user's own clouds.yaml, if any, does not."""
    value = session.config(stack).get("cloud.name", path=True)
    if value is None or value.value != CLOUD:
        return False
    from ruamel.yaml import YAML

    found = next(clouds_files(), None)
    content = YAML(typ="safe").load(found) if found and found.exists() else None
    return CLOUD not in ((content or {}).get("clouds") or {})


def point_to_devcloud(session: Session, stack: str | None) -> bool:
    """Let every OpenStack client of this process find devcloud, if `stack` is on it; return whether it is."""
    if stack is None or not is_on_devcloud(session, stack):
        return False
    os.environ["OS_CLIENT_CONFIG_FILE"] = str(state_folder() / "clouds.yaml")
    return True


def is_up() -> bool:
    """Whether devcloud runs."""
    from devcloud.control import Control
    from devcloud.layout import Layout, Settings

    return Control(Layout(state_folder(), Settings())).first_process() is not None


def prepare(session: Session, kind: Kind, *, yes: bool) -> None:
    """Before a verb that needs the cloud: bring devcloud up if the stack is on it, and make a newcomer's stack.

    Raises:
        LabError: this machine cannot carry devcloud, it did not come up, or the user does not want it.
    """
    newcomer = stack_without_cloud(session) if kind in {"update", "preview"} else None
    stack = newcomer or session.stack_option or session.current_stack()
    if stack is None:
        return
    stack = session.parse_stack(stack)
    if newcomer is None and not session.backend.exists(session.project.name, stack):
        return
    if not point_to_devcloud(session, stack):
        return
    if not is_up():
        _bring_up(session, yes=yes, explain=newcomer is not None)
    if newcomer:
        if not session.backend.exists(session.project.name, newcomer):
            session.create_stack(newcomer)
        session.select(newcomer)


def _bring_up(session: Session, *, yes: bool, explain: bool) -> None:
    from devcloud.bringup import Devcloud
    from devcloud.errors import DevcloudError
    from devcloud.layout import chosen
    from devcloud.machine import NEEDED_DISK_GIB, NEEDED_MEMORY_GIB

    try:
        cloud = Devcloud(state_folder(), chosen(subnet=os.environ.get("DEVCLOUD_SUBNET")))
        first = not cloud.layout.clouds_yaml.exists()
        cloud.check_machine()
        if explain and first:
            print(
                "No stack is selected, and no cloud is in sight: there is no clouds.yaml, and no OS_* variable.",
                f"So lab brings up devcloud, a real OpenStack for this machine alone, and makes stack '{STACK}' on it.",
                f"That takes root, {NEEDED_MEMORY_GIB} GiB of memory, {NEEDED_DISK_GIB} GiB of disk in "
                f"{cloud.layout.state}, and 6 minutes once (`lab devcloud purge` removes it).",
                sep="\n",
                file=sys.stderr,
            )
        else:
            print("The stack's cloud, devcloud, is down; bringing it up.", file=sys.stderr)
        if first and not yes:
            if not session.interactive:
                raise LabError(
                    "devcloud was never up on this machine",
                    remedy="bring it up with `lab devcloud up`, or `lab up --yes`",
                    code=ExitCode.CONFIGURATION,
                )
            if not typer.confirm("Go on?", default=True):
                raise LabError("confirmation declined")
        cloud.up(sys.stderr)
    except DevcloudError as error:
        raise LabError(str(error), remedy=error.remedy) from None
