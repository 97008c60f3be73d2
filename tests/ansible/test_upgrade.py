"""Kubernetes 1.36 becomes 1.37 under a service that answers all the while: `pytest -m slow_cloud tests/ansible -s`."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import pytest

from tests.ansible.conftest import Cluster
from tests.devcloud.support import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ansible.conftest import Machines

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
OLD, NEW = "v1.36.3", "v1.37.2"
PORT = 30080
SERVICE = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 15
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
           labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
        - name: main
          image: IMAGE
          command: [busybox, httpd, -f, -p8080, -h/etc]
          readinessProbe: {{httpGet: {{path: /hosts, port: 8080}}, periodSeconds: 1}}
          # Whoever still has its address is answered until all have heard that it ends.
          lifecycle: {{preStop: {{sleep: {{seconds: 10}}}}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: web}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: web}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {PORT}}}]
"""


class Visitor:
    """Asks for a page again and again, each time over a new connection, and counts."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.answered = 0
        self.failures: list[str] = []
        self.longest = 0.0
        self._ending = threading.Event()

    @contextmanager
    def visiting(self) -> Iterator[None]:
        """Ask meanwhile."""
        thread = threading.Thread(target=self._visit)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join()

    def ask(self) -> str:
        """What is wrong with the answer; nothing where it is one."""
        connection = HTTPConnection(self.host, PORT, timeout=10)
        try:
            connection.request("GET", "/hosts")
            status = connection.getresponse().status
        except (OSError, HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        return "" if status == HTTPStatus.OK else str(status)

    def _visit(self) -> None:
        while not self._ending.wait(0.05):
            began = time.monotonic()
            if fault := self.ask():
                self.failures.append(f"{time.strftime('%H:%M:%S')} {fault}")
            else:
                self.answered += 1
            self.longest = max(self.longest, time.monotonic() - began)


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    hosts = machines.boot("c0", "w0", "w1")
    made = Cluster(machines, tmp_path_factory.mktemp("cluster"), {"c0": hosts.pop("c0")}, hosts)
    made.version = OLD
    made.ok("site")
    made.version = NEW
    return made


def test_another_version_than_the_cluster_has_is_refused(cluster: Cluster) -> None:
    run = cluster.play("site")
    assert run.status != 0
    assert f"it runs Kubernetes {OLD}, and {NEW} is wanted" in run.output
    assert "playbooks/upgrade.yml" in run.output
    assert run.changes == []


def test_an_upgrade_fails_no_request(cluster: Cluster, figure: Callable[[str], None]) -> None:
    cluster.kubectl("apply", "--filename=-", text=SERVICE.replace("IMAGE", cluster.busybox()))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    visitor = Visitor(cluster.control_plane["c0"]["ansible_host"])
    wait(lambda: not visitor.ask(), 30, "the node's proxy knows the service")
    with visitor.visiting():
        run = cluster.ok("upgrade")
    figure(f"{OLD} to {NEW}, three nodes: {run.seconds:.0f} s; {visitor.answered} requests answered, "
           f"{len(visitor.failures)} failed, the longest took {visitor.longest:.1f} s")  # fmt: skip
    assert visitor.answered > 100
    assert not visitor.failures, (visitor.failures[0], visitor.failures[-1], len(visitor.failures))
    nodes = json.loads(cluster.kubectl("get", "nodes", "--output=json"))["items"]
    assert {node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes} == {
        "c0": NEW, "w0": NEW, "w1": NEW,
    }  # fmt: skip
    assert not any(node["spec"].get("unschedulable") for node in nodes)
    assert json.loads(cluster.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"] == NEW


def test_after_it_nothing_is_left_to_do(cluster: Cluster) -> None:
    assert cluster.ok("upgrade").changes == []
