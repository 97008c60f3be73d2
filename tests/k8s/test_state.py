"""The exporter of objects' state, with its own rights on a real API server, a registry and a gateway beside it."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra import credentials
from infra.manifests import TREE
from tests.engine.harness import wait_for
from tests.k8s.conftest import apply, kubectl
from tests.providers.kubernetes.control_plane import NODE, ControlPlane, free_port
from tests.services.exposed import Series, read, value

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow_cluster
SERVICE = Path(TREE).parent / "services" / "state-exporter"
DOMAIN = "lab.internal"
REFUSED = (
    ("get", "secrets"), ("list", "secrets"), ("delete", "pods"), ("get", "nodes", "--subresource=proxy"),
    ("create", "pods"), ("patch", "deployments.apps"), ("get", "configmaps"),
)  # fmt: skip
"""What neither the store of metrics nor the exporter may do."""
ENDS = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=50)


class Registry(BaseHTTPRequestHandler):
    """The one question of MLflow's REST API that the exporter asks; `server.aliases` are those of the model digits."""

    def do_GET(self) -> None:
        aliases = getattr(self.server, "aliases")  # noqa: B009 - the stubs do not know it
        known = self.path.endswith("registered-models/get?name=digits") and aliases is not None
        self.send_response(200 if known else 404)
        self.end_headers()
        if known:
            told = [{"alias": alias, "version": version} for alias, version in aliases.items()]
            self.wfile.write(json.dumps({"registered_model": {"name": "digits", "aliases": told}}).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Exporter:
    """A running exporter."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.registry = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
        self.registry.aliases = {"production": "3"}  # type: ignore[attr-defined]
        self.gateway = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
        made = credentials.issue({"names": [DOMAIN]})
        pem = folder / "gateway.pem"
        pem.write_text(made["certificate"] + made["key"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.gateway.socket = context.wrap_socket(self.gateway.socket, server_side=True)
        for server in (self.registry, self.gateway):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        account = folder / "account"
        account.mkdir()
        token = kubectl(plane, "create", "token", "state", "--namespace", "monitoring").stdout.strip()
        (account / "token").write_text(token)
        (account / "ca.crt").write_text((plane.folder / "certificates/apiserver.crt").read_text())
        self.port = free_port()
        settings = {
            "API_SERVER": f"https://127.0.0.1:{plane.port}", "ACCOUNT_FOLDER": str(account), "PORT": str(self.port),
            "HOST": "127.0.0.1", "SECONDS_BETWEEN": "0.5", "PYTHONPATH": str(SERVICE), "DOMAIN": DOMAIN,
            "REGISTRY": f"http://127.0.0.1:{self.registry.server_port}", "REGISTRY_USERNAME": "monitor",
            "REGISTRY_PASSWORD": "none", "GATEWAY": f"127.0.0.1:{self.gateway.server_port}",
        }  # fmt: skip
        self.process = subprocess.Popen([sys.executable, "-m", "state_exporter"], env={**os.environ, **settings})

    def scrape(self) -> Series:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                return read(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return {}

    def value(self, name: str, **labels: str) -> float | None:
        return value(self.scrape(), name, **labels)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(timeout=20) == 0
        for server in (self.registry, self.gateway):
            server.shutdown()


def post(plane: ControlPlane, api: str, kind: str, namespace: str, name: str, **rest: Any) -> None:
    labels = rest.pop("labels", {})
    metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": rest.pop("annotations", {})}
    plane.post({"apiVersion": api, "kind": kind, "metadata": metadata, **rest})


CONTAINER = {
    "name": "model", "image": f"localhost/model@sha256:{'0' * 64}",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}  # fmt: skip
POD = {"nodeName": NODE, "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}


@pytest.fixture(scope="module")
def exporter(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    plane = control_plane
    apply(plane, "infrastructure/gateway-api", "infrastructure/base", "platform/monitoring")
    labels = {"ml-cluster.dev/model": "digits", "ml-cluster.dev/alias": "production"}
    template = {
        "metadata": {"labels": {"app": "digits-production"}, "annotations": {"ml-cluster.dev/model-version": "3"}},
        "spec": {**POD, "serviceAccountName": "default", "containers": [CONTAINER]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "digits-production"}}, "template": template}
    post(plane, "apps/v1", "Deployment", "serving", "digits-production", spec=spec, labels=labels)
    data = {"lease-end": ENDS.isoformat().replace("+00:00", "Z"), "availability": "0.995"}
    post(plane, "v1", "ConfigMap", "monitoring", "stack", data=data)
    running_exporter = Exporter(plane, tmp_path_factory.mktemp("exporter"))
    wait_for(running_exporter.scrape, "the exporter")
    yield running_exporter
    running_exporter.stop()


def test_every_source_answers(exporter: Exporter) -> None:
    for source in ("kubernetes", "registry", "gateway"):
        wait_for(lambda source=source: exporter.value("ml_cluster_state_up", source=source) == 1, source)  # type: ignore[misc]


def test_what_the_stack_tells(exporter: Exporter) -> None:
    assert exporter.value("ml_cluster_lease_end_seconds") == ENDS.timestamp()
    assert exporter.value("ml_cluster_objective", objective="availability") == 0.995
    assert exporter.value("ml_cluster_objective", objective="latency_seconds") == 1


def test_the_gateways_certificate(exporter: Exporter) -> None:
    end = exporter.value("ml_cluster_certificate_not_after_seconds", host=DOMAIN)
    assert end is not None
    assert timedelta(days=390) < datetime.fromtimestamp(end, UTC) - datetime.now(UTC) < timedelta(days=3660)


def test_objects_are_told_as_they_change(exporter: Exporter, control_plane: ControlPlane) -> None:
    control_plane.report("Node", NODE, {"conditions": [{"type": "Ready", "status": "True"}]})
    ready = {"node": NODE, "condition": "Ready", "status": "true"}
    wait_for(lambda: exporter.value("kube_node_status_condition", **ready) == 1, "the node is ready")
    control_plane.report("Node", NODE, {"conditions": [{"type": "Ready", "status": "Unknown"}]})
    wait_for(lambda: exporter.value("kube_node_status_condition", **ready) == 0, "the node is lost")
    assert exporter.value("kube_statefulset_replicas", namespace="monitoring", statefulset="metrics") == 1
    assert exporter.value("kube_deployment_status_replicas_available", deployment="state") == 0


def test_the_version_that_serves_and_the_one_that_the_registry_names(
    exporter: Exporter, control_plane: ControlPlane
) -> None:
    about = {"model": "digits", "alias": "production"}
    wait_for(lambda: [one for one in control_plane.pods("serving") if one["spec"].get("nodeName")], "the stage's pod")
    control_plane.run_pods("serving")
    wait_for(lambda: exporter.value("ml_cluster_stage_served", version="3", **about) == 1, "what serves")
    wait_for(lambda: exporter.value("ml_cluster_alias_info", version="3", **about) == 1, "what the registry names")
    exporter.registry.aliases = {"production": "4"}  # type: ignore[attr-defined]
    wait_for(lambda: exporter.value("ml_cluster_alias_info", version="4", **about) == 1, "the alias has moved")
    exporter.registry.aliases = {}  # type: ignore[attr-defined]
    wait_for(lambda: exporter.value("ml_cluster_alias_info", **about) is None, "the alias is gone")
    assert exporter.value("ml_cluster_state_up", source="registry") == 1
    exporter.registry.aliases = None  # type: ignore[attr-defined]
    wait_for(lambda: exporter.value("ml_cluster_state_up", source="registry") == 1, "no model is no fault")


def test_old_figures_are_not_told_as_new_ones(exporter: Exporter, control_plane: ControlPlane) -> None:
    control_plane.kill_api()
    wait_for(
        lambda: exporter.value("ml_cluster_state_up", source="kubernetes") == 0, "it is told that nothing is known"
    )
    assert exporter.value("kube_statefulset_replicas", namespace="monitoring", statefulset="metrics") is None
    control_plane.start_api()
    wait_for(lambda: exporter.value("ml_cluster_state_up", source="kubernetes") == 1, "the API server is back")


def test_monitoring_reads_no_secret_and_changes_nothing(exporter: Exporter, control_plane: ControlPlane) -> None:
    assert exporter.process.poll() is None
    accounts = ("system:serviceaccount:monitoring:state", "system:serviceaccount:monitoring:metrics")
    for account in accounts:
        for verb, *what in REFUSED:
            asked = kubectl(control_plane, "auth", "can-i", verb, *what, "--all-namespaces", "--as", account)
            assert asked.stdout.strip() == "no", (account, verb, what)
