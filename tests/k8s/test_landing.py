"""The landing page, served by its own program before services that the test makes up."""

from __future__ import annotations

import base64
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
from tests.providers.kubernetes.control_plane import free_port
from tests.providers.kubernetes.pki import authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = TREE / "platform" / "landing" / "base" / "landing.py"


class Service(BaseHTTPRequestHandler):
    """Answers what its server's attribute `status` says."""

    def do_GET(self) -> None:
        self.send_response(getattr(self.server, "status"))  # noqa: B009 - the stubs do not know it
        self.end_headers()
        if self.path.endswith("/namespaces/gitops/applications"):
            assert self.headers["Authorization"] == "Bearer t0ken"
            self.wfile.write(json.dumps({"items": getattr(self.server, "applications", [])}).encode())
        if self.path == "/alerts":
            self.wfile.write(json.dumps({"data": {"alerts": getattr(self.server, "alerts", [])}}).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Landing:
    """A running landing page."""

    def __init__(self, url: str, model: ThreadingHTTPServer, others: Path) -> None:
        self.url = url
        self.model = model
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
    settings |= {"ACCOUNT": str(tmp_path), "API": f"http://{address}", "APPLICATION_SECONDS": "0.1"}
    process = subprocess.Popen([sys.executable, PROGRAM], env={**os.environ, **settings})
    made = Landing(f"http://127.0.0.1:{port}", model, tmp_path / "others")
    try:
        wait_for(lambda: answers(made), "the landing page")
        wait_for(lambda: "unknown" not in str(made.states()), "its first answers")
        yield made
    finally:
        process.kill()
        process.wait()
        model.shutdown()
        model.server_close()


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
    assert '<p id="quiet" >None fires.</p>' in landing.get("/")[1]
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
    assert '<section id="applications" >' in page
    assert "no &lt;login&gt;" in page
    assert '<code class="revision">0123456789ab</code>' in page
    landing.model.status = 403  # type: ignore[attr-defined]
    wait_for(lambda: landing.result()["applications"] is None, "that nobody knows")


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
    assert len(listed) > 4
    for service in listed:
        if service["host"]:
            assert f"hostnames: [{service['host']}.{DOMAIN}]" in text
        name = re.sub(r"^\w+://([a-z-]+)\..*", r"\1", service["health"])
        assert f"name: {name}" in text, service
