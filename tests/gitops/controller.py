"""The controller on a real API server: the bundle's images, run as the manifests have them, on loopback."""

from __future__ import annotations

import base64
import json
import secrets
import socket
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from psutil import Process

from bundle.store import Store
from cli.gitops import Application, applications
from infra import gitops
from infra.bundle import image_digests
from infra.settings import Cluster, Settings
from infra.settings import Platform as Wanted
from tests.gitops.remote import USER
from tests.images.containers import Container, Image, Runtime, image, program
from tests.k8s.conftest import kubectl, rendered
from tests.providers.kubernetes.control_plane import BUNDLE, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from infra.manifests import Manifest
    from tests.gitops.remote import Remote
    from tests.providers.kubernetes.control_plane import ControlPlane

PROFILE: Final = "ci"
DOMAIN = "lab.example.org"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
WORKLOADS = {"cache": "cache", "renderer": "repository", "repository": "repository", "controller": "controller"}
"""Workload of each container, in the order in which they start."""


class Controller:
    """What `lab up` makes for `apply: gitops`, and the containers that a kubelet would run."""

    def __init__(self, plane: ControlPlane, remote: Remote, folder: Path) -> None:
        self.plane, self.remote, self.folder = plane, remote, folder
        self.store = Store(BUNDLE)
        self.runtime = Runtime(program(self.store, "runc"), folder / "containers")
        wanted = Wanted(profile=PROFILE, apply="gitops")
        self.settings = Settings.model_construct(platform=wanted, cluster=Cluster(bundle=str(BUNDLE)))
        self.division = gitops.Division(rendered(f"clusters/{PROFILE}"), self.settings)
        self.made = gitops.adapted(rendered(gitops.FOLDER), self.settings, self.division.applied)
        self.ports = {name: free_port() for name in ("cache", "repository", "repository health", "controller health")}
        self.containers: dict[str, Container] = {}

    # What the stack applies.

    def install(self) -> None:
        """What the stack keeps, the controller's objects, its Secrets, and last the application."""
        kept = [*self.division.kept, *self.made]
        first = [one for one in kept if one["kind"] in {"Namespace", "CustomResourceDefinition"}]
        self.apply(first)
        kinds = [one["metadata"]["name"] for one in first if one["kind"] == "CustomResourceDefinition"]
        for name in kinds:
            done = kubectl(self.plane, "wait", "--for=condition=established", "--timeout=60s", f"crd/{name}")
            assert done.returncode == 0, done.stderr
        self.apply(one for one in kept if one not in first)
        self.apply(self._secrets())
        self.apply(self.objects())

    def objects(self) -> list[Manifest]:
        """Project and application, for the repository on loopback."""
        kustomization = json.dumps(self.division.kustomization(image_digests(str(BUNDLE)), None))
        made: Any = gitops.objects(self.settings, DOMAIN, kustomization, self.division.applied)  # type: ignore[arg-type]
        return list(json.loads(json.dumps(made).replace(gitops.FORGE_REPOSITORY, self.remote.url)))

    def apply(self, manifests: Iterable[Manifest]) -> None:
        """Apply objects as the stack does."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        done = kubectl(self.plane, "apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
        assert done.returncode == 0, done.stderr

    def _secrets(self) -> list[Manifest]:
        login = {"url": self.remote.url, "username": USER, "password": self.remote.password}
        contents: dict[str, tuple[dict[str, str], str]] = {
            "cache": ({"password": secrets.token_hex(16)}, ""),
            "repository": ({"type": "git", **login}, "repository"),
            "cluster": (gitops.cluster(self.division.applied), "cluster"),
        }
        return [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": name,
                    "namespace": gitops.GITOPS,
                    "labels": {gitops.SECRET_TYPE: type_} if type_ else {},
                },
                "data": {key: base64.b64encode(value.encode()).decode() for key, value in content.items()},
            }
            for name, (content, type_) in contents.items()
        ]

    # What a kubelet runs.

    @cached_property
    def password(self) -> str:
        """The cache's, as its Secret has it."""
        secret = self.plane.get("Secret", f"{gitops.GITOPS}/cache")
        assert secret
        return base64.b64decode(secret["data"]["password"]).decode()

    def start(self) -> None:
        """Run the containers, one after the other."""
        for name in WORKLOADS:
            self.run(name)
            self.containers[name].until(lambda name=name: self._answers(name))  # type: ignore[misc]

    def start_again(self) -> None:
        """Run those that have ended."""
        for container in self.containers.values():
            if container.process is None:
                container.start()

    @property
    def sockets(self) -> Path:
        """Where renderer and repository meet."""
        return self.folder / "sockets"

    def _answers(self, name: str) -> bool:
        if name == "renderer":
            return (self.sockets / "platform.sock").exists()
        port = self.ports["controller health" if name == "controller" else name]
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    def stop(self) -> None:
        """End them all; the renderer does not end when asked to."""
        for container in self.containers.values():
            container.kill()

    def run(self, name: str) -> None:
        """Run a container with the command of its manifest, and what says where things are here."""
        described = self._described(name)
        # The one that comes from a Secret is the cache's password.
        environment = {one["name"]: one.get("value", self.password) for one in described.get("env", ())}
        api = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.plane.port)}
        cache, served = (f"127.0.0.1:{self.ports[port]}" for port in ("cache", "repository"))
        more = {
            "cache": ["--port", str(self.ports["cache"]), "--bind", "127.0.0.1"],
            "renderer": [],
            "repository": [f"--redis={cache}", f"--port={self.ports['repository']}", "--address=127.0.0.1",
                           f"--metrics-port={self.ports['repository health']}"],
            "controller": [f"--redis={cache}", f"--repo-server={served}",
                           f"--metrics-port={self.ports['controller health']}"],
        }[name]  # fmt: skip
        sockets = {self.sockets: "/home/argocd/cmp-server/plugins"}
        self.containers[name] = self.runtime.start(
            self._image(described["image"]),
            name,
            [*described.get("args", ()), *more],
            entrypoint=described.get("command"),
            environment={**environment, **(api if name == "controller" else {})},
            mounts=sockets if WORKLOADS[name] == "repository" else {},
            read_only=self._mounted(name),
        )

    def _described(self, name: str) -> dict[str, Any]:
        """A container, as its manifest has it."""
        (workload,) = (
            one for one in self.made
            if one["kind"] in {"Deployment", "StatefulSet"} and one["metadata"]["name"] == WORKLOADS[name]
        )  # fmt: skip
        (found,) = (one for one in workload["spec"]["template"]["spec"]["containers"] if one["name"] == name)
        return dict(found)

    def _image(self, reference: str) -> Image:
        name = reference.partition("@")[0].removeprefix("localhost/")
        if name not in self._images:
            self._images[name] = image(self.store, name, self.folder / "images" / name)
        return self._images[name]

    @cached_property
    def _images(self) -> dict[str, Image]:
        return {}

    def _mounted(self, name: str) -> dict[Path, str]:
        if name == "cache":
            return {self._files("cache", {"redis.conf": f"requirepass {self.password}\n"}): "/run/secrets/cache"}
        if name == "renderer":
            (files,) = (one["data"] for one in self.made if one["metadata"]["name"].startswith("renderer-"))
            return {self._files("renderer", files): "/home/argocd/cmp-server/config"}
        if name == "controller":
            token = kubectl(self.plane, "create", "token", "controller", f"--namespace={gitops.GITOPS}").stdout
            authority = (self.plane.folder / "certificates/apiserver.crt").read_text()
            account = {"token": token, "namespace": gitops.GITOPS, "ca.crt": authority}
            return {self._files("account", account): ACCOUNT}
        return {}

    def _files(self, name: str, contents: dict[str, str]) -> Path:
        folder = self.folder / "files" / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, text in contents.items():
            (folder / key).write_text(text)
        return folder

    # What is seen of it.

    def application(self) -> Application:
        """The application, as the controller tells of it."""
        (found,) = applications(self.plane.cluster)
        return found

    def memory(self) -> dict[str, float]:
        """Proportional memory of each container in MiB: what processes share counts once."""
        return {name: _proportional(one) for name, one in self.containers.items()}


def _proportional(container: Container) -> float:
    """Of all processes of a container, by what its first one has started."""
    assert container.process
    processes = Process(container.process.pid).children(recursive=True)
    return sum(one.memory_full_info().pss for one in processes) / 2**20
