"""The overview page and the dashboards in a real browser; and the documentation's pictures.

Behind the dashboards is the store of metrics, with a day of series; behind the overview page an API server with nodes.

`LAB_TEST_SCREENSHOTS=docs/images` writes the pictures there. `pytest -m slow_monitoring tests/k8s/test_pictures.py`
takes some minutes, and Debian's Chromium, which it installs.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import ROOT, TREE
from tests.e2e.outside import CACHE, CHROMIUM, CLIENTS, provide_browser, provide_clients
from tests.engine.harness import wait_for
from tests.k8s.monitors import DASHBOARDS, Monitors
from tests.k8s.story import story
from tests.k8s.test_landing import PROGRAM, Service, before, of_node, reported
from tests.providers.kubernetes.control_plane import NODE, ControlPlane, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow_monitoring, pytest.mark.timeout(1800)]
LINES_AT_ONCE = 50
EMPTY = {"Hours until a disk is full"}
"""Panels that show only what is wrong, and is not so in the story."""
PICTURES = (
    {"dashboard": "Models, by version", "file": "dashboard-models.png", "height": 930},
    {"dashboard": "Cluster", "row": "Requested and used", "file": "dashboard-cluster.png", "height": 900},
    {"dashboard": "Cloud", "file": "dashboard-cloud.png", "height": 920},
)
NODES = ("control-0", "worker-0", "worker-1")
LARGEST_PICTURE = 150_000


def fill(store: Monitors) -> None:
    """Import the day before now."""
    lines = story(int(time.time()) // 60 * 60)
    connection = http.client.HTTPConnection("127.0.0.1", store.ports["metrics"], timeout=300)
    for number in range(0, len(lines), LINES_AT_ONCE):
        connection.request("POST", "/api/v1/import", body="\n".join(lines[number : number + LINES_AT_ONCE]).encode())
        answer = connection.getresponse()
        assert answer.status == 204, answer.read()
        answer.read()
    store.get("metrics", "/internal/force_flush", text=True)


@contextmanager
def overview(plane: ControlPlane, folder: Path) -> Iterator[str]:
    """The overview page of a small cluster, all of whose services answer but the stages that serve nothing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.status = 200  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answering, closed = f"127.0.0.1:{server.server_port}", f"127.0.0.1:{free_port()}"
    listed = [*json.loads((PROGRAM.parent / "services.json").read_text())]
    listed += json.loads((TREE / "models" / "models.json").read_text())
    for one in listed:
        rests = "idle" in one and "production" not in one["name"]
        one["health"] = (
            f"{'tcp' if one['health'].startswith('tcp') else 'http'}://{closed if rests else answering}/alive"
        )
    (folder / "services.json").write_text(json.dumps(listed))
    ended = threading.Event()
    plane.cluster.request("leaving", "DELETE", f"/api/v1/nodes/{NODE}")  # that of other tests
    for name in NODES:
        role = {"node-role.kubernetes.io/control-plane": ""} if name.startswith("control") else {}
        plane.post(of_node(name, metadata={"name": name, "labels": role}))

    def beat() -> None:
        """As kubelets do: a node that says nothing for 50 s is not ready."""
        while True:
            for name in NODES:
                told = reported("True", "kubelet is posting ready status")
                told["conditions"][0]["lastHeartbeatTime"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
                plane.report("Node", name, told)
            if ended.wait(10):
                return

    hearts = threading.Thread(target=beat, daemon=True)
    hearts.start()
    alerts, services = f"http://{answering}/alerts", str(folder / "services.json")
    own = {"DOMAIN": "172-25-0-110.sslip.io", "ALERTS": alerts, "SERVICES": services}
    with before(plane, folder, **own) as landing:
        wait_for(lambda: landing.result()["state"] == "ready", "that all is ready")
        yield f"{landing.url}/"
    ended.set()
    hearts.join()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the browser sees."""
    provide_clients()
    provide_browser()
    folder = tmp_path_factory.mktemp("pictures")
    screenshots = os.environ.get("LAB_TEST_SCREENSHOTS")
    pictures = ROOT / screenshots if screenshots else folder / "shots"
    pictures.mkdir(exist_ok=True)
    (folder / "plane").mkdir()
    with ControlPlane(folder / "plane") as plane, Monitors(folder) as store, overview(plane, folder) as page:
        store.metrics()
        fill(store)
        asked = {
            "chromium": CHROMIUM, "home": str(folder), "vmui": f"{store.url('metrics')}/vmui/", "landing": page,
            "screenshots": str(pictures), "pictures": PICTURES,
        }  # fmt: skip
        done = subprocess.run(
            [CACHE / "bin" / "python", CLIENTS / "dashboards.py"], input=json.dumps(asked), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        yield {**json.loads(done.stdout), "folder": pictures}


def test_every_dashboard_is_there_with_all_its_panels(seen: dict[str, Any]) -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    wanted = {one["title"]: [panel["title"] for row in one["rows"] for panel in row["panels"]] for one in boards}
    assert {name: told["panels"] for name, told in seen["dashboards"].items()} == wanted


def test_no_panel_is_empty_or_has_an_error(seen: dict[str, Any]) -> None:
    told = seen["dashboards"]
    assert {name: one["errors"] for name, one in told.items() if one["errors"]} == {}
    assert {panel for one in told.values() for panel in one["empty"]} == EMPTY
    assert seen["faults"] == []


def test_the_overview_shows_services_nodes_alerts_and_where_to_look_further(seen: dict[str, Any]) -> None:
    page = seen["landing"]
    assert page["nodes"] == [*NODES]
    assert page["services"]["Model digits, production"] == "Ready"
    assert page["services"]["Model digits, staging"] == "Idle"
    monitoring = "https://monitoring.172-25-0-110.sslip.io:30443/"
    assert {f"{monitoring}vmui/#/rules", f"{monitoring}vmui/#/dashboards", f"{monitoring}select/vmui/"} <= {
        *page["links"]
    }
    assert (page["faults"], page["wider_than_phone"]) == ([], False)
    assert page["violations"] == {"light": [], "dark": [], "phone": []}


def test_pictures_are_small(seen: dict[str, Any]) -> None:
    folder: Path = seen["folder"]
    names = [*(str(one["file"]) for one in PICTURES), "landing.png"]
    sizes = {name: (folder / name).stat().st_size for name in names}
    assert {name: size for name, size in sizes.items() if not 20_000 < size < LARGEST_PICTURE} == {}
