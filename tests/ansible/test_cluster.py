"""A cluster on machines of a real devcloud, from nothing to nothing: `pytest -m slow_cloud tests/ansible -s`.

The tests of this file are one story, in order: make, run again, lose a worker, grow and shrink, reset, restore.
"""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.ansible.conftest import ETCDCTL, Cluster
from tests.devcloud.support import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ansible.conftest import Machines
    from tests.ansible.harness import Run

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]

ADDON = "/etc/kubernetes/addons/metrics-server"
GRACE_SECONDS, EVICTION_SECONDS = 40, 60
"""`cluster_node_grace_seconds` and `cluster_pod_eviction_seconds` by default."""

SIGNED = 7
"""Certificates of a control plane that its authorities sign: of the API server and its three clients, and of etcd."""


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    hosts = machines.boot("c0", "w0", "w1")
    control_plane = {"c0": hosts.pop("c0")}
    return Cluster(machines, tmp_path_factory.mktemp("cluster"), control_plane, hosts)


@pytest.fixture(scope="module")
def before(cluster: Cluster) -> dict[str, dict[str, set[str]]]:
    """The machines before the first playbook."""
    return {name: cluster.machines.snapshot(name) for name in ("c0", "w0")}


@pytest.fixture(scope="module")
def made(cluster: Cluster, before: dict[str, dict[str, set[str]]]) -> Run:
    """The first run."""
    assert before
    return cluster.ok("site")


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
def test_an_addon_is_compared_and_put_back_on_its_node(cluster: Cluster) -> None:
    kubectl = "kubectl --kubeconfig=/etc/kubernetes/admin.conf --cache-dir=/tmp/kubectl"
    cluster.machines.ssh("c0", f"{kubectl} diff -k {ADDON}")
    cluster.kubectl("label", "--namespace=kube-system", "service/metrics-server", "k8s-app=other", "--overwrite")
    assert "+    k8s-app: metrics-server" in cluster.machines.root("c0", f"{kubectl} diff -k {ADDON}").stdout
    cluster.machines.ssh("c0", f"{kubectl} apply -k {ADDON}")
    cluster.machines.ssh("c0", f"{kubectl} diff -k {ADDON}")


@pytest.mark.usefixtures("made")
def test_secrets_are_encrypted_in_etcd(cluster: Cluster) -> None:
    cluster.kubectl("create", "secret", "generic", "told", "--from-literal=word=plaintext-word")
    raw = cluster.machines.ssh("c0", f"{ETCDCTL} get /registry/secrets/default/told | base64 -w0")
    assert raw
    assert b"plaintext-word" not in base64.b64decode(raw)


@pytest.mark.usefixtures("made")
def test_a_timer_renews_the_certificates(cluster: Cluster) -> None:
    def ssh(command: str) -> str:
        return cluster.machines.ssh("c0", command)

    def serials() -> set[str]:
        listed = "for file in *.crt etcd/*.crt; do echo $file $(openssl x509 -noout -serial -in $file); done"
        return set(ssh(f"cd /etc/kubernetes/pki; {listed}").splitlines())

    def serves(port: int, file: str) -> bool:
        asked = f"openssl s_client -connect 127.0.0.1:{port} < /dev/null 2> /dev/null | openssl x509 -noout -serial"
        return f"{file} {ssh(asked + ' || true').strip()}" in serials()

    before = serials()
    soon = "/run/systemd/system/cluster-certificates.timer.d"
    # The timer itself, without a month's wait.
    ssh(
        f"mkdir -p {soon}; echo [Timer] > {soon}/soon.conf; "
        f"for line in OnActiveSec=1 RandomizedDelaySec=0 FixedRandomDelay=no; do echo $line >> {soon}/soon.conf; done; "
        "systemctl daemon-reload; systemctl restart cluster-certificates.timer"
    )
    state = "systemctl show --property=ActiveState,Result cluster-certificates.service"
    wait(lambda: len(before - serials()) == SIGNED, 60, "the certificates are renewed")
    wait(lambda: ssh(state).split() == ["Result=success", "ActiveState=inactive"], 180, "the service has ended")
    ssh(f"rm -r {soon}; systemctl daemon-reload; systemctl restart cluster-certificates.timer")
    wait(lambda: serves(6443, "apiserver.crt"), 60, "the API server has the new certificate")
    wait(lambda: serves(2379, "etcd/server.crt"), 60, "etcd has the new certificate")
    wait(lambda: cluster.ready() == {"c0", "w0", "w1"}, 120, "the nodes are ready")
    assert cluster.ok("site").changes == []


@pytest.mark.usefixtures("made")
def test_services_stay_when_kube_proxy_restarts(cluster: Cluster) -> None:
    """It compares its rules with those that it finds, as once an hour: it must know its own again."""

    def rules() -> int:
        return int(cluster.machines.ssh("w0", "nft list map ip kube-proxy service-ips | grep -c goto || true"))

    before = rules()
    assert before
    for _ in range(2):
        cluster.kubectl("rollout", "restart", "--namespace=kube-system", "daemonset/kube-proxy")
        cluster.kubectl("rollout", "status", "--namespace=kube-system", "daemonset/kube-proxy", "--timeout=180s")
    synced = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
    wait(lambda: synced in cluster.machines.ssh("w0", "curl -s localhost:10249/metrics"), 60, "its rules are written")
    assert rules() == before


PODS = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 65532, runAsNonRoot: true}
  containers: [{name: main, image: IMAGE, command: [busybox, httpd, -f, -p8080, "-h/etc"]}]
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
    pods = PODS.replace("IMAGE", cluster.busybox())
    cluster.kubectl(
        "apply", "--filename=-", text="".join(pods.replace("NAME", name) for name in ("server", "friend", "other"))
    )
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "pod/server", "pod/friend", "pod/other")
    address = cluster.kubectl("get", "pod", "server", "--output=jsonpath={.status.podIP}")

    # Debian's static busybox looks a service up for its `wget`, and dies of it.
    ask = f"printf 'GET /hosts HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {address} 8080"

    def reaches(pod: str) -> bool:
        return "localhost" in cluster.kubectl("exec", pod, "--", "busybox", "sh", "-c", ask, check=False)

    wait(lambda: reaches("friend") and reaches("other"), 60, "everybody gets in")
    cluster.kubectl("apply", "--filename=-", text=POLICY.replace("INGRESS", "[]"))
    wait(lambda: not reaches("friend") and not reaches("other"), 30, "nobody gets in")
    rule = "[{from: [{podSelector: {matchLabels: {app: friend}}}]}]"
    cluster.kubectl("apply", "--filename=-", text=POLICY.replace("INGRESS", rule))
    wait(lambda: reaches("friend"), 30, "the friend gets in")
    assert not reaches("other")
    cluster.kubectl("delete", "networkpolicy/server", "pod/server", "pod/friend", "pod/other")


WORK = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: work}
spec:
  replicas: 2
  selector: {matchLabels: {app: work}}
  template:
    metadata: {labels: {app: work}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
           labelSelector: {matchLabels: {app: work}}}
      containers: [{name: main, image: IMAGE, command: [busybox, sleep, infinity]}]
"""


def workers_of(cluster: Cluster, app: str) -> list[str]:
    """The nodes of an app's pods that run and are not to end."""
    pods = json.loads(cluster.kubectl("get", "pods", f"--selector=app={app}", "--output=json"))["items"]
    return sorted(
        pod["spec"]["nodeName"]
        for pod in pods
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    )


@pytest.mark.usefixtures("made")
def test_pods_of_a_dead_worker_start_elsewhere(cluster: Cluster, figure: Callable[[str], None]) -> None:
    cluster.kubectl("apply", "--filename=-", text=WORK.replace("IMAGE", cluster.busybox()))
    wait(lambda: workers_of(cluster, "work") == ["w0", "w1"], 120, "a pod on each worker")
    cluster.machines.power_off("w1")
    began = time.monotonic()
    allowed = GRACE_SECONDS + EVICTION_SECONDS + 30
    wait(lambda: workers_of(cluster, "work") == ["w0", "w0"], allowed, "both pods on the other worker")
    figure(f"a worker switched off: its pods run elsewhere after {time.monotonic() - began:.0f} s "
           f"({GRACE_SECONDS} s until it counts as dead, {EVICTION_SECONDS} s until they are given up)")  # fmt: skip
    cluster.machines.power_on("w1")
    wait(lambda: cluster.ready() == {"c0", "w0", "w1"}, 300, "the worker is back")
    cluster.kubectl("delete", "deployment/work")


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


@pytest.fixture(scope="module")
def kept(cluster: Cluster, made: Run) -> dict[str, Any]:
    """Objects of which a backup was made."""
    assert made
    for number in range(20):
        cluster.kubectl("create", "configmap", f"kept-{number}", f"--from-literal=number={number}")
    cluster.kubectl("create", "secret", "generic", "kept", "--from-literal=word=sesame")
    found = cluster.objects()
    backup = cluster.ok("backup")
    assert "keep it safe" in backup.output
    return found


@pytest.mark.usefixtures("kept")
def test_reset_leaves_the_machines_as_they_were(
    cluster: Cluster, before: dict[str, dict[str, set[str]]], figure: Callable[[str], None]
) -> None:
    assert "Nothing was deleted" in cluster.play("reset").output
    run = cluster.ok("reset", cluster_reset="yes")
    figure(f"reset: {run.seconds:.0f} s")
    for name, then in before.items():
        now = cluster.machines.snapshot(name)
        assert {what: now[what] ^ then[what] for what in then if now[what] != then[what]} == {}


def test_a_backup_brings_back_what_was_wiped(
    cluster: Cluster, kept: dict[str, Any], figure: Callable[[str], None]
) -> None:
    (file,) = (cluster.folder / "backups").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    restored = cluster.ok("restore")
    figure(f"one control plane, {len(kept)} objects: made anew and restored in {restored.seconds:.0f} s")
    now = cluster.objects()
    assert {key: now.get(key) for key in kept} == kept
    wait(lambda: cluster.ready() == {"c0", "w0"}, 120, "the nodes are ready")


@pytest.mark.usefixtures("kept")
def test_a_backup_is_readable_on_a_cluster_with_other_keys(cluster: Cluster) -> None:
    cluster.ok("reset", cluster_reset="yes")
    cluster.ok("site")
    cluster.ok("restore")
    word = cluster.kubectl("get", "secret", "kept", "--output=jsonpath={.data.word}")
    assert base64.b64decode(word) == b"sesame"
    wait(lambda: cluster.ready() == {"c0", "w0"}, 120, "the nodes are ready")
    # Pods have tokens that the API server takes: those of the restored objects were signed by the former cluster.
    cluster.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=180s")
