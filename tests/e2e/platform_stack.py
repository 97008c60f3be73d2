"""A stack whose cluster has the platform, as its users reach it: `./lab`, `kubectl`, the gateway by address."""

from __future__ import annotations

import os
import subprocess
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cli.workloads import Platform
from infra.manifests import kubectl
from infra.settings import Cluster
from tests.cli.harness import ROOT
from tests.e2e.harness import BUNDLE, PATIENCE_SECONDS, Cloud, Deployment

if TYPE_CHECKING:
    from pathlib import Path

    import urllib3

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


class PlatformStack:
    """`lab` runs its verbs; `platform` has the addresses, the authority and the credentials of its outputs."""

    def __init__(self, lab: Deployment, folder: Path) -> None:
        self.lab = lab
        self._folder = folder

    @cached_property
    def platform(self) -> Platform:
        """Where the platform is, by the stack's outputs."""
        outputs: dict[str, Any] = self.lab.run("stack", "output", "--show-secrets", "--json").json
        told = outputs["platform"]
        return Platform(
            profile=told["profile"],
            domain=told["domain"],
            address=told["address"],
            port=int(told["port"]),
            authority=told["authority"],
            credentials=outputs["credentials"],
            kubeconfig=outputs["kubeconfig"],
        )

    def pool(self, service: str, n: int = 1) -> urllib3.HTTPSConnectionPool:
        """Up to `n` connections at once to a service through the gateway, by address, its certificate checked."""
        return self.platform.connect(service, n)

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
        told = subprocess.run(
            [program, "--kubeconfig", str(self.kubeconfig), *arguments],
            input=text or "", capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert told.returncode == 0 or not check, (arguments, told.stdout, told.stderr)
        return told
