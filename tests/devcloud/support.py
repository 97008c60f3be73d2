"""What the tests of a real devcloud share: which one it is, and what it must leave of the machine as it was."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from openstack.config import OpenStackConfig
from openstack.connection import Connection
from tenacity import RetryError, retry, retry_if_result, stop_after_delay, wait_fixed

from devcloud import DEFAULT_STATE
from devcloud.bringup import Devcloud
from devcloud.control import cgroup_mounts
from devcloud.images import CONTAINER
from devcloud.layout import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from openstack.compute.v2.server import Server

STATE = Path(os.environ.get("DEVCLOUD_STATE", DEFAULT_STATE))
SETTINGS = Settings.model_validate({"subnet": subnet} if (subnet := os.environ.get("DEVCLOUD_SUBNET")) else {})


SSH = ("ssh", "-o", "ConnectTimeout=3", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
       "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")  # fmt: skip


class Machine(NamedTuple):
    """What `reset` must leave as it was; loopback is left to others, and so are other devclouds."""

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
        own = Devcloud(STATE).control.name
        links = {path.name for path in Path("/sys/class/net").iterdir()}
        loops = lines("losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE")
        return cls(
            links={name for name in links if name == own or not name.startswith("devcloud")},
            namespaces=lines("ip", "netns", "list"),
            mounts={line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
            loops={loop for loop in loops if f"{STATE}/" in loop},
            cgroups={str(mount / own) for mount in cgroup_mounts() if (mount / own).exists()},
            listeners={address for address in sockets if not address.startswith(("127.", "[::1]", "[::ffff:127."))},
            forwarding=Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        )


def wait(condition: Callable[[], Any], seconds: float, what: str = "the condition") -> Any:
    """Ask until the answer is true; return it."""
    asking = retry(retry=retry_if_result(lambda found: not found), stop=stop_after_delay(seconds), wait=wait_fixed(0.2))
    try:
        return asking(condition)()
    except RetryError:
        raise AssertionError(f"not within {seconds:.0f} s: {what}") from None


def running() -> Devcloud:
    """The cloud in DEVCLOUD_STATE or the default folder, brought up if it is down, and left up."""
    cloud = Devcloud(STATE, SETTINGS)
    cloud.up()
    return cloud


def connect(devcloud: Devcloud, account: str) -> Connection:
    """A connection with what is in the written clouds.yaml, and nothing else."""
    written = OpenStackConfig(config_files=[str(devcloud.layout.clouds_yaml)], load_envvars=False)
    return Connection(config=written.get_one(account))


def make_key(student: Connection, name: str, path: Path) -> Path:
    """A key pair at `path`, known to nova."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    student.compute.create_keypair(name=name, public_key=path.with_suffix(".pub").read_text())
    return path


def make_network(student: Connection, name: str) -> str:
    """A network with a router, and a security group that lets SSH in; returns the network's id."""
    neutron = student.network
    network = neutron.create_network(name=name)
    subnet = neutron.create_subnet(name=name, network_id=network.id, ip_version=4, cidr="10.77.0.0/24")
    external = neutron.find_network("public", ignore_missing=False)
    router = neutron.create_router(name=name, external_gateway_info={"network_id": external.id})
    neutron.add_interface_to_router(router, subnet.id)
    group = neutron.create_security_group(name=name)
    neutron.create_security_group_rule(
        security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp",
        port_range_min=22, port_range_max=22,
    )  # fmt: skip
    return str(network.id)


class Node(NamedTuple):
    """An instance that answers SSH at its floating IP, and how long after the request it did."""

    server: Server
    address: str
    active_seconds: float
    ssh_seconds: float

    def ssh(self, key: Path, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            [*SSH, "-i", str(key), f"cc@{self.address}", command],
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def boot(student: Connection, name: str, network: str, flavor: str, **options: Any) -> Server:
    """Ask for an instance."""
    return student.compute.create_server(
        name=name,
        image_id=student.image.find_image(CONTAINER.name, ignore_missing=False).id,
        flavor_id=flavor,
        networks=[{"uuid": network}],
        key_name=name,
        security_groups=[{"name": name}],
        **options,
    )


def boot_node(student: Connection, name: str, network: str, key: Path) -> Node:
    """An instance with a floating IP, once it answers SSH."""
    began = time.monotonic()
    flavor = student.compute.find_flavor("m1.small", ignore_missing=False)
    server = student.compute.wait_for_server(boot(student, name, network, flavor.id), interval=0.5, wait=300)
    active = time.monotonic() - began
    port = next(student.network.ports(device_id=server.id))
    external = student.network.find_network("public", ignore_missing=False)
    address = student.network.create_ip(floating_network_id=external.id, port_id=port.id).floating_ip_address
    found = Node(server, str(address), active, 0)
    wait(lambda: found.ssh(key, "true").returncode == 0, 300)
    return found._replace(ssh_seconds=time.monotonic() - began)


def cpu_seconds(cloud: Devcloud) -> float:
    """Processor seconds of all that has run in the devcloud since it started."""
    for mount in cgroup_mounts():
        usage, stat = mount / cloud.control.name / "cpuacct.usage", mount / cloud.control.name / "cpu.stat"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        if stat.exists() and "usage_usec" in stat.read_text():
            return int(stat.read_text().split()[1]) / 1e6
    raise LookupError(f"no cgroup {cloud.control.name} counts processor time")
