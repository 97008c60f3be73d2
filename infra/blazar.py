"""Leases in Blazar: make, find, read, move the end, delete. Free of Pulumi.

Credentials come from clouds.yaml or OS_*, on the machine and at the time that this runs.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import requests
import tenacity
from blazarclient.client import Client  # type: ignore[import-untyped]
from blazarclient.exception import BlazarClientException  # type: ignore[import-untyped]
from keystoneauth1.exceptions import ClientException, ConnectFailure
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from openstack.exceptions import ConfigException, SDKException

from infra.lease_terms import LeaseError, end_of, minute, parse_time

Props = Mapping[str, Any]
"""Inputs of a lease resource; numbers may be floats, as the engine hands them over."""

BLAZAR_TIME = "%Y-%m-%d %H:%M"
"""How Blazar takes times: UTC, to the minute."""
OVER = frozenset({"TERMINATED", "DELETING"})
POLL_SECONDS = 2.0
REPORT_SECONDS = 15.0
DELETE_LIMIT = timedelta(minutes=10)
"""Blazar deletes the lease's instances first, one after the other."""


class Session:
    """A session with Blazar as `cloud` of clouds.yaml; it remembers the id of the last request."""

    def __init__(self, props: Props) -> None:
        self.request_id: str | None = None
        try:
            cloud = OpenStackConfig().get_one(cloud=props.get("cloud"), region_name=props.get("region"))
        except ConfigException as error:
            _fail(f"Could not log in: {error} Is the cloud in clouds.yaml? `lab doctor` tells more.")
        self.connection = Connection(config=cloud)
        session = self.connection.session
        session.session.hooks["response"].append(self._remember)
        self.leases = Client(
            session=session,
            service_type="reservation",
            region_name=cloud.get_region_name(),
            interface=cloud.get_interface("reservation"),
        ).lease

    def _remember(self, response: requests.Response, *_: object, **__: object) -> None:
        self.request_id = response.headers.get("x-openstack-request-id", self.request_id)

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn errors of the clients into LeaseErrors: what failed, what the cloud said, what to do.

        Raises LeaseError.
        """
        try:
            yield
        except (BlazarClientException, ClientException, SDKException) as error:
            said = str(error).removeprefix("ERROR: ").strip() or type(error).__name__
            request = f" (request {self.request_id})" if self.request_id else ""
            _fail(f"Could not {doing}: {said}{request}. {remedy(_status(error), said)}")

    def get(self, lease_id: str) -> Any:
        """The lease, or None if Blazar does not know it."""
        try:
            return self.leases.get(lease_id)
        except BlazarClientException as error:
            if _status(error) == 404:
                return None
            raise


def _fail(message: str) -> NoReturn:
    # Pulumi's SDK reports the traceback of what a provider raises; without frames little but the sentence is left.
    sys.tracebacklimit = 0
    raise LeaseError(message) from None


def _status(error: BaseException) -> int | None:
    if isinstance(error, BlazarClientException):
        return int(error.kwargs.get("code", 0))
    return getattr(error, "http_status", None) or getattr(error, "status_code", None)


def remedy(status: int | None, said: str) -> str:
    """What to do about an answer of Blazar with this HTTP status."""
    text = said.lower()
    if "endpoint" in text and "reservation" in text:
        return "This cloud has no Blazar: set ml-cluster:lease to none."
    if "not enough" in text:
        return "The hosts are taken at that time: choose another start, fewer nodes or another flavor."
    known = {
        400: "Compare ml-cluster:lease with what the site allows.",
        401: "The credential is not accepted: `lab doctor` tells why.",
        403: "The credential lacks a role, or the site's rules forbid such a lease: ask for the roles `member` and "
        "`reader`, and check the lease's length.",
        500: "Blazar answers 500 where the credential may not create trusts: make the application credential with "
        "`openstack application credential create --unrestricted`. A Keystone with the fixes of 2026 refuses trusts to "
        "every application credential: log in with a password there.",
    }
    return known.get(status or 0, "`lab doctor` checks the credential, the roles and what can be reserved.")


def reservation_body(props: Props, flavor_id: str | None) -> dict[str, Any]:
    """The reservation as Blazar's API takes it."""
    kind, amount = props["kind"], int(props["amount"])
    if kind == "flavor:instance":
        return {"resource_type": kind, "flavor_id": flavor_id, "amount": amount, "affinity": None}
    properties = props.get("properties") or ""
    return {
        "resource_type": kind,
        "min": amount,
        "max": amount,
        "resource_properties": properties,
        "hypervisor_properties": "",
    }


def is_wanted(answered: Mapping[str, Any], props: Props, flavor_id: str | None) -> bool:
    """Whether a reservation that Blazar has is the one that `props` describe."""
    if answered["resource_type"] != props["kind"]:
        return False
    properties = answered.get("resource_properties") or ""
    if props["kind"] == "physical:host":
        return properties == (props.get("properties") or "") and int(answered["max"]) == int(props["amount"])
    # Blazar keeps a copy of the reserved flavor in the reservation's properties.
    source = json.loads(properties).get("id") if properties.startswith("{") else flavor_id
    return int(answered["amount"]) == int(props["amount"]) and source == flavor_id


def reserve(props: Props) -> tuple[str, dict[str, Any]]:
    """Make the lease, wait until it is ACTIVE, and return its id and outputs.

    A lease of that name and shape which the same user has already (an interrupted run made it, or its answer was lost)
    is taken over. A lease that does not become ACTIVE is deleted again. Raises LeaseError.
    """
    session = Session(props)
    with session.explained(f"reserve {props['amount']:g} x {props.get('flavor') or 'host'}"):
        flavor_id = _flavor_id(session.connection, props.get("flavor"))
        lease = _find_or_make(session, props, flavor_id)
        if not _is_shaped(lease, props, flavor_id):
            _fail(
                f"A lease {props['name']} ({lease['id']}) exists that reserves something else. If nobody needs it: "
                f"`openstack reservation lease delete {lease['id']}`, then `lab up`."
            )
        try:
            lease = _wait_active(session, lease["id"], props)
        except LeaseError:
            session.leases.delete(lease["id"])
            raise
    return str(lease["id"]), {**props, **_outputs(lease)}


def await_start(lease_id: str, props: Props) -> dict[str, Any]:
    """Wait until a lease made for later is ACTIVE; its changed outputs. Raises LeaseError."""
    session = Session(props)
    with session.explained(f"wait for the lease {props['name']}"):
        return _outputs(_wait_active(session, lease_id, props))


def find(props: Props) -> str | None:
    """Id of the lease that an interrupted `reserve` made, once it is ACTIVE or failed; None without one.

    Raises LeaseError.
    """
    session = Session(props)
    with session.explained(f"look for the lease {props['name']}"):
        lease = _own_lease(session, props, OVER)
        if lease is None or not _is_shaped(lease, props, _flavor_id(session.connection, props.get("flavor"))):
            return None
        if lease["status"] != "ERROR":
            with suppress(LeaseError):
                _wait_active(session, lease["id"], props)
    return str(lease["id"])


def describe(lease_id: str, props: Props) -> tuple[dict[str, Any], str] | None:
    """Outputs and end of the lease; None if it is gone or over. Raises LeaseError."""
    session = Session(props)
    with session.explained(f"read the lease {props['name']}"):
        lease = session.get(lease_id)
    if lease is None or lease["status"] in OVER:
        return None
    return _outputs(lease), minute(parse_time(lease["end_date"]))


def move_end(props: Props) -> str:
    """Extend or shorten the lease `lease_id` to the wanted end; the end it has then. Raises LeaseError."""
    wanted = end_of(props["start_date"], props.get("hours"), props.get("end"))
    session = Session(props)
    with session.explained(f"move the end of the lease {props['name']} to {minute(wanted)}"):
        lease = session.leases.get(props["lease_id"])
        if parse_time(lease["end_date"]) != wanted:
            if lease["status"] in OVER:
                _fail(
                    f"The lease {props['name']} is over and cannot be extended. "
                    "`lab refresh` forgets it and the nodes that went with it; `lab up` then makes new ones."
                )
            if wanted <= datetime.now(UTC):
                _fail(
                    f"The lease {props['name']} started at {props['start_date']}, so it would end in the past "
                    f"({minute(wanted)}). Give it more hours, or `lab destroy`."
                )
            lease = session.leases.update(props["lease_id"], end_date=wanted.strftime(BLAZAR_TIME))
    return minute(parse_time(lease["end_date"]))


def release(lease_id: str, props: Props) -> None:
    """Delete the lease and wait until it is gone; fine if it is gone already. Raises LeaseError."""
    session = Session(props)
    with session.explained(f"delete the lease {props['name']}"):
        if session.get(lease_id) is None:
            return
        session.leases.delete(lease_id)
        _poll(lambda: session.get(lease_id) is None, DELETE_LIMIT, f"lease {props['name']}: waiting to be deleted")


def _outputs(lease: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reservation_id": lease["reservations"][0]["id"],
        "start_date": minute(parse_time(lease["start_date"])),
        "status": lease["status"],
    }


def _flavor_id(connection: Connection, name: str | None) -> str | None:
    if name is None:
        return None
    flavors = {flavor.name: str(flavor.id) for flavor in connection.compute.flavors()}
    if name not in flavors:
        _fail(f"The cloud has no flavor {name}. It has: {', '.join(sorted(flavors))}.")
    return flavors[name]


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, ConnectFailure) or _status(error) in {409, 429, 502, 503, 504}


def _own_lease(session: Session, props: Props, unwanted: Set[str]) -> Any:
    """The user's own lease of that name in none of the unwanted states; None without one."""
    user = session.connection.current_user_id
    for lease in session.leases.list():
        if lease["name"] == props["name"] and lease["user_id"] == user and lease["status"] not in unwanted:
            return lease
    return None


def _is_shaped(lease: Mapping[str, Any], props: Props, flavor_id: str | None) -> bool:
    reservations = lease["reservations"]
    return len(reservations) == 1 and is_wanted(reservations[0], props, flavor_id)


def _find_or_make(session: Session, props: Props, flavor_id: str | None) -> Any:
    """The lease of that name, looked for before each try: a lost answer makes no second lease."""

    @tenacity.retry(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_exponential(max=20),
        reraise=True,
    )
    def find_or_make() -> Any:
        if lease := _own_lease(session, props, OVER | {"ERROR"}):
            return lease
        now = datetime.now(UTC)
        start = datetime.fromisoformat(props["start"]) if props.get("start") else now
        return session.leases.create(
            name=props["name"],
            # Blazar refuses a start in the past, be it by seconds.
            start=start.strftime(BLAZAR_TIME) if start > now + timedelta(minutes=1) else "now",
            end=end_of(start.strftime(BLAZAR_TIME), props.get("hours"), props.get("end")).strftime(BLAZAR_TIME),
            reservations=[reservation_body(props, flavor_id)],
            events=[],
        )

    return find_or_make()


def _poll(done: Callable[[], bool], limit: timedelta, waiting: str) -> None:
    began = said = time.monotonic()

    def report(_: tenacity.RetryCallState) -> None:
        nonlocal said
        if time.monotonic() - said >= REPORT_SECONDS:
            said = time.monotonic()
            sys.stderr.write(f"{waiting} ({said - began:.0f} s)\n")
            sys.stderr.flush()

    try:
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda finished: not finished) | tenacity.retry_if_exception(_is_transient),
            stop=tenacity.stop_after_delay(limit.total_seconds()),
            wait=tenacity.wait_fixed(POLL_SECONDS),
            before_sleep=report,
        )(done)
    except tenacity.RetryError:
        _fail(f"{waiting}: given up after {limit.total_seconds() / 60:.0f} minutes. `lab up` tries again.")


def _wait_active(session: Session, lease_id: str, props: Props) -> Any:
    """The lease once it is ACTIVE; at once if it starts later than a run waits for."""
    limit = timedelta(minutes=float(props["wait_minutes"]))
    lease = session.leases.get(lease_id)
    until_start = max(parse_time(lease["start_date"]) - datetime.now(UTC), timedelta())
    if until_start > limit:
        return lease

    def settled() -> bool:
        nonlocal lease
        lease = session.leases.get(lease_id)
        return lease["status"] in {"ACTIVE", "ERROR", "TERMINATED"}

    _poll(settled, until_start + limit, f"lease {props['name']}: waiting to become ACTIVE")
    if lease["status"] != "ACTIVE":
        _fail(
            f"The lease {props['name']} went to {lease['status']}: Blazar could not set its hosts aside. "
            "Try another start or flavor; the site's operators see the reason."
        )
    return lease
