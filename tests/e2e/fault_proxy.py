"""A proxy in front of every API of a cloud that answers badly, late or not at all, by rules.

Each service gets a port on 127.0.0.1, and the proxy puts its own addresses into all that the cloud answers: the
catalog of a token, the versions a service offers, the links of a list. Clients that are given the proxy's identity URL
therefore never go around it.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import urllib3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})
LOGIN: Final = ("keystone", "/v3/auth/tokens")
Moment = Literal["sent", "done", "answered"]
"""Of a request: it came here, the cloud has carried it out, the client has its answer."""


@dataclass
class Call:
    """A request that came to the proxy."""

    service: str
    method: str
    path: str
    began: float
    """By `time.monotonic`."""
    status: int | None = None
    """What the cloud answered, whether or not the client was told; None where it was not asked."""
    fault: Fault | None = None

    @property
    def mutates(self) -> bool:
        """Whether it asks for something to be made, changed or deleted."""
        return self.method not in {"GET", "HEAD"} and (self.service, self.path) != LOGIN

    def __str__(self) -> str:
        return f"{self.method} {self.service}{self.path}"


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an honest answer.

    `forwarded`: the cloud gets the request and does what it says. `status`, `headers`, `body`: the answer. `reset`: the
    connection breaks without one. `truncated`: the cloud's answer stops half-way. `seconds`: it comes that late.
    """

    name: str
    forwarded: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: bool = False
    truncated: bool = False
    seconds: float = 0.0


@dataclass
class Rule:
    """Does `fault` to the requests that fit: `skip` are let through first, then `times` meet it."""

    fault: Fault
    method: str
    service: str
    path: str
    """A regular expression for the whole path, without the query."""
    times: int = 1
    skip: int = 0
    met: list[Call] = field(default_factory=list)

    def fits(self, call: Call) -> bool:
        wanted = call.method == self.method and call.service == self.service
        return wanted and re.fullmatch(self.path, call.path.partition("?")[0]) is not None


class Proxy:
    """The proxy of `services`: their URLs by name. Use as a context manager.

    `watch` is called at each moment of each mutating request that meets no rule; a true answer goes no further with it.
    """

    def __init__(self, services: Mapping[str, str]) -> None:
        self.calls: list[Call] = []
        self.rules: list[Rule] = []
        self.watch: Callable[[Call, Moment], bool] = lambda _call, _moment: False
        self._lock = threading.Lock()
        self._pool = urllib3.PoolManager(maxsize=64, retries=False)
        self._closing = threading.Event()
        self._servers = {name: _server(self, name, url) for name, url in services.items()}
        self.urls = {name: f"http://127.0.0.1:{server.server_port}" for name, server in self._servers.items()}
        self._addresses = [(url.encode(), self.urls[name].encode()) for name, url in services.items()]

    def __enter__(self) -> Self:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def admit(self, call: Call) -> Fault | None:
        """Record a call; the fault that it meets."""
        with self._lock:
            self.calls.append(call)
            for rule in self.rules:
                if rule.fits(call):
                    if rule.skip:
                        rule.skip -= 1
                    elif len(rule.met) < rule.times:
                        rule.met.append(call)
                        call.fault = rule.fault
                        return rule.fault
        return None

    def reach(self, call: Call, moment: Moment) -> bool:
        """Whether the watcher stops the call there."""
        return call.mutates and self.watch(call, moment)

    def forward(self, url: str, call: Call, headers: Mapping[str, str], body: bytes) -> urllib3.BaseHTTPResponse:
        """Ask the cloud."""
        given = {key: value for key, value in headers.items() if key.lower() not in {"host", "accept-encoding"}}
        answer = self._pool.request(
            call.method, url + call.path, body=body, headers=given, redirect=False, decode_content=False
        )
        call.status = answer.status
        return answer

    def own(self, text: bytes) -> bytes:
        """What the cloud said, with the proxy's addresses."""
        for theirs, ours in self._addresses:
            text = text.replace(theirs, ours)
        return text

    def stall(self, seconds: float) -> None:
        """Keep a client waiting, at most until the proxy is closed."""
        self._closing.wait(seconds)


def _server(proxy: Proxy, service: str, url: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            """The proxy keeps its own record."""

        def handle_one_request(self) -> None:
            # A client that is killed or loses its patience, and a service that is gone, are what the tests are about.
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError, urllib3.exceptions.HTTPError):
                self.close_connection = True

        def _handle(self) -> None:
            self.close_connection = True
            call = Call(service, self.command, self.path, time.monotonic())
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.admit(call)
            if fault is None and proxy.reach(call, "sent"):
                return
            answer = None
            if fault is None or fault.forwarded:
                answer = proxy.forward(url, call, dict(self.headers), body)
            if fault is not None:
                self._fail(fault, answer)
            elif answer is not None and not proxy.reach(call, "done"):
                self._answer(answer.status, answer.headers, answer.data)
                proxy.reach(call, "answered")

        def _fail(self, fault: Fault, answer: urllib3.BaseHTTPResponse | None) -> None:
            proxy.stall(fault.seconds)
            if fault.reset:
                # Closing with nothing left to linger for sends a reset instead of a proper end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            elif fault.status is not None:
                self._answer(fault.status, fault.headers, fault.body)
            elif answer is not None:
                self._answer(answer.status, answer.headers, answer.data, half=fault.truncated)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - as the base class wants

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes, *, half: bool = False) -> None:
            content = proxy.own(body)
            self.send_response(status)
            for key, value in headers.items():
                if key.lower() not in HOP_BY_HOP:
                    self.send_header(key, proxy.own(value.encode()).decode())
            self.send_header("Connection", "close")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if half else content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
