"""A node without a kubelet: an API server and etcd of the bundle, and pods that are network namespaces on routed links.

All of it lives in namespaces of its own; nothing of this machine's network is touched.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from bundle.manifest import load
from tests.bundle.conftest import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

TOKEN = uuid.uuid4().hex
GATEWAY = "169.254.1.1"
PORTS = (80, 81, 8080)
PATIENCE_SECONDS = 60
SERVER = f"""
import selectors, socket
waiting = selectors.DefaultSelector()
for port in {PORTS}:
    waiting.register(socket.create_server(("", port)), selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        key.fileobj.accept()[0].close()
"""
CLIENT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.5)
except OSError:
    sys.exit(1)
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass
class Node:
    """`bundle` has Kubernetes, etcd and network-policy."""

    bundle: Path
    folder: Path
    name: str = "this"
    tag: str = field(default_factory=lambda: f"np{uuid.uuid4().hex[:6]}")
    addresses: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._sh("ip", "netns", "add", self.tag)
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.start("etcd", self.program("etcd", "etcd"), f"--data-dir={self.folder}/etcd")
        key = self.folder / "sa.key"
        self._sh("openssl", "genrsa", "-out", str(key), "2048")
        (self.folder / "tokens").write_text(f"{TOKEN},admin,1,system:masters\n")
        self.start(
            "kube-apiserver", self.program("kubernetes", "kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379", f"--cert-dir={self.folder}",
            "--secure-port=6443", "--bind-address=127.0.0.1", "--advertise-address=192.0.2.1",
            f"--token-auth-file={self.folder}/tokens", "--service-account-issuer=https://test",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount", "--service-cluster-ip-range=10.96.0.0/16",
        )  # fmt: skip
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                    "users": [{"name": "it", "user": {"token": TOKEN}}],
                    "clusters": [
                        {
                            "name": "it",
                            "cluster": {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": True},
                        }
                    ],
                }
            )
        )
        wait_until(lambda: self._kubectl("get", "--raw=/readyz").returncode == 0, "the API server is not ready")
        return self

    def __exit__(self, *exception: object) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        for name in [*self.addresses, ""]:
            self._sh("ip", "netns", "delete", f"{self.tag}{name}")

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def program(self, family: str, name: str) -> Path:
        return self.bundle / load().program_path(family, name)

    def start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.tag}", *command], stdout=log, stderr=log
            )  # fmt: skip
        self.processes.append(process)
        return process

    def enforce(self) -> subprocess.Popen[bytes]:
        """Start what is tested, from its image."""
        root = self.folder / "image"
        if not root.exists():
            unpack(self.bundle / load().image_path("network-policy", "network-policy"), root)
            shutil.copy(self.kubeconfig, root)
        return self.start(
            "network-policy", "chroot", root, "/usr/local/bin/network-policy", f"--node={self.name}",
            "--kubeconfig=/kubeconfig",
        )  # fmt: skip

    def pod(
        self, namespace: str, name: str, labels: Mapping[str, str], *, node: str | None = None, web: int = 80
    ) -> None:
        """Make a pod that listens on PORTS; it calls port `web` by the name web."""
        address = f"10.244.1.{len(self.addresses) + 2}"
        inside, outside = f"{self.tag}{name}", f"{self.tag}{len(self.addresses)}"
        self._sh("ip", "netns", "add", inside)
        self.inside("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside)
        self.inside("ip", "address", "add", f"{GATEWAY}/32", "dev", outside)
        self.inside("ip", "link", "set", outside, "up")
        self.inside("ip", "route", "add", f"{address}/32", "dev", outside)
        for command in (
            "ip link set lo up",
            f"ip address add {address}/32 dev eth0",
            "ip link set eth0 up",
            f"ip route add {GATEWAY} dev eth0 scope link",
            f"ip route add default via {GATEWAY}",
        ):
            self._sh("nsenter", f"--net=/run/netns/{inside}", *command.split())
        self.addresses[name] = address
        self.processes.append(
            subprocess.Popen(["nsenter", f"--net=/run/netns/{inside}", sys.executable, "-S", "-c", SERVER])
        )
        container = {"name": "it", "image": "it", "ports": [{"name": "web", "containerPort": web}]}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"namespace": namespace, "name": name, "labels": labels},
                "spec": {
                    "nodeName": node or self.name,
                    "containers": [container],
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                },
            }
        )
        status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        self.kubectl("patch", "pod", name, "-n", namespace, "--subresource=status", "-p", json.dumps(status))

    def apply(self, *documents: object) -> None:
        text = "\n---\n".join(one if isinstance(one, str) else json.dumps(one) for one in documents)
        self.kubectl("apply", "-f", "-", output=text)

    def policy(self, namespace: str, spec: str) -> None:
        """Have one policy in a namespace; `spec` is YAML."""
        head = (
            f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: it, namespace: {namespace}}}\n"
        )
        self.apply(f"{head}spec:\n{textwrap.indent(textwrap.dedent(spec), '  ')}")

    def kubectl(self, *arguments: str, output: str = "") -> str:
        done = self._kubectl(*arguments, output=output)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def reaches(self, source: str, target: str, port: int) -> bool:
        """Whether pod `source` can open a connection to pod `target`."""
        command = ["nsenter", f"--net=/run/netns/{self.tag}{source}", sys.executable, "-S", "-c", CLIENT]
        return subprocess.run([*command, self.addresses[target], str(port)], check=False).returncode == 0

    def inside(self, *command: str) -> str:
        return self._sh("nsenter", f"--net=/run/netns/{self.tag}", *command)

    def _kubectl(self, *arguments: str, output: str = "") -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--net=/run/netns/{self.tag}", str(self.program("kubernetes", "kubectl"))]
        return subprocess.run(
            [*command, f"--kubeconfig={self.kubeconfig}", *arguments],
            check=False, capture_output=True, text=True, input=output,
        )  # fmt: skip

    def _sh(self, *command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
