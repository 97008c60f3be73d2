"""The stack's Blazar reservation, as dynamic resources on python-blazarclient.

What is reserved and until when are two resources. A `BlazarLease` hardly ever changes in place, so that in a preview
the flavors and hints of the nodes stay known while the `BlazarLeaseEnd` shows that the lease is extended or shortened.

The providers run in a process of the engine's. They are pickled by reference and hold nothing, so that no secret, no
path and no code gets into the state, and it is the same from run to run.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions, dynamic
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, UpdateResult

from infra.lease_terms import end_of, lease_replaces, minute, parse_time, reservation
from infra.naming import PROJECT, lease_part, resource_name
from infra.settings import Lease as LeaseSettings
from infra.settings import Settings

# The providers import `infra.blazar` where they ask the cloud: its clients take a second to load, which neither the
# program nor a preview needs.


class LeaseProvider(dynamic.ResourceProvider):
    """Makes, finds and deletes a lease."""

    serialize_as_secret_always = False

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """What is reserved, and from when, makes another lease; the old one goes first, for it holds the hosts."""
        useless = olds.get("status") in {"ERROR", "TERMINATED"}
        replaces = [*lease_replaces(olds, news), *(["status"] if useless else [])]
        due = olds.get("status") == "PENDING" and parse_time(olds["start_date"]) <= datetime.now(UTC)
        return DiffResult(changes=bool(replaces) or due, replaces=replaces, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Make the lease, or take over this stack's own that an interrupted run made; wait until it is ACTIVE."""
        from infra import blazar  # noqa: PLC0415

        return CreateResult(*blazar.reserve(props))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The lease as it is; gone if Blazar knows it no more. One that is over stays, to be replaced or deleted.

        Without an id: what an interrupted `create` has made.
        """
        from infra import blazar  # noqa: PLC0415

        id_ = id_ or blazar.find(props) or ""
        found = blazar.describe(id_, props) if id_ else None
        return ReadResult(id_, {**props, **found[0]}) if found else ReadResult("", {})

    def update(self, id_: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Wait for a lease that was made for later and is due now."""
        from infra import blazar  # noqa: PLC0415

        return UpdateResult({**news, **blazar.await_start(id_, news)})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the lease; one that is gone already is fine."""
        from infra import blazar  # noqa: PLC0415

        blazar.release(id_, props)


class LeaseEndProvider(dynamic.ResourceProvider):
    """Keeps the end of a lease where the settings want it. Deleting it leaves the lease to its own resource."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Work out the end, so that previews show it; for a lease that is still to be made it may be unknown.

        Without a refresh, a lease that is over would look unchanged.
        """
        over = olds.get("end_date")
        if over and olds.get("lease_id") == news["lease_id"] and datetime.fromisoformat(over) <= datetime.now(UTC):
            told = (
                f"The lease {news['name']} ended at {over}, and Blazar deletes the nodes in it. "
                "`lab refresh` finds out what is gone; `lab up` then makes a new lease and new nodes."
            )
            return CheckResult(news, [CheckFailure("", told)])
        if news.get("end") or isinstance(news["start_date"], str):
            news["end_date"] = minute(end_of(news["start_date"], news.get("hours"), news.get("end")))
        return CheckResult(news, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another end changes the lease in place; another lease has another end."""
        if olds["lease_id"] != news["lease_id"]:
            return DiffResult(changes=True, replaces=["lease_id"])
        return DiffResult(changes=olds.get("end_date") != news["end_date"], replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Bring a new lease, or one taken over, to its end."""
        from infra import blazar  # noqa: PLC0415

        return CreateResult(f"{props['lease_id']}/end", {**props, "end_date": blazar.move_end(props)})

    def read(self, _id: str, props: dict[str, Any]) -> ReadResult:
        """The end that the lease has now, as an input too, so that a preview shows what would change.

        An interrupted `create` needs no search: what it made is the lease's end.
        """
        from infra import blazar  # noqa: PLC0415

        found = blazar.describe(props["lease_id"], props)
        if found is None:
            return ReadResult("", {})
        now = {**props, "end_date": found[1]}
        return ReadResult(f"{props['lease_id']}/end", now, dict(now))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Extend or shorten the lease."""
        from infra import blazar  # noqa: PLC0415

        return UpdateResult({**news, "end_date": blazar.move_end(news)})


class BlazarLease(dynamic.Resource, module="blazar", name="Lease"):
    """A lease in Blazar."""

    reservation_id: Output[str]
    start_date: Output[str]

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        outputs = dict.fromkeys(("reservation_id", "start_date", "status"))
        super().__init__(LeaseProvider(), name, {**props, **outputs}, opts)


class BlazarLeaseEnd(dynamic.Resource, module="blazar", name="LeaseEnd"):
    """The end of a lease in Blazar."""

    end_date: Output[str]

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(LeaseEndProvider(), name, {**props, "end_date": None}, opts)


class Lease(pulumi.ComponentResource):
    """The stack's reservations, if it has any: what nodes need to run in them, and when they end.

    Each node group has a lease of its own: Blazar cannot change what a lease reserves, so another number of workers
    makes another lease, and would take the control plane with it if that were in the same.
    """

    end_date: Output[str] | None = None
    """End of the first lease that ends, UTC; None without a lease."""

    def __init__(self, settings: Settings, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Lease", "lease", None, opts)
        self._settings = settings
        self._reservation_ids: dict[str, Output[str]] = {}
        ends = [self._reserve(settings.lease, name) for name, group in settings.nodes.groups.items() if group.count]
        if settings.lease is not None:
            self.end_date = Output.all(*ends).apply(min)
        self.register_outputs({"endDate": self.end_date})

    def _reserve(self, lease: LeaseSettings | None, group: str) -> Output[str] | None:
        if lease is None:
            return None
        cloud = self._settings.cloud
        common = {
            "name": resource_name(pulumi.get_stack(), lease_part(group)),
            "hours": lease.hours,
            "end": minute(lease.end) if lease.end else None,
            "cloud": cloud.name,
            "region": cloud.region,
            # The engine may ask `read` for what an interrupted create has made.
            "__recovers": True,
        }
        reserved = {
            **common,
            **reservation(self._settings, group),
            "start": minute(lease.start) if lease.start else None,
            "wait_minutes": lease.wait_minutes,
        }
        own = ResourceOptions(parent=self)
        made = BlazarLease(lease_part(group), reserved, own)
        self._reservation_ids[group] = made.reservation_id
        until = {**common, "lease_id": made.id, "start_date": made.start_date}
        return BlazarLeaseEnd(f"{lease_part(group)}-end", until, own).end_date

    def flavor(self, group: str) -> Input[str]:
        """Flavor that nodes of `group` boot with: the reservation's own, or the plain one."""
        if not self._settings.reserves_flavors:
            return self._settings.nodes.groups[group].flavor
        return Output.concat("reservation:", self._reservation_ids[group])

    def hint(self, group: str) -> Output[str] | None:
        """Scheduler hint `reservation` for nodes of `group`; None where none is needed."""
        return None if self._settings.reserves_flavors else self._reservation_ids.get(group)
