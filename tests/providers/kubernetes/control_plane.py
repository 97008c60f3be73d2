"""A real API server on loopback, with etcd and the controllers, from the bundle's programs. No node: no pod ever runs.

What a kubelet would report of a pod the tests write themselves, into its status, as a kubelet does.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from providers.framework import ProviderError
from providers.kubernetes.client import Cluster, ClusterError
from providers.kubernetes.objects import Identity
from tests.engine.harness import wait_for

if TYPE_CHECKING:
    from providers.kubernetes.objects import Object

BUNDLE = Path(os.environ.get("LAB_TEST_BUNDLE", "~/.cache/ml-cluster/bundle")).expanduser()
NODE = "node"
"""A node that pods can name; nothing runs on it."""
STATUS = {"content_type": "application/merge-patch+json"}


def program(family: str, name: str) -> Path:
    """A program of the bundle, of its newest version."""
    found = sorted(BUNDLE.glob(f"bin/{family}/*/{name}"))
    assert found, f"no {name} in {BUNDLE}: build it with `./lab bundle build`"
    return found[-1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class ControlPlane:
    """Use as a context manager. ``kubeconfig`` is an administrator's; its context ``student`` has no rights."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, family: str, name: str, **flags: object) -> subprocess.Popen[bytes]:
        """Start a program of the bundle; it does not outlive the tests."""
        options = [f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items()]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program(family, name), *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def _start(self) -> None:
        etcd, peer, self.port = free_port(), free_port(), free_port()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        accounts = self.folder / "accounts.key"
        accounts.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        tokens = {"admin": secrets.token_hex(16), "student": secrets.token_hex(16)}
        users = f'{tokens["admin"]},admin,admin,"system:masters"\n{tokens["student"]},student,student\n'
        (self.folder / "tokens.csv").write_text(users)
        self.run(
            "etcd",
            "etcd",
            data_dir=self.folder / "etcd",
            listen_client_urls=f"http://127.0.0.1:{etcd}",
            advertise_client_urls=f"http://127.0.0.1:{etcd}",
            listen_peer_urls=f"http://127.0.0.1:{peer}",
            initial_advertise_peer_urls=f"http://127.0.0.1:{peer}",
            initial_cluster=f"default=http://127.0.0.1:{peer}",
            unsafe_no_fsync="true",
        )
        self._api_flags = {
            "etcd_servers": f"http://127.0.0.1:{etcd}",
            "secure_port": self.port,
            "bind_address": "127.0.0.1",
            "endpoint_reconciler_type": "none",
            "cert_dir": self.folder / "certificates",
            "token_auth_file": self.folder / "tokens.csv",
            "authorization_mode": "RBAC",
            "service_account_key_file": accounts,
            "service_account_signing_key_file": accounts,
            "service_account_issuer": "https://kubernetes.default.svc",
            "service_cluster_ip_range": "10.254.0.0/24",
        }
        self.start_api()
        authority = self.folder / "certificates/apiserver.crt"
        wait_for(authority.exists, "the API server's certificate")
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "admin",
            "contexts": [{"name": user, "context": {"cluster": "test", "user": user}} for user in tokens],
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": f"https://127.0.0.1:{self.port}",
                        "certificate-authority": str(authority),
                    },
                }
            ],
            "users": [{"name": user, "user": {"token": token}} for user, token in tokens.items()],
        }
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(content))
        self.kubeconfig.chmod(0o600)
        self.cluster = Cluster({"kubeconfig": str(self.kubeconfig)})
        wait_for(self.is_healthy, "the API server")
        self.run(
            "kubernetes",
            "kube-controller-manager",
            kubeconfig=self.kubeconfig,
            leader_elect="false",
            service_account_private_key_file=accounts,
            root_ca_file=authority,
            secure_port=0,
        )
        default = Identity("v1", "ServiceAccount", "default", "default")
        wait_for(lambda: self.cluster.find(default), "the controllers")
        self.post({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})

    def start_api(self) -> None:
        self.api = self.run("kubernetes", "kube-apiserver", **self._api_flags)

    def kill_api(self) -> None:
        self.api.kill()
        self.api.wait()

    def is_healthy(self) -> bool:
        assert self.api.poll() is None, (self.folder / "kube-apiserver.log").read_text()[-2000:]
        try:
            self.cluster.request("health", "GET", "/readyz")
        except ProviderError:
            return False
        return True

    # What the tests do in the place of a kubelet, of a cloud, and of other people.

    def get(self, kind: str, id_: str, api_version: str = "v1") -> Object | None:
        namespace, _, name = id_.rpartition("/")
        return self.cluster.find(Identity(api_version, kind, namespace, name))

    def report(self, kind: str, id_: str, status: Object, api_version: str = "v1") -> None:
        """Write a status."""
        namespace, _, name = id_.rpartition("/")
        path = f"{self.cluster.path(Identity(api_version, kind, namespace, name))}/status"
        self.cluster.request("reporting", "PATCH", path, {"status": status}, **STATUS)

    def edit(self, kind: str, id_: str, change: Object, api_version: str = "v1", manager: str = "someone") -> None:
        """Change an object as someone else."""
        namespace, _, name = id_.rpartition("/")
        path = self.cluster.path(Identity(api_version, kind, namespace, name))
        self.cluster.request("editing", "PATCH", path, change, fieldManager=manager, **STATUS)

    def post(self, manifest: Object, manager: str = "someone") -> None:
        """Make an object as someone else, without server-side apply."""
        metadata = manifest["metadata"]
        target = Identity(manifest["apiVersion"], manifest["kind"], metadata.get("namespace", ""), "")
        self.cluster.request("making", "POST", self.cluster.path(target), manifest, fieldManager=manager)

    def observed(self, kind: str, id_: str, api_version: str = "v1") -> bool:
        """Whether its controller has seen the last change."""
        live = self.get(kind, id_, api_version) or {}
        return bool(live["status"].get("observedGeneration") == live["metadata"]["generation"])

    def pods(self, namespace: str) -> list[Object]:
        return self.cluster.items("v1", "Pod", namespace)

    def run_pods(self, namespace: str) -> None:
        """What a kubelet reports of pods that run well; some may be gone by then."""
        for item in self.pods(namespace):
            try:
                self.report("Pod", f"{namespace}/{item['metadata']['name']}", running(item))
            except ClusterError as error:
                if error.code != 404:
                    raise

    def warn(self, item: Object, reason: str, message: str) -> None:
        """An event, as a kubelet writes them."""
        metadata = item["metadata"]
        about = {"kind": item["kind"], **{key: metadata[key] for key in ("namespace", "name", "uid")}}
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "test-", "namespace": metadata["namespace"]},
            "involvedObject": about,
            "type": "Warning",
            "reason": reason,
            "message": message,
            "count": 3,
        }
        self.post(event)


def running(item: Object, **state: Any) -> Object:
    """The status of a pod that is ready."""
    return {
        "phase": "Running",
        "podIP": "10.9.9.9",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {
                "name": item["spec"]["containers"][0]["name"],
                "ready": True,
                "restartCount": 0,
                "image": "i",
                "imageID": "i",
                "state": {"running": {}},
                **state,
            }
        ],
    }
