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
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from infra.lease_terms import end_of, lease_replaces, parse_time, plain, wanted_reservations
from infra.naming import LEASE_PART, PROJECT, resource_name
from infra.settings import Settings

# The providers import `infra.blazar` where they ask the cloud: its clients take a second to load, which neither the
# program nor a preview needs.


class LeaseProvider(dynamic.ResourceProvider):
    """Makes, finds and deletes a lease."""

    serialize_as_secret_always = False

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another name, kind, start or reservation is another lease; the old one goes first, for it holds the hosts."""
        replaces = lease_replaces(olds, news)
        due = olds.get("status") == "PENDING" and parse_time(olds["start_date"]) <= datetime.now(UTC)
        return DiffResult(changes=bool(replaces) or due, replaces=replaces, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Make the lease, or take over this stack's own that an interrupted run made; wait until it is ACTIVE."""
        from infra import blazar  # noqa: PLC0415

        return CreateResult(*blazar.reserve(props))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The lease as it is; gone if Blazar knows it no more, or if it is over."""
        from infra import blazar  # noqa: PLC0415

        found = blazar.describe(id_, props)
        if found is None:
            return ReadResult("", {})
        return ReadResult(id_, {**props, "start_date": found["start_date"], "status": found["status"]})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Wait for a lease that was made for later and is due now."""
        from infra import blazar  # noqa: PLC0415

        ids = _olds["reservation_ids"]
        return UpdateResult({**_news, **blazar.await_start(_id, _news), "reservation_ids": ids})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Delete the lease; one that is gone already is fine."""
        from infra import blazar  # noqa: PLC0415

        blazar.release(_id, _props)


class LeaseEndProvider(dynamic.ResourceProvider):
    """Keeps the end of a lease where the settings want it. Deleting it leaves the lease to its own resource."""

    serialize_as_secret_always = False

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another end changes the lease in place; another lease has another end."""
        if plain(olds.get("lease_id")) != plain(news.get("lease_id")):
            return DiffResult(changes=True, replaces=["lease_id"])
        wanted = end_of(news["start_date"], news.get("hours"), news.get("end"))
        return DiffResult(changes=parse_time(olds["end_date"]) != wanted, replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Bring a new lease, or one taken over, to its end."""
        from infra import blazar  # noqa: PLC0415

        return CreateResult(f"{props['lease_id']}/end", {**props, "end_date": blazar.move_end(props)})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The end that the lease has now."""
        from infra import blazar  # noqa: PLC0415

        found = blazar.describe(props["lease_id"], props)
        return ReadResult(id_, {**props, "end_date": found["end_date"]}) if found else ReadResult("", {})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Extend or shorten the lease."""
        from infra import blazar  # noqa: PLC0415

        return UpdateResult({**_news, "end_date": blazar.move_end(_news)})


class BlazarLease(dynamic.Resource, module="blazar", name="Lease"):
    """A lease in Blazar."""

    reservation_ids: Output[dict[str, str]]
    start_date: Output[str]

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        outputs = dict.fromkeys(("reservation_ids", "start_date", "status"))
        super().__init__(LeaseProvider(), name, {**props, **outputs}, opts)


class BlazarLeaseEnd(dynamic.Resource, module="blazar", name="LeaseEnd"):
    """The end of a lease in Blazar."""

    end_date: Output[str]

    def __init__(self, name: str, props: Mapping[str, Input[Any]], opts: ResourceOptions | None = None) -> None:
        super().__init__(LeaseEndProvider(), name, {**props, "end_date": None}, opts)


class Lease(pulumi.ComponentResource):
    """The stack's reservation, if it has one: what nodes need to run in it, and when it ends."""

    end_date: Output[str] | None = None
    """End of the lease, UTC; None without a lease."""

    def __init__(self, settings: Settings, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Lease", "lease", None, opts)
        self._settings = settings
        self._reservation_ids: Output[dict[str, str]] | None = None
        lease = settings.lease
        if lease is not None:
            common = {
                "name": resource_name(pulumi.get_stack(), LEASE_PART),
                "hours": lease.hours,
                "end": lease.end.isoformat() if lease.end else None,
                "cloud": settings.cloud.name,
                "region": settings.cloud.region,
            }
            reserved = {
                **common,
                "kind": lease.type,
                "reservations": wanted_reservations(settings),
                "start": lease.start.isoformat() if lease.start else None,
                "wait_minutes": lease.wait_minutes,
            }
            own = ResourceOptions(parent=self)
            blazar_lease = BlazarLease("lease", reserved, own)
            until = {**common, "lease_id": blazar_lease.id, "start_date": blazar_lease.start_date}
            self.end_date = BlazarLeaseEnd("lease-end", until, own).end_date
            self._reservation_ids = blazar_lease.reservation_ids
        self.register_outputs({"endDate": self.end_date})

    def flavor(self, group: str) -> Input[str]:
        """Flavor that nodes of `group` boot with: the reservation's own, or the plain one."""
        plain_flavor = self._settings.nodes.groups[group].flavor
        if self._reservation_ids is None or not self._settings.reserves_flavors:
            return plain_flavor
        return self._reservation_ids.apply(lambda ids: f"reservation:{ids[plain_flavor]}")

    def hint(self, group: str) -> Output[str] | None:
        """Scheduler hint `reservation` for nodes of `group`; None where none is needed."""
        if self._reservation_ids is None or self._settings.reserves_flavors:
            return None
        return self._reservation_ids.apply(lambda ids: ids[group])
