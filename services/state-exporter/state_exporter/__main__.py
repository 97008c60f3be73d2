"""`python -m state_exporter`: polls its sources and exposes their latest samples as metrics.

Settings are environment variables, set in k8s/platform/monitoring/metrics. A source without an address is left out.
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
    """The latest samples of each source; none of one that does not answer, so that no sample is stale."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._sources = sources_of(settings, self)
        self._samples: dict[str, list[Sample]] = {}
        self._errors: dict[str, str] = {}
        self.polled = threading.Event()

    def poll(self) -> None:
        """Poll every source once; prints an error if it is a new one."""
        for name, source in self._sources.items():
            started, failure = time.monotonic(), ""
            try:
                samples = list(source())
            except SourceError as error:
                samples, failure = [], str(error)
            about = {"source": name}
            samples.append(Sample("ml_cluster_state_up", float(not failure), about))
            samples.append(Sample("ml_cluster_state_seconds", round(time.monotonic() - started, 4), about))
            if failure != self._errors.get(name, ""):
                print(f"{name}: {failure or 'answers again'}", file=sys.stderr, flush=True)
            self._errors[name], self._samples[name] = failure, samples
        self.polled.set()

    def models(self) -> set[str]:
        """Names of the models that have stages on the cluster."""
        samples = self._samples.get("kubernetes", [])
        return {sample.labels["model"] for sample in samples if sample.name == "ml_cluster_stage_info"}

    def text(self) -> str:
        """All samples in Prometheus' text format."""
        return render(sample for samples in list(self._samples.values()) for sample in samples)


def sources_of(settings: Mapping[str, str], state: State) -> dict[str, Source]:
    """The sources in the settings. `state` has the models."""
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
    """`/metrics`, and `/healthz`, which succeeds once every source has been polled."""

    state: State

    def do_GET(self) -> None:
        """Answer a request."""
        known = self.path in {"/metrics", "/healthz"}
        status = 404 if not known else 200 if self.state.polled.is_set() else 503
        body = self.state.text().encode() if self.path == "/metrics" and status == 200 else b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no scrapes."""


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
        state.poll()
        if ended.wait(seconds):
            break
    server.shutdown()


if __name__ == "__main__":
    main()
