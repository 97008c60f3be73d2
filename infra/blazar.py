"""Leases in Blazar: make, find, read, move the end, delete. Free of Pulumi.

Credentials come from clouds.yaml or OS_*, on the machine and at the time that this runs.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NoReturn, TypeVar

import requests
import tenacity
from blazarclient.client import Client  # type: ignore[import-untyped]
from blazarclient.exception import BlazarClientException  # type: ignore[import-untyped]
from keystoneauth1.exceptions import ClientException, SSLError
from keystoneauth1.exceptions import ConnectionError as NoAnswerError
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from openstack.exceptions import ConfigException, SDKException

from infra.lease_terms import LeaseError, end_of, minute, parse_time

T = TypeVar("T")

Props = Mapping[str, Any]
"""Inputs of a lease resource; numbers may be floats, as the engine hands them over."""

BLAZAR_TIME = "%Y-%m-%d %H:%M"
"""How Blazar takes times: UTC, to the minute."""
OVER = frozenset({"TERMINATED", "DELETING"})
ATTEMPTS = 12
"""With the delays between them they outlast the restart of a service: a minute and a half."""
ATTEMPTS_AT_500 = 4
"""Blazar answers 500 for what will not pass, too."""
LONGEST_DELAY = 15.0
LONGEST_PATIENCE = 300.0
"""Seconds that Retry-After is believed."""
ANSWER_SECONDS = 120.0
"""For one answer, where clouds.yaml has no `api_timeout`."""
SETTLING_SECONDS = 15.0
"""How long a request whose answer was lost may still be under way."""
SETTLED = frozenset({"PENDING", "ACTIVE", "TERMINATED", "ERROR"})
"""States in which a lease can be deleted; in others Blazar answers with `INVALID_STATUS`, as HTTP 500."""
INVALID_STATUS = "invalid lease status"
POLL_SECONDS = 2.0
REPORT_SECONDS = 15.0
CREATE_LIMIT = timedelta(minutes=3)
DELETE_LIMIT = timedelta(minutes=10)
"""Blazar deletes the lease's instances first, one after the other."""


class Session:
    """A session with Blazar as `cloud` of clouds.yaml; it remembers the id of the last request.

    What the cloud refuses for the moment, and what gets no answer, is asked again, as late as `Retry-After` wants it.
    """

    def __init__(self, props: Props) -> None:
        self.request_id: str | None = None
        self._retry_after = ""
        try:
            cloud = OpenStackConfig().get_one(cloud=props.get("cloud"), region_name=props.get("region"))
        except ConfigException as error:
            _fail(f"Could not log in: {error} Is the cloud in clouds.yaml? `lab doctor` tells more.")
        # Without it a connection that the network has forgotten is waited for without end.
        cloud.config["api_timeout"] = cloud.config.get("api_timeout") or ANSWER_SECONDS
        self.connection = Connection(config=cloud)
        session = self.connection.session
        session.session.hooks["response"].append(self._look_at)
        self._leases = Client(
            session=session,
            service_type="reservation",
            region_name=cloud.get_region_name(),
            interface=cloud.get_interface("reservation"),
        ).lease

    def _look_at(self, response: requests.Response, *_: object, **__: object) -> None:
        self.request_id = response.headers.get("x-openstack-request-id", self.request_id)
        self._retry_after = response.headers.get("Retry-After", "")
        if response.status_code < 400 and response.content:
            response.json()  # of what is no JSON, the clients would make an empty answer

    def again(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call until it gets an answer that is none for the moment only."""

        def delay(state: tenacity.RetryCallState) -> float:
            if self._retry_after.isdigit():
                return min(float(self._retry_after), LONGEST_PATIENCE)
            return tenacity.wait_exponential_jitter(0.5, LONGEST_DELAY, jitter=0.5)(state)

        def enough(state: tenacity.RetryCallState) -> bool:
            failure = state.outcome.exception() if state.outcome else None
            return state.attempt_number >= (ATTEMPTS_AT_500 if failure and _status(failure) == 500 else ATTEMPTS)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient), stop=enough, wait=delay, reraise=True
        )
        return retrying(call, *arguments, **options)

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
        with suppress_absence():
            return self.again(self._leases.get, lease_id)

    def list(self) -> Any:
        """The leases of the project."""
        return self.again(self._leases.list)

    def create(self, **values: Any) -> Any:
        """A new lease. Not repeated: nobody knows whether one that got no answer has made it."""
        return self._leases.create(**values)

    def move_end(self, lease_id: str, end: datetime) -> Any:
        """The lease, changed."""
        return self.again(self._leases.update, lease_id, end_date=end.strftime(BLAZAR_TIME))

    def delete(self, lease_id: str) -> None:
        """Ask for the lease to be deleted, unless it is gone."""
        with suppress_absence():
            self.again(self._leases.delete, lease_id)


@contextmanager
def suppress_absence() -> Iterator[None]:
    """Suppress a client's error that says that there is no such lease."""
    try:
        yield
    except BlazarClientException as error:
        if _status(error) != 404:
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
    if INVALID_STATUS in text:
        return "The lease is being changed by another request: try again in a minute."
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
        flavor_id = _flavor_id(session, props.get("flavor"))
        lease = _find_or_make(session, props, flavor_id)
        if not _is_shaped(lease, props, flavor_id):
            _fail(
                f"A lease {props['name']} ({lease['id']}) exists that reserves something else. If nobody needs it: "
                f"`openstack reservation lease delete {lease['id']}`, then `lab up`."
            )
        try:
            lease = _wait_active(session, lease["id"], props)
        except LeaseError:
            session.delete(lease["id"])
            raise
        _delete_others(session, props, lease)
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
        if lease is None or not _is_shaped(lease, props, _flavor_id(session, props.get("flavor"))):
            return None
        if lease["status"] != "ERROR":
            with suppress(LeaseError):
                _wait_active(session, lease["id"], props)
    return str(lease["id"])


def describe(lease_id: str, props: Props) -> tuple[dict[str, Any], str] | None:
    """Outputs and end of the lease, which may be over; None if it is gone. Raises LeaseError."""
    session = Session(props)
    with session.explained(f"read the lease {props['name']}"):
        lease = session.get(lease_id)
    if lease is None or lease["status"] == "DELETING":
        return None
    return _outputs(lease), minute(parse_time(lease["end_date"]))


def move_end(props: Props) -> str:
    """Extend or shorten the lease `lease_id` to the wanted end; the end it has then. Raises LeaseError."""
    wanted = end_of(props["start_date"], props.get("hours"), props.get("end"))
    session = Session(props)
    with session.explained(f"move the end of the lease {props['name']} to {minute(wanted)}"):
        lease = session.get(props["lease_id"])
        if lease is None:
            _fail(f"The lease {props['name']} is gone. `lab refresh` forgets it; `lab up` then makes another.")
        if parse_time(lease["end_date"]) != wanted:
            if lease["status"] in OVER:
                _fail(
                    f"The lease {props['name']} is over and cannot be extended. "
                    "`lab refresh` finds out what went with it; `lab up` then makes a new lease and new nodes."
                )
            if wanted <= datetime.now(UTC):
                _fail(
                    f"The lease {props['name']} started at {props['start_date']}, so it would end in the past "
                    f"({minute(wanted)}). Give it more hours, or `lab destroy`."
                )
            lease = session.move_end(props["lease_id"], wanted)
    return minute(parse_time(lease["end_date"]))


def release(lease_id: str, props: Props) -> None:
    """Delete the lease and wait until it is gone; fine if it is gone already. Raises LeaseError."""
    session = Session(props)
    with session.explained(f"delete the lease {props['name']}"):
        if (lease := session.get(lease_id)) is None:
            return
        _delete_others(session, props, lease)

        def gone() -> bool:
            found = session.get(lease_id)
            if found is not None and found["status"] in SETTLED:
                try:
                    session.delete(lease_id)
                except BlazarClientException as error:
                    # It has begun to change since then, be it by a request whose answer came too late.
                    if INVALID_STATUS not in str(error).lower():
                        raise
            return found is None

        _poll(gone, DELETE_LIMIT, f"lease {props['name']}: waiting to be deleted")


def _outputs(lease: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reservation_id": lease["reservations"][0]["id"],
        "start_date": minute(parse_time(lease["start_date"])),
        "status": lease["status"],
    }


def _flavor_id(session: Session, name: str | None) -> str | None:
    if name is None:
        return None
    flavors = session.again(lambda: {item.name: str(item.id) for item in session.connection.compute.flavors()})
    if name not in flavors:
        _fail(f"The cloud has no flavor {name}. It has: {', '.join(sorted(flavors))}.")
    return flavors[name]


def _is_transient(error: BaseException) -> bool:
    return _has_no_answer(error) or _status(error) in {409, 429, 500, 502, 503, 504}


def _has_no_answer(error: BaseException) -> bool:
    return isinstance(error, NoAnswerError) and not isinstance(error, SSLError)


def _own_lease(session: Session, props: Props, unwanted: Set[str]) -> Any:
    """The user's own lease of that name in none of the unwanted states; None without one."""
    return next((_whole(session, lease) for lease in _own_leases(session, props, unwanted)), None)


def _own_leases(session: Session, props: Props, unwanted: Set[str]) -> list[Any]:
    """The user's own leases of that name, the oldest first: an overloaded Blazar may make one that was given up."""
    user = session.again(lambda: session.connection.current_user_id)
    named = (lease for lease in session.list() if (lease["name"], lease["user_id"]) == (props["name"], user))
    return sorted((lease for lease in named if lease["status"] not in unwanted), key=itemgetter("created_at"))


def _delete_others(session: Session, props: Props, lease: Mapping[str, Any]) -> None:
    """Delete what requests that were given up have made beside the stack's lease, after it."""
    for other in _own_leases(session, props, OVER):
        if other["created_at"] > lease["created_at"]:
            session.delete(other["id"])


def _whole(session: Session, lease: Any) -> Any:
    """The lease once Blazar has made its reservations; None if it could not, and has taken the lease back."""

    def made() -> bool:
        nonlocal lease
        if lease is not None and lease["status"] == "CREATING":
            lease = session.get(lease["id"])
        return lease is None or lease["status"] != "CREATING"

    _poll(made, CREATE_LIMIT, f"lease {lease['name']}: waiting for its reservations")
    return lease


def _is_shaped(lease: Mapping[str, Any], props: Props, flavor_id: str | None) -> bool:
    reservations = lease["reservations"]
    return len(reservations) == 1 and is_wanted(reservations[0], props, flavor_id)


def _find_or_make(session: Session, props: Props, flavor_id: str | None) -> Any:
    """The lease of that name, looked for before each try and after each lost answer, so that none is made twice."""

    def find_or_make() -> Any:
        if lease := _own_lease(session, props, OVER | {"ERROR"}):
            return lease
        now = datetime.now(UTC)
        start = datetime.fromisoformat(props["start"]) if props.get("start") else now
        asked = time.monotonic()
        try:
            return session.create(
                name=props["name"],
                # Blazar refuses a start in the past, be it by seconds.
                start=start.strftime(BLAZAR_TIME) if start > now + timedelta(minutes=1) else "now",
                end=end_of(start.strftime(BLAZAR_TIME), props.get("hours"), props.get("end")).strftime(BLAZAR_TIME),
                reservations=[reservation_body(props, flavor_id)],
                events=[],
            )
        except (BlazarClientException, ClientException) as error:
            if not _has_no_answer(error) and _status(error) not in {502, 504}:
                raise
            if lease := _await_lost(session, props, time.monotonic() - asked):
                return lease
            raise

    return session.again(find_or_make)


def _await_lost(session: Session, props: Props, waited: float) -> Any:
    """The lease that a request without an answer makes, be it in a while; None if it makes none.

    A Blazar that did not answer for `waited` seconds is slow to make leases, too.
    """
    deadline = time.monotonic() + max(SETTLING_SECONDS, waited)
    while time.monotonic() < deadline:
        if lease := _own_lease(session, props, OVER | {"ERROR"}):
            return lease
        time.sleep(POLL_SECONDS)
    return None


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
            retry=tenacity.retry_if_result(lambda finished: not finished),
            stop=tenacity.stop_after_delay(limit.total_seconds()),
            wait=tenacity.wait_fixed(POLL_SECONDS),
            before_sleep=report,
        )(done)
    except tenacity.RetryError:
        _fail(f"{waiting}: given up after {limit.total_seconds() / 60:.0f} minutes. `lab up` tries again.")


def _wait_active(session: Session, lease_id: str, props: Props) -> Any:
    """The lease once it is ACTIVE; at once if it starts later than a run waits for."""
    limit = timedelta(minutes=float(props["wait_minutes"]))
    lease = session.get(lease_id)
    if lease is None:
        _fail(f"The lease {props['name']} ({lease_id}) was deleted while this run waited for it.")
    until_start = max(parse_time(lease["start_date"]) - datetime.now(UTC), timedelta())
    if until_start > limit:
        return lease

    def settled() -> bool:
        nonlocal lease
        lease = session.get(lease_id) or {"status": "DELETED"}
        return lease["status"] in {"ACTIVE", "ERROR", "TERMINATED", "DELETED"}

    _poll(settled, until_start + limit, f"lease {props['name']}: waiting to become ACTIVE")
    if lease["status"] != "ACTIVE":
        _fail(
            f"The lease {props['name']} went to {lease['status']}: Blazar could not set its hosts aside. "
            "Try another start or flavor; the site's operators see the reason."
        )
    return lease
