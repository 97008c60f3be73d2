"""The figures of `lab bench serving`, what it makes of a Deployment, and its load generator."""

from __future__ import annotations

import io
import json
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from cli.workloads import VERSION
from infra.credentials import issue
from tests.bench import serving
from tests.bench._stack import percentile
from tests.bench.serving import BARE, CLIENTS, DIRECT, GATEWAY, PODS, ROLE, WAYS, Round, ratio, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "model.test"
DIGEST = f"localhost/model-server@sha256:{'0' * 64}"
CONTAINER: dict[str, Any] = {
    "name": "model",
    "image": DIGEST,
    "args": ["--something"],
    "env": [{"name": "MODEL_NAME", "value": "digits"}, {"name": "DRAIN_SECONDS", "value": "10"}],
    "ports": [{"name": "http", "containerPort": 8080}],
    "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}},
    "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
    "securityContext": {"allowPrivilegeEscalation": False},
    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - the pod's
}
SELECTOR = {"app": "digits", "ml-cluster.dev/stage": "production"}
DEPLOYMENT: dict[str, Any] = {
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": SELECTOR},
        "template": {
            "metadata": {
                "labels": {**SELECTOR, "ml-cluster.dev/model-server": "true"},
                "annotations": {VERSION: "7", "prometheus.io/scrape": "true"},
            },
            "spec": {"containers": [CONTAINER], "securityContext": {"runAsNonRoot": True}, "volumes": []},
        },
    }
}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([5.0], 99) == 5.0


def test_the_ratio_is_of_all_rounds_and_its_bounds_are_of_pairs() -> None:
    slow = [Round((0.002, 0.002, 0.002), 1, 0), Round((0.003,), 1, 0)]
    fast = [Round((0.001, 0.001, 0.001), 1, 0), Round((0.002,), 1, 0)]
    assert ratio(slow, fast) == pytest.approx((2.0, 1.5, 2.0))


def test_the_table_says_what_was_measured() -> None:
    def rounds(way: str) -> list[Round]:
        latency = {DIRECT: 0.001, GATEWAY: 0.00125, BARE: 0.0008}.get(way, 0.004)
        return [Round((latency,) * 500, 1.0, 0.25), Round((latency,) * 300, 1.0, 0.15)]

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table_of({(way, clients): rounds(way) for clients in CLIENTS for way in WAYS}))
    lines = [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]
    for clients in CLIENTS:
        assert f"{GATEWAY} {clients} 800 400 1.25 1.25 1.25 1.25-1.25 20%" in lines
        assert f"{BARE} {clients} 800 400 0.80 0.80 0.80 0.80-0.80 20%" in lines


def test_both_servers_have_productions_image_and_resources_and_none_of_its_requests() -> None:
    before = json.dumps(DEPLOYMENT)
    pod = serving.subject(DEPLOYMENT)
    server, bare = pod["spec"]["containers"]
    for part in ("image", "resources", "securityContext"):
        assert server[part] == bare[part] == CONTAINER[part]
    assert server["args"] == CONTAINER["args"]
    assert "args" not in bare
    assert bare["readinessProbe"]["httpGet"]["port"] == bare["ports"][0]["name"] == "bare"
    assert {"name": "DRAIN_SECONDS", "value": "0"} in server["env"]
    assert pod["metadata"]["annotations"] == {VERSION: "7"}
    assert not SELECTOR.items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"]["ml-cluster.dev/model-server"] == "true"
    assert json.dumps(DEPLOYMENT) == before


def test_all_but_the_owner_are_reached_and_opened_by_the_benchmarks_own_labels() -> None:
    route = {"spec": {"parentRefs": [{"name": "gateway", "namespace": "gateway"}]}}
    made = {target.kind: one for target, one in serving.others(DEPLOYMENT, route, "lab.test", {"a": "b"}).items()}
    assert made["Service"]["spec"]["selector"] == {ROLE: "subject"}
    assert made["HTTPRoute"]["spec"]["hostnames"] == ["bench-serving.lab.test"]
    assert made["Pod"]["metadata"]["labels"][ROLE] == "subject"
    job = serving.generator(DEPLOYMENT["spec"]["template"], 60)["spec"]
    assert job["activeDeadlineSeconds"] == 60
    assert job["template"]["spec"]["containers"][0]["image"] == DIGEST
    assert job["template"]["spec"]["securityContext"] == {"runAsNonRoot": True}


class Answers(BaseHTTPRequestHandler):
    """A server that remembers what it was asked, and refuses `refused`."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]
    connections: set[tuple[str, int]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.headers["Host"], body))
        self.connections.add(self.client_address)
        self.send_response(200 if self.path != "/refused" else 503)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    authority = issue({"names": ["authority"]})
    pair = issue(
        {"names": [NAME], "authority_certificate": authority["certificate"], "authority_key": authority["key"]}
    )
    (tmp_path / "ca.crt").write_text(authority["certificate"])
    (tmp_path / "other.crt").write_text(issue({"names": ["other"]})["certificate"])
    for part in ("certificate", "key"):
        (tmp_path / part).write_text(pair[part])
    (tmp_path / "request.json").write_text('{"inputs": []}')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    Answers.asked, Answers.connections = [], set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def load(folder: Path, server: ThreadingHTTPServer, path: str = "/", authority: str = "ca.crt") -> Any:
    """What the generator prints, with two clients, for 200 requests; its complaint where it fails."""
    plan = {
        "url": f"https://127.0.0.1:{server.server_port}{path}",
        "name": NAME,
        "authority": str(folder / authority),
        "body": str(folder / "request.json"),
        "clients": 2,
        "seconds": 60,
        "requests": 200,
    }
    command = [sys.executable, str(PODS / "load.py"), json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_the_generator_keeps_its_connections_and_its_bounds(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    output = load(tmp_path, server)
    assert 200 <= len(output["latencies"]) <= 201  # the other client had begun
    assert 0 < max(output["latencies"]) < output["seconds"] < 60
    assert 0 < output["processor"] < output["seconds"]
    assert set(Answers.asked) == {(NAME, '{"inputs": []}')}
    assert len(Answers.connections) == 2


def test_the_generator_trusts_the_given_authority_alone(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    assert "certificate verify failed" in load(tmp_path, server, authority="other.crt")
    assert Answers.asked == []


def test_an_error_response_ends_the_measurement(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    assert "/refused answers 503" in load(tmp_path, server, "/refused")
