"""Metrics and log lines of a cloud in the platform's own stores, by the manifests' own list of what is scraped and
program that copies lines. The cloud is devcloud's supervisor and exporter, over small processes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
import yaml

from cli.logstore import LogStore
from infra.manifests import TREE
from tests.devcloud.supervised import SLEEPER, Client, entry, exporter, is_running, supervised
from tests.devcloud.test_exporter import OF_GLANCE, OF_NOVA, PASSWORD
from tests.engine.harness import wait_for
from tests.k8s.monitors import CLOUD, LOGGING, MONITORING, Monitors, options
from tests.providers.kubernetes.control_plane import free_port, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow_cluster
LOOPBACK = "127.0.0.1"
SCRAPE_SECONDS = "2"
"""Instead of half a minute."""


class World:
    """A cloud, the stores of metrics and logs, and what copies lines between them."""

    def __init__(self, folder: Path, client: Client, port: int, monitors: Monitors) -> None:
        self.folder, self.client, self.port, self.monitors = folder, client, port, monitors

    def start_metrics(self) -> None:
        """With the job of the manifest that asks the cloud, at the address that a stack has written down."""
        listed = yaml.safe_load((MONITORING / "metrics" / "scrape.yaml").read_text())["scrape_configs"]
        (job,) = (one for one in listed if one["job_name"] == "cloud")
        targets = self.folder / "targets"
        targets.mkdir()
        told = json.loads((CLOUD / "targets.json").read_text())
        told[0]["targets"] = [f"{LOOPBACK}:{self.port}"]
        (targets / "targets.json").write_text(json.dumps(told))
        (mounted,) = job["file_sd_configs"][0]["files"]
        job["file_sd_configs"] = [{"files": [mounted.replace("/etc/cloud", str(targets))]}]
        job["scrape_interval"] = f"{SCRAPE_SECONDS}s"
        self.monitors.metrics(yaml.safe_dump({"scrape_configs": [job]}))

    def start_logs(self, port: int = 0) -> None:
        """Start the log store, with what it has."""
        port = port or free_port()
        own = {
            "storageDataPath": str(self.folder / "log-data"), "httpListenAddr": f"{LOOPBACK}:{port}",
            "storage.minFreeDiskSpaceBytes": "1MiB",
        }  # fmt: skip
        given = options(LOGGING / "store.yaml", "victoria-logs")
        self.monitors.start("logs", [program("logs", "victoria-logs")], port, {**given, **own})

    def start_copying(self) -> None:
        """Start what copies lines, with the position that it has."""
        port = free_port()
        environment = {
            "CLOUD": f"http://{LOOPBACK}:{self.port}", "STORE": self.monitors.url("logs"), "HOST": LOOPBACK,
            "PORT": str(port), "POSITION": str(self.folder / "position"), "PAUSE_SECONDS": "0.2",
        }  # fmt: skip
        command: list[str | Path] = [sys.executable, CLOUD / "lines.py"]
        self.monitors.launch("lines", command, port, probe="/metrics", environment=environment)

    def write(self, service: str, *lines: str) -> None:
        """What a service says."""
        with (self.folder / f"{service}.log").open("a") as log:
            log.writelines(f"{line}\n" for line in lines)

    def asked(self, query: str) -> list[dict[str, Any]]:
        """What the store of metrics answers."""
        found: list[dict[str, Any]] = self.monitors.get("metrics", "/api/v1/query", query=query)["data"]["result"]
        return found

    def lines(self, query: str) -> list[dict[str, str]]:
        """What the log store answers; nothing while it is away."""
        try:
            told = self.monitors.get("logs", "/select/logsql/query", text=True, query=query)
        except OSError:
            return []
        return [json.loads(line) for line in told.splitlines()]


def now() -> str:
    """The time as services write it: the store takes no lines of long ago."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("cloud")
    (folder / "passwords").write_text(f"nova={PASSWORD}\n")
    port, api = free_port(), free_port()
    listens = f"import socket, time; s = socket.create_server(('{LOOPBACK}', {api})); time.sleep(1000)"
    apis = {"ready": ["tcp", LOOPBACK, api]}
    services = [
        entry("nova", [sys.executable, "-c", listens], folder / "nova.log", **apis),
        entry("glance", SLEEPER, folder / "glance.log", **apis),
        entry("l3", SLEEPER, folder / "l3.log"),
        exporter(folder, LOOPBACK, port),
    ]
    with supervised(folder, services) as client, Monitors(folder) as monitors:
        client.call("start")
        client.wait("exporter", is_running)
        made = World(folder, client, port, monitors)
        made.start_metrics()
        made.start_logs()
        made.start_copying()
        wait_for(lambda: made.asked("devcloud_service_up"), "the first metrics")
        yield made


def test_the_state_of_each_service_is_in_the_store_under_one_target(world: World) -> None:
    told = {one["metric"]["service"]: one["metric"] for one in world.asked("devcloud_service_up == 1")}
    assert told.keys() == {"nova", "glance", "l3", "exporter"}
    assert {(one["job"], one["instance"]) for one in told.values()} == {("cloud", "cloud")}
    before = world.client.call("status")["l3"]
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: world.asked('devcloud_service_restarts_total{service="l3"} == 1'), "the restart")


def test_every_question_of_the_dashboard_is_answered(world: World) -> None:
    fault = 'devcloud_service_up{service="l3"} == 0'
    for _ in range(3):
        os.kill(world.client.wait("l3", is_running)["pid"], signal.SIGKILL)
        world.client.wait("l3", lambda service: not is_running(service))

    def busy() -> bool:
        for method, status in (("GET", 200), ("POST", 500), ("DELETE", 404)):
            world.write("nova", OF_NOVA.format(method=method, status=status, seconds="0.1200000"))
        world.write("glance", OF_GLANCE)
        if not world.asked(f"max_over_time(({fault})[10m:1s]) or vector(-1)"):
            return False
        return not empty()

    def empty() -> list[str]:
        dashboard = json.loads((CLOUD / "dashboards" / "cloud.json").read_text())
        expressions = [one for row in dashboard["rows"] for panel in row["panels"] for one in panel["expr"]]
        # One that is mended by now is asked for as it was.
        return [one for one in expressions if not world.asked(f"last_over_time(({one})[10m:1s])")]

    wait_for(busy, "answers to all questions", seconds=120)


def test_lines_are_in_the_store_once_with_their_fields(world: World) -> None:
    error = "ERROR nova.compute.manager [-] No valid host: the-one-line"
    world.write("nova", f"{now()} 77 {error}", f"rabbit://devcloud:{PASSWORD}@198.18.0.1 the-other")
    (line,) = wait_for_lines(world, '_time:1h "the-one-line"', 1)
    assert {key: line[key] for key in ("cloud", "service", "level")} == {
        "cloud": "devcloud", "service": "nova", "level": "error",
    }  # fmt: skip
    assert line["_stream"] == '{cloud="devcloud",service="nova"}'
    assert wait_for_lines(world, '_time:1h "the-other"', 1)
    assert not world.lines(f'_time:1h "{PASSWORD}"')


def wait_for_lines(world: World, query: str, count: int) -> list[dict[str, str]]:
    """Wait until there are so many."""
    wait_for(lambda: len(world.lines(query)) >= count, query)
    return world.lines(query)


def test_no_line_is_lost_or_there_twice_when_programs_go_and_come(world: World) -> None:
    """The store is away, then what copies is killed, and the exporter too; between them, lines are written."""
    number = 0

    def write(count: int) -> None:
        nonlocal number
        for _ in range(count):
            world.write("l3", f"{now()} 77 INFO l3 [-] steady line-{number:04}")
            number += 1

    def all_there() -> bool:
        return world.lines('_time:1h "steady" | stats count_uniq(_msg) as n') == [{"n": str(number)}]

    write(100)
    wait_for(all_there, "the first lines")
    port = world.monitors.ports["logs"]
    world.monitors.stop("logs")
    write(100)
    world.start_logs(port)
    wait_for(all_there, "those of while the store was away")
    world.monitors.stop("lines")
    write(100)
    os.kill(world.client.call("status")["exporter"]["pid"], signal.SIGKILL)
    world.start_copying()
    write(100)
    wait_for(all_there, "those of while nobody copied")
    assert world.lines('_time:1h "steady" | stats count() as n') == [{"n": str(number)}]


def test_lab_logs_does_not_mix_them_with_those_of_pods(world: World) -> None:
    from cli import logstore  # noqa: PLC0415

    pool = urllib3.HTTPConnectionPool(LOOPBACK, world.monitors.ports["logs"], retries=False)
    assert LogStore(pool).lines(logstore.pods("nova", []), "1h") == []


def test_the_program_that_copies_is_given_what_the_manifest_says() -> None:
    (deployment,) = (
        one for one in yaml.safe_load_all((CLOUD / "lines.yaml").read_text()) if one["kind"] == "Deployment"
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {one["name"] for one in container["env"]} == {"CLOUD", "STORE"}
    store = next(one["value"] for one in container["env"] if one["name"] == "STORE")
    assert store == "http://logs:9428"
    assert "http://logs.monitoring:9428" in (TREE / "platform/monitoring/base/login.yaml").read_text()
