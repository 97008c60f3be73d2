"""`python -m state_exporter`: asks its sources again and again, and tells metrics stores what they said last.

Settings are environment variables: k8s/platform/monitoring/metrics has them. A source without its address is left out.
"""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from state_exporter.database import Database
from state_exporter.delivery import Delivery
from state_exporter.exposition import Sample, render
from state_exporter.sources import Api, Gateway, Registry, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Source = Callable[[], Iterable[Sample]]

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SECONDS_BETWEEN = 15.0


class State:
    """What each source said last; nothing of one that does not answer, so that nothing old is taken for new."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._sources = sources_of(settings, self)
        self._said: dict[str, list[Sample]] = {}
        self._faults: dict[str, str] = {}
        self.asked = threading.Event()

    def ask(self) -> None:
        """Ask every source once; a fault is printed where it is a new one."""
        for name, source in self._sources.items():
            began, fault = time.monotonic(), ""
            try:
                samples = list(source())
            except SourceError as error:
                samples, fault = [], str(error)
            about = {"source": name}
            samples.append(Sample("ml_cluster_state_up", float(not fault), about))
            samples.append(Sample("ml_cluster_state_seconds", round(time.monotonic() - began, 4), about))
            if fault != self._faults.get(name, ""):
                print(f"{name}: {fault or 'answers again'}", file=sys.stderr, flush=True)
            self._faults[name], self._said[name] = fault, samples
        self.asked.set()

    def models(self) -> set[str]:
        """Names of the models that the cluster has stages of."""
        said = self._said.get("kubernetes", [])
        return {sample.labels["model"] for sample in said if sample.name == "ml_cluster_stage_info"}

    def text(self) -> str:
        """All of it, for a metrics store."""
        return render(sample for samples in list(self._said.values()) for sample in samples)


def sources_of(settings: Mapping[str, str], state: State) -> dict[str, Source]:
    """The sources that the settings name. `state` tells which models and versions there are."""
    found: dict[str, Source] = {}
    if address := settings.get("API_SERVER", "https://kubernetes.default.svc"):
        account = Path(settings.get("ACCOUNT_FOLDER", ACCOUNT))
        namespace = settings.get("NAMESPACE", "monitoring")
        found["kubernetes"] = Api(address, account / "token", account / "ca.crt", namespace).samples
    if address := settings.get("REGISTRY", ""):
        registry = Registry(address, settings["REGISTRY_USERNAME"], settings["REGISTRY_PASSWORD"])
        found["registry"] = lambda: registry.samples(state.models())
    if address := settings.get("GATEWAY", ""):
        host, _, port = address.rpartition(":")
        found["gateway"] = Gateway(host, int(port), settings["DOMAIN"]).samples
    if address := settings.get("DATABASE", ""):
        host, _, port = address.rpartition(":")
        name, login = settings["DATABASE_NAME"], (settings["DATABASE_USERNAME"], settings["DATABASE_PASSWORD"])
        database = Database(host, int(port), name, *login)
        found["database"] = database.samples
        found["delivery"] = Delivery(database).samples
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    """`/metrics`, and `/healthz`, which answers once every source has been asked."""

    state: State

    def do_GET(self) -> None:
        """Answer."""
        known = self.path in {"/metrics", "/healthz"}
        status = 404 if not known else 200 if self.state.asked.is_set() else 503
        body = self.state.text().encode() if self.path == "/metrics" and status == 200 else b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A scrape is no news."""


def main() -> None:
    """Entry point."""
    state = State(os.environ)
    handler = type("Bound", (Handler,), {"state": state})
    server = http.server.ThreadingHTTPServer((os.environ.get("HOST", ""), int(os.environ.get("PORT", "8080"))), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    seconds = float(os.environ.get("SECONDS_BETWEEN", SECONDS_BETWEEN))
    while True:
        state.ask()
        if ended.wait(seconds):
            break
    server.shutdown()


if __name__ == "__main__":
    main()
