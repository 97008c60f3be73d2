"""A web server in the place of a cloud's services that cannot be had here: it writes down what it is asked.

It answers as it is told and knows nothing of the services, so that it shows what the plugin sends, not that a cloud
would take it.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICES = {
    "compute": "/v2.1",
    "block-storage": "/v3/p",
    "image": "/v2",
    "load-balancer": "/v2.0",
    "dns": "/v2",
    "object-store": "/v1/AUTH_p",
    "network": "/v2.0",
}


def whatever(url: str) -> Any:
    """Look something up in a cloud that has whatever it is asked for, once."""
    parts = urlsplit(url)
    *_, collection, last = parts.path.split("/")
    wanted = parse_qs(parts.query)
    name = (wanted.get("name") or wanted.get("id") or [last])[0]
    found = {"id": name, "name": name}
    if last in {"images", "networks", "security-groups"}:
        return {last.replace("-", "_"): [found]}
    return found if collection == "images" else None


@dataclass(frozen=True)
class Request:
    """``path`` is below the service's endpoint, with its query."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Recorder:
    """``answers[method, path]`` are given in turn, the last one again and again; 404 where there is none.

    look_up: answers a GET that has no such answer by its URL; None is a 404.
    """

    def __init__(self) -> None:
        recorder = self
        self.look_up: Callable[[str], Any] | None = None
        self.requests: list[Request] = []
        self.answers: dict[tuple[str, str], list[tuple[int, Any, dict[str, str]]]] = defaultdict(list)

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body, headers = recorder._answer(self.command, self.path, raw, dict(self.headers))
                data = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), "X-Subject-Token": "t", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Begin anew."""
        self.requests.clear()
        self.answers.clear()
        self.look_up = None

    def answer(self, method: str, path: str, status: int, body: Any = None, **headers: str) -> None:
        """One more answer to a request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[method, path].append((status, body, named))

    def sent(self, *methods: str) -> list[Request]:
        """What was asked, of these methods."""
        return [request for request in self.requests if request.method in methods]

    def _answer(self, method: str, url: str, raw: bytes, headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if url.startswith("/identity"):
            return (201 if method == "POST" else 200), self._identity(urlsplit(url).path), {}
        for base in (f"/{service}{version}" for service, version in SERVICES.items()):
            if url.startswith(f"{base}/"):
                path = url.removeprefix(base)
                body = json.loads(raw) if raw and raw.lstrip()[:1] in {b"{", b"["} else raw.decode()
                self.requests.append(Request(method, path, headers, body))
                answers = self.answers[method, path]
                if answers:
                    return answers.pop(0) if len(answers) > 1 else answers[0]
                if self.look_up and method == "GET" and (found := self.look_up(url)) is not None:
                    return 200, found, {}
        return 404, {"message": "there is no such thing"}, {}

    def _identity(self, path: str) -> dict[str, Any]:
        if not path.endswith("/tokens"):
            version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{self.url}/identity/v3"}]}
            return {"version": version}
        catalog = [
            {
                "type": service,
                "name": service,
                "id": service,
                "endpoints": [
                    {
                        "id": service,
                        "interface": "public",
                        "region": "r",
                        "region_id": "r",
                        "url": f"{self.url}/{service}{version}",
                    }
                ],
            }
            for service, version in SERVICES.items()
        ]
        domain = {"id": "default", "name": "Default"}
        return {
            "token": {
                "methods": ["password"],
                "expires_at": "2999-01-01T00:00:00.000000Z",
                "issued_at": "2020-01-01T00:00:00.000000Z",
                "user": {"id": "u", "name": "u", "domain": domain},
                "project": {"id": "p", "name": "p", "domain": domain},
                "roles": [{"id": "m", "name": "member"}],
                "catalog": catalog,
            }
        }
