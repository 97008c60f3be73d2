"""A stack whose cluster has the platform, as its users reach it: `./lab`, `kubectl`, the gateway by address."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from urllib3.util import make_headers

from cli.workloads import NAMESPACES, Platform
from infra.manifests import kubectl
from infra.settings import Cluster
from tests.cli.harness import ROOT
from tests.e2e.harness import BUNDLE, PATIENCE_SECONDS, Cloud, Deployment

if TYPE_CHECKING:
    from pathlib import Path

    import urllib3

    from cli.workloads import Object

VERSION = Cluster().kubernetes_version
FOUND = "LAB_TEST_PLATFORM"
"""Environment variable: a stack of this repository that is up, for tests to use and to leave up."""


class Found(Deployment):
    """A stack of whoever runs the tests, with their own settings, backend and passphrase; nothing of it is changed."""

    def __init__(self, folder: Path, cloud: Cloud, stack: str) -> None:
        self.project = ROOT
        self.home = folder
        self.env = {**os.environ, "PULUMI_STACK": stack}
        self.engine = "embedded"
        self.cloud = cloud
        self.stack = stack
        self._login = None


class Refused(Exception):  # noqa: N818
    """A service has answered, but not with what it was asked for."""


class PlatformStack:
    """`lab` runs its verbs; `platform` has the addresses, the authority and the credentials of its outputs."""

    def __init__(self, lab: Deployment, folder: Path) -> None:
        self.lab = lab
        self._folder = folder

    @cached_property
    def platform(self) -> Platform:
        """Where the platform is, by the stack's outputs."""
        outputs: dict[str, Any] = self.lab.run("stack", "output", "--show-secrets", "--json").json
        result = outputs["platform"]
        return Platform(
            profile=result["profile"],
            domain=result["domain"],
            address=result["address"],
            port=int(result["port"]),
            authority=result["authority"],
            credentials=outputs["credentials"],
            kubeconfig=outputs["kubeconfig"],
        )

    def pool(self, service: str, n: int = 1, address: str = "") -> urllib3.HTTPSConnectionPool:
        """Up to `n` connections at once to a service through the gateway, its certificate checked.

        By the stack's address of the gateway, or by another one.
        """
        platform = replace(self.platform, address=address) if address else self.platform
        return platform.connect(service, n)

    @cached_property
    def kubeconfig(self) -> Path:
        """The stack's kubeconfig, in a file."""
        path = self._folder / "kubeconfig"
        path.touch(0o600)
        path.write_text(self.platform.kubeconfig)
        return path

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator, with `text` as its standard input; with `check` it must succeed."""
        program = kubectl(str(BUNDLE), VERSION)
        assert program, f"no kubectl {VERSION} in {BUNDLE}: build it with `./lab bundle build`"
        result = subprocess.run(
            [program, "--kubeconfig", str(self.kubeconfig), *arguments],
            input=text or "", capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert result.returncode == 0 or not check, (arguments, result.stdout, result.stderr)
        return result

    def tracking(self, connections: int = 1) -> Tracking:
        """The tracking server, as the administrator."""
        return Tracking(self, connections)

    def pods(self, namespace: str) -> list[Object]:
        """Pods that are to run for long: those of Jobs are left out."""
        return [
            pod
            for pod in self.platform.cluster.items("v1", "Pod", namespace)
            if not any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", ()))
        ]

    def unready(self) -> list[str]:
        """What of the platform lacks pods that are ready and stay, by the pods themselves: a status comes later."""
        found = []
        for namespace in NAMESPACES:
            ready = [pod["metadata"].get("labels", {}).items() for pod in self.pods(namespace) if _is_ready(pod)]
            for kind in ("Deployment", "StatefulSet"):
                for one in self.platform.cluster.items("apps/v1", kind, namespace):
                    wanted = one["spec"].get("replicas", 1)
                    selected = one["spec"]["selector"]["matchLabels"].items()
                    there = sum(selected <= labels for labels in ready)
                    if there < wanted:
                        found.append(f"{namespace}/{one['metadata']['name']}: {there} of {wanted}")
        return found


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", ())
    return "deletionTimestamp" not in pod["metadata"] and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )


def _of_service(stack: PlatformStack) -> dict[str, str]:
    """The login of the promotion service, which alone may change what stages serve."""
    asked = ("get", "secret", "tracking-users", "--namespace=platform", "--output=json")
    password = json.loads(stack.kubectl(*asked).stdout)["data"]["promotion-password"]
    return {"username": "promotion", "password": b64decode(password).decode()}


class Tracking:
    """MLflow's REST API through the gateway, as the administrator or the promotion service. Threads may share it."""

    def __init__(self, stack: PlatformStack, connections: int = 1, *, service: bool = False) -> None:
        login = _of_service(stack) if service else stack.platform.credentials["tracking"]
        self._pool = stack.pool("tracking", connections)
        basic = make_headers(basic_auth=f"{login['username']}:{login['password']}")
        self._headers = {**(self._pool.headers or {}), **basic}

    def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> bytes:
        """The bytes that it answers.

        Raises:
            Refused: it answers with an error.
            urllib3.exceptions.HTTPError: it does not answer.
        """
        headers = {**self._headers, "Content-Type": kind}
        answer = self._pool.request(method, path, body=body or None, headers=headers)
        if answer.status != 200:
            raise Refused(f"{method} {path}: {answer.status}: {answer.data[:500].decode(errors='replace')}")
        return answer.data

    def ask(self, path: str, body: Object | None = None, method: str = "") -> Any:
        """What its API 2.0 answers to a GET, or to a POST of a body."""
        text = b"" if body is None else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        return json.loads(self.send(method, f"/api/2.0/mlflow/{path}", text, "application/json"))

    def run(self, run: str) -> Object:
        """A run: its metrics, and its tags, by name."""
        data = self.ask(f"runs/get?run_id={run}")["run"]["data"]
        return {kind: {one["key"]: one["value"] for one in data.get(kind, ())} for kind in ("metrics", "tags")}

    def aliases(self, model: str) -> dict[str, str]:
        """Which version each stage is to serve."""
        found = self.ask(f"registered-models/get?name={model}")["registered_model"]
        return {one["alias"]: str(one["version"]) for one in found.get("aliases", ())}

    def versions(self, model: str) -> dict[str, Object]:
        """The entries of a model in the registry, by version; `tags` by name."""
        found: dict[str, Object] = {}
        page = ""
        while True:
            result = self.ask(f"model-versions/search?filter=name%3D%27{model}%27&max_results=200&page_token={page}")
            for one in result.get("model_versions", ()):
                tags = {tag["key"]: tag["value"] for tag in one.get("tags", ())}
                found[str(one["version"])] = {**one, "tags": tags}
            if not (page := result.get("next_page_token", "")):
                return found
