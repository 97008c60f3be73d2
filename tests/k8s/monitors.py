"""The programs of k8s/platform/monitoring on loopback, with the manifests' own options."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from infra.manifests import TREE
from tests.bundle.conftest import unpack
from tests.engine.harness import wait_for
from tests.providers.kubernetes.control_plane import BUNDLE, free_port, program

if TYPE_CHECKING:
    from pathlib import Path

MONITORING = TREE / "platform" / "monitoring"
RULES = MONITORING / "alerts" / "rules"
DASHBOARDS = MONITORING / "dashboards"
LOGGING = TREE / "platform" / "logging"
LOG_RULES = LOGGING / "rules"


def options(path: Path, container: str) -> dict[str, str]:
    """Arguments of a container in a manifest, by flag; each flag's value, or nothing where it has none."""
    for one in yaml.safe_load_all(path.read_text()):
        for found in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            if found["name"] == container:
                pairs = (arg.lstrip("-").partition("=") for arg in found["args"])
                return {flag: value if equals else "true" for flag, equals, value in pairs}
    raise AssertionError(f"{path} has no container {container}")


@dataclass
class Monitors:
    """Use as a context manager: what was started ends with it."""

    folder: Path
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = field(default_factory=dict)

    def __enter__(self) -> Monitors:
        return self

    def __exit__(self, *_: object) -> None:
        # The last first: each sends to those before it until it has ended.
        for process, _port in reversed(self.running.values()):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, path: list[str | Path], port: int, flags: dict[str, str], dashes: str = "-") -> None:
        """Start a program, and wait until it answers."""
        command = [*path, *(f"{dashes}{flag}={value}" for flag, value in flags.items())]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, command)], stdout=log, stderr=subprocess.STDOUT
            )
        self.running[name] = process, port

        def answers() -> bool:
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
            try:
                return bool(self.get(name, "/-/ready" if name == "alerts" else "/health", text=True))
            except OSError:
                return False

        wait_for(answers, name)

    def metrics(self, scrape: str = "scrape_configs: []", **changes: str) -> None:
        """Start the store."""
        (self.folder / "scrape.yaml").write_text(scrape)
        port = free_port()
        own = {
            "httpListenAddr": f"127.0.0.1:{port}", "storageDataPath": str(self.folder / "data"),
            "promscrape.config": str(self.folder / "scrape.yaml"), "vmui.customDashboardsPath": str(DASHBOARDS),
        }  # fmt: skip
        given = options(MONITORING / "metrics" / "store.yaml", "victoria-metrics")
        self.start("metrics", [program("metrics", "victoria-metrics")], port, {**given, **own, **changes})

    def alerts(self, configuration: dict[str, Any]) -> None:
        """Start Alertmanager."""
        (archive,) = BUNDLE.glob("images/alertmanager_*.tar")
        if not (root := self.folder / "alertmanager").exists():
            unpack(archive, root)
        (root / "tmp/alertmanager.yaml").write_text(json.dumps(configuration))
        port = free_port()
        own = {
            "web.listen-address": f"127.0.0.1:{port}", "storage.path": "/tmp/alerts",  # noqa: S108 - in its own root
            "config.file": "/tmp/alertmanager.yaml",  # noqa: S108 - in its own root
        }  # fmt: skip
        given = options(MONITORING / "alerts" / "alerts.yaml", "alertmanager")
        inside: list[str | Path] = ["unshare", "--map-root-user", "chroot", root, "/usr/bin/prometheus-alertmanager"]
        self.start("alerts", inside, port, {**given, **own}, dashes="--")

    def rules(self) -> None:
        """Start what looks at the rules."""
        store, alerts, port = self.url("metrics"), self.url("alerts"), free_port()
        own = {
            "httpListenAddr": f"127.0.0.1:{port}", "rule": f"{RULES}/*.yaml", "datasource.url": store,
            "remoteWrite.url": store, "remoteRead.url": store, "notifier.url": alerts,
        }  # fmt: skip
        given = options(MONITORING / "alerts" / "rules.yaml", "vmalert")
        self.start("rules", [program("metrics", "vmalert")], port, {**given, **own})

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.running[name][1]}"

    def get(self, name: str, path: str, *, text: bool = False, **query: str) -> Any:
        """What a program answers.

        Raises:
            urllib.error.HTTPError: it refuses.
        """
        asked = f"{self.url(name)}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310 - loopback
            return answer.read().decode() if text else json.load(answer)

    def post(self, name: str, path: str, body: object) -> Any:
        """What a program answers to an object."""
        request = urllib.request.Request(f"{self.url(name)}{path}", json.dumps(body).encode())  # noqa: S310
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
            return json.load(answer)

    def memory(self) -> dict[str, float]:
        """Resident memory of each program, in MiB."""
        return {
            name: psutil.Process(process.pid).memory_info().rss / 2**20 for name, (process, _) in self.running.items()
        }
