"""Machines of a real devcloud for the slow tests, and clusters on them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bundle.cli import DEFAULT
from devcloud.images import CONTAINER
from tests.ansible.harness import Host, Run, filled_in, play
from tests.devcloud.support import Node, connect, make_key, make_network, running, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud
    from devcloud.images import Image

BUNDLE = Path(os.environ.get("LAB_TEST_BUNDLE", DEFAULT)).expanduser()
RANGES = ("10.244.0.0/16", "10.96.0.0/16")
NODE_PORTS = (30000, 32767)
ETCDCTL = (
    "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt"
    " --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key"
)

# What changes by itself, Python's caches, and the folder in which Ansible itself works on a machine.
VOLATILE = "|".join(("proc", "sys", "dev", "tmp", "var/tmp", "var/log", "run/(?!systemd/system)", "home/[^/]+/.ansible",
                     "root/.ansible", "var/lib/systemd", "var/cache", "var/lib/cloud", "etc/machine-info",
                     ".*/__pycache__"))  # fmt: skip
STATE_OF_MACHINE = {
    # Those of no size are the kernel's own.
    "processes": "ps -e -o vsz=,comm= | awk '$1 {print $2}' | sort -u"
    " | grep -v -E '^(sshd|sftp-server|ps|awk|sort|sudo|bash|grep|systemd|.sd-pam)'",
    "mounts": "cut -d' ' -f2,3 /proc/mounts | grep -v -E '/run/(user|credentials)' | sort",
    "links": "ls /sys/class/net",
    "routes": "ip route | sort",
    "nftables": "nft list ruleset",
    "sysctl": "sysctl net.ipv4.ip_forward vm.overcommit_memory kernel.panic fs.inotify.max_user_instances",
    "profiles": "sort /sys/kernel/security/apparmor/profiles",
    "cgroups": "find /sys/fs/cgroup -type d -name 'kube*' -o -type d -name 'k8s*'",
    "units": "systemctl list-unit-files --no-legend --state=enabled | sort",
    "files": "find / -xdev -printf '%p\\n' | sort",
}


class Machines:
    """Instances in one network, as a stack of ours has them: pods' addresses allowed, all ports open between them."""

    def __init__(
        self, cloud: Devcloud, name: str, folder: Path, image: Image = CONTAINER, patience: float = 600
    ) -> None:
        """`patience`: seconds until a machine of `image` must have booted."""
        self.cloud = cloud
        self.image = image
        self.patience = patience
        self.name = name
        self.key = folder / "key"
        student = self._connect()
        make_key(student, self.name, self.key)
        self.network = make_network(student, self.name)
        self.nodes: dict[str, Node] = {}
        self.volumes: list[str] = []
        group = student.network.find_security_group(self.name, ignore_missing=False).id
        opened: list[dict[str, Any]] = [{"remote_group_id": group}]
        for low, high in ((6443, 6443), NODE_PORTS):
            opened.append({"protocol": "tcp", "port_range_min": low, "port_range_max": high})
        for rule in opened:
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
        group = student.network.find_security_group(self.name, ignore_missing=False).id
        port = student.network.create_port(
            network_id=self.network, security_groups=[group], allowed_address_pairs=pairs, name=f"{self.name}-{name}"
        )
        server = student.compute.create_server(
            name=name,
            image_id=student.image.find_image(self.image.name, ignore_missing=False).id,
            flavor_id=student.compute.find_flavor("m1.medium", ignore_missing=False).id,
            networks=[{"port": port.id}],
            key_name=self.name,
            config_drive=self.image.hypervisor == "qemu",
        )
        server = student.compute.wait_for_server(server, interval=0.5, wait=self.patience)
        external = student.network.find_network("public", ignore_missing=False)
        address = student.network.create_ip(floating_network_id=external.id, port_id=port.id).floating_ip_address
        node = Node(server, str(address), 0, 0)
        # Its ways to say that all is started: with or without a unit that failed.
        booted = ("running", "degraded")
        state = "systemctl is-system-running --wait"
        end = f"SSH on {name}, and its boot's end"
        wait(lambda: node.ssh(self.key, state).stdout.strip() in booted, self.patience, end)
        self.nodes[name] = node
        return {"ansible_host": node.address, "node_address": port.fixed_ips[0]["ip_address"]}

    def attach(self, name: str, holds: str) -> dict[str, str]:
        """A new volume of 1 GiB, attached there; as an entry of `cluster_volumes`."""
        student = self._connect()
        volume = student.block_storage.create_volume(size=1, name=self.name)
        self.volumes.append(volume.id)
        student.block_storage.wait_for_status(volume, "available", wait=120)
        device = student.compute.create_volume_attachment(self.nodes[name].server, volume_id=volume.id).device
        student.block_storage.wait_for_status(volume, "in-use", wait=300)
        return {"holds": holds, "id": volume.id, "device": device}

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

    def power_off(self, name: str) -> None:
        """Stop it at once, without a chance for its services to say goodbye."""
        self.ssh(name, "systemd-run --on-active=1 systemctl poweroff --force --force")
        self._until(name, "SHUTOFF")

    def power_on(self, name: str) -> None:
        """Start it again; it answers SSH."""
        self._connect().compute.start_server(self.nodes[name].server)
        self._until(name, "ACTIVE")
        wait(lambda: self.root(name, "true").returncode == 0, 300, f"SSH on {name}")

    def _until(self, name: str, status: str) -> None:
        self._connect().compute.wait_for_server(self.nodes[name].server, status, interval=0.5, wait=120)

    def snapshot(self, name: str) -> dict[str, set[str]]:
        """What must be as it was on a machine that is reset, or refused."""
        state = {
            what: set(self.ssh(name, f"{command} || true").splitlines()) for what, command in STATE_OF_MACHINE.items()
        }
        state["files"] = {path for path in state["files"] if not re.match(f"/(?:{VOLATILE})(/|$)", path)}
        return state

    def delete(self, *names: str) -> None:
        """Delete machines, their ports and their floating IPs."""
        student = self._connect()
        for name in names:
            node = self.nodes.pop(name)
            student.network.delete_ip(student.network.find_ip(node.address, ignore_missing=False))
            student.compute.delete_server(node.server)
            student.compute.wait_for_delete(node.server, interval=0.5, wait=300)
            student.network.delete_port(student.network.find_port(f"{self.name}-{name}", ignore_missing=False))

    def close(self) -> None:
        """Delete everything."""
        self.delete(*list(self.nodes))
        for volume in self.volumes:
            cinder = self._connect().block_storage
            cinder.wait_for_status(cinder.get_volume(volume), "available", wait=120)
            cinder.delete_volume(volume)
        neutron = self._connect().network
        router = neutron.find_router(self.name, ignore_missing=False)
        neutron.remove_interface_from_router(router, neutron.find_subnet(self.name, ignore_missing=False).id)
        neutron.delete_router(router)
        neutron.delete_network(self.network)
        neutron.delete_security_group(neutron.find_security_group(self.name, ignore_missing=False))
        self._connect().compute.delete_keypair(self.name)


class Cluster:
    """An inventory of machines, and the playbooks on it."""

    def __init__(
        self, machines: Machines, folder: Path, control_plane: dict[str, Host], workers: dict[str, Host]
    ) -> None:
        self.machines, self.folder = machines, folder
        self.control_plane, self.workers = control_plane, workers
        self.kubeconfig = folder / "kubeconfig"
        self.version = "v1.37.2"
        self.settings: dict[str, Any] = {}

    def play(self, playbook: str | Path, **variables: Any) -> Run:
        """Run a playbook on it."""
        hosts = filled_in(
            self.control_plane, self.workers, ansible_user="cc", ansible_ssh_private_key_file=str(self.machines.key),
            cluster_bundle=str(BUNDLE), cluster_kubeconfig=str(self.kubeconfig),
            cluster_backups=str(self.folder / "backups"), cluster_kubernetes_version=self.version, **self.settings,
        )  # fmt: skip
        return play(playbook, hosts, self.folder, **variables)

    def ok(self, playbook: str | Path, **variables: Any) -> Run:
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

    def busybox(self) -> str:
        """An image that every node has, and that has busybox."""
        return self.kubectl(
            "get", "deployment", "local-path-provisioner", "--namespace=local-path-storage",
            "--output=jsonpath={.spec.template.spec.containers[0].image}",
        )  # fmt: skip

    def objects(self) -> dict[str, Any]:
        """What users made, whole; and of what the cluster itself works on, the part that it does not count with."""
        found = json.loads(
            self.kubectl("get", "configmaps,secrets,deployments,namespaces", "--all-namespaces", "--output=json")
        )
        return {
            f"{item['kind']}/{item['metadata'].get('namespace')}/{item['metadata']['name']}": (
                item if item["metadata"].get("namespace") == "default" else (item["metadata"]["uid"], item.get("spec"))
            )
            for item in found["items"]
            # A token that machines join with ends by itself.
            if not item["metadata"]["name"].startswith("bootstrap-token-")
        }

    def ready(self) -> set[str]:
        """Names of the nodes that are ready."""
        path = '{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        rows = self.kubectl("get", "nodes", f"--output=jsonpath={path}", check=False).splitlines()
        return {row.split()[0] for row in rows if row.endswith(" True")}


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Reports something measured."""
    return lambda text: record_property("figures", text)


@pytest.fixture(scope="session")
def cloud() -> Devcloud:
    """A devcloud that is up; it stays up."""
    return running()


@pytest.fixture(scope="module")
def machines(
    cloud: Devcloud, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    made = Machines(cloud, name, tmp_path_factory.mktemp("machines"))
    yield made
    made.close()
