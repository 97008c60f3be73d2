"""A real devcloud, from nothing to nothing: `pytest -m slow_cloud tests/devcloud -s`.

Costs about 5 minutes on two idle cores (3 more, and 600 MB of downloads, where the Debian tree is not made yet), 6 GiB
of memory and 8 GiB of disk. Runs as root. Uses the default state folder, or that of DEVCLOUD_STATE with the external
network of DEVCLOUD_SUBNET; the trees and images in it are kept between runs, all other data are deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcloud.bringup import Devcloud
from devcloud.control import cgroup_mounts
from devcloud.images import CONTAINER
from devcloud.layout import EXPORTER_PORT, PORTS
from devcloud.processes import identity
from devcloud.seed import reservations
from tests.devcloud.support import (
    SETTINGS,
    STATE,
    Machine,
    Node,
    boot,
    boot_node,
    connect,
    make_key,
    make_network,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openstack.connection import Connection


pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
NAME = "devcloud-test"


@pytest.fixture(scope="module")
def before() -> Machine:
    Devcloud(STATE).reset()
    return Machine.now()


@pytest.fixture(scope="module")
def cloud(before: Machine) -> Iterator[Devcloud]:
    """A devcloud brought up from no data; at the end everything it made must be gone."""
    devcloud = Devcloud(STATE, SETTINGS)
    devcloud.up()
    yield devcloud
    devcloud.reset()
    assert Machine.now() == before


@pytest.fixture(scope="module")
def student(cloud: Devcloud) -> Connection:
    return connect(cloud, "devcloud")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory, student: Connection) -> Path:
    return make_key(student, NAME, tmp_path_factory.mktemp("key") / "id")


@pytest.fixture(scope="module")
def network(student: Connection) -> str:
    return make_network(student, NAME)


@pytest.fixture(scope="module")
def node(student: Connection, network: str, key: Path) -> Node:
    found = boot_node(student, NAME, network, key)
    print(f"\ninstance: ACTIVE after {found.active_seconds:.1f} s, SSH after {found.ssh_seconds:.1f} s")
    return found


def test_every_service_runs_and_every_api_answers(cloud: Devcloud) -> None:
    result = cloud.control.call("status", memory=True)
    total = result.rest + sum(entry.memory or 0 for entry in result.services)
    print(f"\ncontrol plane and compute hosts: {total / 2**30:.2f} GiB PSS, {len(result.services)} services")
    assert {entry.name: entry.state for entry in result.services if entry.state != "running"} == {}
    wait(lambda: not any(fault for _, fault in cloud.health()), 60)


def test_nothing_listens_on_the_machines_own_interfaces(cloud: Devcloud, before: Machine) -> None:
    assert cloud.is_running
    assert Machine.now().listeners == before.listeners


def test_its_exporter_tells_of_every_service_and_of_requests_to_every_api(cloud: Devcloud) -> None:
    url = f"http://{cloud.layout.api_address}:{EXPORTER_PORT}"

    def told(path: str) -> str:
        with urllib.request.urlopen(f"{url}{path}", timeout=30) as answer:  # noqa: S310 - devcloud's own network
            return str(answer.read().decode())

    assert {name: fault for name, fault in cloud.health() if fault} == {}
    text = told("/metrics")
    running = {entry.name for entry in cloud.control.call("status").services if entry.state == "running"}
    assert set(re.findall(r'^devcloud_service_up\{service="(.+)"\} 1$', text, re.MULTILINE)) == running
    counted = set(re.findall(r'^devcloud_api_requests_total\{service="([^"]+)"', text, re.MULTILINE))
    assert counted >= PORTS.keys() - {"nova-metadata"}
    lines = [json.loads(line) for line in told("/logs").splitlines()]
    assert {"nova", "neutron", "keystone"} <= {line["service"] for line in lines}
    passwords = [line.partition("=")[2] for line in (cloud.layout.cache / "passwords").read_text().splitlines()]
    assert [line for line in lines if any(password in line["_msg"] for password in passwords)] == []


def test_an_instance_is_a_machine_of_its_own(node: Node, key: Path) -> None:
    result = node.ssh(
        key, "systemctl is-system-running --wait; hostname; cat /proc/1/cgroup; sudo cat /proc/1/comm; whoami"
    )
    state, name, *cgroups, comm, user = result.stdout.split()
    assert (state, name, comm, user) == ("running", NAME, "systemd", "cc")
    assert all(line.endswith((":/", "/init.scope", "libvirt-lxc")) for line in cgroups)


def test_networking_goes_on_after_a_hard_reboot(student: Connection, node: Node, network: str, key: Path) -> None:
    node.ssh(key, "sudo touch /run/before")
    student.compute.reboot_server(node.server, "HARD")
    wait(lambda: node.ssh(key, "test ! -e /run/before").returncode == 0, 120, "SSH after the reboot")
    [port] = student.network.ports(device_id=node.server.id)
    student.network.update_port(port, allowed_address_pairs=[{"ip_address": "10.78.0.0/24"}])
    other = boot_node(student, NAME, network, key)
    assert other.address != node.address
    student.compute.delete_server(other.server)
    student.compute.wait_for_delete(other.server, interval=0.5, wait=120)


def test_a_port_without_a_rule_is_closed(node: Node, key: Path) -> None:
    node.ssh(key, "sudo systemd-run --unit web python3 -m http.server 8080")
    wait(lambda: "8080" in node.ssh(key, "ss -ltn").stdout, 20)
    with pytest.raises(OSError, match=r"timed out|unreachable|refused"):
        socket.create_connection((node.address, 8080), timeout=3)


def test_a_volume_holds_data_in_an_instance_and_can_be_taken_off(student: Connection, node: Node, key: Path) -> None:
    volume = student.block_storage.create_volume(size=1, name=NAME)
    student.block_storage.wait_for_status(volume, "available", wait=60)
    attachment = student.compute.create_volume_attachment(node.server, volume_id=volume.id)
    student.block_storage.wait_for_status(volume, "in-use", wait=60)
    device = attachment.device
    made = node.ssh(key, f"sudo mkfs.ext4 -q {device} && sudo mount {device} /mnt && echo kept | sudo tee /mnt/file")
    assert made.stdout.strip() == "kept", made.stderr
    node.ssh(key, "sudo umount /mnt")
    student.compute.delete_volume_attachment(node.server, volume.id)
    student.block_storage.wait_for_status(volume, "available", wait=60)
    assert node.ssh(key, f"test -e {device}").returncode == 1
    student.block_storage.delete_volume(volume.id)
    student.block_storage.wait_for_delete(volume, wait=60)


def test_a_flavor_reservation_brings_a_flavor_whose_instances_end_with_the_lease(
    student: Connection, network: str, key: Path
) -> None:
    assert key
    blazar = reservations(student)
    small = student.compute.find_flavor("m1.small", ignore_missing=False)
    now = datetime.now(UTC)
    reservation = {"resource_type": "flavor:instance", "amount": 1, "flavor_id": small.id, "affinity": None}
    lease = blazar.post(
        "/leases",
        json={
            "name": NAME,
            "start_date": "now",
            "end_date": (now + timedelta(hours=2)).strftime("%Y-%m-%d %H:%M"),
            "reservations": [reservation],
            "events": [],
        },
    ).json()["lease"]
    wait(lambda: blazar.get(f"/leases/{lease['id']}").json()["lease"]["status"] == "ACTIVE", 90)
    server = boot(student, NAME, network, lease["reservations"][0]["id"])
    server = student.compute.wait_for_server(server, wait=300)
    blazar.delete(f"/leases/{lease['id']}")
    student.compute.wait_for_delete(server, wait=120)


def test_a_reservable_host_takes_no_instance_without_a_reservation(cloud: Devcloud, node: Node) -> None:
    admin = connect(cloud, "devcloud-admin")
    reservable = next(host.name for host in cloud.layout.settings.hosts if host.reservable)
    network = next(iter(admin.network.networks(name=NAME)))
    flavor = admin.compute.find_flavor("m1.tiny", ignore_missing=False)
    image = admin.image.find_image(CONTAINER.name, ignore_missing=False)
    server = admin.compute.create_server(
        name=f"{NAME}-refused", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}],
        host=reservable,
    )  # fmt: skip
    refused = wait(lambda: (found := admin.compute.get_server(server.id)).status == "ERROR" and found, 60)
    assert "No valid host" in refused.fault["message"]
    assert admin.compute.get_server(node.server.id).hypervisor_hostname != reservable
    admin.compute.delete_server(server)


def test_a_lease_that_cannot_be_had_is_refused(student: Connection) -> None:
    small = student.compute.find_flavor("m1.small", ignore_missing=False)
    reservation = {"resource_type": "flavor:instance", "amount": 9999, "flavor_id": small.id, "affinity": None}
    end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%d %H:%M")
    wanted = {"name": NAME, "start_date": "now", "end_date": end, "reservations": [reservation], "events": []}
    answer = reservations(student).post("/leases", json=wanted, raise_exc=False)
    assert answer.status_code >= 400
    assert "Not enough hosts" in answer.json()["error_message"]


def test_daemons_that_are_killed_come_back(cloud: Devcloud) -> None:
    victims = ("keystone", "neutron", "compute-lxc1", "rabbitmq")
    for entry in cloud.control.call("status").services:
        if entry.name in victims:
            cloud.control.inside("kill", "-KILL", str(entry.pid))

    def back() -> bool:
        services = [entry for entry in cloud.control.call("status").services if entry.name in victims]
        return all(entry.state == "running" and entry.restarts > 0 for entry in services)

    wait(back, 120)
    wait(lambda: not any(fault for _, fault in cloud.health()), 180)


def test_instances_and_their_data_come_back_after_a_stop(
    cloud: Devcloud, node: Node, key: Path, student: Connection
) -> None:
    assert node.ssh(key, "echo kept >file && sync").returncode == 0
    cloud.down()
    assert not cloud.is_running
    cloud.up()
    wait(lambda: node.ssh(key, "true").returncode == 0, 300)
    assert node.ssh(key, "cat file").stdout.strip() == "kept"
    assert student.compute.get_server(node.server.id).status == "ACTIVE"


def test_a_supervisor_that_is_killed_takes_everything_with_it_and_up_resumes(cloud: Devcloud) -> None:
    first = cloud.control.first_process()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait(lambda: not Path("/sys/class/net", cloud.control.name).exists(), 60)
    cloud.up()
    assert {name: fault for name, fault in cloud.health() if fault} == {}


def test_after_a_power_cut_up_brings_instances_and_data_back_and_harms_no_other_process(
    cloud: Devcloud, node: Node, key: Path
) -> None:
    wait(lambda: node.ssh(key, "echo cut >file && sync").returncode == 0, 300)
    for members in [path for mount in cgroup_mounts() for path in (mount / cloud.control.name).rglob("cgroup.procs")]:
        with contextlib.suppress(OSError):
            for pid in members.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
    wait(lambda: not Path("/sys/class/net", cloud.control.name).exists(), 60)
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        # After a restart of the machine the number that the supervisor had may be anybody's.
        record = {**identity(bystander.pid), "boot": "the boot before"}
        (cloud.layout.run / "process.json").write_text(json.dumps(record))
        assert not cloud.is_running
        cloud.up()
        assert bystander.poll() is None
        bystander.kill()
    wait(lambda: node.ssh(key, "true").returncode == 0, 300)
    assert node.ssh(key, "cat file").stdout.strip() == "cut"
