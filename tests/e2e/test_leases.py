"""Every kind of lease, and leases that end: what a user of a stack sees, and what is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from devcloud.seed import reservations
from tests.e2e.harness import Cloud, Deployment, Step, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3000)]
STACK = "e2e-lease"
NODE = f"{STACK}-control-0"


@pytest.fixture
def lab(deploy: Callable[[str], AbstractContextManager[Deployment]], cloud: Cloud) -> Iterator[Deployment]:
    """A stack of one small node, not deployed yet; a test leaves nothing of it."""
    with deploy(STACK) as deployment:
        deployment.change(nodes__groups__worker__count=0, nodes__groups__control__flavor="m1.tiny", lease__hours=1)
        yield deployment
        deployment.perform("destroy")
        wait(partial(cloud.has_no_rows, STACK), "nothing is left in the databases")


def host(cloud: Cloud) -> str:
    """Which compute host the node is on."""
    (server,) = cloud.admin.compute.servers(all_projects=True, name=NODE)
    return str(server.hypervisor_hostname)


def test_a_node_in_a_lease_of_whole_hosts_is_on_its_host(lab: Deployment, cloud: Cloud) -> None:
    lab.change(lease__type="physical:host")
    lab.up_as_previewed()
    wait(partial(lab.answers, "true"), "SSH at the printed endpoint")
    reserved = next(one.name for one in cloud.devcloud.layout.settings.hosts if one.reservable)
    assert host(cloud) == reserved


def test_without_a_lease_nodes_are_on_hosts_that_need_none(lab: Deployment, cloud: Cloud) -> None:
    lab.change(lease="none")
    lab.up_as_previewed()
    wait(partial(lab.answers, "true"), "SSH at the printed endpoint")
    assert host(cloud) in {one.name for one in cloud.devcloud.layout.settings.hosts if not one.reservable}
    address = lab.output("nodes")
    lab.change(nodes__groups__control__flavor="m1.small")
    assert {step.name for step in lab.up_as_previewed().steps} == {"control-0"}
    assert lab.output("nodes") == address


def lease(cloud: Cloud) -> dict[str, str] | None:
    """The stack's lease in Blazar."""
    leases = reservations(cloud.student).get("/leases").json()["leases"]
    return next((one for one in leases if one["name"] == f"{STACK}-lease-control"), None)


def test_a_lease_that_ends_takes_its_nodes_and_up_makes_new_ones(lab: Deployment, cloud: Cloud) -> None:
    lab.perform("up")
    made = lease(cloud)
    assert made is not None
    # The shortest end that Blazar takes is a minute away.
    end = datetime.now(UTC) + timedelta(seconds=75)
    cloud.client("reservation", "lease", "set", "--end-date", f"{end:%Y-%m-%d %H:%M}", made["id"])
    assert lab.perform("refresh").steps == {Step("update", "lease-control-end"): 1}
    wait(lambda: not list(cloud.student.compute.servers(name=NODE)), "Blazar deletes the node of a lease that ended")

    refused = lab.run("up", "--yes", status=1)
    assert "ended at" in refused.stdout
    assert "`lab refresh`" in refused.stdout
    assert lab.perform("refresh").steps == {Step("update", "lease-control"): 1, Step("delete", "control-0"): 1}
    assert lab.up_as_previewed().steps == {
        Step("replace", "lease-control"): 1, Step("replace", "lease-control-end"): 1, Step("create", "control-0"): 1,
    }  # fmt: skip
    wait(partial(lab.answers, "true"), "SSH to the new node")


def test_destroy_after_the_lease_was_deleted_by_hand_succeeds(lab: Deployment, cloud: Cloud) -> None:
    lab.perform("up")
    made = lease(cloud)
    assert made is not None
    cloud.client("reservation", "lease", "delete", made["id"])
    wait(lambda: lease(cloud) is None, "the lease is gone")
    lab.perform("destroy")
