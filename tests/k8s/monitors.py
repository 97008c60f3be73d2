"""The programs of k8s/platform/monitoring on loopback, with the manifests' own options."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
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
CLOUD = TREE / "platform" / "cloud"
DASHBOARDS = sorted(path for folder in (MONITORING, CLOUD) for path in folder.glob("dashboards/*.json"))
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


def arguments(path: Path, container: str, own: dict[str, str]) -> list[str | Path]:
    """Arguments of a container in a manifest, flags that are there twice too, with others' values for some of them."""
    for one in yaml.safe_load_all(path.read_text()):
        for found in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            if found["name"] == container:
                kept = [arg for arg in found["args"] if arg.lstrip("-").partition("=")[0] not in own]
                return [*kept, *(f"-{flag}={value}" for flag, value in own.items())]
    raise AssertionError(f"{path} has no container {container}")


@dataclass
class Monitors:
    """Use as a context manager: what was started ends with it."""

    folder: Path
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    """Of programs that were started, whether they run or not."""
    _starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

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
        self.launch(name, [*path, *(f"{dashes}{flag}={value}" for flag, value in flags.items())], port)

    def launch(
        self, name: str, command: list[str | Path], port: int, *, probe: str = "/health", host: str = "127.0.0.1",
        environment: dict[str, str] | None = None, waits: bool = True,
    ) -> None:  # fmt: skip
        """The same, with a program's whole command. `probe` is the path that it answers."""
        self.hosts[name], self.ports[name] = host, port

        def started() -> subprocess.Popen[bytes]:
            with (self.folder / f"{name}.log").open("ab") as log:
                return subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *map(str, command)], stdout=log, stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                )  # fmt: skip

        # It dies with the thread that starts it: one that is there until the end, whoever asks for it.
        self.running[name] = self._starter.submit(started).result(), port

        if waits:
            self.wait(name, probe)

    def wait(self, name: str, probe: str = "/health") -> None:
        """Wait until a program answers."""

        def answers() -> bool:
            if name in self.running:
                process, _ = self.running[name]
                assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
            try:
                return bool(self.get(name, "/-/ready" if name == "alerts" else probe, text=True))
            except OSError:
                return False

        wait_for(answers, name)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """End a program by a signal; its command, to start it again with."""
        process, _ = self.running.pop(name)
        process.send_signal(number)
        process.wait(timeout=60)
        return [str(word) for word in process.args]  # type: ignore[union-attr]

    def metrics(self, scrape: str = "scrape_configs: []", **changes: str) -> None:
        """Start the store."""
        (self.folder / "scrape.yaml").write_text(scrape)
        boards = self.folder / "dashboards"
        boards.mkdir(exist_ok=True)
        for path in DASHBOARDS:
            shutil.copy(path, boards)
        port = free_port()
        own = {
            "httpListenAddr": f"127.0.0.1:{port}", "storageDataPath": str(self.folder / "data"),
            "promscrape.config": str(self.folder / "scrape.yaml"), "vmui.customDashboardsPath": str(boards),
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

    def rules(self, port: int = 0) -> None:
        """Start what looks at the rules."""
        store, alerts, port = self.url("metrics"), self.url("alerts"), port or free_port()
        own = {
            "httpListenAddr": f"127.0.0.1:{port}", "rule": f"{RULES}/*.yaml", "datasource.url": store,
            "remoteWrite.url": store, "remoteRead.url": store, "notifier.url": alerts,
        }  # fmt: skip
        given = options(MONITORING / "alerts" / "rules.yaml", "vmalert")
        self.start("rules", [program("metrics", "vmalert")], port, {**given, **own})

    def log_rules(self) -> None:
        """Start what looks at the rules over logs."""
        store, port = self.url("metrics"), free_port()
        own = {
            "httpListenAddr": f"127.0.0.1:{port}", "rule": f"{LOG_RULES}/*.yaml", "datasource.url": self.url("logs"),
            "remoteWrite.url": store, "remoteRead.url": store, "notifier.url": self.url("alerts"),
        }  # fmt: skip
        given = options(LOGGING / "rules.yaml", "vmalert")
        self.start("log-rules", [program("metrics", "vmalert")], port, {**given, **own})

    def url(self, name: str) -> str:
        """Where a program answers."""
        return f"http://{self.hosts[name]}:{self.ports[name]}"

    def get(self, name: str, path: str, *, text: bool = False, **query: str) -> Any:
        """What a program answers.

        Raises:
            urllib.error.HTTPError: it refuses.
        """
        asked = f"{self.url(name)}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
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
