"""Virtual machines beside containers.

`pytest -m slow_cloud tests/devcloud/test_hypervisors.py -s`, in a devcloud made with `--virtual-machines`. It is
brought up from no data. Takes 8 minutes on two idle cores that make two images and emulate the virtual machine.
"""

from __future__ import annotations

import platform
import subprocess
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from devcloud.bringup import Devcloud
from devcloud.config import CONTROLLER
from devcloud.images import CONTAINER, VIRTUAL_MACHINE
from tests.devcloud.support import SETTINGS, SSH, STATE, connect, make_key, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openstack.connection import Connection

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
NAME = "hypervisors-test"
UBUNTU = "CC-Ubuntu24.04"
KINDS = {"container": CONTAINER.name, "ubuntu": UBUNTU, "machine": VIRTUAL_MACHINE.name}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Devcloud]:
    """A devcloud with virtual machines and Ubuntu's image, brought up from no data."""
    Devcloud(STATE).reset()
    cloud = Devcloud(STATE, SETTINGS.model_copy(update={"virtual_machines": True, "more_images": (UBUNTU,)}))
    cloud.up()
    if not cloud.is_complete:
        cloud.complete()
    yield cloud
    cloud.reset()


@pytest.fixture(scope="module")
def student(cloud: Devcloud) -> Connection:
    return connect(cloud, "devcloud")


@pytest.fixture(scope="module")
def admin(cloud: Devcloud) -> Connection:
    return connect(cloud, "devcloud-admin")


@pytest.fixture(scope="module")
def undo() -> Iterator[ExitStack]:
    """What deletes everything in the end, the latest first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory, student: Connection, undo: ExitStack) -> Path:
    undo.callback(student.compute.delete_keypair, NAME)
    return make_key(student, NAME, tmp_path_factory.mktemp("key") / "id")


@pytest.fixture(scope="module")
def network(student: Connection, undo: ExitStack) -> str:
    """The id of a network with a way out; its security group lets SSH and pings in."""
    neutron = student.network
    network = neutron.create_network(name=NAME)
    undo.callback(neutron.delete_network, network)
    subnet = neutron.create_subnet(name=NAME, network_id=network.id, ip_version=4, cidr="10.79.0.0/24")
    external = neutron.find_network("public", ignore_missing=False)
    router = neutron.create_router(name=NAME, external_gateway_info={"network_id": external.id})
    undo.callback(neutron.delete_router, router)
    neutron.add_interface_to_router(router, subnet.id)
    undo.callback(neutron.remove_interface_from_router, router, subnet.id)
    group = neutron.create_security_group(name=NAME)
    undo.callback(neutron.delete_security_group, group)
    for protocol, port in (("tcp", 22), ("icmp", None)):
        neutron.create_security_group_rule(
            security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol=protocol,
            port_range_min=port, port_range_max=port,
        )  # fmt: skip
    return str(network.id)


class Node(NamedTuple):
    """An instance: its id, address in its network, floating IP and private key."""

    id: str
    address: str
    floating: str
    key: Path

    def ssh(self, command: str) -> str:
        """What a command printed; nothing while the instance does not answer."""
        login = [*SSH, "-i", str(self.key), f"cc@{self.floating}", command]
        return subprocess.run(login, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def first_port(student: Connection, server: str) -> Any:
    return next(student.network.ports(device_id=server), None)


@pytest.fixture(scope="module")
def nodes(student: Connection, network: str, key: Path, undo: ExitStack) -> dict[str, Node]:
    """Containers and a virtual machine with a config drive, on one network, that answer SSH."""
    compute, neutron = student.compute, student.network
    flavor = compute.find_flavor("m1.tiny", ignore_missing=False).id
    external = neutron.find_network("public", ignore_missing=False).id
    nodes = {}
    for kind, image in KINDS.items():
        server = compute.create_server(
            name=f"{NAME}-{kind}", image_id=student.image.find_image(image, ignore_missing=False).id, flavor_id=flavor,
            networks=[{"uuid": network}], key_name=NAME, security_groups=[{"name": NAME}],
            config_drive=kind == "machine",
        )  # fmt: skip
        undo.callback(compute.wait_for_delete, server)
        undo.callback(compute.delete_server, server)
        port = wait(partial(first_port, student, server.id), 60)
        floating = neutron.create_ip(floating_network_id=external, port_id=port.id)
        undo.callback(neutron.delete_ip, floating)
        address = port.fixed_ips[0]["ip_address"]
        nodes[kind] = Node(server.id, address, str(floating.floating_ip_address), key)
    for node in nodes.values():
        compute.wait_for_server(compute.get_server(node.id), interval=0.5, wait=300)
        wait(partial(node.ssh, "hostname"), 900)
    return nodes


def test_the_image_decides_the_host(cloud: Devcloud, admin: Connection, nodes: dict[str, Node]) -> None:
    hosts = {kind: admin.compute.get_server(node.id).hypervisor_hostname for kind, node in nodes.items()}
    assert hosts.pop("machine") == CONTROLLER
    assert set(hosts.values()) <= {host.name for host in cloud.layout.settings.hosts}


@pytest.mark.parametrize(("image", "host"), [(CONTAINER.name, CONTROLLER), (VIRTUAL_MACHINE.name, "lxc1")])
def test_an_image_is_refused_on_the_others_host(
    admin: Connection, network: str, undo: ExitStack, image: str, host: str
) -> None:
    server = admin.compute.create_server(
        name=NAME, image_id=admin.image.find_image(image, ignore_missing=False).id, host=host,
        flavor_id=admin.compute.find_flavor("m1.tiny", ignore_missing=False).id, networks=[{"uuid": network}],
    )  # fmt: skip
    undo.callback(admin.compute.delete_server, server)
    refused = wait(lambda: (found := admin.compute.get_server(server.id)).status == "ERROR" and found, 90)
    assert "No valid host" in refused.fault["message"]


def test_a_virtual_machine_has_a_kernel_and_a_config_drive_of_its_own(nodes: dict[str, Node]) -> None:
    kernels = {kind: node.ssh("uname -r").strip() for kind, node in nodes.items()}
    assert kernels["container"] == platform.release()
    assert kernels["machine"].endswith("-cloud-amd64")
    sources = {kind: node.ssh("cloud-init query v1.subplatform") for kind, node in nodes.items()}
    assert "config-disk" in sources["machine"]
    assert "http://169.254.169.254" in sources["container"]


def test_an_image_of_ubuntu_is_ubuntu(nodes: dict[str, Node]) -> None:
    systems = {kind: node.ssh(". /etc/os-release && echo $ID $VERSION_ID").split() for kind, node in nodes.items()}
    assert systems == {"container": ["debian", "12"], "ubuntu": ["ubuntu", "24.04"], "machine": ["debian", "12"]}
    assert "done" in nodes["ubuntu"].ssh("cloud-init status --wait")


def test_they_reach_each_other(nodes: dict[str, Node]) -> None:
    container, machine = nodes["container"], nodes["machine"]
    assert " 0% packet loss" in container.ssh(f"ping -c 3 -i 0.3 {machine.address}")
    assert " 0% packet loss" in machine.ssh(f"ping -c 3 -i 0.3 {container.address}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_resize_keeps_data_and_address(student: Connection, nodes: dict[str, Node], kind: str) -> None:
    node, compute = nodes[kind], student.compute
    wait(lambda: node.ssh("echo kept >file && sync && cat file"), 60)
    started = "systemctl show --property UserspaceTimestamp"
    before = node.ssh(started)
    compute.resize_server(node.id, compute.find_flavor("m1.small", ignore_missing=False))
    server = compute.get_server(node.id)
    server = compute.wait_for_server(server, status="VERIFY_RESIZE", wait=300)
    compute.confirm_server_resize(server)
    assert compute.wait_for_server(server, wait=60).flavor["original_name"] == "m1.small"
    wait(lambda: node.ssh(started) not in {"", before}, 900)
    assert node.ssh("cat file") == "kept\n"


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_is_attached_and_taken_off_again(
    student: Connection, nodes: dict[str, Node], undo: ExitStack, kind: str
) -> None:
    node, cinder = nodes[kind], student.block_storage
    volume = cinder.create_volume(size=1, name=NAME)
    undo.callback(cinder.delete_volume, volume.id)
    cinder.wait_for_status(volume, "available", wait=90)
    device = student.compute.create_volume_attachment(node.id, volume_id=volume.id).device
    cinder.wait_for_status(volume, "in-use", wait=90)
    made = f"sudo mkfs.ext4 -q {device} && sudo mount {device} /mnt && df --output=source /mnt && sudo umount /mnt"
    assert device in wait(lambda: node.ssh(made), 60)
    student.compute.delete_volume_attachment(node.id, volume.id)
    cinder.wait_for_status(volume, "available", wait=120)
