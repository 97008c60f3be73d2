"""A network that fails: a proxy between the plugin and the real cloud loses, delays and refuses."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import requests
from google.protobuf import empty_pb2

from tests.providers.plugin import CallError, Plugin
from tests.providers.real.conftest import Maker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openstack.connection import Connection

NETWORK = "openstack:networking/network:Network"
GROUP = "openstack:networking/secGroup:SecGroup"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
PORT = "openstack:networking/port:Port"

REFUSED, LOST = "refused", "lost"


@dataclass
class Faults:
    """What the proxy does to the next calls: (method, fault), each once. ``calls`` is what came, and when."""

    upstream: str
    address: str = ""
    pending: list[tuple[str, str | tuple[int, dict[str, str]]]] = field(default_factory=list)
    calls: list[tuple[str, float]] = field(default_factory=list)

    def take(self, method: str) -> str | tuple[int, dict[str, str]] | None:
        self.calls.append((method, time.monotonic()))
        for index, (wanted, fault) in enumerate(self.pending):
            if wanted == method:
                del self.pending[index]
                return fault
        return None


def handler(faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            fault = faults.take(self.command)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if fault == REFUSED:
                self.close_connection = True
                return
            if isinstance(fault, tuple):
                self.answer(fault[0], fault[1], b'{"error": {"message": "by the proxy"}}')
                return
            headers = {key: value for key, value in self.headers.items() if key != "Host"}
            answer = requests.request(
                self.command, faults.upstream + self.path, headers=headers, data=body, timeout=60, allow_redirects=False
            )
            if fault == LOST:
                self.close_connection = True
                return
            kept = ("Content-Type", "x-openstack-request-id", "OpenStack-API-Version", "Location")
            self.answer(
                answer.status_code,
                {key: answer.headers[key] for key in kept if key in answer.headers},
                answer.content,
            )

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def faults(sdk: Connection) -> Iterator[Faults]:
    found = Faults(str(sdk.network.get_endpoint()).rstrip("/").removesuffix("/v2.0"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.address = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxied(faults: Faults, cloud_name: str) -> Iterator[Plugin]:
    """A plugin whose network service is behind the proxy."""
    environment = {key: os.environ[key] for key in ("HOME", "OS_CLIENT_CONFIG_FILE") if key in os.environ}
    with Plugin(environment) as plugin:
        plugin.configure(cloud=cloud_name, endpointOverrides={"network": f"{faults.address}/v2.0"})
        yield plugin


@pytest.fixture
def make_proxied(proxied: Plugin) -> Iterator[Maker]:
    maker = Maker(proxied)
    yield maker
    maker.clean()


def test_reads_are_repeated(faults: Faults, proxied: Plugin, make_proxied: Maker) -> None:
    network = make_proxied(NETWORK, {})
    faults.pending = [("GET", REFUSED), ("GET", (503, {})), ("GET", (502, {})), ("GET", LOST)]
    assert proxied.read(network)
    assert not faults.pending


def test_the_server_says_when(faults: Faults, proxied: Plugin, make_proxied: Maker) -> None:
    network = make_proxied(NETWORK, {})
    faults.pending = [("GET", (429, {"Retry-After": "3"}))]
    faults.calls.clear()
    assert proxied.read(network)
    assert faults.calls[1][1] - faults.calls[0][1] >= 3


def test_a_create_that_was_refused_is_repeated(faults: Faults, make_proxied: Maker, sdk: Connection) -> None:
    faults.pending = [("POST", (503, {"Retry-After": "0"})), ("POST", (429, {"Retry-After": "0"}))]
    network = make_proxied(NETWORK, {})
    assert [found.id for found in sdk.network.networks(name=network.outputs["name"])] == [network.id]


@pytest.mark.parametrize("name", [None, "test-lost-answer"], ids=["automatic", "given"])
def test_a_create_whose_answer_was_lost_makes_one(
    faults: Faults, make_proxied: Maker, sdk: Connection, name: str | None
) -> None:
    faults.pending = [("POST", LOST)]
    network = make_proxied(NETWORK, {"tags": ["a"], **({"name": name} if name else {})})
    assert not faults.pending
    assert sdk.network.get_network(network.id).tags == ["a"]
    assert [found.id for found in sdk.network.networks(name=network.outputs["name"])] == [network.id]


def test_a_rule_whose_answer_was_lost_is_found(faults: Faults, make_proxied: Maker, sdk: Connection) -> None:
    group = make_proxied(GROUP, {"deleteDefaultRules": True})
    faults.pending = [("POST", LOST)]
    inputs = {"direction": "ingress", "ethertype": "IPv4", "protocol": "icmp", "securityGroupId": group.id}
    rule = make_proxied(RULE, inputs)
    assert [found.id for found in sdk.network.security_group_rules(security_group_id=group.id)] == [rule.id]


def test_a_create_that_never_arrived_is_repeated(faults: Faults, make_proxied: Maker, sdk: Connection) -> None:
    faults.pending = [("POST", REFUSED)]
    network = make_proxied(NETWORK, {"name": "test-never-arrived"})
    assert [found.id for found in sdk.network.networks(name="test-never-arrived")] == [network.id]


def test_a_create_that_never_arrives_fails(faults: Faults, proxied: Plugin, sdk: Connection) -> None:
    faults.pending = [("POST", REFUSED)] * 3
    with pytest.raises(CallError, match="POST network/networks failed") as caught:
        proxied.create(NETWORK, {"name": "test-never-arrives"})
    assert "Is the cloud reachable" in str(caught.value)
    assert caught.value.partial is None
    assert not list(sdk.network.networks(name="test-never-arrives"))


def test_an_outage_ends_in_an_error(faults: Faults, proxied: Plugin, make_proxied: Maker) -> None:
    network = make_proxied(NETWORK, {})
    faults.pending = [("GET", (503, {"Retry-After": "0"}))] * 20
    with pytest.raises(CallError, match="answered 503: by the proxy"):
        proxied.read(network)
    faults.pending = []


def test_deletes_are_repeated(faults: Faults, proxied: Plugin, sdk: Connection) -> None:
    network = proxied.create(NETWORK, {})
    faults.pending = [("DELETE", (503, {"Retry-After": "0"})), ("DELETE", LOST)]
    proxied.delete(network)
    assert not faults.pending
    assert not list(sdk.network.networks(id=network.id))


def test_a_half_made_network_is_not_lost(faults: Faults, proxied: Plugin, make_proxied: Maker, sdk: Connection) -> None:
    """The cloud fails between the create and its completion: the engine learns the id."""
    faults.pending = [("PUT", (400, {}))]
    with pytest.raises(CallError, match="answered 400") as caught:
        proxied.create(NETWORK, {"tags": ["a"]}, name="half")
    partial = caught.value.partial
    assert partial
    assert list(partial.reasons) == [str(caught.value)]
    half = make_proxied.keep_partial(NETWORK, "half", {"tags": ["a"]}, partial)
    assert sdk.network.get_network(half.id).tags == []
    healed = proxied.update(half, {"tags": ["a"]})
    assert sdk.network.get_network(half.id).tags == ["a"]
    assert not proxied.diff(healed, {"tags": ["a"]}).detailedDiff


def test_cancel_ends_a_wait(cloud_name: str, make: Maker) -> None:
    """Cancel is for good, so it has a plugin of its own."""
    environment = {key: os.environ[key] for key in ("HOME", "OS_CLIENT_CONFIG_FILE") if key in os.environ}
    group = make(GROUP, {})
    make(PORT, {"networkId": make(NETWORK, {}).id, "securityGroupIds": [group.id]})
    with Plugin(environment) as plugin:
        plugin.configure(cloud=cloud_name)
        outcome: list[str] = []

        def delete() -> None:
            with pytest.raises(CallError) as caught:
                plugin.delete(group)
            outcome.append(str(caught.value))

        waiting = threading.Thread(target=delete)
        waiting.start()
        _until(lambda: any("in use" in line.message for line in plugin.engine.logs), 60)
        plugin.call("Cancel", empty_pb2.Empty())
        waiting.join(timeout=30)
        assert outcome == [f"cancelled while waiting for security_group {group.id} to be gone"]


def _until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)
