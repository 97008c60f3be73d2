"""Actions on instances, and waiting for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from providers.framework import NotYetError, ProviderError
from providers.openstack.client import CloudError, remedy_for

if TYPE_CHECKING:
    from providers.framework import Operation
    from providers.openstack.client import Service
    from providers.values import Properties

IDLE_LIMIT: Final = 20.0  # seconds
DETACH_RETRY_SECONDS: Final = 30.0  # a detach is asynchronous, and its failure is visible nowhere


class InstanceError(ProviderError):
    """The instance is in status ERROR; ``launched`` says whether it ever ran."""

    def __init__(self, server: Properties) -> None:
        reason = (server.get("fault") or {}).get("message") or "the cloud gives no reason"
        super().__init__(
            f"instance {server['name']} ({server['id']}) is in status ERROR: {reason}", remedy=remedy_for(reason)
        )
        self.launched = bool(server.get("OS-SRV-USG:launched_at"))


GONE: Final = frozenset({"DELETED", "SOFT_DELETED"})
# Target power state -> the action by the current one ("" for any other) and the status that ends it.
_POWER_ACTIONS: Final[dict[str, tuple[dict[str, str], str]]] = {
    "active": ({"paused": "unpause", "shelved": "unshelve", "shelved_offloaded": "unshelve", "": "os-start"}, "ACTIVE"),
    "shutoff": ({"": "os-stop"}, "SHUTOFF"),
    "paused": ({"": "pause"}, "PAUSED"),
    "shelved_offloaded": ({"": "shelve"}, "SHELVED_OFFLOADED"),
}


def act(compute: Service, id_: str, action: Properties, *, missing_ok: bool = False) -> None:
    try:
        compute.post(f"/servers/{id_}/action", action)
    except CloudError as error:
        if not (missing_ok and error.status == 404):
            raise


def reach(compute: Service, id_: str, statuses: set[str], operation: Operation, *, idle: bool = False) -> None:
    """Wait for one of the statuses; with ``idle``, also until no task is running.

    Fails for an instance in another status without a task: Nova reports failed actions nowhere else.
    """
    idle_since: float | None = None

    def poll() -> bool | None:
        nonlocal idle_since
        server = compute.get(f"/servers/{id_}")["server"]
        status, task = server["status"], server.get("OS-EXT-STS:task_state")
        if status == "ERROR":
            raise InstanceError(server)
        if status in statuses:
            return True if task is None or not idle else None
        if task is not None or status == "BUILD":
            idle_since = None
        elif idle_since is None:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > IDLE_LIMIT:
            raise _stuck_error(compute, server)
        return None

    operation.wait(f"instance {id_} to become {' or '.join(sorted(statuses)).lower()}", poll, max_delay=3)


def _stuck_error(compute: Service, server: Properties) -> ProviderError:
    actions = compute.get(f"/servers/{server['id']}/os-instance-actions")["instanceActions"]
    failed = [action for action in actions if action["message"]] or actions
    last = max(failed, key=lambda action: str(action["start_time"]), default=None)
    message = f"instance {server['name']} ({server['id']}) stays {server['status'].lower()}"
    if last:
        message += (
            f": its last action was {last['action']} ({last['request_id']}), {last['message'] or 'no error reported'}"
        )
    return ProviderError(message, remedy=f"`openstack server event list {server['id']}` shows what happened to it.")


def switch(compute: Service, id_: str, states: tuple[str, str], zone: str | None, operation: Operation) -> None:
    """Bring an instance from the first power state to the second. ``zone`` is where to unshelve it."""
    current, wanted = (state.lower() for state in states)
    actions, status = _POWER_ACTIONS[wanted]
    action = actions.get(current, actions[""])
    if current != "build":
        act(compute, id_, {action: {"availability_zone": zone} if zone and action == "unshelve" else None})
    reach(compute, id_, {status}, operation)


def remove(compute: Service, id_: str, operation: Operation, *, force: bool = False) -> None:
    if force:
        act(compute, id_, {"forceDelete": None}, missing_ok=True)
    else:
        compute.delete(f"/servers/{id_}")

    def gone() -> bool | None:
        answer = compute.find(f"/servers/{id_}")
        if answer is None or answer["server"]["status"] in GONE:
            return True
        if answer["server"]["status"] == "ERROR" and answer["server"].get("OS-EXT-STS:task_state") is None:
            raise InstanceError(answer["server"])
        return None

    operation.wait(f"instance {id_} to be gone", gone, max_delay=3)


def detach(compute: Service, path: str, what: str, operation: Operation) -> None:
    """DELETE, and wait until a GET finds nothing; repeat it while the cloud refuses, or forgets it."""
    asked = -DETACH_RETRY_SECONDS

    def gone() -> bool | None:
        nonlocal asked
        if compute.find(path) is None:
            return True
        if time.monotonic() - asked >= DETACH_RETRY_SECONDS:
            try:
                compute.delete(path)
            except CloudError as error:
                if error.status in (400, 409):
                    raise NotYetError(error) from error
                raise
            asked = time.monotonic()
        return None

    operation.wait(f"the {what} to be detached", gone)
