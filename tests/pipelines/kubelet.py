"""A kubelet of Jobs and of the service: each pod is a container of the bundle's images, on this machine."""

from __future__ import annotations

import base64
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from providers.framework import ProviderError
from providers.kubernetes.client import ClusterError
from providers.kubernetes.objects import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.images.containers import Container, Runtime
    from tests.images.services import Images
    from tests.providers.kubernetes.control_plane import ControlPlane

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
RESULT = "tmp/result.json"
IMAGE = re.compile(r"localhost/([a-z0-9-]+)@sha256:[0-9a-f]{64}")
SECONDS_BETWEEN = 0.2
NAMESPACES = ("pipelines", "training")


@dataclass
class Kubelet:
    """Runs the pods of Jobs and Deployments while it is entered; what they print the API server has not."""

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
    _begun: dict[str, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def lose(self, name: str) -> None:
        """A pod is gone with its node, and the cluster has seen that."""
        self.lost.add(name)
        self.started[name].kill()
        target = Identity("v1", "Pod", "pipelines", name)
        self.plane.cluster.request("a lost node", "DELETE", self.plane.cluster.path(target), {"gracePeriodSeconds": 0})

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            try:
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
            if name not in self.started:
                self._begun[name] = time.time()
                self.started[name] = self._start(one)
                state: dict[str, Any] = {"running": {}}
                self.plane.report("Pod", f"{namespace}/{name}", _status(one, "Running", state, ready=True))
            elif one["status"].get("phase") == "Running" and name not in self.lost:
                self._look_after(namespace, one)
        for name, container in self.started.items():
            if container.process and name.startswith(namespace_prefix(namespace)) and name not in found:
                container.stop()

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


def namespace_prefix(namespace: str) -> tuple[str, ...]:
    """How the names of a namespace's pods begin."""
    return ("run-", "pipelines-") if namespace == "pipelines" else ("digits-",)


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
