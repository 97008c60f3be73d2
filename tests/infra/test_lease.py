"""The rules of leases: what changes one in place, what replaces it, which one is taken over, what errors say."""

import base64
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blazarclient.exception import BlazarClientException  # type: ignore[import-untyped]
from keystoneauth1.exceptions import ConnectFailure, ConnectTimeout
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.output import UNKNOWN

from infra.blazar import matches, remedy, reservation_body
from infra.lease import LeaseEndProvider, LeaseProvider
from infra.lease_terms import end_of, host_query, lease_replaces, minute, parse_time
from infra.reference import ROOT

# As the engine hands them over: numbers as floats, nothing for None.
LEASE: dict[str, Any] = {
    "name": "lab-lease-worker",
    "kind": "flavor:instance",
    "amount": 2.0,
    "flavor": "m1.large",
    "hours": 12.0,
    "cloud": "openstack",
    "wait_minutes": 15.0,
}
LIVE = {**LEASE, "reservation_id": "r", "start_date": "2026-11-23T12:00Z", "status": "ACTIVE"}


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({}, []),
        ({"amount": 2, "properties": None, "start": None}, []),
        ({"hours": 24.0}, []),
        ({"hours": None, "end": "2026-12-01T00:00Z"}, []),
        ({"wait_minutes": 30.0}, []),
        ({"amount": 3.0}, ["amount"]),
        ({"flavor": "m1.xlarge"}, ["flavor"]),
        ({"kind": "physical:host", "flavor": None, "properties": "x"}, ["kind", "flavor", "properties"]),
        ({"cloud": "other"}, ["cloud"]),
        ({"start": "2026-12-01T00:00Z"}, ["start"]),
    ],
)
def test_what_makes_another_lease(change: dict[str, Any], replaced: list[str]) -> None:
    result = LeaseProvider().diff("id", LIVE, {**LEASE, **change})
    assert result.replaces == replaced == lease_replaces(LIVE, {**LEASE, **change})
    assert result.changes is bool(replaced)
    assert result.delete_before_replace, "the old lease holds the hosts that the new one needs"


def test_lease_made_for_later_is_awaited_once_it_is_due() -> None:
    now = datetime.now(UTC)
    due = {**LIVE, "status": "PENDING", "start_date": minute(now - timedelta(minutes=2))}
    later = {**LIVE, "status": "PENDING", "start_date": minute(now + timedelta(hours=2))}
    assert LeaseProvider().diff("id", due, LEASE).changes is True
    assert LeaseProvider().diff("id", due, LEASE).replaces == []
    assert LeaseProvider().diff("id", later, LEASE).changes is False


UNTIL = {"lease_id": "l", "name": "lab-lease", "hours": 12.0, "start_date": "2026-11-23T12:00Z"}


def checked(**change: Any) -> dict[str, Any]:
    return LeaseEndProvider().check({}, {**UNTIL, **change}).inputs


def test_end_is_counted_from_the_start_and_stays() -> None:
    """`up` an hour later wants the same end."""
    assert checked()["end_date"] == "2026-11-24T00:00Z"
    assert LeaseEndProvider().diff("id", checked(), checked()).changes is False


@pytest.mark.parametrize("change", [{"hours": 24.0}, {"hours": 1.0}, {"hours": None, "end": "2026-12-01T00:00Z"}])
def test_another_end_changes_the_lease_in_place(change: dict[str, Any]) -> None:
    result = LeaseEndProvider().diff("id", checked(), checked(**change))
    assert (result.changes, result.replaces) == (True, [])


def test_another_spelling_of_the_same_end_is_no_change() -> None:
    assert LeaseEndProvider().diff("id", checked(), checked(hours=None, end="2026-11-24T00:00Z")).changes is False


def test_end_that_someone_moved_is_put_back() -> None:
    moved = {**checked(), "end_date": "2026-11-24T05:00Z"}
    assert LeaseEndProvider().diff("id", moved, checked()).changes is True


def test_an_ended_lease_is_reported_and_not_unchanged() -> None:
    now = datetime.now(UTC)
    over = {**UNTIL, "end_date": minute(now - timedelta(minutes=1))}
    (failure,) = LeaseEndProvider().check(over, UNTIL).failures
    assert "`lab refresh`" in failure.reason
    assert LeaseEndProvider().check(over, {**UNTIL, "lease_id": "m"}).failures == []
    assert LeaseEndProvider().check({**UNTIL, "end_date": minute(now + timedelta(hours=1))}, {**UNTIL}).failures == []


def test_end_of_another_lease_is_another_end() -> None:
    assert LeaseEndProvider().diff("id", checked(), checked(lease_id="m")).replaces == ["lease_id"]
    unknown = checked(lease_id=UNKNOWN, start_date=UNKNOWN)
    assert "end_date" not in unknown
    assert LeaseEndProvider().diff("id", checked(), unknown).replaces == ["lease_id"]


def test_times_are_utc_to_the_minute() -> None:
    assert minute(parse_time("2026-11-23T12:34:00.000000")) == "2026-11-23T12:34Z"
    assert end_of("2026-11-23T12:00Z", None, "2026-12-01T18:00+01:00") == datetime(2026, 12, 1, 17, tzinfo=UTC)
    assert end_of("2026-11-23 12:00", 1.0, None) == datetime(2026, 11, 23, 13, tzinfo=UTC)


def test_reservation_is_asked_for_and_known_again() -> None:
    body = reservation_body(LEASE, "f1")
    assert body == {"resource_type": "flavor:instance", "flavor_id": "f1", "amount": 2, "affinity": None}
    answered = {**body, "resource_properties": '{"id": "f1", "name": "m1.large"}'}
    assert matches(answered, LEASE, "f1")
    assert not matches(answered, LEASE, "f2")
    assert not matches({**answered, "amount": 3}, LEASE, "f1")
    hosts = {"kind": "physical:host", "amount": 1.0, "properties": host_query({"node_type": "compute_skylake"})}
    body = reservation_body(hosts, None)
    assert (body["min"], body["max"]) == (1, 1)
    assert body["resource_properties"] == '["==", "$node_type", "compute_skylake"]'
    assert matches(body, hosts, None)
    assert not matches(body, {**hosts, "properties": None}, None)
    assert not matches(body, LEASE, "f1")


@pytest.mark.parametrize(
    ("status", "printed", "expected"),
    [
        (500, "Internal Server Error", "--unrestricted"),
        (403, "Policy doesn't allow", "`reader`"),
        (401, "", "credential is not accepted"),
        (400, "Not enough hosts available", "another start"),
        (500, "Invalid lease status.", "try again in a minute"),
        (None, "public endpoint for reservation service not found", "ml-cluster:lease to none"),
    ],
)
def test_errors_say_what_to_do(status: int | None, printed: str, expected: str) -> None:
    assert expected in remedy(status, printed)


def test_provider_in_the_state_is_the_same_in_every_process() -> None:
    """The state holds the pickled provider: a change of it would be a change of the stack at each `up`."""
    code = (
        "from pulumi.dynamic.dynamic import serialize_provider as s; from infra.lease import *;"
        "print(s(LeaseProvider())); print(s(LeaseEndProvider()))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    (text,) = texts
    assert text.split() == [serialize_provider(LeaseProvider()), serialize_provider(LeaseEndProvider())]
    for line in text.split():
        assert len(line) < 200, "pickled by reference, not by value"
        assert str(ROOT).encode() not in base64.b64decode(line)


def test_lost_answers_are_retried_and_refusals_are_not() -> None:
    from infra.blazar import _is_transient  # noqa: PLC0415

    assert _is_transient(ConnectFailure("reset"))
    assert _is_transient(BlazarClientException("busy", code=503))
    assert not _is_transient(BlazarClientException("no", code=400))
    assert _is_transient(ConnectTimeout("late"))
    assert _is_transient(BlazarClientException("perhaps", code=500))
