"""A cluster on machines of a real devcloud, from nothing to nothing: `pytest -m slow_cloud tests/ansible -s`.

The tests of this file are one story, in order: make, run again, grow and shrink, back up and restore, reset.
"""

from __future__ import annotations

import base64
import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.ansible.conftest import Cluster, Machines
from tests.devcloud.support import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ansible.harness import Run

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]

# What changes by itself, and the folder in which Ansible itself works on a machine.
VOLATILE = "|".join(("proc", "sys", "dev", "tmp", "var/tmp", "var/log", "run/(?!systemd/system)", "home/[^/]+/.ansible",
                     "root/.ansible", "var/lib/systemd", "var/cache", "var/lib/cloud", "etc/machine-info"))  # fmt: skip
STATE_OF_MACHINE = {
    "processes": "ps -e -o comm= | grep -v -E '^(sshd|sftp-server|ps|sort|sudo|bash|grep|systemd|.sd-pam)' | sort -u",
    "mounts": "cut -d' ' -f2,3 /proc/mounts | grep -v -E '/run/(user|credentials)' | sort",
    "links": "ip -brief link | cut -d' ' -f1 | sort",
    "routes": "ip route | sort",
    "nftables": "nft list ruleset",
    "sysctl": "sysctl net.ipv4.ip_forward vm.overcommit_memory kernel.panic fs.inotify.max_user_instances",
    "cgroups": "find /sys/fs/cgroup -type d -name 'kube*' -o -type d -name 'k8s*'",
    "units": "systemctl list-unit-files --no-legend --state=enabled | sort",
    "files": "find / -xdev -printf '%p\\n' | sort",
}


def snapshot(machines: Machines, name: str) -> dict[str, set[str]]:
    """What a reset must leave as it was."""
    state = {
        what: set(machines.ssh(name, f"{command} || true").splitlines()) for what, command in STATE_OF_MACHINE.items()
    }
    state["files"] = {path for path in state["files"] if not re.match(f"/(?:{VOLATILE})(/|$)", path)}
    return state


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    hosts = machines.boot("c0", "w0", "w1")
    control_plane = {"c0": hosts.pop("c0")}
    return Cluster(machines, tmp_path_factory.mktemp("cluster"), control_plane, hosts)


@pytest.fixture(scope="module")
def before(cluster: Cluster) -> dict[str, dict[str, set[str]]]:
    """The machines before the first playbook."""
    return {name: snapshot(cluster.machines, name) for name in ("c0", "w0")}


@pytest.fixture(scope="module")
def made(cluster: Cluster, before: dict[str, dict[str, set[str]]]) -> Run:
    """The first run."""
    assert before
    return cluster.ok("site")


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    return lambda text: record_property("figures", text)


def test_three_machines_become_a_cluster(cluster: Cluster, made: Run, figure: Callable[[str], None]) -> None:
    figure(f"three machines to a cluster with all its parts: {made.seconds:.0f} s; {made.stages()}")
    assert cluster.ready() == {"c0", "w0", "w1"}
    assert "no NetworkPolicy is enforced" not in made.output
    assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
    wait(lambda: "w1" in cluster.kubectl("top", "nodes", check=False), 120, "kubectl top")


@pytest.mark.usefixtures("made")
def test_a_second_run_changes_nothing(cluster: Cluster, figure: Callable[[str], None]) -> None:
    again = cluster.ok("site")
    figure(f"site.yml again: {again.seconds:.0f} s")
    assert again.changes == []


@pytest.mark.usefixtures("made")
def test_secrets_are_encrypted_in_etcd(cluster: Cluster) -> None:
    cluster.kubectl("create", "secret", "generic", "told", "--from-literal=word=plaintext-word")
    raw = cluster.machines.ssh(
        "c0",
        "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt"
        " --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key"
        " get /registry/secrets/default/told | base64 -w0",
    )
    assert raw
    assert b"plaintext-word" not in base64.b64decode(raw)


PODS = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 65532, runAsNonRoot: true}
  containers:
    - {name: main, image: "localhost/local-path-provisioner:VERSION", command: [busybox, httpd, -f, -p8080, "-h/etc"]}
---
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: INGRESS
"""


@pytest.mark.usefixtures("made")
def test_a_network_policy_says_who_reaches_a_pod(cluster: Cluster) -> None:
    image = cluster.kubectl(
        "get", "deployment", "local-path-provisioner", "--namespace=local-path-storage",
        "--output=jsonpath={.spec.template.spec.containers[0].image}",
    )  # fmt: skip
    pods = PODS.replace("VERSION", image.rpartition(":")[2])
    cluster.kubectl(
        "apply", "--filename=-", text="".join(pods.replace("NAME", name) for name in ("server", "friend", "other"))
    )
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "pod/server", "pod/friend", "pod/other")
    address = cluster.kubectl("get", "pod", "server", "--output=jsonpath={.status.podIP}")

    def reaches(pod: str) -> bool:
        asked = ("busybox", "wget", "-T", "2", "-q", "-O", "-", f"http://{address}:8080/passwd")
        return "root" in cluster.kubectl("exec", pod, "--", *asked, check=False)

    assert reaches("friend")
    assert reaches("other")
    cluster.kubectl("apply", "--filename=-", text=POLICY.replace("INGRESS", "[]"))
    wait(lambda: not reaches("friend") and not reaches("other"), 30, "nobody gets in")
    rule = "[{from: [{podSelector: {matchLabels: {app: friend}}}]}]"
    cluster.kubectl("apply", "--filename=-", text=POLICY.replace("INGRESS", rule))
    wait(lambda: reaches("friend"), 30, "the friend gets in")
    assert not reaches("other")
    cluster.kubectl("delete", "networkpolicy/server", "pod/server", "pod/friend", "pod/other")


@pytest.mark.usefixtures("made")
def test_nodes_come_and_go(cluster: Cluster, figure: Callable[[str], None]) -> None:
    cluster.workers |= cluster.machines.boot("w2", "w3")
    grown = cluster.ok("scale")
    assert cluster.ready() == {"c0", "w0", "w1", "w2", "w3"}
    gone = ["w1", "w2", "w3"]
    shrunk = cluster.ok("scale", cluster_remove_nodes=gone)
    for name in gone:
        del cluster.workers[name]
    assert cluster.ready() == {"c0", "w0"}
    figure(f"two to four workers: {grown.seconds:.0f} s; four to one: {shrunk.seconds:.0f} s")
    cluster.machines.delete(*gone)


def objects(cluster: Cluster) -> dict[str, Any]:
    """What users made, without what the cluster itself counts."""
    items = json.loads(
        cluster.kubectl("get", "configmaps,secrets,deployments,namespaces", "--all-namespaces", "--output=json")
    )
    return {
        f"{item['kind']}/{item['metadata'].get('namespace')}/{item['metadata']['name']}": (
            item["metadata"]["uid"], item.get("data"), item.get("spec"),
        )
        for item in items["items"]
    }  # fmt: skip


@pytest.mark.usefixtures("made")
def test_a_backup_brings_back_what_was_deleted(cluster: Cluster, figure: Callable[[str], None]) -> None:
    for number in range(20):
        cluster.kubectl("create", "configmap", f"kept-{number}", f"--from-literal=number={number}")
    then = objects(cluster)
    backup = cluster.ok("backup")
    (file,) = (cluster.folder / "backups").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    cluster.kubectl("delete", "configmaps,secrets", "--all", "--namespace=default")
    restored = cluster.ok("restore")
    now = objects(cluster)
    assert {key: now.get(key) for key in then} == then
    figure(f"{len(then)} objects: backup {backup.seconds:.0f} s, restore {restored.seconds:.0f} s")


@pytest.mark.usefixtures("made")
def test_reset_leaves_the_machines_as_they_were(
    cluster: Cluster, before: dict[str, dict[str, set[str]]], figure: Callable[[str], None]
) -> None:
    assert "Nothing was deleted" in cluster.play("reset").output
    run = cluster.ok("reset", cluster_reset="yes")
    figure(f"reset: {run.seconds:.0f} s")
    for name, then in before.items():
        now = snapshot(cluster.machines, name)
        assert {what: now[what] ^ then[what] for what in then if now[what] != then[what]} == {}
    began = time.monotonic()
    cluster.ok("site")
    figure(f"the same machines a cluster again: {time.monotonic() - began:.0f} s")
