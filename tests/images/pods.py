"""A kubelet of model servers: each pod of a stage is the image's own server, at an address of its own on this machine.

A server listens on a port of its own, and what is sent to its pod's address and port is passed on to it.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from providers.framework import ProviderError
from providers.kubernetes.client import ClusterError
from providers.kubernetes.objects import Identity
from tests.images.services import answers, free_port
from tests.providers.kubernetes.control_plane import NODE, running

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.images.containers import Container, Runtime
    from tests.images.services import Images
    from tests.providers.kubernetes.control_plane import ControlPlane

PORT = 8080
READY = "/v2/health/ready"
SECONDS_BETWEEN, SECONDS_OF_HEARTS = 0.1, 10
CHUNK = 1 << 16
NETWORK = f"198.18.{os.getpid() % 256}"
"""Addresses for tests of networks (RFC 2544); one process has its own."""


class Forward:
    """Passes on what comes to an address, for as long as it is entered."""

    def __init__(self, address: str, to: int) -> None:
        self.address, self._to = address, to
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        self._server = socket.create_server((address, PORT), backlog=256)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(SECONDS_BETWEEN):
                if key.fileobj is self._server:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        one, _ = self._server.accept()
        try:
            other = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            one.close()
            return
        for each, peer in ((one, other), (other, one)):
            self._peers[each] = peer
            self._selector.register(each, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        if one not in self._peers:
            return
        try:
            content = one.recv(CHUNK)
            if content:
                self._peers[one].sendall(content)
                return
        except OSError:
            pass
        for each in (one, self._peers[one]):
            self._selector.unregister(each)
            del self._peers[each]
            each.close()

    def close(self) -> None:
        """Pass nothing on any more; nobody has the address then."""
        self._ended.set()
        self._thread.join()
        for one in (self._server, *self._peers):
            one.close()
        subprocess.run(["ip", "address", "del", f"{self.address}/32", "dev", "lo"], check=False, capture_output=True)


@dataclass
class Pod:
    """A server that was started for a pod."""

    container: Container
    port: int
    forward: Forward
    stage: str
    lost: bool = False
    """Whether it is gone and nobody has noticed."""
    ends: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it is asked."""
        return self.forward.address

    def is_ready(self) -> bool:
        """Whether it says so."""
        return self.lost or answers(f"http://127.0.0.1:{self.port}{READY}")

    def end(self) -> None:
        """Tell it to end, and wait until it has."""
        self.container.stop()
        self.forward.close()


@dataclass
class Kubelet:
    """Runs the model servers' pods while it is entered."""

    plane: ControlPlane
    runtime: Runtime
    images: Images
    environment: Mapping[str, str]
    """What stands in the place of what pods have of Secrets, and of addresses on the cluster."""
    pods: dict[str, Pod] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    """Stages whose pods are not started yet."""
    _count: int = 0
    _beaten: float = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for name, pod in self.pods.items():
            if pod.ends is None:
                self._end(name, pod)
        for pod in self.pods.values():
            if pod.ends:
                pod.ends.join()

    def of(self, stage: str) -> list[Pod]:
        """The pods of a stage that were not told to end."""
        return [pod for pod in self.pods.values() if pod.stage == stage and pod.ends is None]

    def lose(self, stage: str) -> None:
        """The node of a stage's pods is gone, and nobody has noticed."""
        for pod in self.of(stage):
            pod.lost = True
            pod.container.kill()
            pod.forward.close()

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            try:
                self._beat()
                self._look()
            except ClusterError as error:
                if error.code not in {404, 409}:
                    self.failures.append(error)
            except BaseException as error:
                self.failures.append(error)
                raise

    def _look(self) -> None:
        found = {
            one["metadata"]["name"]: one
            for one in self.plane.pods("serving")
            if "ml-cluster.dev/model-server" in one["metadata"]["labels"]
        }
        for name, known in self.pods.items():
            if name not in found and known.ends is None and not known.lost:
                self._end(name, known)
        for name, one in found.items():
            stage, pod = one["metadata"]["labels"]["ml-cluster.dev/stage"], self.pods.get(name)
            if "deletionTimestamp" in one["metadata"]:
                if pod is not None and pod.ends is None and not pod.lost:
                    self._end(name, pod)
                continue
            if pod is None:
                if stage in self.held:
                    continue
                # Without a node it would be no endpoint of a Service.
                place = {"metadata": {"name": name}, "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}}
                self._ask("POST", name, {"apiVersion": "v1", "kind": "Binding", **place}, "/binding")
                pod = self.pods[name] = self._start(name, stage, one)
            ready = "True" if pod.is_ready() else "False"
            if [each["status"] for each in one["status"].get("conditions", ()) if each["type"] == "Ready"] != [ready]:
                status = {**running(one), "podIP": pod.address}
                status["conditions"][0] |= {
                    "status": ready, "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
                }  # fmt: skip
                self.plane.report("Pod", f"serving/{name}", status)

    def _end(self, name: str, pod: Pod) -> None:
        """Tell a pod to end; it is gone when it has."""

        def end() -> None:
            pod.end()
            try:
                self._ask("DELETE", name, {"gracePeriodSeconds": 0})
            except ProviderError:
                return  # so is the API server

        pod.ends = threading.Thread(target=end)
        pod.ends.start()

    def _ask(self, method: str, name: str, body: dict[str, Any], part: str = "") -> None:
        path = self.plane.cluster.path(Identity("v1", "Pod", "serving", name))
        self.plane.cluster.request("a kubelet", method, f"{path}{part}", body)

    def _beat(self) -> None:
        """Say that the node is well, as often as its controller wants to hear it."""
        if time.monotonic() - self._beaten > SECONDS_OF_HEARTS:
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
            self.plane.report("Node", NODE, {"conditions": [ready]})
            self._beaten = time.monotonic()

    def _start(self, name: str, stage: str, one: dict[str, Any]) -> Pod:
        (container,) = one["spec"]["containers"]
        annotations = one["metadata"].get("annotations", {})
        environment: dict[str, str] = {}
        for each in container["env"]:
            path = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            if path:
                environment[each["name"]] = annotations.get(path.split("'")[1], "")
            elif "value" in each:
                environment[each["name"]] = each["value"]
        port = free_port()
        self._count += 1
        started = self.runtime.start(
            self.images["model-server"], name, environment={**environment, **self.environment, "PORT": str(port)}
        )
        return Pod(started, port, Forward(f"{NETWORK}.{self._count}", port), stage)
