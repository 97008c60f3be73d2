"""devcloud as the default cloud: started when it is needed, and found without environment variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.errors import ExitCode, LabError
from cli.provision import check_settings, describe_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.invocation import Kind
    from cli.session import Session

CLOUD = "devcloud"
"""devcloud's entry in clouds.yaml, which stack `dev` uses."""
STACK = "dev"


def state_folder() -> Path:
    """devcloud's state folder."""
    from devcloud import DEFAULT_STATE

    return Path(os.environ.get("DEVCLOUD_STATE", DEFAULT_STATE))


def clouds_files() -> Iterator[Path]:
    """clouds.yaml files that OpenStack clients read, in their order (openstacksdk, Configuration)."""
    if named := os.environ.get("OS_CLIENT_CONFIG_FILE"):
        yield Path(named)
    configured = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for folder in (Path.cwd(), configured / "openstack", Path("/etc/openstack")):
        yield from (path for ending in ("yaml", "yml", "json") if (path := folder / f"clouds.{ending}").exists())


def has_cloud() -> bool:
    """Whether the user has a cloud: a clouds.yaml, or OS_* environment variables."""
    return any(clouds_files()) or any(name.startswith("OS_") for name in os.environ)


def stack_without_cloud(session: Session) -> str | None:
    """The stack to use if the user has selected none and has no cloud."""
    if session.stack_option or not session.project.stack_config_path(STACK).exists():
        return None
    current = session.current_stack()
    if (current and session.backend.exists(session.project.name, current)) or has_cloud():
        return None
    return STACK if is_on_devcloud(session, STACK) else None


def is_on_devcloud(session: Session, stack: str) -> bool:
    """Whether the settings of `stack` name devcloud, and the user's clouds.yaml has no entry of that name."""
    value = session.config(stack).get("cloud.name", path=True)
    if value is None or value.value != CLOUD:
        return False
    from ruamel.yaml import YAML

    found = next(clouds_files(), None)
    content = YAML(typ="safe").load(found) if found and found.exists() else None
    return CLOUD not in ((content or {}).get("clouds") or {})


def point_to_devcloud(session: Session, stack: str | None) -> bool:
    """If `stack` uses devcloud, point OpenStack clients of this process to it; return whether it does."""
    if stack is None or not is_on_devcloud(session, stack):
        return False
    os.environ["OS_CLIENT_CONFIG_FILE"] = str(state_folder() / "clouds.yaml")
    return True


def is_up() -> bool:
    """Whether devcloud runs."""
    from devcloud.control import Control
    from devcloud.layout import Layout, Settings

    return Control(Layout(state_folder(), Settings())).first_process() is not None


def prepare(session: Session, kind: Kind, *, yes: bool, deploys: bool) -> bool:
    """Before a verb that needs the cloud: start devcloud if the stack uses it, and create a newcomer's stack.

    Return whether the user was asked, and has also agreed to a deployment (`deploys`) that only creates resources.

    Raises:
        LabError: devcloud cannot run on this machine or did not start, the user declined, or the stack's file is
            invalid.
    """
    newcomer = stack_without_cloud(session) if kind in {"update", "preview"} else None
    stack = newcomer or session.stack_option or session.current_stack()
    if stack is None:
        return False
    stack = session.parse_stack(stack)
    if newcomer is None and not session.backend.exists(session.project.name, stack):
        return False
    if not point_to_devcloud(session, stack):
        return False
    if is_up():
        if newcomer:
            _create_stack(session, newcomer)
        return False
    return _start(session, stack, new=newcomer is not None, yes=yes, deploys=deploys)


def _create_stack(session: Session, stack: str) -> None:
    if not session.backend.exists(session.project.name, stack):
        session.create_stack(stack)
    session.select(stack)


def _start(session: Session, stack: str, *, new: bool, yes: bool, deploys: bool) -> bool:
    from devcloud.bringup import Devcloud
    from devcloud.errors import DevcloudError
    from devcloud.layout import chosen

    try:
        cloud = Devcloud(state_folder(), chosen(subnet=os.environ.get("DEVCLOUD_SUBNET")))
        first = not cloud.layout.clouds_yaml.exists()
        cloud.check_machine()
        if deploys:
            check_settings(session, stack)
        if first:
            print(_explanation(session, stack, cloud.layout.state, new=new, deploys=deploys), file=sys.stderr)
        else:
            print("The stack's cloud, devcloud, is not running; starting it.", file=sys.stderr)
        if first and not yes:
            if not session.interactive:
                raise LabError(
                    "devcloud has never been started on this machine",
                    remedy="start it with `lab devcloud up` or `lab up --yes`",
                    code=ExitCode.CONFIGURATION,
                )
            if not typer.confirm("Continue?", default=True):
                raise LabError("confirmation declined")
        if new:
            _create_stack(session, stack)  # now, while the user can be asked for a passphrase
        cloud.up(sys.stderr)
    except DevcloudError as error:
        raise LabError(str(error), remedy=error.remedy) from None
    return first and deploys


def _explanation(session: Session, stack: str, state: Path, *, new: bool, deploys: bool) -> str:
    """What the first run does, shown before asking for confirmation."""
    from devcloud.machine import NEEDED_DISK_GIB, NEEDED_MEMORY_GIB

    reason = "No stack is selected, and no cloud is configured: there is no clouds.yaml, and no OS_* variable."
    action = "lab starts devcloud, a real OpenStack on this machine"
    lines = [
        f"{reason}\n{action}, and creates stack '{stack}' on it." if new else f"{action}, the cloud of the stack.",
        f"This needs root, {NEEDED_MEMORY_GIB} GiB of memory, {NEEDED_DISK_GIB} GiB of disk in {state}, and once about",
        "6 minutes (`lab devcloud purge` removes it).",
    ]
    if deploys:
        lines.append(
            f"Then it deploys {describe_stack(session, stack)}. It asks again only if that would do more than create "
            "resources. `lab destroy` deletes them."
        )
    return "\n".join(lines)
