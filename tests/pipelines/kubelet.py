"""A kubelet of Jobs and of the service: each pod is a container of the bundle's images, on this machine."""

from __future__ import annotations

import base64
import http.server
import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from providers.framework import ProviderError
from providers.kubernetes.client import ClusterError
from providers.kubernetes.objects import Identity
from tests.providers.kubernetes.control_plane import NODE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.images.containers import Container, Runtime
    from tests.images.services import Images
    from tests.providers.kubernetes.control_plane import ControlPlane

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
RESULT = "tmp/result.json"
IMAGE = re.compile(r"localhost/([a-z0-9-]+)@sha256:[0-9a-f]{64}")
LOG = re.compile(r"/containerLogs/[^/]+/([^/]+)/[^/?]+")
SECONDS_BETWEEN, SECONDS_OF_HEARTS = 0.2, 10
NAMESPACES = ("pipelines", "training")


@dataclass
class Kubelet:
    """Runs the pods of Jobs and Deployments while it is entered, and tells what they print."""

    plane: ControlPlane
    runtime: Runtime
    images: Images
    account: Path
    """Folder of the account that pods with a token have."""
    environment: Mapping[str, str]
    """What stands in the place of addresses on the cluster."""
    started: dict[str, Container] = field(default_factory=dict)
    """By the pods' names, in the order in which they were started."""
    times: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When the container of each pod that ended began and ended, in seconds of the epoch."""
    restarts: int = 0
    lost: set[str] = field(default_factory=set)
    failures: list[BaseException] = field(default_factory=list)
    _beaten: float = -SECONDS_OF_HEARTS
    _begun: dict[str, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._serve()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._logs.shutdown()

    def _serve(self) -> None:
        """Answer the API server, which is asked for a log."""
        started = self.started

        class Logs(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = LOG.match(self.path)
                found = started.get(asked[1]) if asked else None
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(found.output.encode() if found else b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._logs = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Logs)
        certificates = self.plane.folder / "certificates"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
        self._logs.socket = context.wrap_socket(self._logs.socket, server_side=True)
        threading.Thread(target=self._logs.serve_forever, daemon=True).start()

    def _beat(self) -> None:
        """Say that the node is well, and where logs are asked for."""
        if time.monotonic() - self._beaten < SECONDS_OF_HEARTS:
            return
        self._beaten = time.monotonic()
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        endpoint = {"kubeletEndpoint": {"Port": self._logs.server_address[1]}}
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        self.plane.report("Node", NODE, {"conditions": [ready], "addresses": addresses, "daemonEndpoints": endpoint})

    def lose(self, name: str) -> None:
        """A pod is gone with its node, and the cluster has seen that."""
        self.lost.add(name)
        self.started[name].kill()
        self._ask("DELETE", "pipelines", name, {"gracePeriodSeconds": 0})

    def _ask(self, method: str, namespace: str, name: str, body: dict[str, Any], part: str = "") -> None:
        path = self.plane.cluster.path(Identity("v1", "Pod", namespace, name))
        self.plane.cluster.request("a kubelet", method, f"{path}{part}", body)

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            try:
                self._beat()
                for namespace in NAMESPACES:
                    self._look(namespace)
            except ClusterError as error:
                if error.code not in {404, 409}:
                    self.failures.append(error)
            except ProviderError as error:
                self.failures.append(error)

    def _look(self, namespace: str) -> None:
        found = {one["metadata"]["name"]: one for one in self.plane.pods(namespace)}
        for name, one in found.items():
            if "deletionTimestamp" in one["metadata"]:
                if name in self.started:
                    self.started[name].stop()
                self._ask("DELETE", namespace, name, {"gracePeriodSeconds": 0})
            elif name not in self.started:
                place = {"metadata": {"name": name}, "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}}
                self._ask("POST", namespace, name, {"apiVersion": "v1", "kind": "Binding", **place}, "/binding")
                self._begun[name] = time.time()
                self.started[name] = self._start(one)
                state: dict[str, Any] = {"running": {}}
                self.plane.report("Pod", f"{namespace}/{name}", _status(one, "Running", state, ready=True))
            elif one["status"].get("phase") == "Running" and name not in self.lost:
                self._look_after(namespace, one)

    def _look_after(self, namespace: str, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        container = self.started[name]
        if container.process is None or (code := container.process.poll()) is None:
            return
        if pod["spec"]["restartPolicy"] == "Always":
            container.process = None
            container.start()
            self.restarts += 1
            return
        self.times[name] = (self._begun[name], time.time())
        file = container.folder / RESULT
        ended = {"exitCode": code, "reason": "Completed" if not code else "Error"}
        ended |= {"message": file.read_text()[:4096]} if file.exists() else {}
        phase = "Failed" if code else "Succeeded"
        self.plane.report("Pod", f"{namespace}/{name}", _status(pod, phase, {"terminated": ended}, ready=False))

    def _start(self, pod: dict[str, Any]) -> Container:
        (container,) = pod["spec"]["containers"]
        image = IMAGE.fullmatch(container["image"])
        assert image, container["image"]
        environment = self._environment(pod, container)
        expanded = [_expanded(one, environment) for one in container.get("args", ())]
        read_only = {}
        if pod["spec"].get("automountServiceAccountToken"):
            read_only[self.account] = ACCOUNT
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                read_only[self._files(pod, volume)] = next(
                    one["mountPath"] for one in container["volumeMounts"] if one["name"] == volume["name"]
                )
        return self.runtime.start(
            self.images[image[1]], pod["metadata"]["name"], expanded, entrypoint=container.get("command"),
            environment=environment, read_only=read_only,
        )  # fmt: skip

    def _environment(self, pod: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in container.get("env", ()):
            source = each.get("valueFrom", {})
            if "secretKeyRef" in source:
                found[each["name"]] = self._secret(pod["metadata"]["namespace"], **source["secretKeyRef"])
            elif "fieldRef" in source:
                path = source["fieldRef"]["fieldPath"]
                labels = pod["metadata"]["labels"]
                found[each["name"]] = (
                    labels.get(path.split("'")[1], "") if "'" in path else pod["metadata"]["namespace"]
                )
            else:
                found[each["name"]] = _expanded(each.get("value", ""), found)
        own = {key: value for key, value in self.environment.items() if key in found}
        return {**found, **own, **({"RESULT": f"/{RESULT}"} if "RESULT" in found else {}), **self._of_pods()}

    def _of_pods(self) -> dict[str, str]:
        return {key: self.environment[key] for key in ("API_SERVER", "HOST", "PORT")}

    def _secret(self, namespace: str, name: str, key: str) -> str:
        found = self.plane.get("Secret", f"{namespace}/{name}")
        assert found, f"there is no Secret {namespace}/{name}"
        return base64.b64decode(found["data"][key]).decode()

    def _files(self, pod: dict[str, Any], volume: dict[str, Any]) -> Path:
        """A ConfigMap, as a folder."""
        name = volume["configMap"]["name"]
        folder = self.runtime.work / f"{pod['metadata']['name']}-{name}"
        folder.mkdir(exist_ok=True)
        found = self.plane.get("ConfigMap", f"{pod['metadata']['namespace']}/{name}")
        assert found
        for key, text in found["data"].items():
            (folder / key).write_text(text)
        return folder


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), text)


def _status(pod: dict[str, Any], phase: str, state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    told = str(ready)
    return {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": told}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {
                "name": pod["spec"]["containers"][0]["name"], "ready": ready, "restartCount": 0, "image": "i",
                "imageID": "i", "state": state,
            }
        ],
    }  # fmt: skip
