"""A cluster on machines with a kernel of their own: `lab test --virtual-machines`, or `-m slow_vm tests/ansible`.

Every other test has machines that are containers, with this machine's kernel and cgroups. Here a control plane and a
worker are virtual machines of devcloud (made with `--virtual-machines --image CC-Ubuntu24.04-VM`), as Chameleon has
them: Ubuntu's kernel, its systemd, cgroup v2, AppArmor. Without KVM they are emulated, and take an hour. With
`--virtual-machines-report FILE` it writes what came of it.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcloud.images import MORE
from tests.ansible.conftest import Cluster, Machines
from tests.devcloud.support import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcloud.bringup import Devcloud

pytestmark = [pytest.mark.slow_vm, pytest.mark.timeout(7200)]
IMAGE = MORE["CC-Ubuntu24.04-VM"]
OLD, NEW = "v1.36.3", "v1.37.2"
NODES = ("c0", "w0")
# Emulated, everything takes some twenty times as long.
PATIENCE = 1800
STAGES = (
    "two machines boot",
    "site.yml: every node is ready",
    "site.yml again changes nothing",
    "a pod writes to its volume",
    "the worker is rebooted: a pod reads it",
    "upgrade.yml",
    "upgrade.yml again changes nothing",
    "reset.yml leaves the machines as they were",
)
DESCRIBE = {
    "system": '. /etc/os-release; echo "$PRETTY_NAME"',
    "kernel": "uname -r",
    "systemd": "systemctl --version | head -1",
    "cgroups": "stat --file-system --format=%T /sys/fs/cgroup",
    "AppArmor": "cat /sys/module/apparmor/parameters/enabled",
    "machine": "systemd-detect-virt || true",
    "processors, memory": "echo $(nproc), $(free --mega | awk '/^Mem:/ {print $2}') MB",
}
POD = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kept}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: kept}}
  template:
    metadata: {labels: {app: kept}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsUser: 65532, runAsNonRoot: true}
      containers:
        - name: main
          image: IMAGE
          command: [busybox, sh, -c, "busybox date +%s.%N >> /data/starts; exec busybox httpd -f -p 8080 -h /data"]
          volumeMounts: [{name: data, mountPath: /data}]
          resources: {limits: {memory: 64Mi, cpu: 500m}}
          readinessProbe: {httpGet: {path: /starts, port: 8080}}
      volumes: [{name: data, persistentVolumeClaim: {claimName: kept}}]
"""
HEADER = """\
# A cluster on virtual machines

Written by `lab test --virtual-machines`; do not edit.

The last run: {date}, commit {commit}, {result}. A control plane and a worker that are virtual machines of devcloud,
{virtualisation}, go through the playbooks, with Kubernetes {versions}. No image registry is made on them.
[devcloud](../explanation/devcloud.md) says how its virtual machines differ from its containers.

"""


@dataclass
class Record:
    """How long each stage took, or how it ended; and what the machines are."""

    virtualisation: str
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    machine: dict[str, str] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of `STAGES`; the first that fails is noted."""
        assert name in STAGES
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self.failed = self.failed or name
            raise
        finally:
            self.seconds[name] = time.monotonic() - began
            print(f"\n{time.strftime('%H:%M:%S')} {name}: {self.told(name)}", flush=True)

    def told(self, name: str) -> str:
        """A stage's time, as in the table."""
        if name not in self.seconds:
            return "not reached"
        minutes, seconds = divmod(round(self.seconds[name]), 60)
        return ("failed after " if name == self.failed else "") + f"{minutes}:{seconds:02}"

    def page(self, commit: str) -> str:
        """The page for the docs."""
        reached = all(name in self.seconds for name in STAGES)
        result = "**failed**" if self.failed else "passed" if reached else "**cut off**"
        run = {"kvm": "on KVM", "qemu": "emulated without KVM"}[self.virtualisation]
        run += f" on {os.cpu_count()} cores at a load of {os.getloadavg()[2]:.0f}"
        told = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit, "result": result}
        told["versions"] = " and then ".join(self.versions)
        parts = [HEADER.format(virtualisation=run, **told), "| stage | minutes |\n|---|---|\n"]
        parts += [f"| {name} | {self.told(name)} |\n" for name in STAGES]
        parts += ["\n| each machine | |\n|---|---|\n"]
        parts += [f"| {what} | {value} |\n" for what, value in self.machine.items()]
        return "".join(parts)


def commit() -> str:
    """The commit that is tested, and whether there are changes beside it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain") else "")


@pytest.fixture(scope="module")
def record(cloud: Devcloud, pytestconfig: pytest.Config) -> Iterator[Record]:
    """Written at the end, whatever that is."""
    found = Record(cloud.virtualisation or "qemu")
    tested = commit()
    yield found
    if target := pytestconfig.getoption("--virtual-machines-report"):
        target.write_text(found.page(tested))


@pytest.fixture(scope="module")
def cluster(cloud: Devcloud, record: Record, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two machines that have booted."""
    machines = Machines(cloud, "virtual-machines", tmp_path_factory.mktemp("machines"), IMAGE, PATIENCE)
    try:
        with record.stage("two machines boot"):
            hosts = machines.boot(*NODES)
        hosts["w0"]["cluster_volumes"] = [machines.attach("w0", "stores")]
        made = Cluster(machines, tmp_path_factory.mktemp("cluster"), {"c0": hosts["c0"]}, {"w0": hosts["w0"]})
        made.settings = {
            "cluster_wait_seconds": PATIENCE, "cluster_drain_seconds": PATIENCE, "cluster_stores_on_volumes": True,
            # It is given every image once more, which takes as long as all else.
            "cluster_registry": False,
        }  # fmt: skip
        made.version = OLD
        yield made
    finally:
        machines.close()


@pytest.fixture(scope="module")
def before(cluster: Cluster, record: Record) -> dict[str, dict[str, set[str]]]:
    """The machines as they were."""
    record.machine = {what: cluster.machines.ssh("c0", command).strip() for what, command in DESCRIBE.items()}
    return {name: cluster.machines.snapshot(name) for name in NODES}


@pytest.fixture(scope="module")
def made(cluster: Cluster, record: Record, before: dict[str, dict[str, set[str]]]) -> None:
    """A cluster of the older version."""
    assert before
    record.versions = [cluster.version]
    with record.stage("site.yml: every node is ready"):
        cluster.ok("site")
        assert cluster.ready() == set(NODES)


def starts(cluster: Cluster) -> list[str]:
    """When the pod's container has started, as its volume has it."""
    read = ("exec", "deployment/kept", "--", "busybox", "cat", "/data/starts")
    return cluster.kubectl(*read, check=False).split()


def test_the_machines_are_what_users_have(record: Record, before: dict[str, dict[str, set[str]]]) -> None:
    assert before
    assert record.machine["system"].startswith("Ubuntu 24.04")
    assert (record.machine["cgroups"], record.machine["AppArmor"]) == ("cgroup2fs", "Y")
    assert record.machine["machine"] in {"qemu", "kvm"}


@pytest.mark.usefixtures("made")
def test_a_second_run_changes_nothing(cluster: Cluster, record: Record) -> None:
    with record.stage("site.yml again changes nothing"):
        assert cluster.ok("site").changes == []


@pytest.mark.usefixtures("made")
def test_containers_are_confined(cluster: Cluster) -> None:
    """The kernel's own means, which containers of devcloud lack: a cgroup of systemd's, AppArmor's profile."""
    cluster.machines.ssh("w0", "systemctl is-active kubepods.slice")
    profile = "for pid in $(pgrep -x metrics-server; pgrep -x coredns); do cat /proc/$pid/attr/current; done"
    confined = [cluster.machines.ssh(name, profile + "; true").split("\n") for name in NODES]
    found = {line for lines in confined for line in lines if line}
    assert found == {"cri-containerd.apparmor.d (enforce)"}


@pytest.fixture(scope="module")
def kept(cluster: Cluster, record: Record, made: None) -> list[str]:
    """The starts of a pod with a volume: one."""
    assert made is None
    with record.stage("a pod writes to its volume"):
        cluster.kubectl("apply", "--filename=-", text=POD.replace("IMAGE", cluster.busybox()))
        cluster.kubectl("rollout", "status", "deployment/kept", f"--timeout={PATIENCE}s")
        found = starts(cluster)
        assert len(found) == 1
        # A virtual machine has its volumes by name: the one that holds it is the cloud's.
        volume = cluster.workers["w0"]["cluster_volumes"][0]
        disk = cluster.machines.ssh("w0", f"realpath /dev/disk/by-id/virtio-{volume['id'][:20]}").strip()
        assert cluster.machines.ssh("w0", "findmnt --noheadings --output=SOURCE /var/lib/local-path").strip() == disk
    return found


def test_a_worker_that_boots_again_has_its_pods_and_their_data(
    cluster: Cluster, record: Record, kept: list[str]
) -> None:
    with record.stage("the worker is rebooted: a pod reads it"):
        booted = cluster.machines.ssh("w0", "cat /proc/sys/kernel/random/boot_id")
        cluster.machines.kill("w0")
        now = "cat /proc/sys/kernel/random/boot_id"
        wait(lambda: cluster.machines.root("w0", now).stdout not in {"", booted}, PATIENCE, "it boots again")
        wait(lambda: len(starts(cluster)) > len(kept), PATIENCE, "its pod has started again")
        assert starts(cluster)[: len(kept)] == kept
        wait(lambda: cluster.ready() == set(NODES), PATIENCE, "it is ready")


def test_an_upgrade_keeps_pods_and_data(cluster: Cluster, record: Record, kept: list[str]) -> None:
    cluster.version = NEW
    record.versions.append(NEW)
    with record.stage("upgrade.yml"):
        cluster.ok("upgrade")
        cluster.kubectl("rollout", "status", "deployment/kept", f"--timeout={PATIENCE}s")
        assert starts(cluster)[: len(kept)] == kept
        path = "--output=jsonpath={.items[*].status.nodeInfo.kubeletVersion}"
        assert cluster.kubectl("get", "nodes", path).split() == [NEW, NEW]
        assert cluster.ready() == set(NODES)
    with record.stage("upgrade.yml again changes nothing"):
        assert cluster.ok("upgrade").changes == []


@pytest.mark.usefixtures("made")
def test_reset_leaves_the_machines_as_they_were(
    cluster: Cluster, record: Record, before: dict[str, dict[str, set[str]]], figure: Callable[[str], None]
) -> None:
    with record.stage("reset.yml leaves the machines as they were"):
        cluster.ok("reset", cluster_reset="yes")
        for name, then in before.items():
            now = cluster.machines.snapshot(name)
            assert {what: now[what] ^ then[what] for what in then if now[what] != then[what]} == {}
    for name in STAGES:
        figure(f"{STAGES.index(name) + 1}. {name}: {record.told(name)}")
