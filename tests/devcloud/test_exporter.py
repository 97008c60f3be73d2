"""Metrics and log lines of services that a real supervisor runs, one of which logs as each kind of API does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from devcloud.processes import wait_for
from devcloud.services import INSIDE, REQUEST_LOG
from tests.devcloud.supervised import SLEEPER, Client, entry, is_running, supervised
from tests.devcloud.supervised import exporter as service
from tests.providers.kubernetes.control_plane import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOPBACK = "127.0.0.1"
STARTED = ("nova", "glance", "agent", "exporter")
PASSWORD = "k3ystone-hunter2hunter2"  # noqa: S105
TOKEN = "gAAAAABn" + "Q" * 80
# What the programs of Debian 12 write: nova and neutron, glance, and uWSGI with devcloud's format.
OF_NOVA = (
    "2026-11-30 20:53:35.123 77 INFO nova.osapi_compute.wsgi.server [None req-1 a b - - default default] 172.25.0.1 "
    '"{method} /v2.1/servers HTTP/1.1" status: {status} len: 1893 time: {seconds}\x1b[00m'
)
OF_METADATA = (
    '2026-11-30 20:53:36.001 77 INFO nova.metadata.wsgi.server [-] 10.42.0.9,10.42.0.2 "GET /openstack HTTP/1.1" '
    "status: 200 len: 399 time: 0.0312345\x1b[00m"
)
OF_GLANCE = (
    "2026-11-30 20:53:35.500 80 INFO eventlet.wsgi.server [-] 172.25.0.1 - - [30/Nov/2026 20:53:35] "
    '"GET /v2/images HTTP/1.1" 200 2711 0.021442'
)
OF_UWSGI = '[30/Nov/2026:20:53:35 +0000] 172.25.0.2 "POST /v3/auth/tokens HTTP/1.1" status: 201 len: 5 time: 0.130363'


@dataclass
class Exporter:
    """The exporter, and the supervisor that runs it."""

    client: Client
    folder: Path
    port: int

    def get(self, path: str, **query: str) -> tuple[str, dict[str, str]]:
        """What it answers, with its headers."""
        url = f"http://{LOOPBACK}:{self.port}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read().decode(), dict(answer.headers)

    def metrics(self) -> dict[str, float]:
        """Values by series."""
        text, _ = self.get("/metrics")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}

    def lines(self, after: str = "") -> tuple[list[dict[str, str]], str]:
        """Log lines, and the cursor after them."""
        text, headers = self.get("/logs", after=after)
        return [json.loads(line) for line in text.splitlines()], headers["X-Cursor"]

    def log(self, service: str, *lines: str) -> None:
        """Write to a service's log."""
        with (self.folder / f"{service}.log").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    """With two services beside it that it takes for APIs, and one that was never started."""
    port, other = free_port(), free_port()
    (tmp_path / "passwords").write_text(f"nova={PASSWORD}\n")
    listens = f"import socket, time; s = socket.create_server(('{LOOPBACK}', {other})); time.sleep(1000)"
    api = {"ready": ["tcp", LOOPBACK, other]}
    services = [
        entry("nova", [sys.executable, "-c", listens], tmp_path / "nova.log", **api),
        entry("glance", SLEEPER, tmp_path / "glance.log", **api),
        entry("agent", SLEEPER, tmp_path / "agent.log"),
        entry("later", SLEEPER, tmp_path / "later.log"),
        service(tmp_path, LOOPBACK, port),
    ]
    with supervised(tmp_path, services) as client:
        client.call("start", *STARTED)
        for name in STARTED:
            client.wait(name, is_running)
        yield Exporter(client, tmp_path, port)


def test_each_service_has_its_state_restarts_processor_time_and_memory(exporter: Exporter) -> None:
    before = exporter.metrics()
    for name in STARTED:
        about = f'{{service="{name}"}}'
        assert before[f"devcloud_service_up{about}"] == 1
        assert before[f"devcloud_service_restarts_total{about}"] == 0
        assert before[f"devcloud_service_memory_bytes{about}"] > 2**16
        assert before[f"devcloud_service_cpu_seconds_total{about}"] >= 0
    assert before['devcloud_service_cpu_seconds_total{service="exporter"}'] > 0
    assert not [series for series in before if "later" in series], "what was not started is not down"
    os.kill(exporter.client.call("status")["agent"]["pid"], signal.SIGKILL)
    wait_for(lambda: exporter.metrics()['devcloud_service_restarts_total{service="agent"}'] == 1, 10)
    wait_for(lambda: exporter.metrics()['devcloud_service_up{service="agent"}'] == 1, 10)


def test_a_service_that_cannot_start_is_down(tmp_path: Path) -> None:
    port = free_port()
    bad = entry("bad", ["sh", "-c", f"echo {PASSWORD} >&2; exit 3"], tmp_path / "bad.log")
    with supervised(tmp_path, [bad, service(tmp_path, LOOPBACK, port)]) as client:
        client.call("start")
        client.wait("exporter", is_running)
        client.wait("bad", lambda one: bool(one["restarts"] >= 2))
        found = Exporter(client, tmp_path, port)
        assert found.metrics()['devcloud_service_up{service="bad"}'] == 0
        assert found.metrics()['devcloud_service_restarts_total{service="bad"}'] >= 2
        assert PASSWORD not in found.get("/metrics")[0], "the last error of a service is for the machine alone"


def test_requests_are_counted_by_api_method_and_status_however_they_are_logged(exporter: Exporter) -> None:
    assert not [series for series in exporter.metrics() if "api_requests" in series]
    exporter.log("nova", *(OF_NOVA.format(method="GET", status=200, seconds="0.0400000") for _ in range(3)))
    exporter.log("nova", OF_NOVA.format(method="POST", status=500, seconds="3.5000000"), OF_METADATA)
    exporter.log("nova", OF_NOVA.format(method="BREW", status=400, seconds="0.0010000"), "Traceback: no request at all")
    exporter.log("glance", OF_GLANCE)
    exporter.log("glance", OF_UWSGI)
    exporter.log("agent", OF_UWSGI)  # no API
    found = exporter.metrics()
    requests = {series.partition("{")[2][:-1]: value for series, value in found.items() if "requests_total" in series}
    assert requests == {
        'service="glance",method="GET",status="200"': 1, 'service="glance",method="POST",status="201"': 1,
        'service="nova",method="GET",status="200"': 3, 'service="nova",method="POST",status="500"': 1,
        'service="nova",method="other",status="400"': 1, 'service="nova-metadata",method="GET",status="200"': 1,
    }  # fmt: skip
    name = "devcloud_api_request_duration_seconds"
    assert found[f'{name}_count{{service="nova"}}'] == 5
    assert found[f'{name}_sum{{service="nova"}}'] == pytest.approx(3 * 0.04 + 3.5 + 0.001)
    assert found[f'{name}_bucket{{service="nova",le="0.025"}}'] == 1
    assert found[f'{name}_bucket{{service="nova",le="0.05"}}'] == 4
    assert found[f'{name}_bucket{{service="nova",le="2.5"}}'] == 4
    assert found[f'{name}_bucket{{service="nova",le="5"}}'] == 5
    assert found[f'{name}_bucket{{service="nova",le="+Inf"}}'] == 5
    assert exporter.metrics()['devcloud_api_requests_total{service="nova",method="GET",status="200"}'] == 3
    # Of half a line nothing is known yet.
    with (exporter.folder / "glance.log").open("a") as file:
        file.write(OF_GLANCE[:-20])
    series = 'devcloud_api_requests_total{service="glance",method="GET",status="200"}'
    assert exporter.metrics()[series] == 1
    with (exporter.folder / "glance.log").open("a") as file:
        file.write(f"{OF_GLANCE[-20:]}\n")
    assert exporter.metrics()[series] == 2


def test_the_format_of_requests_is_the_one_that_uwsgi_is_given() -> None:
    assert re.sub(r"%\((\w+)\)", lambda found: OF_UWSGI_VALUES[found[1]], REQUEST_LOG) == OF_UWSGI


OF_UWSGI_VALUES = {
    "ltime": "30/Nov/2026:20:53:35 +0000", "addr": "172.25.0.2", "method": "POST", "uri": "/v3/auth/tokens",
    "proto": "HTTP/1.1", "status": "201", "rsize": "5", "secs": "0.130363",
}  # fmt: skip


def test_lines_are_given_once_with_their_time_and_level(exporter: Exporter) -> None:
    _, cursor = exporter.lines()
    error = "2026-11-30 20:53:37.250 77 ERROR nova.compute.manager [-] It failed"
    exporter.log("nova", OF_METADATA, error, "  a line of a traceback", "")
    exporter.log("agent", OF_UWSGI)
    found, after = exporter.lines(cursor)
    assert [(one["service"], one["_time"], one.get("level"), one["_msg"]) for one in found] == [
        ("nova", "2026-11-30T20:53:36.001000000Z", "info", OF_METADATA.removesuffix("\x1b[00m")),
        ("nova", "2026-11-30T20:53:37.250000000Z", "error", error),
        ("nova", "2026-11-30T20:53:37.250000001Z", None, "  a line of a traceback"),
        ("agent", "2026-11-30T20:53:35.000000000Z", None, OF_UWSGI),
    ]
    assert {one["cloud"] for one in found} == {"devcloud"}
    assert exporter.lines(after)[0] == []
    # A log that begins anew, as after `lab devcloud reset`.
    (exporter.folder / "nova.log").write_text(f"{error}\n")
    assert [one["_msg"] for one in exporter.lines(after)[0]] == [error]


def test_a_long_log_comes_in_parts_and_a_newcomer_gets_its_end(exporter: Exporter) -> None:
    _, cursor = exporter.lines()
    lines = [f"2026-11-30 20:53:37.250 77 INFO nova [-] line {number:05} {'x' * 200}" for number in range(5000)]
    exporter.log("nova", *lines)
    told: list[str] = []
    while True:
        found, cursor = exporter.lines(cursor)
        if not found:
            break
        told += [one["_msg"] for one in found]
    assert told == lines
    newcomers = [one["_msg"] for one in exporter.lines()[0] if one["service"] == "nova"]
    assert newcomers == lines[-len(newcomers) :]
    assert 0 < len(newcomers) < len(lines) / 10


def test_no_secret_is_in_a_line(exporter: Exporter) -> None:
    _, cursor = exporter.lines()
    url = f"rabbit://devcloud:{PASSWORD}@198.18.0.1:5672/"
    exporter.log(
        "nova", f"cannot connect to {url}", f"token {TOKEN} is expired", "{'auth': {'password': 'pl4in', 'user': 'a'}}",
        "secret_key=pl4in other=shown", "mysql+pymysql://devcloud:pl4in@127.0.0.1/nova",
    )  # fmt: skip
    messages = [one["_msg"] for one in exporter.lines(cursor)[0]]
    assert messages == [
        "cannot connect to rabbit://devcloud:***@198.18.0.1:5672/", "token *** is expired",
        "{'auth': {'password': '***', 'user': 'a'}}", "secret_key=*** other=shown",
        "mysql+pymysql://devcloud:***@127.0.0.1/nova",
    ]  # fmt: skip


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/logs?after=nova", 400), ("/logs?after=nova:x", 400)])
def test_other_questions_are_refused(exporter: Exporter, path: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{LOOPBACK}:{exporter.port}{path}", timeout=20)
    assert refused.value.code == status


def test_without_a_supervisor_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"socket": str(tmp_path / "none"), "services": []}))
    port = free_port()
    arguments = [str(tmp_path / "plan.json"), LOOPBACK, str(port), str(tmp_path / "passwords")]
    with subprocess.Popen([sys.executable, str(INSIDE / "exporter.py"), *arguments]) as alone:
        try:
            wait_for(lambda: _answer(port) == 503, 10)
        finally:
            alone.terminate()


def _answer(port: int) -> int | None:
    try:
        urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
    return 200
