"""The landing page, served by its own program before services that the test makes up."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import DOMAIN, TREE
from tests.engine.harness import wait_for
from tests.k8s.conftest import kubectl, rendered
from tests.providers.kubernetes.control_plane import NODE, free_port
from tests.providers.kubernetes.pki import authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

PROGRAM = TREE / "platform" / "landing" / "base" / "landing.py"


class Service(BaseHTTPRequestHandler):
    """Answers what its server's attribute `status` says."""

    def do_GET(self) -> None:
        self.send_response(getattr(self.server, "status"))  # noqa: B009 - the stubs do not know it
        self.end_headers()
        if self.path.endswith("/namespaces/gitops/applications"):
            assert self.headers["Authorization"] == "Bearer t0ken"
            self.wfile.write(json.dumps({"items": getattr(self.server, "applications", [])}).encode())
        if self.path.startswith("/api/v1/nodes"):
            self.wfile.write(json.dumps({"items": []}).encode())
        if self.path == "/alerts":
            self.wfile.write(json.dumps({"data": {"alerts": getattr(self.server, "alerts", [])}}).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Landing:
    """A running landing page."""

    model: ThreadingHTTPServer

    def __init__(self, url: str, others: Path) -> None:
        self.url = url
        self.others = others

    def get(self, path: str) -> tuple[dict[str, str], str]:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:  # noqa: S310 - loopback
            return dict(answer.headers), answer.read().decode()

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.get("/health.json")[1])
        return result

    def states(self) -> dict[str, tuple[str, str]]:
        return {one["name"]: (one["state"], one["detail"]) for one in self.result()["services"]}


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Landing]:
    model = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    model.status = 200  # type: ignore[attr-defined]
    threading.Thread(target=model.serve_forever, daemon=True).start()
    address, closed, port = f"127.0.0.1:{model.server_port}", f"127.0.0.1:{free_port()}", free_port()
    common = {"about": "About <it>", "login": "", "page": "/"}
    services = [
        {**common, "name": "Model", "host": "model", "health": f"http://{address}/ready"},
        {**common, "name": "Store", "host": "", "page": "", "health": f"tcp://{address}"},
        {**common, "name": "Stage", "host": "stage", "health": f"http://{closed}/ready", "idle": "nothing is promoted"},
    ]
    (tmp_path / "services.json").write_text(json.dumps(services))
    settings = {"DOMAIN": DOMAIN, "PORT": str(port), "SERVICES": str(tmp_path / "services.json")}
    settings |= {"ALERTS": f"http://{address}/alerts", "OTHERS": str(tmp_path / "others")}
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "ca.crt").write_text(authority("cluster"))
    settings |= {"ACCOUNT": str(tmp_path), "API": f"http://{address}", "API_SECONDS": "0.1"}
    made = Landing(f"http://127.0.0.1:{port}", tmp_path / "others")
    made.model = model
    try:
        with serving(made, settings):
            wait_for(lambda: "unknown" not in str(made.states()), "its first answers")
            yield made
    finally:
        model.shutdown()
        model.server_close()


@contextlib.contextmanager
def serving(made: Landing, settings: dict[str, str]) -> Iterator[None]:
    """Run the page's program."""
    process = subprocess.Popen([sys.executable, PROGRAM], env={**os.environ, **settings})
    try:
        wait_for(lambda: answers(made), "the landing page")
        yield
    finally:
        process.kill()
        process.wait()


def answers(landing: Landing) -> bool:
    try:
        return landing.get("/healthz")[1] == "ok\n"
    except OSError:
        return False


def test_states_are_described(landing: Landing) -> None:
    assert landing.states() == {
        "Model": ("ready", ""),
        "Store": ("ready", ""),
        "Stage": ("idle", "nothing is promoted"),
    }
    assert landing.result()["summary"] == "2 ready, 1 idle"
    _, page = landing.get("/")
    assert re.findall(r'<span class="word">(.*?)</span>', page) == ["2 ready, 1 idle", "Ready", "Ready", "Idle"]
    assert f'<a href="https://model.{DOMAIN}:30443/">Model</a>' in page
    assert "About &lt;it&gt;" in page


def test_models_come_and_go_without_a_restart(landing: Landing) -> None:
    (common, *_) = json.loads((landing.others.parent / "services.json").read_text())
    landing.others.mkdir()
    models = [{**common, "name": f"Model wines, {stage}"} for stage in ("production", "staging")]
    (landing.others / "models.json").write_text(json.dumps(models))
    wait_for(lambda: landing.states().get("Model wines, staging") == ("ready", ""), "the model is shown")
    assert list(landing.states())[-2:] == ["Model wines, production", "Model wines, staging"]
    (landing.others / "models.json").write_text("[]")
    wait_for(lambda: "Model wines, staging" not in landing.states(), "the model is gone")


def test_a_failing_service_is_reported_and_its_recovery_too(landing: Landing) -> None:
    landing.model.status = 503  # type: ignore[attr-defined]
    wait_for(lambda: landing.states()["Model"] == ("down", "Answers 503"), "the failure")
    assert landing.result()["summary"] == "Not ready: Model"
    assert landing.result()["state"] == "down"
    landing.model.status = 200  # type: ignore[attr-defined]
    wait_for(lambda: landing.result()["state"] == "ready", "the recovery")


def test_what_fires_is_told_the_worst_first(landing: Landing) -> None:
    def alert(severity: str, summary: str, state: str = "firing") -> dict[str, Any]:
        return {"name": "Any", "state": state, "labels": {"severity": severity}, "annotations": {"summary": summary}}

    wait_for(lambda: landing.result()["alerts"] == [], "that nothing fires")
    assert '<p id="quiet" >None are firing.</p>' in landing.get("/")[1]
    landing.model.alerts = [  # type: ignore[attr-defined]
        alert("warning", "A <disk> fills"), alert("critical", "A node is gone"), alert("none", "It works"),
        alert("critical", "Not yet", "pending"), *(alert("warning", f"Z {number:02}") for number in range(20)),
    ]  # fmt: skip
    wait_for(lambda: landing.result()["alerts"], "that it fires")
    told = landing.result()["alerts"]
    assert told[:2] == ["A node is gone", "A <disk> fills"]
    assert told[-1] == "and 12 more"
    assert "<li>A node is gone</li><li>A &lt;disk&gt; fills</li>" in landing.get("/")[1]
    # Nobody takes an old alert for a new one, nor silence for peace.
    landing.model.status = 503  # type: ignore[attr-defined]
    wait_for(lambda: landing.result()["alerts"] is None, "that nobody knows")
    assert '<section id="alerts" hidden>' in landing.get("/")[1]


def test_the_service_of_a_capability_is_shown_as_long_as_there_is_the_capability(landing: Landing) -> None:
    """As a ConfigMap that may be there, and may not, comes and goes."""
    assert "Forge" not in landing.states()
    entry = {"name": "Forge", "about": "", "login": "", "page": "/", "host": "forge"}
    landing.others.mkdir()
    health = f"http://127.0.0.1:{landing.model.server_port}/healthz"
    (landing.others / "forge.json").write_text(json.dumps({**entry, "health": health}))
    wait_for(lambda: landing.states().get("Forge") == ("ready", ""), "the forge")
    assert f'<a href="https://forge.{DOMAIN}:30443/">Forge</a>' in landing.get("/")[1]
    (landing.others / "forge.json").unlink()
    wait_for(lambda: "Forge" not in landing.states(), "the forge's end")
    assert landing.result()["summary"] == "2 ready, 1 idle"


def test_what_is_applied_from_git_is_told_where_there_is_a_controller(landing: Landing) -> None:
    def application(name: str, sync: str, health: str, **more: Any) -> dict[str, Any]:
        status = {"sync": {"status": sync, "revision": "0123456789abcdef"}, "health": {"status": health}, **more}
        return {"metadata": {"name": name}, "status": status}

    wait_for(lambda: landing.result()["applications"] == [], "that there is none")
    assert '<section id="applications" hidden>' in landing.get("/")[1]
    error = [{"type": "ComparisonError", "message": "no <login>"}]
    landing.model.applications = [  # type: ignore[attr-defined]
        application("platform", "Synced", "Healthy"),
        application("other", "Unknown", "Healthy", conditions=error),
        {"metadata": {"name": "young"}},
    ]
    wait_for(lambda: landing.result()["applications"], "the applications")
    told = {one["name"]: (one["state"], one["word"], one["detail"]) for one in landing.result()["applications"]}
    assert told == {
        "other": ("down", "Unknown, Healthy", "no <login>"),
        "platform": ("ready", "Synced, Healthy", ""),
        "young": ("unknown", "Unknown, Unknown", ""),
    }
    assert landing.result()["summary"] == "Not ready: other"
    page = landing.get("/")[1]
    assert '<section id="applications">' in page
    assert "no &lt;login&gt;" in page
    assert '<code class="about">0123456789ab</code>' in page
    landing.model.status = 403  # type: ignore[attr-defined]
    wait_for(lambda: landing.result()["applications"] is None, "that nobody knows")


@contextlib.contextmanager
def before(control_plane: ControlPlane, folder: Path, **settings: str) -> Iterator[Landing]:
    """The page with the rights and the account that the tree gives it, before a real API server."""
    given = [
        one
        for one in rendered("clusters/ci")
        if one["metadata"]["name"].endswith("landing")
        and one["kind"] in {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
    ]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "platform"}}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [namespace, *given]})
    done = kubectl(control_plane, "apply", "--server-side", "-f", "-", text=text)
    assert done.returncode == 0, done.stderr
    token = kubectl(control_plane, "create", "token", "landing", "--namespace=platform")
    assert token.returncode == 0, token.stderr
    (folder / "token").write_text(token.stdout)
    (folder / "ca.crt").write_bytes((control_plane.folder / "certificates/apiserver.crt").read_bytes())
    port = free_port()
    made = Landing(f"http://127.0.0.1:{port}", folder / "others")
    common = {"DOMAIN": DOMAIN, "PORT": str(port), "ACCOUNT": str(folder), "API_SECONDS": "0.1"}
    with serving(made, {**common, "API": f"https://127.0.0.1:{control_plane.port}", **settings}):
        yield made


@pytest.fixture
def of_cluster(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Landing]:
    (tmp_path / "services.json").write_text("[]")
    with before(control_plane, tmp_path, SERVICES=str(tmp_path / "services.json")) as made:
        yield made


def of_node(name: str, **change: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, **change}


def reported(status: str, message: str, **more: str) -> dict[str, Any]:
    """What a kubelet, or the controller that misses it, writes of a node."""
    found = {"Ready": (status, message), **{kind: ("True", text) for kind, text in more.items()}}
    conditions = [
        {"type": kind, "status": is_so, "reason": "It", "message": text} for kind, (is_so, text) in found.items()
    ]
    return {"nodeInfo": {"kubeletVersion": "v1.37.2"}, "conditions": conditions}


@pytest.mark.slow_cluster
def test_the_page_shows_each_node_as_the_cluster_has_it(control_plane: ControlPlane, of_cluster: Landing) -> None:
    def nodes() -> dict[str, dict[str, str]]:
        return {one["name"]: one for one in of_cluster.result()["nodes"] or () if one["name"] != NODE}

    def told() -> dict[str, tuple[str, str, str]]:
        return {name: (one["state"], one["word"], one["detail"]) for name, one in nodes().items()}

    try:
        control_plane.post(
            of_node(
                "control-0", metadata={"name": "control-0", "labels": {"node-role.kubernetes.io/control-plane": ""}}
            )
        )
        control_plane.report("Node", "control-0", reported("True", "kubelet is posting ready status"))
        wait_for(lambda: told() == {"control-0": ("ready", "Ready", "")}, "the control plane")
        assert (nodes()["control-0"]["role"], nodes()["control-0"]["version"]) == ("control-plane", "v1.37.2")
        assert re.fullmatch(r"\d+ seconds old", nodes()["control-0"]["age"])
        # One joins: first without a word of its kubelet.
        control_plane.post(of_node("worker-0"))
        wait_for(lambda: told().get("worker-0") == ("down", "Not ready", "It has not reported yet"), "one that joins")
        no_network = "container runtime network not ready: <cni>"
        control_plane.report("Node", "worker-0", reported("False", no_network))
        wait_for(lambda: told()["worker-0"] == ("down", "Not ready", no_network), "why it is not ready")
        assert "worker-0" in of_cluster.result()["summary"]
        page = of_cluster.get("/")[1]
        assert '<section id="nodes"><h2>Nodes</h2>' in page
        assert "network not ready: &lt;cni&gt;" in page
        control_plane.report("Node", "worker-0", reported("True", "", DiskPressure="the disk is full"))
        wait_for(lambda: told()["worker-0"] == ("ready", "Ready", "the disk is full"), "that it is ready, but")
        assert nodes()["worker-0"]["role"] == "worker"
        control_plane.edit("Node", "worker-0", {"spec": {"unschedulable": True}})
        wait_for(lambda: told()["worker-0"][:2] == ("idle", "Takes no new pods"), "that it is being emptied")
        control_plane.cluster.request("leaving", "DELETE", "/api/v1/nodes/worker-0")
        wait_for(lambda: "worker-0" not in nodes(), "that it has left")
    finally:
        for name in ("control-0", "worker-0"):
            kubectl(control_plane, "delete", "node", name, "--ignore-not-found")


@pytest.mark.slow_cluster
def test_the_page_may_list_nodes_and_nothing_else(control_plane: ControlPlane, of_cluster: Landing) -> None:
    wait_for(lambda: of_cluster.result()["nodes"], "the nodes")
    user = ("--as", "system:serviceaccount:platform:landing")
    for allowed, question in (
        ("yes", ("list", "nodes")), ("no", ("get", "secrets")), ("no", ("list", "pods")), ("no", ("patch", "nodes")),
        ("no", ("get", "nodes", "--subresource=proxy")),
    ):  # fmt: skip
        assert kubectl(control_plane, "auth", "can-i", *question, "-A", *user).stdout.strip() == allowed, question
    kubectl(control_plane, "delete", "clusterrolebinding", "ml-cluster-landing")
    wait_for(lambda: of_cluster.result()["nodes"] is None, "that nobody takes old nodes for those of now")
    assert '<section id="nodes" hidden>' in of_cluster.get("/")[1]


def test_the_page_may_run_its_own_script_alone(landing: Landing) -> None:
    headers, page = landing.get("/")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    for element in ("style", "script"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    outside = [url for url in re.findall(r'(?:src|href)="([^"]+)"', page) if DOMAIN not in url]
    assert all(url.startswith("data:") for url in outside), outside


def test_the_services_are_those_that_there_are() -> None:
    """Each address that is asked is a Service of the tree, and each host name a route's."""
    text = "".join(path.read_text() for path in TREE.rglob("*.yaml"))
    listed = json.loads((PROGRAM.parent / "services.json").read_text())
    listed.append(json.loads((TREE / "platform/forge/server/forge.json").read_text()))
    assert len(listed) == 4  # and those of models: test_models.py
    for service in listed:
        if service["host"]:
            assert f"hostnames: [{service['host']}.{DOMAIN}]" in text
        name = re.sub(r"^\w+://([a-z-]+)\..*", r"\1", service["health"])
        assert f"name: {name}" in text, service
