"""HTTP servers of the tests: who hears of alerts, and programs whose answers can be changed."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.providers.kubernetes.control_plane import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = "127.0.0.1"


class Heard:
    """What receivers have been told, with the time when it came. One's name is the first part of its path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[tuple[float, str, dict[str, Any]]] = []
        self.refused: set[str] = set()
        """Receivers, by the first part of their paths, who answer with an error."""
        heard = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                to = self.path.split("/")[1]
                refuses = to in heard.refused
                if not refuses:
                    heard.note(to, body)
                self.send_response(500 if refuses else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Receiver)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"

    def note(self, receiver: str, body: dict[str, Any]) -> None:
        """Keep a message."""
        with self._lock:
            self._messages.append((time.monotonic(), receiver, body))

    def times(self, receiver: str) -> list[float]:
        """When messages came to a receiver."""
        with self._lock:
            return [when for when, where, _ in self._messages if where == receiver]

    def bodies(self) -> list[tuple[str, str]]:
        """All messages, with their receivers."""
        with self._lock:
            return [(where, json.dumps(body)) for _, where, body in self._messages]

    def first(self, status: str, name: str, labels: dict[str, str], since: float) -> float | None:
        """When a message about an alert with these labels, `firing` or `resolved`, first came after a moment."""
        wanted = {"alertname": name, **labels}.items()
        with self._lock:
            messages = list(self._messages)
        for when, receiver, body in messages:
            if receiver == "team" and when >= since:
                for alert in body["alerts"]:
                    if alert["status"] == status and wanted <= alert["labels"].items():
                        return when
        return None


@dataclass
class Web:
    """An HTTP server whose answers can be changed, and which can be stopped and started."""

    address: str = LOOPBACK
    port: int = field(default_factory=free_port)
    bodies: dict[str, str] = field(default_factory=dict)
    """What is answered to a path; others are not there."""
    seconds: float = 0
    """How long an answer takes."""
    wrong: int = 0
    """How many of a hundred answers are errors."""
    login: str = ""
    """The header `Authorization` that it wants; others are refused."""
    relays: Callable[[], str] | None = None
    """Makes what is answered to `/metrics`."""
    _server: ThreadingHTTPServer | None = None
    _answers: int = 0

    def start(self) -> None:
        """Listen."""
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if web._server is None:  # one that has ended answers nobody, on connections that there were either
                    self.close_connection = True
                    return
                time.sleep(web.seconds)
                body = web.relays() if web.relays and self.path == "/metrics" else web.bodies.get(self.path)
                text = (body or "").encode()
                web._answers += 1
                fails = web._answers * web.wrong % 100 < web.wrong
                refuses = web.login and self.headers.get("Authorization") != web.login
                self.send_response(401 if refuses else 404 if body is None else 500 if fails else 200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer((self.address, self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Answer nobody any more."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
