"""Machines of a real devcloud for the slow tests, and clusters on them."""

from __future__ import annotations

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from bundle.cli import DEFAULT
from devcloud.images import CONTAINER
from tests.ansible.harness import Host, Run, inventory, play
from tests.devcloud.support import Node, connect, make_key, make_network, running, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud

NAME = "ansible-test"
BUNDLE = DEFAULT.expanduser()
RANGES = ("10.244.0.0/16", "10.96.0.0/16")


class Machines:
    """Instances in one network, as a stack of ours has them: pods' addresses allowed, all ports open between them."""

    def __init__(self, cloud: Devcloud, folder: Path) -> None:
        self.cloud = cloud
        self.key = folder / "key"
        student = self._connect()
        make_key(student, NAME, self.key)
        self.network = make_network(student, NAME)
        self.nodes: dict[str, Node] = {}
        group = student.network.find_security_group(NAME, ignore_missing=False).id
        for rule in ({"remote_group_id": group}, {"protocol": "tcp", "port_range_min": 6443, "port_range_max": 6443}):
            student.network.create_security_group_rule(
                security_group_id=group, direction="ingress", ethertype="IPv4", **rule
            )

    def _connect(self) -> Connection:
        return connect(self.cloud, "devcloud")

    def boot(self, *names: str) -> dict[str, Host]:
        """New machines that answer SSH, as hosts of an inventory."""
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(self._boot, names), strict=True))

    def _boot(self, name: str) -> Host:
        student = self._connect()
        pairs = [{"ip_address": pods} for pods in RANGES]
        group = student.network.find_security_group(NAME, ignore_missing=False).id
        port = student.network.create_port(
            network_id=self.network, security_groups=[group], allowed_address_pairs=pairs, name=name
        )
        server = student.compute.create_server(
            name=name,
            image_id=student.image.find_image(CONTAINER.name, ignore_missing=False).id,
            flavor_id=student.compute.find_flavor("m1.medium", ignore_missing=False).id,
            networks=[{"port": port.id}],
            key_name=NAME,
        )
        server = student.compute.wait_for_server(server, interval=0.5, wait=600)
        external = student.network.find_network("public", ignore_missing=False)
        address = student.network.create_ip(floating_network_id=external.id, port_id=port.id).floating_ip_address
        node = Node(server, str(address), 0, 0)
        wait(lambda: node.ssh(self.key, "true").returncode == 0, 600, f"SSH on {name}")
        self.nodes[name] = node
        return {"ansible_host": node.address, "node_address": port.fixed_ips[0]["ip_address"]}

    def root(self, name: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root."""
        return self.nodes[name].ssh(self.key, f"sudo bash -c {shlex.quote(command)}")

    def ssh(self, name: str, command: str) -> str:
        """Output of a command there, by root, that must succeed."""
        done = self.root(name, command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self, name: str) -> None:
        """Cut its power, and switch it on again: nova's hard reboot."""
        self._connect().compute.reboot_server(self.nodes[name].server, "HARD")

    def delete(self, *names: str) -> None:
        """Delete machines, their ports and their floating IPs."""
        student = self._connect()
        for name in names:
            node = self.nodes.pop(name)
            student.network.delete_ip(student.network.find_ip(node.address, ignore_missing=False))
            student.compute.delete_server(node.server)
            student.compute.wait_for_delete(node.server, interval=0.5, wait=300)
            student.network.delete_port(student.network.find_port(name, ignore_missing=False))

    def close(self) -> None:
        """Delete everything."""
        self.delete(*list(self.nodes))
        neutron = self._connect().network
        router = neutron.find_router(NAME, ignore_missing=False)
        neutron.remove_interface_from_router(router, neutron.find_subnet(NAME, ignore_missing=False).id)
        neutron.delete_router(router)
        neutron.delete_network(self.network)
        neutron.delete_security_group(neutron.find_security_group(NAME, ignore_missing=False))
        self._connect().compute.delete_keypair(NAME)


class Cluster:
    """An inventory of machines, and the playbooks on it."""

    def __init__(
        self, machines: Machines, folder: Path, control_plane: dict[str, Host], workers: dict[str, Host]
    ) -> None:
        self.machines, self.folder = machines, folder
        self.control_plane, self.workers = control_plane, workers
        self.kubeconfig = folder / "kubeconfig"
        self.version = "v1.37.2"

    def play(self, playbook: str, **variables: Any) -> Run:
        """Run a playbook on it."""
        hosts = inventory(
            self.control_plane, self.workers, ansible_user="cc", ansible_ssh_private_key_file=str(self.machines.key),
            cluster_bundle=str(BUNDLE), cluster_kubeconfig=str(self.kubeconfig),
            cluster_backups=str(self.folder / "backups"), cluster_kubernetes_version=self.version,
        )  # fmt: skip
        return play(playbook, hosts, self.folder, **variables)

    def ok(self, playbook: str, **variables: Any) -> Run:
        """Run a playbook that must succeed."""
        run = self.play(playbook, **variables)
        assert run.status == 0, run.output[-6000:]
        return run

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Output of kubectl."""
        done = subprocess.run(
            [BUNDLE / "bin/kubernetes" / "v1.37.2" / "kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            check=False, capture_output=True, text=True, input=text,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def ready(self) -> set[str]:
        """Names of the nodes that are ready."""
        path = '{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        rows = self.kubectl("get", "nodes", f"--output=jsonpath={path}", check=False).splitlines()
        return {row.split()[0] for row in rows if row.endswith(" True")}


@pytest.fixture(scope="session")
def cloud() -> Devcloud:
    """A devcloud that is up; it stays up."""
    return running()


@pytest.fixture(scope="module")
def machines(cloud: Devcloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    made = Machines(cloud, tmp_path_factory.mktemp("machines"))
    yield made
    made.close()
