"""The program from nothing to nothing on a real cloud, as a newcomer runs it; the tests build on one another."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import Cloud, Deployment, Step, Update, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3000)]
STACK = "e2e-main"


@pytest.fixture(scope="module")
def lab(deploy: Callable[[str], AbstractContextManager[Deployment]]) -> Iterator[Deployment]:
    with deploy(STACK) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def deployed(lab: Deployment) -> Update:
    """The first `up`."""
    return lab.up_as_previewed()


def test_doctor_finds_nothing_amiss_with_the_settings_as_they_come(lab: Deployment) -> None:
    findings = lab.run("doctor", "--json").json
    assert [finding for finding in findings if finding["status"] != "ok"] == []


def test_up_does_what_the_preview_shows(deployed: Update, record_property: Callable[[str, object], None]) -> None:
    made = Counter(step.op for step in deployed.steps.elements())
    assert set(made) == {"create"}
    record_property("figures", f"devcloud: up of {made['create']} resources: {deployed.seconds:.0f} s")


@pytest.mark.usefixtures("deployed")
def test_the_openstack_client_sees_all_of_it(cloud: Cloud) -> None:
    def named(*what: str, key: str = "name") -> set[str]:
        return {row[key] for row in cloud.listed(*what) if str(row[key]).startswith(f"{STACK}-")}

    servers = [row for row in cloud.listed("server") if row["name"].startswith(f"{STACK}-")]
    assert {(row["name"], row["status"]) for row in servers} == {
        (f"{STACK}-{node}", "ACTIVE") for node in ("control-0", "worker-0", "worker-1")
    }
    assert {str(row["flavor"]).partition(":")[0] for row in servers} == {"reservation"}
    assert named("network") == {f"{STACK}-network"}
    assert named("router") == {f"{STACK}-router"}
    assert named("security", "group") == {f"{STACK}-nodes", f"{STACK}-entry"}
    assert named("keypair") == {f"{STACK}-key"}
    assert named("volume") == {f"{STACK}-data"}
    assert named("reservation", "lease") == {f"{STACK}-lease-control", f"{STACK}-lease-worker"}
    assert Counter(row.split()[0] for row in cloud.rows(STACK) if not row.startswith("orphan")) == {
        "server": 5, "keypair": 1, "network": 1, "subnet": 1, "router": 1, "port": 3, "security": 2, "floating": 1,
        "volume": 1, "lease": 2,
    }  # fmt: skip


@pytest.mark.usefixtures("deployed")
def test_the_printed_endpoint_and_the_stacks_key_log_in_to_every_node(lab: Deployment) -> None:
    wait(partial(lab.answers, "true"), "SSH at the printed endpoint")
    assert lab.ssh("hostname").stdout.strip() == f"{STACK}-control-0"
    for node in ("control-0", "worker-0", "worker-1"):
        wait(partial(lab.logs_in, node), f"SSH to {node}")
        assert lab.run("ssh", node, "hostname").stdout.strip() == f"{STACK}-{node}"
    assert lab.run("ssh", "control-0", "exit 3", status=3).stderr == ""
    lab.refuse("ssh", "worker-2", status=2, saying="node 'worker-2' does not exist")


@pytest.mark.usefixtures("deployed")
def test_a_second_up_changes_nothing(
    lab: Deployment, deployed: Update, record_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    result = lab.run("up", "--yes", "--skip-preview", "--expect-no-changes")
    record_property("figures", f"devcloud: up without changes: {time.monotonic() - began:.1f} s")
    assert f"{deployed.steps.total()} unchanged" in result.stdout


def test_a_changed_rule_is_exchanged(lab: Deployment, deployed: Update, cloud: Cloud) -> None:
    assert deployed
    lab.change(access__webPorts=[80, 8443])
    run = lab.up_as_previewed()
    assert run.steps == {Step("create", "entry-web-8443-0.0.0.0-0"): 1, Step("delete", "entry-web-443-0.0.0.0-0"): 1}
    rules = cloud.shown("security", "group", "rule", "list", f"{STACK}-entry", "--ingress")
    assert sorted(rule["Port Range"] for rule in rules) == ["6443:6443", "80:80", "8443:8443"]


def test_a_volume_grows(lab: Deployment, deployed: Update, cloud: Cloud) -> None:
    assert deployed
    lab.change(storage__volumes__data__sizeGb=2)
    assert lab.up_as_previewed().steps == {Step("update", "data"): 1}
    assert cloud.shown("volume", "show", f"{STACK}-data")["size"] == 2


def leases(cloud: Cloud) -> dict[str, datetime]:
    """Ends of the stack's leases."""
    rows = cloud.listed("reservation", "lease")
    return {row["name"]: datetime.fromisoformat(row["end_date"]) for row in rows if row["name"].startswith(STACK)}


def test_a_longer_lease_is_extended_in_place(lab: Deployment, deployed: Update, cloud: Cloud) -> None:
    assert deployed
    before = leases(cloud)
    lab.change(lease__hours=10)
    assert lab.up_as_previewed().steps == {Step("update", f"lease-{group}-end"): 1 for group in ("control", "worker")}
    assert leases(cloud) == {name: end + timedelta(hours=2) for name, end in before.items()}
    lab.run("extend", "1", "--yes")
    assert leases(cloud) == {name: end + timedelta(hours=3) for name, end in before.items()}
    assert lab.run("config", "get", "--path", "lease.hours").stdout.strip() == "11"


def test_another_flavor_replaces_the_nodes_of_its_group_and_their_lease(
    lab: Deployment, deployed: Update, cloud: Cloud
) -> None:
    assert deployed
    before = lab.output("nodes")
    servers = {row["name"]: row["id"] for row in cloud.listed("server")}
    lab.change(nodes__groups__worker__flavor="m1.tiny")
    run = lab.up_as_previewed()
    assert {step.name for step in run.steps} == {"lease-worker", "lease-worker-end", "worker-0", "worker-1"}
    after = {row["name"]: row["id"] for row in cloud.listed("server")}
    replaced = {name for name, identity in after.items() if name.startswith(STACK) and servers.get(name) != identity}
    assert replaced == {f"{STACK}-worker-0", f"{STACK}-worker-1"}
    assert lab.output("nodes") == before  # they keep their addresses
    sizes = {cloud.admin.compute.get_server(after[name]).flavor.ram for name in replaced}
    assert sizes == {512}


def test_drift_is_found_by_refresh_and_healed_by_up(lab: Deployment, deployed: Update, cloud: Cloud) -> None:
    assert deployed
    ssh = next(
        rule["ID"]
        for rule in cloud.shown("security", "group", "rule", "list", f"{STACK}-nodes", "--ingress")
        if rule["Port Range"] == "22:22"
    )
    address = lab.output("nodes")["control-0"]["floatingIp"]
    for drift in (
        ("server", "delete", "--wait", f"{STACK}-worker-1"),
        ("server", "unset", "--property", "ml-cluster:stack", f"{STACK}-worker-0"),
        ("security", "group", "rule", "delete", ssh),
        ("network", "set", "--no-tag", f"{STACK}-network"),
        ("floating", "ip", "unset", "--port", address),
        ("volume", "set", "--size", "3", f"{STACK}-data"),
    ):
        cloud.client(*drift)
    found = {
        Step("delete", "worker-1"): 1,
        Step("update", "worker-0"): 1,
        Step("delete", f"nodes-ssh-{cloud.devcloud.layout.machine_address}-32"): 1,
        Step("update", "network"): 1,
        Step("update", "control-0-ip-on-port"): 1,
        Step("update", "data"): 1,
    }
    assert lab.perform("refresh").steps == found
    refused = lab.run("up", "--yes", "--skip-preview", status=1)
    assert "has 3 GiB and cannot shrink to 2" in refused.stdout
    lab.change(storage__volumes__data__sizeGb=3)
    lab.perform("up")
    assert lab.preview() == lab.preview("--refresh") == {}
    wait(partial(lab.answers, "true"), "SSH after the drift was healed")
    tags = cloud.shown("network", "show", f"{STACK}-network")["tags"]
    assert tags == [f"ml-cluster:stack={STACK}"]


def test_destroy_leaves_nothing(
    lab: Deployment, deployed: Update, cloud: Cloud, record_property: Callable[[str, object], None]
) -> None:
    planned = lab.preview(verb="destroy")
    run = lab.perform("destroy")
    assert run.steps == planned
    assert sum(planned.values()) == sum(deployed.steps.values())
    record_property("figures", f"devcloud: destroy: {run.seconds:.0f} s")
    assert lab.run("sweep", "--json").json == []
    wait(partial(cloud.has_no_rows, STACK), "nothing is left in the databases")
    for what in (("server",), ("volume",), ("network",), ("reservation", "lease")):
        assert [row for row in cloud.listed(*what) if str(row["name"]).startswith(STACK)] == []
