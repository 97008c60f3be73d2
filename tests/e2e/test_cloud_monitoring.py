"""devcloud's own services on the pages of a cluster in its instances.

`pytest -m slow_cloud tests/e2e/test_cloud_monitoring.py`. Costs some minutes, beside what the platform costs
(tests/e2e/conftest.py).
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cli.logstore import LogStore, StoreError
from devcloud.layout import EXPORTER_PORT, PORTS
from devcloud.services import EXPORTER
from tests.devcloud.support import wait

if TYPE_CHECKING:
    from tests.e2e.harness import Cloud
    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
CONNECT = "import socket; socket.create_connection(({address!r}, {port}), timeout=5)"
PATIENCE_SECONDS = 300
"""The pods of monitoring start after what serves; then targets are looked for each minute, and asked each half."""


def asked(platform: PlatformStack, query: str) -> list[dict[str, Any]]:
    """What the store of metrics answers through the gateway; nothing while it does not."""
    pool = platform.pool("monitoring")
    headers = {**pool.headers, **platform.platform.login_headers("monitoring")}
    answer = pool.request("GET", "/api/v1/query", fields={"query": query}, headers=headers)
    return list(json.loads(answer.data)["data"]["result"]) if answer.status == 200 else []


def lines(platform: PlatformStack, query: str) -> int:
    """How many lines the log store has."""
    pool = platform.pool("monitoring")
    headers = {**pool.headers, **platform.platform.login_headers("monitoring")}
    try:
        return len(LogStore(pool, headers).lines(query, "1h"))
    except StoreError:
        return 0


def test_every_service_of_the_cloud_is_in_the_store_of_metrics(platform: PlatformStack, cloud: Cloud) -> None:
    running = {
        one.name for one in cloud.devcloud.control.call("status").services if one.state == "running"
    }  # fmt: skip

    def told() -> bool:
        found = {one["metric"]["service"] for one in asked(platform, "devcloud_service_up == 1")}
        return found == running

    wait(told, PATIENCE_SECONDS, "the state of every service")
    for metric in ("devcloud_service_memory_bytes", "devcloud_service_cpu_seconds_total"):
        assert {one["metric"]["service"] for one in asked(platform, metric)} >= running


def test_requests_of_every_api_are_counted(platform: PlatformStack, cloud: Cloud) -> None:
    def counted() -> bool:
        assert [problem for _, problem in cloud.devcloud.health() if problem] == []
        found = {one["metric"]["service"] for one in asked(platform, "increase(devcloud_api_requests_total[10m]) > 0")}
        return found >= PORTS.keys() - {"nova-metadata"}

    wait(counted, PATIENCE_SECONDS, "requests of every API")
    slowest = "histogram_quantile(0.95, sum(rate(devcloud_api_request_duration_seconds_bucket[10m])) by (service, le))"
    assert all(0 < float(one["value"][1]) < 60 for one in asked(platform, slowest))


def test_log_lines_of_the_cloud_are_in_the_log_store_and_its_passwords_are_not(
    platform: PlatformStack, cloud: Cloud
) -> None:
    for service in ("nova", "neutron", "keystone"):
        wait(
            partial(lines, platform, f'cloud:="devcloud" service:="{service}"'), PATIENCE_SECONDS, f"lines of {service}"
        )
    passwords = cloud.devcloud.layout.cache / "passwords"
    for password in (line.partition("=")[2] for line in passwords.read_text().splitlines()):
        assert lines(platform, f'*:~"{password}"') == 0


def test_a_service_that_is_killed_is_told(platform: PlatformStack, cloud: Cloud) -> None:
    query = 'devcloud_service_restarts_total{service="glance"}'
    (before,) = asked(platform, query)
    status = {one.name: one for one in cloud.devcloud.control.call("status").services}
    killed = status["glance"].pid
    # Its number is that of the cloud's own namespace of processes.
    cloud.devcloud.control.inside("kill", "-KILL", str(killed))
    wait(lambda: asked(platform, f"{query} > {before['value'][1]}"), 120, "the restart")
    wait(lambda: asked(platform, 'devcloud_service_up{service="glance"} == 1'), 120, "that it runs again")


@pytest.mark.parametrize(
    ("pod", "port", "connects"),
    [
        ("monitoring deployment/cloud-lines", EXPORTER_PORT, True),
        ("monitoring deployment/cloud-lines", PORTS["keystone"], False),
        ("monitoring deployment/state", EXPORTER_PORT, False),
        ("platform deployment/landing", EXPORTER_PORT, False),
    ],
)
def test_one_pod_beside_the_store_of_metrics_reaches_that_port_and_no_other(
    platform: PlatformStack, cloud: Cloud, pod: str, port: int, *, connects: bool
) -> None:
    namespace, _, name = pod.partition(" ")
    program = CONNECT.format(address=str(cloud.devcloud.layout.api_address), port=port)
    done = platform.kubectl("exec", "-n", namespace, name, "--", "python3", "-c", program, check=False)
    assert (done.returncode == 0) == connects, done.stderr


def test_the_cloud_goes_on_without_its_exporter(cloud: Cloud) -> None:
    control = cloud.devcloud.control
    control.call("stop", EXPORTER)
    try:
        assert [problem for _, problem in cloud.devcloud.health() if problem] == []
    finally:
        control.call("start", EXPORTER)
