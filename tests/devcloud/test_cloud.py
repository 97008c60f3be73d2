"""A real devcloud, from nothing to nothing: `pytest -m slow_cloud tests/devcloud -s`.

Costs about 5 minutes on two idle cores (3 more, and 600 MB of downloads, where the Debian tree is not made yet), 6 GiB
of memory and 8 GiB of disk. Runs as root. Uses the default state folder, or that of DEVCLOUD_STATE with the external
network of DEVCLOUD_SUBNET; the trees and images in it are kept between runs, all other data are deleted.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from devcloud import DEFAULT_STATE
from devcloud.bringup import Devcloud
from devcloud.control import cgroup_mounts
from devcloud.images import NAME as IMAGE
from devcloud.layout import Settings
from devcloud.seed import reservations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openstack.compute.v2.server import Server

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
NAME = "devcloud-test"
STATE = Path(os.environ.get("DEVCLOUD_STATE", DEFAULT_STATE))
SETTINGS = Settings.model_validate({"subnet": subnet} if (subnet := os.environ.get("DEVCLOUD_SUBNET")) else {})


class Machine(NamedTuple):
    """What `reset` must leave as it was; loopback is left to others."""

    links: set[str]
    namespaces: set[str]
    mounts: set[str]
    loops: set[str]
    cgroups: set[str]
    listeners: set[str]
    forwarding: str

    @classmethod
    def now(cls) -> Machine:
        def lines(*command: str) -> set[str]:
            return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())

        listening = lines("ss", "--listening", "--tcp", "--udp", "--numeric", "--no-header")
        sockets = {line.split()[4] for line in listening}
        return cls(
            links={path.name for path in Path("/sys/class/net").iterdir()},
            namespaces=lines("ip", "netns", "list"),
            mounts={line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
            loops=lines("losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"),
            cgroups={str(path) for mount in cgroup_mounts() for path in mount.glob("devcloud*")},
            listeners={address for address in sockets if not address.startswith(("127.", "[::1]", "[::ffff:127."))},
            forwarding=Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        )


def wait(condition: Callable[[], Any], seconds: float) -> Any:
    """Ask until the answer is true; return it."""
    asking = retry(retry=retry_if_result(lambda found: not found), stop=stop_after_delay(seconds), wait=wait_fixed(0.2))
    return asking(condition)()


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


def connect(devcloud: Devcloud, account: str) -> Connection:
    """A connection with what is in the written clouds.yaml, and nothing else."""
    written = OpenStackConfig(config_files=[str(devcloud.layout.clouds_yaml)], load_envvars=False)
    return Connection(config=written.get_one(account))


@pytest.fixture(scope="module")
def student(cloud: Devcloud) -> Connection:
    return connect(cloud, "devcloud")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory, student: Connection) -> Path:
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    student.compute.create_keypair(name=NAME, public_key=path.with_suffix(".pub").read_text())
    return path


class Node(NamedTuple):
    """An instance that answers SSH at its floating IP."""

    server: Server
    address: str
    seconds: float

    def ssh(self, key: Path, command: str) -> subprocess.CompletedProcess[str]:
        options = ["-o", "ConnectTimeout=2", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        return subprocess.run(
            ["ssh", "-i", str(key), "-o", "LogLevel=ERROR", *options, f"cc@{self.address}", command],
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def boot(student: Connection, network: str, flavor: str, **options: Any) -> Server:
    return student.compute.create_server(
        name=NAME,
        image_id=student.image.find_image(IMAGE, ignore_missing=False).id,
        flavor_id=flavor,
        networks=[{"uuid": network}],
        key_name=NAME,
        security_groups=[{"name": NAME}],
        **options,
    )


@pytest.fixture(scope="module")
def network(student: Connection) -> str:
    """A network with a router, and a security group that lets SSH in; returns the network's id."""
    neutron = student.network
    network = neutron.create_network(name=NAME)
    subnet = neutron.create_subnet(name=NAME, network_id=network.id, ip_version=4, cidr="10.77.0.0/24")
    external = neutron.find_network("public", ignore_missing=False)
    router = neutron.create_router(name=NAME, external_gateway_info={"network_id": external.id})
    neutron.add_interface_to_router(router, subnet.id)
    group = neutron.create_security_group(name=NAME)
    neutron.create_security_group_rule(
        security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp",
        port_range_min=22, port_range_max=22,
    )  # fmt: skip
    return str(network.id)


@pytest.fixture(scope="module")
def node(student: Connection, network: str, key: Path) -> Node:
    began = time.monotonic()
    flavor = student.compute.find_flavor("m1.small", ignore_missing=False)
    server = student.compute.wait_for_server(boot(student, network, flavor.id), wait=300)
    active = time.monotonic() - began
    port = next(student.network.ports(device_id=server.id))
    external = student.network.find_network("public", ignore_missing=False)
    address = student.network.create_ip(floating_network_id=external.id, port_id=port.id).floating_ip_address
    found = Node(server, str(address), 0)
    wait(lambda: found.ssh(key, "true").returncode == 0, 300)
    found = found._replace(seconds=time.monotonic() - began)
    print(f"\ninstance: ACTIVE after {active:.1f} s, SSH after {found.seconds:.1f} s")
    return found


def test_every_service_runs_and_every_api_answers(cloud: Devcloud) -> None:
    told = cloud.control.call("status", memory=True)
    total = told.rest + sum(entry.memory or 0 for entry in told.services)
    print(f"\ncontrol plane and compute hosts: {total / 2**30:.2f} GiB PSS, {len(told.services)} services")
    assert {entry.name: entry.state for entry in told.services if entry.state != "running"} == {}
    wait(lambda: not any(fault for _, fault in cloud.health()), 60)


def test_nothing_listens_on_the_machines_own_interfaces(cloud: Devcloud, before: Machine) -> None:
    assert cloud.is_running
    assert Machine.now().listeners == before.listeners


def test_an_instance_is_a_machine_of_its_own(node: Node, key: Path) -> None:
    told = node.ssh(
        key, "systemctl is-system-running --wait; hostname; cat /proc/1/cgroup; sudo cat /proc/1/comm; whoami"
    )
    state, name, *cgroups, comm, user = told.stdout.split()
    assert (state, name, comm, user) == ("running", NAME, "systemd", "cc")
    assert all(line.endswith((":/", "/init.scope", "libvirt-lxc")) for line in cgroups)


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
    server = boot(student, network, lease["reservations"][0]["id"])
    server = student.compute.wait_for_server(server, wait=300)
    blazar.delete(f"/leases/{lease['id']}")
    student.compute.wait_for_delete(server, wait=120)


def test_a_reservable_host_takes_no_instance_without_a_reservation(cloud: Devcloud, node: Node) -> None:
    admin = connect(cloud, "devcloud-admin")
    reservable = next(host.name for host in cloud.layout.settings.hosts if host.reservable)
    network = next(iter(admin.network.networks(name=NAME)))
    flavor = admin.compute.find_flavor("m1.tiny", ignore_missing=False)
    image = admin.image.find_image(IMAGE, ignore_missing=False)
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
