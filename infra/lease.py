"""The stack's Blazar leases, as dynamic resources on python-blazarclient.

A lease and its end are two resources. A `BlazarLease` rarely changes in place, so in a preview the flavors and hints of
the nodes stay known while the `BlazarLeaseEnd` shows that the lease is extended or shortened.

The providers run in a process of the engine. They are pickled by reference and have no attributes, so the state has no
secret, path or code of them, and is the same from run to run.
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

# The providers import `infra.blazar` only where they call the cloud: its clients take a second to load, and neither the
# program nor a preview needs them.


class LeaseProvider(dynamic.ResourceProvider):
    """Creates, reads and deletes a lease."""

    serialize_as_secret_always = False

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """A change of the reservation or the start replaces the lease. Delete the old one first, to free its hosts."""
        ended = olds.get("status") in {"ERROR", "TERMINATED"}
        replaces = [*lease_replaces(olds, news), *(["status"] if ended else [])]
        due = olds.get("status") == "PENDING" and parse_time(olds["start_date"]) <= datetime.now(UTC)
        return DiffResult(changes=bool(replaces) or due, replaces=replaces, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Create the lease, or adopt this stack's lease from an interrupted run; wait until it is ACTIVE."""
        from infra import blazar  # noqa: PLC0415

        return CreateResult(*blazar.reserve(props))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Read the lease. A lease that has ended stays in the state, to be replaced or deleted.

        Without an id: find the lease of an interrupted `create`.
        """
        from infra import blazar  # noqa: PLC0415

        id_ = id_ or blazar.find(props) or ""
        lease = blazar.describe(id_, props) if id_ else None
        return ReadResult(id_, {**props, **lease[0]}) if lease else ReadResult("", {})

    def update(self, id_: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Wait for a lease that was created in advance and starts now."""
        from infra import blazar  # noqa: PLC0415

        return UpdateResult({**news, **blazar.await_start(id_, news)})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the lease, if it still exists."""
        from infra import blazar  # noqa: PLC0415

        blazar.release(id_, props)


class LeaseEndProvider(dynamic.ResourceProvider):
    """Sets the end of a lease to that of the settings. Deleting this resource does not change the lease."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Compute the end, so that previews show it; it may be unknown for a lease that does not exist yet.

        Refuse a lease that has ended: without a refresh it would look unchanged.
        """
        end = olds.get("end_date")
        if end and olds.get("lease_id") == news["lease_id"] and datetime.fromisoformat(end) <= datetime.now(UTC):
            reason = (
                f"The lease {news['name']} ended at {end}, and Blazar deletes its nodes. "
                "Run `lab refresh` to update the state; `lab up` then creates a new lease and new nodes."
            )
            return CheckResult(news, [CheckFailure("", reason)])
        if news.get("end") or isinstance(news["start_date"], str):
            news["end_date"] = minute(end_of(news["start_date"], news.get("hours"), news.get("end")))
        return CheckResult(news, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """A new end is an update in place; a new lease replaces this resource."""
        if olds["lease_id"] != news["lease_id"]:
            return DiffResult(changes=True, replaces=["lease_id"])
        return DiffResult(changes=olds.get("end_date") != news["end_date"], replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Set the end of a new or adopted lease."""
        from infra import blazar  # noqa: PLC0415

        return CreateResult(f"{props['lease_id']}/end", {**props, "end_date": blazar.set_end(props)})

    def read(self, _id: str, props: dict[str, Any]) -> ReadResult:
        """Read the lease's end, as an input too, so that a preview shows differences.

        An interrupted `create` needs no search: the end is an attribute of the lease.
        """
        from infra import blazar  # noqa: PLC0415

        lease = blazar.describe(props["lease_id"], props)
        if lease is None:
            return ReadResult("", {})
        now = {**props, "end_date": lease[1]}
        return ReadResult(f"{props['lease_id']}/end", now, dict(now))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Extend or shorten the lease."""
        from infra import blazar  # noqa: PLC0415

        return UpdateResult({**news, "end_date": blazar.set_end(news)})


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
    """The stack's leases, if it has any: the flavors and hints of their nodes, and their end.

    Each node group has a lease of its own: Blazar cannot change what a lease reserves, so another number of workers
    replaces the lease, and would replace the control plane too if that were in the same lease.
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
            # The engine may use `read` to find the lease of an interrupted create.
            "__recovers": True,
        }
        reserved = {
            **common,
            **reservation(self._settings, group),
            "start": minute(lease.start) if lease.start else None,
            "wait_minutes": lease.wait_minutes,
        }
        own = ResourceOptions(parent=self)
        resource = BlazarLease(lease_part(group), reserved, own)
        self._reservation_ids[group] = resource.reservation_id
        end = {**common, "lease_id": resource.id, "start_date": resource.start_date}
        return BlazarLeaseEnd(f"{lease_part(group)}-end", end, own).end_date

    def flavor(self, group: str) -> Input[str]:
        """Flavor of the nodes of `group`: that of the reservation, or the ordinary one."""
        if not self._settings.reserves_flavors:
            return self._settings.nodes.groups[group].flavor
        return Output.concat("reservation:", self._reservation_ids[group])

    def hint(self, group: str) -> Output[str] | None:
        """Scheduler hint `reservation` for nodes of `group`; None if none is needed."""
        return None if self._settings.reserves_flavors else self._reservation_ids.get(group)
