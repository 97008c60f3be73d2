"""Leases in Blazar: create, find, read, change the end, delete. Does not import Pulumi.

Credentials come from clouds.yaml or OS_* of the machine, at the time of the call.
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
"""Inputs of a lease resource. The engine may pass numbers as floats."""

BLAZAR_TIME = "%Y-%m-%d %H:%M"
"""Format of times in requests: UTC, to the minute."""
ENDED = frozenset({"TERMINATED", "DELETING"})
ATTEMPTS = 12
"""With the delays between them, enough for the restart of a service: a minute and a half."""
ATTEMPTS_AT_500 = 4
"""Fewer, because Blazar also answers 500 to requests that can never succeed."""
MAX_DELAY = 15.0
MAX_RETRY_AFTER = 300.0
"""Upper limit for Retry-After, in seconds."""
API_TIMEOUT = 120.0
"""Seconds for one answer, if clouds.yaml has no `api_timeout`."""
LOST_REQUEST_SECONDS = 15.0
"""How long a request whose answer was lost may still be in progress."""
STABLE = frozenset({"PENDING", "ACTIVE", "TERMINATED", "ERROR"})
"""States in which a lease can be deleted. In others Blazar answers `INVALID_STATUS`, with HTTP 500."""
INVALID_STATUS = "invalid lease status"
POLL_SECONDS = 2.0
REPORT_SECONDS = 15.0
CREATE_LIMIT = timedelta(minutes=3)
DELETE_LIMIT = timedelta(minutes=10)
"""Blazar deletes the lease's instances first, one after the other."""


class Session:
    """A session with Blazar for `cloud` of clouds.yaml, which keeps the id of the last request for error messages.

    It retries after temporary errors and lost answers, and respects `Retry-After`.
    """

    def __init__(self, props: Props) -> None:
        self.request_id: str | None = None
        self._retry_after = ""
        try:
            cloud = OpenStackConfig().get_one(cloud=props.get("cloud"), region_name=props.get("region"))
        except ConfigException as error:
            _fail(f"Could not log in: {error} Is the cloud in clouds.yaml? Run `lab doctor` for details.")
        # Without a timeout, a dropped connection would be waited for without end.
        cloud.config["api_timeout"] = cloud.config.get("api_timeout") or API_TIMEOUT
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
            response.json()  # the clients would treat a body that is not JSON as an empty answer

    def retry(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call, and retry after temporary errors."""

        def delay(state: tenacity.RetryCallState) -> float:
            if self._retry_after.isdigit():
                return min(float(self._retry_after), MAX_RETRY_AFTER)
            return tenacity.wait_exponential_jitter(0.5, MAX_DELAY, jitter=0.5)(state)

        def attempts_used(state: tenacity.RetryCallState) -> bool:
            failure = state.outcome.exception() if state.outcome else None
            return state.attempt_number >= (ATTEMPTS_AT_500 if failure and _status(failure) == 500 else ATTEMPTS)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient), stop=attempts_used, wait=delay, reraise=True
        )
        return retrying(call, *arguments, **options)

    @contextmanager
    def error_context(self, action: str) -> Iterator[None]:
        """Convert errors of the clients into LeaseErrors: what failed, the cloud's answer, what to do.

        Raises LeaseError.
        """
        try:
            yield
        except (BlazarClientException, ClientException, SDKException) as error:
            answer = str(error).removeprefix("ERROR: ").strip() or type(error).__name__
            request = f" (request {self.request_id})" if self.request_id else ""
            _fail(f"Could not {action}: {answer}{request}. {remedy(_status(error), answer)}")

    def get(self, lease_id: str) -> Any:
        """The lease, or None if it does not exist."""
        with suppress_absence():
            return self.retry(self._leases.get, lease_id)

    def list(self) -> Any:
        """The leases of the project."""
        return self.retry(self._leases.list)

    def create(self, **values: Any) -> Any:
        """Create a lease. Not retried: a request without an answer may have created it."""
        return self._leases.create(**values)

    def set_end(self, lease_id: str, end: datetime) -> Any:
        """Change the end of the lease, and return the lease."""
        return self.retry(self._leases.update, lease_id, end_date=end.strftime(BLAZAR_TIME))

    def delete(self, lease_id: str) -> None:
        """Request the deletion of the lease, if it exists."""
        with suppress_absence():
            self.retry(self._leases.delete, lease_id)


@contextmanager
def suppress_absence() -> Iterator[None]:
    """Suppress the client's error for a lease that does not exist."""
    try:
        yield
    except BlazarClientException as error:
        if _status(error) != 404:
            raise


def _fail(message: str) -> NoReturn:
    # Pulumi's SDK prints the traceback of a provider's exception; without frames, only the message is left.
    sys.tracebacklimit = 0
    raise LeaseError(message) from None


def _status(error: BaseException) -> int | None:
    if isinstance(error, BlazarClientException):
        return int(error.kwargs.get("code", 0))
    return getattr(error, "http_status", None) or getattr(error, "status_code", None)


def remedy(status: int | None, answer: str) -> str:
    """What to do about an answer of Blazar with this HTTP status."""
    text = answer.lower()
    if "endpoint" in text and "reservation" in text:
        return "This cloud has no Blazar: set ml-cluster:lease to none."
    if "not enough" in text:
        return "The hosts are reserved at that time: choose another start, fewer nodes or another flavor."
    if INVALID_STATUS in text:
        return "Another request is changing the lease: try again in a minute."
    remedies = {
        400: "Compare ml-cluster:lease with the site's rules.",
        401: "The credential is not accepted: run `lab doctor`.",
        403: "The credential lacks a role, or the site's rules forbid such a lease: ask for the roles `member` and "
        "`reader`, and check the lease's length.",
        500: "Blazar answers 500 if the credential may not create trusts: create the application credential with "
        "`openstack application credential create --unrestricted`. A Keystone with the fixes of 2026 refuses trusts to "
        "every application credential: log in with a password there.",
    }
    return remedies.get(status or 0, "`lab doctor` checks the credential, the roles and what can be reserved.")


def reservation_body(props: Props, flavor_id: str | None) -> dict[str, Any]:
    """The reservation in the format of Blazar's API."""
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


def matches(existing: Mapping[str, Any], props: Props, flavor_id: str | None) -> bool:
    """Whether a reservation in Blazar is the one that `props` describe."""
    if existing["resource_type"] != props["kind"]:
        return False
    properties = existing.get("resource_properties") or ""
    if props["kind"] == "physical:host":
        return properties == (props.get("properties") or "") and int(existing["max"]) == int(props["amount"])
    # Blazar keeps a copy of the reserved flavor in the reservation's properties.
    source = json.loads(properties).get("id") if properties.startswith("{") else flavor_id
    return int(existing["amount"]) == int(props["amount"]) and source == flavor_id


def reserve(props: Props) -> tuple[str, dict[str, Any]]:
    """Create the lease, wait until it is ACTIVE, and return its id and outputs.

    Adopts a lease of the same user with the same name and reservation, from an interrupted run or a lost answer.
    Deletes a lease that does not become ACTIVE. Raises LeaseError.
    """
    session = Session(props)
    with session.error_context(f"reserve {props['amount']:g} x {props.get('flavor') or 'host'}"):
        flavor_id = _flavor_id(session, props.get("flavor"))
        lease = _find_or_create(session, props, flavor_id)
        if not _reserves(lease, props, flavor_id):
            _fail(
                f"The lease {props['name']} ({lease['id']}) exists but reserves something else. If nobody needs it: "
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
    """Wait until a lease that was created in advance is ACTIVE; return its changed outputs. Raises LeaseError."""
    session = Session(props)
    with session.error_context(f"wait for the lease {props['name']}"):
        return _outputs(_wait_active(session, lease_id, props))


def find(props: Props) -> str | None:
    """Id of the lease of an interrupted `reserve`, once it is ACTIVE or has failed; None without one.

    Raises LeaseError.
    """
    session = Session(props)
    with session.error_context(f"look for the lease {props['name']}"):
        lease = _own_lease(session, props, ENDED)
        if lease is None or not _reserves(lease, props, _flavor_id(session, props.get("flavor"))):
            return None
        if lease["status"] != "ERROR":
            with suppress(LeaseError):
                _wait_active(session, lease["id"], props)
    return str(lease["id"])


def describe(lease_id: str, props: Props) -> tuple[dict[str, Any], str] | None:
    """Outputs and end of the lease, which may have ended; None if it does not exist. Raises LeaseError."""
    session = Session(props)
    with session.error_context(f"read the lease {props['name']}"):
        lease = session.get(lease_id)
    if lease is None or lease["status"] == "DELETING":
        return None
    return _outputs(lease), minute(parse_time(lease["end_date"]))


def set_end(props: Props) -> str:
    """Extend or shorten the lease `lease_id` to the desired end; return its end. Raises LeaseError."""
    end = end_of(props["start_date"], props.get("hours"), props.get("end"))
    session = Session(props)
    with session.error_context(f"change the end of the lease {props['name']} to {minute(end)}"):
        lease = session.get(props["lease_id"])
        if lease is None:
            _fail(
                f"The lease {props['name']} does not exist any more. "
                "Run `lab refresh` to remove it from the state; `lab up` then creates a new one."
            )
        if parse_time(lease["end_date"]) != end:
            if lease["status"] in ENDED:
                _fail(
                    f"The lease {props['name']} has ended and cannot be extended. "
                    "Run `lab refresh` to update the state; `lab up` then creates a new lease and new nodes."
                )
            if end <= datetime.now(UTC):
                _fail(
                    f"The lease {props['name']} started at {props['start_date']}, so it would end in the past "
                    f"({minute(end)}). Set more hours, or run `lab destroy`."
                )
            lease = session.set_end(props["lease_id"], end)
    return minute(parse_time(lease["end_date"]))


def release(lease_id: str, props: Props) -> None:
    """Delete the lease, if it exists, and wait until it is deleted. Raises LeaseError."""
    session = Session(props)
    with session.error_context(f"delete the lease {props['name']}"):
        if (lease := session.get(lease_id)) is None:
            return
        _delete_others(session, props, lease)

        def gone() -> bool:
            current = session.get(lease_id)
            if current is not None and current["status"] in STABLE:
                try:
                    session.delete(lease_id)
                except BlazarClientException as error:
                    # Its status has changed since then, perhaps by an earlier request without an answer.
                    if INVALID_STATUS not in str(error).lower():
                        raise
            return current is None

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
    flavors = session.retry(lambda: {item.name: str(item.id) for item in session.connection.compute.flavors()})
    if name not in flavors:
        _fail(f"The cloud has no flavor {name}. It has: {', '.join(sorted(flavors))}.")
    return flavors[name]


def _is_transient(error: BaseException) -> bool:
    return _has_no_answer(error) or _status(error) in {409, 429, 500, 502, 503, 504}


def _has_no_answer(error: BaseException) -> bool:
    return isinstance(error, NoAnswerError) and not isinstance(error, SSLError)


def _own_lease(session: Session, props: Props, ignored: Set[str]) -> Any:
    """The user's lease with that name in none of the `ignored` states; None without one."""
    return next((_with_reservations(session, lease) for lease in _own_leases(session, props, ignored)), None)


def _own_leases(session: Session, props: Props, ignored: Set[str]) -> list[Any]:
    """The user's leases with that name, oldest first. There may be several if Blazar was overloaded."""
    user = session.retry(lambda: session.connection.current_user_id)
    named = (lease for lease in session.list() if (lease["name"], lease["user_id"]) == (props["name"], user))
    return sorted((lease for lease in named if lease["status"] not in ignored), key=itemgetter("created_at"))


def _delete_others(session: Session, props: Props, lease: Mapping[str, Any]) -> None:
    """Delete later leases with the same name, created by requests that were given up."""
    for other in _own_leases(session, props, ENDED):
        if other["created_at"] > lease["created_at"]:
            session.delete(other["id"])


def _with_reservations(session: Session, lease: Any) -> Any:
    """The lease once its reservations exist; None if Blazar could not create them and has deleted the lease."""

    def created() -> bool:
        nonlocal lease
        if lease is not None and lease["status"] == "CREATING":
            lease = session.get(lease["id"])
        return lease is None or lease["status"] != "CREATING"

    _poll(created, CREATE_LIMIT, f"lease {lease['name']}: waiting for its reservations")
    return lease


def _reserves(lease: Mapping[str, Any], props: Props, flavor_id: str | None) -> bool:
    reservations = lease["reservations"]
    return len(reservations) == 1 and matches(reservations[0], props, flavor_id)


def _find_or_create(session: Session, props: Props, flavor_id: str | None) -> Any:
    """The lease with that name. Looks for it before each attempt and after each lost answer, to avoid duplicates."""

    def find_or_create() -> Any:
        if lease := _own_lease(session, props, ENDED | {"ERROR"}):
            return lease
        now = datetime.now(UTC)
        start = datetime.fromisoformat(props["start"]) if props.get("start") else now
        sent = time.monotonic()
        try:
            return session.create(
                name=props["name"],
                # Blazar refuses a start in the past, even by seconds.
                start=start.strftime(BLAZAR_TIME) if start > now + timedelta(minutes=1) else "now",
                end=end_of(start.strftime(BLAZAR_TIME), props.get("hours"), props.get("end")).strftime(BLAZAR_TIME),
                reservations=[reservation_body(props, flavor_id)],
                events=[],
            )
        except (BlazarClientException, ClientException) as error:
            if not _has_no_answer(error) and _status(error) not in {502, 504}:
                raise
            if lease := _await_lost(session, props, time.monotonic() - sent):
                return lease
            raise

    return session.retry(find_or_create)


def _await_lost(session: Session, props: Props, waited: float) -> Any:
    """The lease that a request without an answer creates, perhaps later; None if it creates none.

    If Blazar did not answer for `waited` seconds, it may be as slow to create the lease.
    """
    deadline = time.monotonic() + max(LOST_REQUEST_SECONDS, waited)
    while time.monotonic() < deadline:
        if lease := _own_lease(session, props, ENDED | {"ERROR"}):
            return lease
        time.sleep(POLL_SECONDS)
    return None


def _poll(done: Callable[[], bool], limit: timedelta, waiting: str) -> None:
    start = last_report = time.monotonic()

    def report(_: tenacity.RetryCallState) -> None:
        nonlocal last_report
        if time.monotonic() - last_report >= REPORT_SECONDS:
            last_report = time.monotonic()
            sys.stderr.write(f"{waiting} ({last_report - start:.0f} s)\n")
            sys.stderr.flush()

    try:
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda finished: not finished),
            stop=tenacity.stop_after_delay(limit.total_seconds()),
            wait=tenacity.wait_fixed(POLL_SECONDS),
            before_sleep=report,
        )(done)
    except tenacity.RetryError:
        _fail(f"{waiting}: timed out after {limit.total_seconds() / 60:.0f} minutes. Run `lab up` to try again.")


def _wait_active(session: Session, lease_id: str, props: Props) -> Any:
    """Wait until the lease is ACTIVE, unless it starts too late to wait for; return the lease."""
    limit = timedelta(minutes=float(props["wait_minutes"]))
    lease = session.get(lease_id)
    if lease is None:
        _fail(f"The lease {props['name']} ({lease_id}) was deleted while `lab` waited for it.")
    until_start = max(parse_time(lease["start_date"]) - datetime.now(UTC), timedelta())
    if until_start > limit:
        return lease

    def decided() -> bool:
        nonlocal lease
        lease = session.get(lease_id) or {"status": "DELETED"}
        return lease["status"] in {"ACTIVE", "ERROR", "TERMINATED", "DELETED"}

    _poll(decided, until_start + limit, f"lease {props['name']}: waiting to become ACTIVE")
    if lease["status"] != "ACTIVE":
        _fail(
            f"The lease {props['name']} has the status {lease['status']}: Blazar could not reserve its hosts. "
            "Try another start or flavor, or ask the site's operators for the reason."
        )
    return lease
